"""Statistics over runs and tasks: closed forms and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safemil.evaluation import aggregates
from safemil.evaluation.metrics import auroc


def test_iqm_cuts_a_quarter_of_the_flattened_matrix_from_each_side():
    assert aggregates.iqm(np.arange(16.0).reshape(4, 4)) == 7.5
    # 5 runs x 6 tasks: 7 of 30 cut on each side, 16 kept.
    assert aggregates.iqm(np.arange(30.0).reshape(5, 6)) == np.arange(7, 23).mean()
    assert aggregates.iqm(np.array([[0.0], [1.0], [2.0], [1000.0]])) == 1.5
    assert aggregates.iqm([[3.0]]) == 3.0


def test_leading_axes_are_repetitions(rng):
    many, other = rng.normal(size=(7, 5, 3)), rng.normal(size=(7, 4, 3))
    for statistic in (aggregates.mean, aggregates.iqm):
        assert statistic(many) == pytest.approx([statistic(one) for one in many])
    thresholds = np.array([-1.0, 0.0, 1.0])
    profiles = aggregates.performance_profile(many, thresholds)
    assert profiles == pytest.approx(np.array([aggregates.performance_profile(one, thresholds) for one in many]))
    for statistic in (aggregates.probability_of_improvement, aggregates.safety_ratio):
        pairs = zip(np.exp(many), np.exp(other), strict=True)
        assert statistic(np.exp(many), np.exp(other)) == pytest.approx([statistic(*pair) for pair in pairs])


def test_performance_profile_by_hand():
    matrix = np.array([[0.0, 1.0], [1.0, 3.0]])
    assert aggregates.performance_profile(matrix, np.array([-1.0, 0.0, 1.0, 3.0])).tolist() == [1.0, 0.75, 0.25, 0.0]


def test_probability_of_improvement(rng):
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    assert aggregates.probability_of_improvement(x, x) == 0.5
    assert aggregates.probability_of_improvement(x + 100, x) == 1.0
    by_task = [auroc(x[:, task], y[:, task]) for task in range(3)]
    assert aggregates.probability_of_improvement(x, y) == pytest.approx(np.mean(by_task))
    # One task always better, one always worse.
    assert aggregates.probability_of_improvement([[2.0, 0.0]], [[1.0, 1.0], [1.5, 2.0]]) == 0.5
    with pytest.raises(ValueError, match="same tasks"):
        aggregates.probability_of_improvement(np.ones((2, 2)), np.ones((2, 3)))


def test_safety_ratio_takes_the_safest_baseline_of_each_task_and_the_median_over_tasks():
    method = np.array([[0.5, 1.0, 2.0]])
    first, second = np.array([[2.0, 9.0, 2.0]]), np.array([[9.0, 2.0, 3.0], [9.0, 4.0, 5.0]])
    # Task by task 2 / 0.5 = 4, mean(2, 4) / 1 = 3, 2 / 2 = 1.
    assert aggregates.safety_ratio(method, first, second) == 3.0
    assert aggregates.safety_ratio([[0.0]], [[2.0]]) == math.inf
    assert aggregates.safety_ratio([[0.0]], [[0.0]]) == 1.0
    with pytest.raises(ValueError, match="at least one baseline"):
        aggregates.safety_ratio(method)


def test_cost_ratio_at_and_below_zero():
    assert aggregates.cost_ratio([2.0, 0.0, 3.0, 1.0, -1.0], [4.0, 0.0, 0.0, -2.0, -3.0]).tolist() == [
        *(0.5, 1.0, math.inf, math.inf, 1.0)
    ]


# --- intervals ---------------------------------------------------------------------------------------------------


def test_bootstrap_of_a_constant_matrix_has_no_width():
    assert aggregates.stratified_bootstrap(aggregates.iqm, np.full((5, 6), 2.5), repetitions=200) == (2.5, 2.5)


def test_bootstrap_of_one_task_is_the_plain_bootstrap():
    runs = np.random.default_rng(1).normal(size=8)
    interval = aggregates.stratified_bootstrap(aggregates.mean, runs[:, None], repetitions=2001, seed=3)
    plain_rng = np.random.default_rng(3)
    plain = [runs[plain_rng.integers(8, size=8)].mean() for _ in range(2001)]
    assert interval == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])))
    assert interval[0] < runs.mean() < interval[1]


def test_bootstrap_of_two_runs_by_hand():
    """Means of two draws from {0, 1}: 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    matrix = np.array([[0.0], [1.0]])
    wide = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, confidence=0.9)
    narrow = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, confidence=0.4)
    assert wide == (0.0, 1.0) and narrow == (0.5, 0.5)


def test_bootstrap_never_mixes_tasks():
    """Each task is constant and far from the others: redrawing runs within tasks cannot change the mean."""
    matrix = np.tile([0.0, 10.0, 100.0], (5, 1))
    interval = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=100)
    assert interval == pytest.approx((110 / 3, 110 / 3))


def test_bootstrap_is_a_function_of_its_seed_and_narrows_with_confidence(monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    wide = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, seed=1)
    np.random.seed(5)  # numpy's global generator must have no part in it
    again = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, seed=1)
    narrow = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, seed=1, confidence=0.5)
    other = aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, seed=2)
    assert wide == again != other
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    monkeypatch.setattr(aggregates, "NUMBERS_AT_ONCE", 15 * 300)  # in seven chunks
    assert aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=2000, seed=1) == pytest.approx(wide)


def test_bootstrap_of_two_matrices_redraws_both():
    """x - y of independent means: its spread is that of both."""
    x, y = np.random.default_rng(0).normal(size=(2, 40, 1))

    def difference(x, y):
        return aggregates.mean(x) - aggregates.mean(y)

    low, high = aggregates.stratified_bootstrap(difference, x, y, repetitions=4000)
    expected = 2 * 1.96 * math.sqrt((x.var() + y.var()) / 40)
    assert high - low == pytest.approx(expected, rel=0.06)


def test_bootstrap_of_an_infinite_ratio_is_infinite_and_not_nan():
    costs = np.array([[0.0], [0.0], [0.0], [0.2]]), np.array([[2.0]] * 4)
    low, high = aggregates.stratified_bootstrap(aggregates.safety_ratio, *costs, repetitions=500)
    assert 10 < low < 40 and high == math.inf


def test_bootstrap_of_a_curve_gives_a_band():
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    thresholds = np.linspace(-2, 2, 9)

    def profile(redrawn):
        return aggregates.performance_profile(redrawn, thresholds)

    low, high = aggregates.stratified_bootstrap(profile, matrix, repetitions=300)
    assert low.shape == high.shape == (9,)
    assert (low <= profile(matrix)).all() and (profile(matrix) <= high).all() and (low < high).any()


@pytest.mark.parametrize("matrix", [np.ones(5), np.empty((0, 3)), np.ones((2, 2, 2))])
def test_bootstrap_refuses_other_shapes(matrix):
    with pytest.raises(ValueError, match=r"filled matrix \(n_runs, n_tasks\)"):
        aggregates.stratified_bootstrap(aggregates.mean, matrix, repetitions=10)


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="1 of 4 entries are not finite"):
        aggregates.iqm([[1.0, math.nan], [1.0, 2.0]])
