"""The estimators of safemil/evaluation/metrics.py against numbers worked by hand and their defining identities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# --- returns and costs -------------------------------------------------------------------------------------------


def test_normalized_return_is_linear_and_not_clipped():
    assert metrics.normalized_return([10.0, 20.0], return_min=5.0, return_max=25.0) == pytest.approx(0.5)
    assert metrics.normalized_return([45.0], 5.0, 25.0) == pytest.approx(2.0)
    assert metrics.normalized_return([0.0], 5.0, 25.0) == pytest.approx(-0.25)
    assert math.isnan(metrics.normalized_return([1.0], 5.0, 5.0))


def test_normalized_cost_applies_to_the_mean_and_handles_a_zero_limit():
    assert metrics.normalized_cost([0.0, 50.0], 25.0) == pytest.approx(1.0)
    assert metrics.normalized_cost([0.0, 0.0], 0.0) == 1.0
    assert metrics.normalized_cost([2.0, 0.0], 0.0) == 2.0
    assert metrics.normalized_cost([10.0, 20.0], 25.0) == metrics.scale_by_limit(15.0, 25.0)
    with pytest.raises(ValueError, match="cost_limit is -1"):
        metrics.normalized_cost([1.0], -1.0)


def test_reference_cost_is_a_plain_difference():
    assert metrics.normalized_cost_reference([10.0, 20.0], 12.0) == pytest.approx(3.0)


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, np.nan], [np.inf]])
@pytest.mark.parametrize(
    "metric",
    [
        lambda costs: metrics.normalized_cost(costs, 25.0),
        lambda costs: metrics.normalized_return(costs, 0.0, 1.0),
        lambda costs: metrics.cvar(costs, 0.2),
        lambda costs: metrics.cvar_floor(costs, 0.2),
        lambda costs: metrics.violation_rate(costs, 25.0),
    ],
)
def test_episode_metrics_refuse_what_they_cannot_judge(metric, bad):
    with pytest.raises(ValueError, match="expected a filled vector|are not finite"):
        metric(bad)


def test_violation_rate_is_strict():
    assert metrics.violation_rate([24.0, 25.0, 26.0, 90.0], 25.0) == 0.5
    assert metrics.violation_rate([0.0, 0.0, 1.0, 2.0], 0.0) == 0.5


# --- CVaR --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "expected"), [(0.25, 9.2), (0.2, 9.5), (0.05, 10.0), (0.1, 10.0), (1.0, 5.5)])
def test_cvar_of_one_to_ten(alpha, expected):
    assert metrics.cvar(np.arange(1.0, 11.0), alpha) == pytest.approx(expected)


def test_cvar_is_the_minimum_of_the_variational_form(rng):
    """min over t of t + E(C - t)+ / alpha; the function is piecewise linear, so the best t is one of the costs."""
    for _ in range(1000):
        costs = rng.choice([rng.exponential(20.0, 200), rng.integers(0, 5, 200)])[: rng.integers(1, 60)].astype(float)
        alpha = float(rng.uniform(0.01, 1.0))
        variational = min(t + np.maximum(costs - t, 0.0).mean() / alpha for t in costs)
        assert metrics.cvar(costs, alpha) == pytest.approx(variational, rel=1e-9, abs=1e-9)


def test_cvar_tail_of_a_whole_number_is_not_split_by_rounding():
    # 0.07 * 100 is 7.000000000000001 in floating point.
    costs = np.arange(100.0)
    assert metrics.cvar(costs, 0.07) == costs[-7:].mean()
    assert metrics.cvar_floor(costs, 0.29) == costs[-29:].mean()


def test_cvar_never_below_the_mean_and_order_does_not_matter(rng):
    costs = rng.exponential(10.0, 50)
    values = [metrics.cvar(costs, alpha) for alpha in (1.0, 0.5, 0.2, 0.1, 0.05)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(costs.mean())
    assert metrics.cvar(rng.permutation(costs), 0.2) == pytest.approx(values[2])


def test_cvar_floor_keeps_one_episode_where_the_bare_slice_keeps_all():
    costs = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert metrics.cvar_floor(costs, 0.1) == 5.0
    assert metrics.cvar_floor(np.arange(1.0, 11.0), 0.25) == 9.5


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5, math.nan])
def test_cvar_refuses_an_impossible_share(alpha):
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        metrics.cvar([1.0], alpha)


# --- rank statistics ---------------------------------------------------------------------------------------------


def test_auroc_by_hand():
    assert metrics.auroc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert metrics.auroc([1.0, 2.0], [3.0, 4.0]) == 0.0
    assert metrics.auroc([1.0, 1.0], [1.0]) == 0.5
    assert metrics.auroc([2.0, 1.0], [1.0, 0.0]) == pytest.approx((2 + 1.5) / 4)
    assert math.isnan(metrics.auroc([], [1.0]))
    assert math.isnan(metrics.auroc([1.0], []))
    assert math.isnan(metrics.auroc([math.nan, 1.0], [0.0]))


def test_auroc_equals_counting_all_pairs(rng):
    positive, negative = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    pairs = positive[:, None] - negative[None, :]
    assert metrics.auroc(positive, negative) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert metrics.auroc(positive, negative) + metrics.auroc(negative, positive) == pytest.approx(1.0)


@pytest.mark.parametrize("preferred", [1, 3, 5])
def test_perfect_separation_against_unlabeled_stops_at_half_of_one_plus_p(preferred):
    """D_U holds preferred (score 0) and non-preferred (score 1) trajectories, D_N only the latter."""
    unlabeled = np.array([0.0] * preferred + [1.0] * (10 - preferred))
    share = preferred / 10
    score = metrics.auroc(np.ones(7), unlabeled)
    assert score == pytest.approx((1 + share) / 2)
    assert metrics.preferred_share_bound(score) == pytest.approx(share)
    assert metrics.preferred_share_bound(0.3) == 0.0


def test_spearman_by_hand():
    assert metrics.spearman([1, 2, 3], [10, 20, 90]) == pytest.approx(1.0)
    assert metrics.spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    # Ranks (1, 2.5, 2.5) against (1, 2, 3): covariance 1.5, variances 1.5 and 2.
    assert metrics.spearman([0, 5, 5], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2.0))
    assert math.isnan(metrics.spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(metrics.spearman([1], [1]))
    with pytest.raises(ValueError, match="2 values with 3"):
        metrics.spearman([1, 2], [1, 2, 3])


# --- loss scale --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "length", "expected"),
    [(0.5, 1, 0.474), (0.5, 5, 0.0827), (0.5, 10, 0.0084), (0.1, 1, 0.644), (0.1, 5, 0.478), (0.1, 10, 0.325)],
)
def test_loss_floor_of_large_bags(share, length, expected):
    assert metrics.mil_loss_floor(share, discounted_length(length)) == pytest.approx(expected, abs=6e-4)


def test_discounted_length():
    assert discounted_length(5) == pytest.approx(4.901, abs=5e-4)
    assert discounted_length(500) == pytest.approx(99.34, abs=5e-3)
    assert discounted_length(7, discount=1.0) == 7.0
    assert discounted_length(3, discount=0.5) == 1.75


def test_loss_floor_at_one_bag_size():
    scale = discounted_length(5)
    # K = 1: the unlabeled item is preferred with probability p (gap G_H), otherwise scores tie (log 2).
    expected = 0.3 * math.log1p(math.exp(-scale)) + 0.7 * math.log(2)
    assert metrics.mil_loss_floor(0.3, scale, bag_size=1) == pytest.approx(expected)
    floors = [metrics.mil_loss_floor(0.5, scale, bag_size=k) for k in (1, 8, 64, 256)]
    assert floors == sorted(floors, reverse=True)
    assert floors[-1] == pytest.approx(metrics.mil_loss_floor(0.5, scale), abs=2e-3)
    assert metrics.mil_loss_floor(0.0, scale, bag_size=8) == pytest.approx(math.log(2))
    assert metrics.mil_loss_floor(1.0, scale, bag_size=8) == pytest.approx(metrics.mil_loss_floor(1.0, scale))
