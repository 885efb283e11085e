"""Updates as CUDA replays them, on a double of CUDA's graphs that any machine can run: the same policies as without."""

import functools

import numpy as np
import pytest
import torch

from baselines.registry import METHODS
from safemil.algorithm import cost_model
from safemil.nn import layers, precision
from safemil.training.objectives import Objective
from tests.recorded_graph import RecordedGraph, captured_training
from tests.test_methods import actions_of, fit
from tests.test_resuming import Records, test_resumed_equals_undisturbed

AGGREGATORS = ("softmax", "noisy-or", "deepsets", "attention", "set-transformer")
VARIANTS = [
    ("safemil", {"mode": "joint"}),
    ("safemil", {"mode": "joint", "policy.head": "mix2", "policy.sampled": True}),
    ("safemil", {"cost_model.segment_length": "full"}),
    ("safemil", {"cost_model.segment_by": "transition"}),
    ("safemil", {"cost_model.heads": 2, "cost_model.modes": 2}),
    *(("safemil", {"cost_model.aggregator": name}) for name in AGGREGATORS),
    *(("bc-all", {"policy.head": name}) for name in ("tanh_gauss", "mix2")),
    *((name, {"policy.head": "tanh_gauss"}) for name in ("dwbc", "osil")),
]
PACKED = [(name, {}) for name, method in METHODS.items() if method.packed]


def assert_same_result(name, settings, **context):
    """Policies and logged metrics: of updates run one after the other, and of replayed ones."""
    plain_records, captured_records = Records(), Records()
    plain, pairs = fit(name, (0, 1), context={"log": plain_records, **context}, **settings)
    with captured_training() as graphs:
        captured, _ = fit(name, (0, 1), context={"log": captured_records, **context}, **settings)
    assert sum(graph.replays for graph in graphs) > 100
    np.testing.assert_equal(list(captured_records), list(plain_records))
    for one, other in zip(plain, captured, strict=True):
        np.testing.assert_array_equal(actions_of(one, pairs), actions_of(other, pairs))


@pytest.mark.parametrize(("name", "settings"), PACKED + VARIANTS)
def test_captured_updates_give_the_same_result(name, settings):
    assert_same_result(name, settings)


def test_layers_computed_again_backwards_can_be_captured(monkeypatch):
    monkeypatch.setitem(cost_model.ROWS_KEPT, "cpu", 100)
    assert_same_result("safemil", {"cost_model.segment_length": "full"})


def test_rounded_products_can_be_captured(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: True)
    monkeypatch.setattr(layers, "WIDE", 16)
    wide = {"cost_model.hidden": (16, 16), "policy.hidden": (16, 16)}
    assert_same_result("safemil", wide, precision="medium")


def test_an_interrupted_training_goes_on_with_graphs_of_its_own(tmp_path):
    with captured_training() as graphs:
        test_resumed_equals_undisturbed("safemil", {"mode": "joint"}, tmp_path)
    assert len(graphs) == 4  # undisturbed, killed twice, resumed


@pytest.mark.parametrize(
    ("name", "settings"),
    [PACKED[0], *(pytest.param(*case, marks=pytest.mark.long) for case in [*PACKED[1:], *VARIANTS[:5]])],
)
def test_losses_can_be_compiled(name, settings, monkeypatch):
    """Traced as for a GPU, and then run as traced: what a compiler would read is what was written."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    compiled: list[Objective] = []
    step = Objective.step

    def compiled_step(self, batch):
        if self not in compiled:
            compiled.append(self)
            self.compile()
        step(self, batch)

    plain, pairs = fit(name, **settings)
    torch.compiler.reset()
    monkeypatch.setattr(Objective, "step", compiled_step)
    traced, _ = fit(name, **settings)
    assert compiled
    np.testing.assert_allclose(actions_of(traced[0], pairs), actions_of(plain[0], pairs), atol=1e-4)


@pytest.mark.parametrize(
    "cannot",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.rand(3),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    ],
)
def test_the_double_refuses_what_a_graph_cannot_hold(cannot):
    with pytest.raises(RuntimeError, match="cannot be captured"), RecordedGraph():
        cannot(torch.ones(3))


def test_the_double_changes_nothing_until_it_is_replayed():
    graph, total, x = RecordedGraph(), torch.zeros(3), torch.ones(3)
    with graph:
        total += (2 * x).square()[:, None].sum(1)
    assert total.tolist() == [0, 0, 0]
    x.fill_(3)
    graph.replay()
    graph.replay()
    assert total.tolist() == [72, 72, 72]
