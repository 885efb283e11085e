"""The contract every method of the table keeps, and SafeMIL on a toy problem whose answer is known."""

import inspect

import numpy as np
import pytest
import torch

from baselines.registry import METHODS, Method
from safemil.config.overrides import dotted_fields, override
from safemil.data.splits import HiddenLabels
from safemil.data.trajectories import Outcomes
from safemil.evaluation import diagnostics
from safemil.nn import checkpoints
from safemil.training.context import FitContext
from safemil.training.loop import TrainingError
from tests.conftest import SAFE_ACTION, UNSAFE_ACTION, toy_splits
from tune.grids import GRIDS, PRESETS
from tune.trials import expand

SMALL = {
    "cost_model.steps": 60,
    "cost_model.bag_size": 8,
    "cost_model.pairs": 1,
    "cost_model.hidden": (16,),
    "cost_model.learning_rate": 1e-2,
    "cost_model.batch_size": 16,
    "discriminator.steps": 60,
    "discriminator.batch_size": 32,
    "ensemble": 2,
    "critic.hidden": (16,),
    "critic.learning_rate": 1e-2,
    "policy.steps": 120,
    "policy.batch_size": 32,
    "policy.hidden": (16,),
    "policy.learning_rate": 1e-2,
}
SMALL_OSRL = {  # OSRL's trainers take some 10 ms a step whatever the sizes
    "policy.steps": 20,
    "critics": 1,
    "vae_hidden": 16,
    "context": 4,
    "embedding": 16,
    "heads": 2,
    "layers": 1,
}


def small_config(method: Method, **settings):
    """The method's defaults, shrunk where it has the setting."""
    known = dotted_fields(method.config())
    small = {**SMALL, **(SMALL_OSRL if not method.packed else {}), **settings}
    return override(method.config(), {name: value for name, value in small.items() if name in known})


def fit(name: str, seeds=(0,), split_seeds=None, *, context=None, **settings):
    """The method on toy splits, with small settings; ``context`` holds further fields of the fit's context."""
    method = METHODS[name]
    pairs = toy_splits(split_seeds or seeds)
    oracle = [[labels for _, labels in pairs]] if method.oracle else []
    context = FitContext(tuple(seeds), **{"snapshots": 2, **(context or {})})
    config = small_config(method, **settings)
    learned = method.load()([split for split, _ in pairs], config, context, *oracle)
    return learned, pairs


def actions_of(learned, pairs, rows=slice(0, 200)) -> np.ndarray:
    return learned.policy.act(pairs[0][0].trajectories.observations[rows])


every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_fits_and_acts(name):
    learned, pairs = fit(name, seeds=(0, 1))
    assert len(learned) == 2
    for own in learned:
        actions = actions_of(own, pairs)
        assert actions.shape == (200, 2) and actions.dtype == np.float32
        assert np.isfinite(actions).all() and np.abs(actions).max() <= 1
        assert [step for step, _ in own.snapshots] == sorted({step for step, _ in own.snapshots})
        final = own.snapshots[-1][1].act(pairs[0][0].trajectories.observations[:5])
        np.testing.assert_array_equal(final, own.policy.act(pairs[0][0].trajectories.observations[:5]))


@every_method
def test_same_seed_same_policy_and_other_seed_another(name):
    (first,), pairs = fit(name, seeds=(3,))
    (again,), _ = fit(name, seeds=(3,))
    (other,), _ = fit(name, seeds=(4,), split_seeds=(3,))
    np.testing.assert_array_equal(actions_of(first, pairs), actions_of(again, pairs))
    assert not np.allclose(actions_of(first, pairs), actions_of(other, pairs))


@every_method
def test_packed_equals_alone(name):
    """Replica r's result does not depend on its companions, nor on its place among them."""
    packed, pairs = fit(name, seeds=(2, 0, 1))
    for index, seed in enumerate((2, 0, 1)):
        (alone,), _ = fit(name, seeds=(seed,))
        np.testing.assert_allclose(actions_of(packed[index], pairs), actions_of(alone, pairs), atol=2e-4)


