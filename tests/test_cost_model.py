"""The multiple-instance loss against its closed forms (T-MIL0 to T-MIL5)."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from safemil.algorithm.bags import SegmentSampler, bag_scores, segment_scores
from safemil.algorithm.cost_model import ROWS_KEPT, CostModel, mil_loss
from safemil.algorithm.discounting import discounted_length
from safemil.config.settings import CostModelConfig
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.evaluation.metrics import mil_loss_floor
from safemil.nn.streams import Streams
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.transitions import Transitions

NOTHING = np.array([], dtype=np.int64)


def separable_split(n: int = 60, length: int = 12) -> Split:
    """D_N: observation +1. D_U: half -1 (preferred), half +1. Supports of the two classes are disjoint."""
    rows = np.repeat(np.arange(n) % 3 == 2, length)  # a third of all trajectories is preferred
    observations = np.where(rows, -1.0, 1.0).astype(np.float32)[:, None]
    trajectories = Trajectories(observations, np.zeros((n * length, 1), np.float32), length * np.arange(n + 1))
    indices = np.arange(n)
    return Split(trajectories, indices[indices % 3 == 0], indices[indices % 3 != 0], NOTHING, NOTHING)


def cost_model(split: Split, seed: int = 0, **settings) -> CostModel:
    config = CostModelConfig(**{"hidden": (16,), "learning_rate": 0.02, "steps": 300, **settings})
    steps = Transitions(split.trajectories.observations, split.trajectories.actions, "cpu")
    return CostModel([split], config, steps, [seed])


def first_batch(model: CostModel) -> dict:
    return model.prepare({name: values[0] for name, values in model.draw(1).items()})


@pytest.mark.parametrize("segment_length", [1, 5, "full"])
def test_mil0_untrained_loss_is_log_2(segment_length):
    model = cost_model(separable_split(), segment_length=segment_length, bag_size=8)
    loss, _ = model.loss(first_batch(model))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)


@pytest.mark.parametrize("heads", [1, 2])
def test_parts_that_are_computed_again_change_no_gradient(heads, monkeypatch):
    """K = 8 trajectories of 12 steps in four bags: 384 steps at once, or 40 at a time."""
    model = cost_model(separable_split(), segment_length="full", bag_size=8, pairs=2, heads=heads)
    with torch.no_grad():
        model.network.mlp.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    batch, parameters = first_batch(model), list(model.network.parameters())
    whole = torch.autograd.grad(model.loss(batch)[0].sum(), parameters)
    monkeypatch.setitem(ROWS_KEPT, "cpu", 40)
    in_parts = torch.autograd.grad(model.loss(batch)[0].sum(), parameters)
    for one, other in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("bag_size", "expected"), [(1, 0.4055), (2, 0.8109), (3, 1.0), (8, 1.0)])
def test_mil1_bag_size_is_a_temperature(bag_size, expected):
    """Two states, H = 1, q_N = .6, q_U = .5: the minimizer's cost difference, by enumeration of all bags."""
    counts = np.arange(bag_size + 1)
    p_nonpreferred = torch.tensor(binom.pmf(counts, bag_size, 0.6))[:, None]
    p_unlabeled = torch.tensor(binom.pmf(counts, bag_size, 0.5))[None, :]
    scores = torch.tensor(counts / bag_size)

    def expected_loss(delta: float) -> float:
        losses = mil_loss(delta * scores[:, None], delta * scores[None, :])
        return float((p_nonpreferred * p_unlabeled * losses).sum())

    candidates = np.linspace(-1, 1, 20_001)
    best = candidates[np.argmin([expected_loss(delta) for delta in candidates])]
    assert best == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("segment_length", "tolerance"), [(1, 1e-3), (5, 5e-3)])
def test_mil2_training_reaches_the_floor(segment_length, tolerance):
    """Disjoint supports, K = 128, p = 1/2."""
    model = cost_model(
        separable_split(), segment_length=segment_length, bag_size=128, weight_decay=0.0, schedule="linear"
    )
    train("cost_model", [model.objective()], model.draw, model.prepare, FitContext(), steps=300)
    with torch.no_grad():
        losses = [model.loss(first_batch(model))[0].item() for _ in range(50)]
    floor = mil_loss_floor(0.5, discounted_length(segment_length))
    assert floor == pytest.approx({1: 0.474, 5: 0.0827}[segment_length], abs=1e-4)
    # The floor is for K to infinity: with K = 128 a bag's preferred share varies, which H = 5 magnifies.
    assert np.mean(losses) == pytest.approx(floor, abs=tolerance + 2 * np.std(losses) / 50**0.5)


