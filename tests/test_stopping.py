"""Early stopping by the held-out loss: the rule on losses worked by hand, alone as packed, resumed as undisturbed."""

import dataclasses

import numpy as np
import pytest
import torch

from safemil.algorithm.cost_model import CostModel
from safemil.algorithm.safemil import fit
from safemil.config.overrides import override
from safemil.config.settings import CostModelConfig, SafeMILConfig
from safemil.training.checkpoint import TrainingCheckpoint
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.objectives import Objective
from safemil.training.stopping import EarlyStopping, Patience
from safemil.training.transitions import Transitions
from tests.conftest import toy_splits
from tests.test_resuming import Killed, Records

RULE = Patience(every=1, looks=3, growth=0.0, least=0.1)
SMALL = override(
    SafeMILConfig(),
    {
        "cost_model.steps": 3_000,
        "cost_model.bag_size": 4,
        "cost_model.pairs": 1,
        "cost_model.hidden": [16],
        "cost_model.learning_rate": 0.01,
        "policy.steps": 3_000,
        "policy.batch_size": 32,
        "policy.hidden": [16],
        "policy.learning_rate": 0.01,
    },
)


def watched(losses, patience=RULE):
    """What the rule makes of losses ``(looks + 1, R)``, the first of untrained networks; parameters count the looks."""
    losses = np.asarray(losses, float)
    values = torch.zeros(losses.shape[1], 2)
    number = iter(losses)
    stopping = EarlyStopping(patience, [values], lambda: next(number))
    stopping.begin()
    done = 0
    while not stopping.over and done < len(losses) - 1:
        done += 1
        values += 1
        stopping.look(done)
    return stopping.finish(done), values


def test_the_rule_worked_by_hand():
    """What counts is a fall of a tenth of all gained so far; after three looks without one it is over."""
    losses = [[10.0], [5.0], [4.0], [3.9], [3.8], [3.85], [3.0]]
    ended, values = watched(losses)
    # 4.0 is the last fall, as 3.8 lies 0.2 below it and 0.62 are asked for; after looks 3, 4 and 5 it is over.
    assert (ended.trained[0], ended.kept[0], ended.lowest[0], ended.first[0]) == (5, 4, 3.8, 10.0)
    assert values.tolist() == [[4.0, 4.0]]


def test_neither_scale_nor_offset_matters():
    """Negative log-likelihoods go below zero."""
    losses = np.array([[2.0], [1.0], [0.5], [0.45], [0.6], [0.44], [0.2]])
    plain, _ = watched(losses)
    for other in (losses * 7, losses - 50, losses * 0.01 - 1):
        ended, _ = watched(other)
        assert ended.trained[0] == plain.trained[0] and ended.kept[0] == plain.kept[0]


def test_a_loss_that_never_falls_ends_and_keeps_the_least_bad_of_the_trained():
    ended, values = watched([[1.0], [1.5], [1.2], [1.3], [1.4]])
    assert (ended.trained[0], ended.kept[0]) == (3, 2) and values.tolist() == [[2.0, 2.0]]


def test_patience_grows_with_the_training():
    falling = [[100.0 - look] for look in range(40)]  # falls by one a look, which is a tenth until look 10
    ended, _ = watched(falling, dataclasses.replace(RULE, growth=2.0))
    steps, last = [100.0 - look for look in range(40)], 0
    for look, loss in enumerate(steps):
        if steps[last] - loss > 0.1 * (100.0 - loss):
            last = look
    assert ended.trained[0] == min(39, last + max(3, 2 * last))


