"""Updates from a tape, and as CUDA replays them, on a double of CUDA's graphs: the same policies as without."""

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from baselines.registry import METHODS
from safemil.algorithm import cost_model
from safemil.nn import precision
from safemil.training import tape
from tests import test_resuming
from tests.recorded_graph import RecordedGraph, captured_training
from tests.test_methods import actions_of

AGGREGATORS = ("softmax", "noisy-or", "deepsets", "attention", "set-transformer")
VARIANTS = [
    ("safemil", {"mode": "joint"}),
    ("safemil", {"cost_model.segment_length": "full"}),
    ("safemil", {"cost_model.segment_by": "transition"}),
    ("safemil", {"cost_model.heads": 2, "cost_model.modes": 2}),
    *(("safemil", {"cost_model.aggregator": name}) for name in AGGREGATORS),
    *(("bc-all", {"policy.head": name}) for name in ("tanh_gauss", "mix2")),
]
METHODS_OF_OUR_LOOP = [(name, {}) for name, method in METHODS.items() if method.packed]


def assert_same_result(name, settings):
    """Policies and logged metrics: of updates run one after the other, repeated from a tape, and replayed."""
    plain_records, taped_records, captured_records = (test_resuming.Records() for _ in range(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safemil.training.capture.TapedUpdate", lambda update: update)
        plain, pairs = test_resuming.fit_with(None, plain_records, name, **settings)
    with taped_updates() as started:
        taped, _ = test_resuming.fit_with(None, taped_records, name, **settings)
    assert started and all(update.repeats for update in started)
    with captured_training() as graphs:
        captured, _ = test_resuming.fit_with(None, captured_records, name, **settings)
    assert sum(graph.replays for graph in graphs) > 100
    for records, learned in ((taped_records, taped), (captured_records, captured)):
        np.testing.assert_equal(list(records), list(plain_records))
        for one, other in zip(plain, learned, strict=True):
            np.testing.assert_array_equal(actions_of(one, pairs), actions_of(other, pairs))


@contextlib.contextmanager
def taped_updates() -> Iterator[list[tape.TapedUpdate]]:
    """All that training loops begin in here."""
    started: list[tape.TapedUpdate] = []

    def begin(update) -> tape.TapedUpdate:
        started.append(tape.TapedUpdate(update))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safemil.training.capture.TapedUpdate", begin)
        yield started


@pytest.mark.parametrize(("name", "settings"), METHODS_OF_OUR_LOOP + VARIANTS)
def test_captured_updates_give_the_same_result(name, settings):
    assert_same_result(name, settings)


def test_layers_computed_again_backwards_can_be_captured(monkeypatch):
    monkeypatch.setitem(cost_model.ROWS_KEPT, "cpu", 100)
    assert_same_result("safemil", {"cost_model.segment_length": "full"})


def test_rounded_products_can_be_captured(monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: True)
    monkeypatch.setattr(precision, "WIDE", 16)
    torch.set_float32_matmul_precision("medium")
    assert_same_result("safemil", {"cost_model.hidden": (16, 16), "policy.hidden": (16, 16)})


def test_an_interrupted_training_goes_on_with_graphs_of_its_own(tmp_path):
    with captured_training() as graphs:
        test_resuming.test_resumed_equals_undisturbed("safemil", {"mode": "joint"}, tmp_path)
    assert len(graphs) == 4  # undisturbed, killed twice, resumed


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