def test_mil3_gradient():
    """Finite differences in float64 equal -+ g^t / K * sigmoid(S_U - S_N)."""
    generator = torch.Generator().manual_seed(0)
    bag_size, length, discount = 3, 4, 0.9
    factors = discount ** torch.arange(length, dtype=torch.float64)
    costs = torch.rand(2, bag_size, length, dtype=torch.float64, generator=generator, requires_grad=True)

    def loss(values: torch.Tensor) -> torch.Tensor:
        nonpreferred, unlabeled = bag_scores(segment_scores(values, factors), bag_size).squeeze(-1)
        return mil_loss(nonpreferred, unlabeled)

    assert torch.autograd.gradcheck(loss, costs, eps=1e-6, atol=1e-6)
    loss(costs).backward()
    scores = bag_scores(segment_scores(costs.detach(), factors), bag_size).squeeze(-1)
    slope = torch.sigmoid(scores[1] - scores[0]) * factors / bag_size
    torch.testing.assert_close(costs.grad, torch.stack([-slope.expand(3, -1), slope.expand(3, -1)]))


def test_mil4_lemma_1_by_monte_carlo():
    """P(an unlabeled bag holds at least one preferred trajectory) = 1 - (1 - p)^K: draws are with replacement."""
    n, bag_size, n_bags = 50, 8, 100_000
    offsets = 3 * np.arange(n + 1)
    sampler = SegmentSampler(offsets, [np.arange(n)], 2, discount=1.0)
    _, drawn = sampler.sample(Streams([0], "lemma", "cpu").uniform(n_bags, bag_size, 2))
    share = (drawn < 0.1 * n).any(-1).double().mean().item()  # 10 % of the trajectories are preferred
    assert share == pytest.approx(1 - 0.9**8, abs=0.005)


def test_mil5_score_ignores_order_and_padding(rng):
    scores = torch.tensor(rng.random((1, 8)))
    torch.testing.assert_close(bag_scores(scores, 8), bag_scores(scores[:, rng.permutation(8)], 8))
    costs, factors = torch.tensor(rng.random((2, 5))), torch.tensor(rng.random((2, 5)))
    padded = [
        torch.cat([values, extra], dim=-1)
        for values, extra in ((costs, torch.rand(2, 3)), (factors, torch.zeros(2, 3)))
    ]
    torch.testing.assert_close(segment_scores(*padded), segment_scores(costs, factors))


def test_segments_stay_inside_their_trajectory_and_reach_both_ends():
    lengths = np.array([7, 3, 12])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for by in ("trajectory", "transition"):
        sampler = SegmentSampler(offsets, [np.arange(3)], 5, discount=0.9, by=by)
        starts, chosen = sampler.sample(Streams([0], "bags", "cpu").uniform(1, 4000, 2))
        rows, factors = sampler.expand(starts[0], chosen[0])
        first, last = torch.tensor(offsets)[chosen[0]], torch.tensor(offsets)[chosen[0] + 1] - 1
        assert (rows >= first.unsqueeze(-1)).all() and (rows <= last.unsqueeze(-1)).all()
        for trajectory, n_starts in ((0, 3), (1, 1), (2, 8)):  # the last valid start included
            own = starts[0][chosen[0] == trajectory] - offsets[trajectory]
            assert set(own.tolist()) == set(range(n_starts))
        real = (factors > 0).sum(-1)
        assert (real == torch.tensor(np.minimum(lengths, 5))[chosen[0]]).all()


def test_short_trajectory_is_rescaled():
    """T = 3 < H = 5: a constant cost of 1 scores G_5 all the same."""
    sampler = SegmentSampler(np.array([0, 3]), [np.array([0])], 5, discount=0.9)
    _, factors = sampler.expand(torch.tensor([[0]]), torch.tensor([[0]]))
    assert factors.sum().item() == pytest.approx(discounted_length(5, 0.9), rel=1e-6)


def test_full_trajectories_are_not_scored_by_their_length():
    """A constant cost scores the same on 7 steps as on 12."""
    offsets = np.array([0, 7, 19])
    sampler = SegmentSampler(offsets, [np.arange(2)], "full", discount=0.99, length_normalized=True)
    _, factors = sampler.expand(torch.tensor([[0, 7]]), torch.tensor([[0, 1]]))
    torch.testing.assert_close(factors.sum(-1), torch.ones(1, 2))


def test_transition_sampling_is_proportional_to_starts():
    sampler = SegmentSampler(np.array([0, 5, 20]), [np.arange(2)], 1, discount=1.0, by="transition")
    _, chosen = sampler.sample(Streams([1], "bags", "cpu").uniform(1, 40_000, 2))
    assert (chosen == 1).double().mean().item() == pytest.approx(15 / 20, abs=0.01)


def test_whole_trajectories_do_not_overflow():
    """A thousand steps, no discount: exp(S) would be e^1000; the loss stays finite."""
    assert torch.isfinite(mil_loss(torch.tensor(0.0), torch.tensor(1000.0)))
    assert mil_loss(torch.tensor(1000.0), torch.tensor(0.0)).item() == 0.0