def test_each_replica_ends_by_its_own_losses():
    """The first ends at look 4 and keeps what it had at look 1, whatever becomes of it while the second goes on."""
    first = [10.0, 1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    second = [10.0, 9.0, 7.0, 5.0, 3.0, 1.0, 1.5, 1.5, 1.5]
    ended, values = watched(np.stack([first, second], 1))
    alone = [watched(np.array(own)[:, None])[0] for own in (first, second)]
    for name in ("kept", "trained", "first", "lowest"):
        assert getattr(ended, name).tolist() == [float(getattr(own, name)[0]) for own in alone]
    assert values[:, 0].tolist() == [1.0, 5.0]


@pytest.fixture(scope="module")
def packed():
    pairs = toy_splits((0, 1, 2))
    splits = [split for split, _ in pairs]
    return splits, fit(splits, SMALL, FitContext((0, 1, 2), patience=Patience(every=20, looks=8)))


def test_a_pack_is_what_each_is_alone(packed):
    splits, results = packed
    ends = {result.extra["cost_model_updates"] for result in results} | {
        result.extra["policy_updates"] for result in results
    }
    assert len(ends) > 2  # they end at different updates
    for seed, (split, expected) in enumerate(zip(splits, results, strict=True)):
        (alone,) = fit([split], SMALL, FitContext((seed,), patience=Patience(every=20, looks=8)))
        assert alone.extra.keys() == expected.extra.keys()
        for name, value in expected.extra.items():
            assert alone.extra[name] == pytest.approx(value, rel=1e-3), name
        observations = split.trajectories.observations[:100]
        np.testing.assert_allclose(alone.policy.act(observations), expected.policy.act(observations), atol=2e-4)


def test_it_ends_early_and_what_is_kept_has_the_lowest_held_out_loss(packed):
    splits, _ = packed
    records = Records()
    (result,) = fit(splits[:1], SMALL, FitContext((0,), log=records, patience=Patience(every=20, looks=8)))
    for stage, column in (("cost_model", "held_out_mil_loss"), ("policy", "held_out_policy_loss")):
        losses = {step: metrics[column][0] for name, step, metrics in records if name == stage}
        assert max(losses) == result.extra[f"{stage}_updates"] < 3_000
        best = min(losses, key=losses.__getitem__)
        assert best == result.extra[f"{stage}_updates_kept"]
        assert losses[best] == pytest.approx(result.extra[f"{stage}_held_out_lowest"])


def test_the_held_out_bags_are_of_held_out_trajectories_and_the_same_each_time():
    (split, _), config = toy_splits((0,))[0], dataclasses.replace(SMALL.cost_model, segment_length=3)
    model = CostModel([split], config, Transitions.from_splits([split], "cpu"), (0,))
    rows = []
    prepare = model.prepare

    def noted(items):
        rows.append(items)
        return prepare(items)

    model.prepare = noted
    loss = model.held_out_loss([split])
    assert loss() == loss() and loss().shape == (1,)
    drawn = rows[0]["trajectories"].view(2, -1)
    for own, allowed in zip(drawn, (split.nonpreferred_held_out, split.unlabeled_held_out), strict=True):
        assert set(own.tolist()) == set(allowed.tolist())


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_resumed_equals_undisturbed(share, tmp_path):
    """Killed in the training of the cost and in that of the policy, after a stage had ended early."""
    splits = [split for split, _ in toy_splits((0, 1))]

    def fitted(records, checkpoint=None):
        context = FitContext((0, 1), log=records, patience=Patience(every=20, looks=8), checkpoint=checkpoint)
        return fit(splits, SMALL, context)

    undisturbed = Records()
    expected = fitted(undisturbed)
    records = Records()
    records.last = int(share * len(undisturbed))
    with pytest.raises(Killed):
        fitted(records, TrainingCheckpoint(tmp_path / "state.pt", "these", records, interval=0.0))
    records = Records()
    checkpoint = TrainingCheckpoint(tmp_path / "state.pt", "these", records, interval=0.0)
    assert len(records) >= int(share * len(undisturbed)) - 1
    resumed = fitted(records, checkpoint)
    np.testing.assert_equal(list(records), list(undisturbed))
    for own, other in zip(resumed, expected, strict=True):
        assert own.extra == other.extra
        for a, b in zip(own.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_a_fixed_number_is_a_fixed_number():
    """Without patience, as in studies, no held-out loss is asked for and every update is taken."""
    asked, reported = [], []
    values = torch.nn.Parameter(torch.ones(1, 3))
    objective = Objective("x", [values], lambda batch: ((values * batch["x"]).pow(2).mean(1), {}), 0.1)

    def held_out():
        asked.append(1)
        return np.ones(1)

    ended = train(
        "stage",
        [objective],
        lambda n: {"x": torch.ones(n, 1, 3)},
        lambda drawn: drawn,
        FitContext(log=lambda stage, step, metrics: reported.append((step, sorted(metrics)))),
        steps=700,
        held_out=held_out,
    )
    assert ended is None and not asked
    assert [step for step, _ in reported] == list(range(7, 701, 7))
    assert reported[0][1] == ["x_gradient_norm", "x_loss"]


def test_joint_training_has_a_fixed_number():
    splits = [split for split, _ in toy_splits((0,))]
    config = override(SMALL, {"mode": "joint", "policy.steps": 60})
    (result,) = fit(splits, config, FitContext((0,), patience=Patience(every=20, looks=8)))
    assert result.extra == {}


def test_default_settings_know_nothing_of_it():
    """They are in the identity of every trial of a study."""
    assert not [name for name in vars(CostModelConfig()) | vars(SafeMILConfig().policy) if "patience" in name]
    assert FitContext().patience is None