@every_method
def test_save_and_load_agree(name, tmp_path):
    (learned,), pairs = fit(name)
    path = checkpoints.save(tmp_path, learned.policy, scorer=learned.scorer, task="Toy")
    assert not list(tmp_path.glob("*.tmp"))
    np.testing.assert_array_equal(
        checkpoints.load_policy(path).act(pairs[0][0].trajectories.observations[:50]),
        actions_of(learned, pairs, slice(0, 50)),
    )
    data = pairs[0][0].trajectories
    scorer = checkpoints.load_scorer(tmp_path)
    if scorer is not None:
        with torch.no_grad():
            loaded = scorer(torch.tensor(data.observations[None, :9]), torch.tensor(data.actions[None, :9]))
        np.testing.assert_array_equal(loaded[0], learned.score_steps(data.observations[:9], data.actions[:9]))


@every_method
def test_only_an_oracle_can_be_given_labels(name):
    method = METHODS[name]
    assert ("labels" in inspect.signature(method.load()).parameters) == method.oracle


@every_method
def test_label_limited_methods_never_open_the_outcomes(name, monkeypatch):
    """Every reward, cost and label is made unreadable; a label-limited method must not notice."""
    method = METHODS[name]
    if method.oracle:
        pytest.skip("declared an oracle")
    pairs = toy_splits()

    def leak(self, *_):
        raise AssertionError("a label-limited method read true outcomes")

    for forbidden in (Outcomes, HiddenLabels):
        monkeypatch.setattr(forbidden, "__getattribute__", leak)
    (learned,) = method.load()([pairs[0][0]], small_config(method), FitContext())
    assert diagnostics.label_free(learned, pairs[0][0]) is not None


@pytest.mark.parametrize(
    ("settings", "margin"),
    [
        ({}, 0.25),
        ({"mode": "joint"}, 0.25),
        ({"cost_model.segment_length": "full"}, 0.25),
        ({"weights.kind": "linear-step"}, 0.4),
        ({"weights.kind": "hard"}, 0.5),  # keeps nearly half of the unsafe ones, which resemble D_N, by its rule
    ],
)
def test_safemil_recovers_the_safe_behaviour(settings, margin):
    """Unsafe steps push right, safe ones left: SafeMIL must push left; cloning everything stays between."""
    sharp = {"cost_model.steps": 250, "policy.steps": 250, **settings}
    (learned,), pairs = fit("safemil", **sharp)
    split, labels = pairs[0]
    assert diagnostics.oracle(learned, split, labels)["auroc"] > 0.99
    assert diagnostics.oracle(learned, split, labels)["oracle_step_auroc"] > 0.99
    pushed = actions_of(learned, pairs)[:, 0].mean()
    assert pushed < SAFE_ACTION + margin
    (cloned,), _ = fit("bc-all", **sharp)
    middle = actions_of(cloned, pairs)[:, 0].mean()
    assert max(pushed + 0.05, SAFE_ACTION + 0.3) < middle < UNSAFE_ACTION - 0.3
    (safe,), _ = fit("bc-safe", **sharp)
    assert actions_of(safe, pairs)[:, 0].mean() < SAFE_ACTION + 0.15


def test_loss_that_diverges_is_reported():
    with pytest.raises(TrainingError, match=r"policy: policy_loss is not finite at step \d+ in replica\(s\) \[0\]"):
        fit("bc-all", **{"policy.learning_rate": 1e38, "policy.head": "tanh_gauss"})


def test_paper_preset_is_joint():
    config = override(METHODS["safemil"].config(), {k: v for k, v in PRESETS["paper"].items()})
    assert (config.mode, config.cost_model.steps, config.cost_model.learning_rate) == ("joint", 1_000_000, 1e-5)


def test_no_preset_takes_ppl_its_own_weight():
    for preset in PRESETS:
        (trial,) = expand(GRIDS["demo"], methods=["ppl"], seeds=[0], preset=preset)
        assert trial.config.weights.kind == "linear-step"


def test_joint_mode_refuses_trajectory_weights():
    with pytest.raises(ValueError, match="mode=joint weighs segments or steps"):
        fit("safemil", **{"mode": "joint", "weights.kind": "hard"})
