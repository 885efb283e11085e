"""Weights: each kind on numbers small enough to check by hand, and T-MIL6."""

import numpy as np
import pytest

from safemil.algorithm.weights import (
    effective_sample_size,
    hard_weights,
    segment_sums,
    step_weights,
    trajectory_means,
)
from safemil.config.settings import WeightsConfig

LENGTHS = np.array([2, 3])
COSTS = np.array([0.1, 0.3, 0.5, 0.5, 0.8])  # means 0.2 and 0.6


def weights_of(kind: str, **settings) -> np.ndarray:
    config = WeightsConfig(kind=kind, **settings)
    return step_weights(COSTS, LENGTHS, config, segment_length=2, discount=0.5, reference=np.array([0.5, 0.7]))


def test_trajectory_means():
    np.testing.assert_allclose(trajectory_means(COSTS, LENGTHS), [0.2, 0.6])


def test_every_kind_has_mean_one_and_falls_with_cost():
    for kind in ("exponential", "exponential-segment", "exponential-step", "linear-step", "linear", "quantile", "hard"):
        weights = weights_of(kind)
        assert weights.shape == COSTS.shape
        assert weights.mean() == pytest.approx(1.0)
        assert weights[0] >= weights[-1] and weights[0] > 0


def test_exponential_ratio():
    """G_2 = 1.5 at discount 1/2: the ratio of two trajectories' weights is exp(-1.5 (0.2 - 0.6) / beta)."""
    weights = weights_of("exponential", beta=0.3)
    assert weights[0] / weights[2] == pytest.approx(np.exp(1.5 * 0.4 / 0.3))
    assert weights[0] == weights[1] and weights[2] == weights[3] == weights[4]


def test_segment_kind_uses_the_segment_that_begins_at_the_step():
    expected = np.array([0.1 + 0.15, 0.1 + 0.15, 0.5 + 0.25, 0.5 + 0.4, 0.5 + 0.4])
    np.testing.assert_allclose(segment_sums(COSTS, LENGTHS, 2, 0.5), expected)
    weights = weights_of("exponential-segment", beta=1.0)
    np.testing.assert_allclose(weights / weights[0], np.exp(-(expected - expected[0])))


def test_segment_longer_than_the_trajectory_is_rescaled():
    np.testing.assert_allclose(segment_sums(np.ones(2), np.array([2]), 4, 0.5), [1.875, 1.875])  # G_4


def test_step_kinds():
    weights = weights_of("linear-step")
    np.testing.assert_allclose(weights / weights[0], (1 - COSTS) / 0.9)
    weights = weights_of("exponential-step", beta=1.0)
    np.testing.assert_allclose(weights / weights[0], np.exp(-1.5 * (COSTS - 0.1)))


def test_linear_kind_spans_zero_to_one_over_the_unlabeled_set():
    lengths = np.ones(101, dtype=int)
    weights = step_weights(
        np.linspace(0, 1, 101), lengths, WeightsConfig(kind="linear"), segment_length=5, discount=0.99
    )
    assert weights[0] == weights[1] and weights[-1] == pytest.approx(0.0, abs=1e-6)  # 1st and 99th percentile
    np.testing.assert_allclose(weights[50] / weights[0], 0.5, rtol=1e-6)


def test_hard_threshold_is_a_tenth_of_a_deviation_below_held_out_nonpreferred():
    """Held-out means 0.5 and 0.7: threshold 0.6 - 0.01 = 0.59 lies between 0.2 and 0.6."""
    np.testing.assert_allclose(weights_of("hard"), [2.5, 2.5, 0, 0, 0])


def test_quantile_keeps_the_cheapest():
    np.testing.assert_allclose(weights_of("quantile", quantile=0.5) > 0, [True, True, False, False, False])


def test_no_weight_at_all_is_an_error():
    with pytest.raises(ValueError, match="no unlabeled trajectory has any weight"):
        step_weights(
            COSTS, LENGTHS, WeightsConfig(kind="hard"), segment_length=2, discount=0.5, reference=np.array([0.0, 0.0])
        )


def test_hard_needs_a_reference():
    with pytest.raises(ValueError, match="held_out"):
        step_weights(COSTS, LENGTHS, WeightsConfig(kind="hard"), segment_length=2, discount=0.5)


def test_mil6_true_costs_and_the_cost_limit_give_osrl_safe_set():
    """c = true cost, g = 1, whole trajectories, threshold = cost limit."""
    from osrl.common.dataset import process_bc_dataset

    lengths, limit = np.array([3, 4, 2]), 2.0
    costs = np.array([1, 0, 0, 1, 1, 1, 1, 0, 1], dtype=np.float32)  # sums 1, 4, 1
    sums = np.add.reduceat(costs, np.cumsum(lengths) - lengths)
    mine = np.repeat(hard_weights(sums, limit), lengths) > 0
    dataset = {
        "observations": np.arange(9, dtype=np.float32)[:, None],
        "actions": np.zeros((9, 1), np.float32),
        "rewards": np.zeros(9, np.float32),
        "costs": costs,
        "terminals": np.zeros(9),
        "timeouts": np.array([0, 0, 1, 0, 0, 0, 1, 0, 1]),
    }
    process_bc_dataset(dataset, cost_limit=limit, gamma=1.0, bc_mode="safe")
    np.testing.assert_array_equal(np.flatnonzero(mine), dataset["observations"][:, 0].astype(int))


def test_effective_sample_size():
    assert effective_sample_size(np.ones(10)) == pytest.approx(10)
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == pytest.approx(1)
