"""Statistics over runs and tasks: one number per trained policy comes in, aggregates with intervals go out.

The definitions are those of Agarwal et al. 2021 (rliable); the resampler is our own, because theirs draws from numpy's
global generator whatever seed it is given. Every estimator takes

    matrix   (..., n_runs, n_tasks)   one number per run (seed) and task; leading axes are repetitions

and answers one number per repetition, ``(...)``, so that a bootstrap evaluates many redrawn matrices at once. With five
runs intervals are coarse: show the runs themselves beside them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NUMBERS_AT_ONCE = 2_000_000  # of redrawn matrices: bounds the memory of a bootstrap


def mean(matrix: np.ndarray) -> np.ndarray:
    """Mean over runs and tasks. ``(..., n_runs, n_tasks) -> (...)``."""
    return _matrix(matrix).mean(axis=(-2, -1))


def iqm(matrix: np.ndarray) -> np.ndarray:
    """Interquartile mean: floor(N / 4) of all N runs cut at each end. ``(..., n_runs, n_tasks) -> (...)``."""
    matrix = _matrix(matrix)
    values = np.sort(matrix.reshape(*matrix.shape[:-2], -1), axis=-1)
    cut = values.shape[-1] // 4
    return values[..., cut : values.shape[-1] - cut].mean(axis=-1)


def performance_profile(matrix: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs above each threshold (of costs: 1 - that). ``(..., n_runs, n_tasks) -> (..., n_thresholds)``."""
    above = _matrix(matrix)[..., None] > np.asarray(thresholds, float)
    return above.mean(axis=(-3, -2))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(a run of ``x`` is larger than a run of ``y``), ties half, averaged over tasks; 0.5 for identical arrays.

    ``x`` (..., n_runs_x, n_tasks), ``y`` (..., n_runs_y, n_tasks): Mann-Whitney's U over the number of pairs. Larger is
    better: negate costs.
    """
    x, y = _matrix(x), _matrix(y)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"got shapes {x.shape} and {y.shape}, expected (..., n_runs, n_tasks) with the same tasks")
    mine, other = x[..., :, None, :], y[..., None, :, :]
    axes = (-3, -2, -1)
    return (mine > other).mean(axis=axes) + 0.5 * (mine == other).mean(axis=axes)


def safety_ratio(method: np.ndarray, *baselines: np.ndarray) -> np.ndarray:
    """Median over tasks of (cost of the task's safest baseline) / (cost of the method); 3 means three times the cost.

    Costs (..., n_runs, n_tasks), a matrix per baseline; a task's cost is the mean over its runs. See ``cost_ratio`` for
    costs of zero. Our reading of the paper's "3.7x", whose formula is not stated in the sources we have.
    """
    if not baselines:
        raise ValueError("safety_ratio needs at least one baseline")
    method_means, *baseline_means = (_matrix(costs).mean(axis=-2) for costs in (method, *baselines))
    return np.median(cost_ratio(np.minimum.reduce(baseline_means), method_means), axis=-1)


def cost_ratio(cost: np.ndarray, method_cost: np.ndarray) -> np.ndarray:
    """cost / method_cost elementwise, with 0 / 0 = 1 (equally safe) and c / 0 = inf; a negative cost counts as 0.

    Costs relative to a reference may be negative: such a policy is safer than the reference by more than the offset.
    """
    cost, method_cost = np.maximum(np.asarray(cost, float), 0), np.maximum(np.asarray(method_cost, float), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = cost / method_cost
    return np.where((cost == 0) & (method_cost == 0), 1.0, ratio)


def stratified_bootstrap(
    statistic: Callable[..., np.ndarray],
    *matrices: np.ndarray,
    repetitions: int,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval (low, high) of a statistic when the runs of each task are redrawn with replacement.

    Args:
        statistic: of as many arrays ``(repetitions, n_runs, n_tasks)`` as there are ``matrices``; gives
            ``(repetitions, ...)``.
        matrices: ``(n_runs, n_tasks)`` each; every task of every matrix is redrawn on its own.
        repetitions: 50 000 for final numbers.
        seed: of the resampling: the same seed gives the same interval.

    Raises:
        ValueError: a matrix of another shape, or fewer than one repetition.
    """
    matrices = tuple(np.asarray(matrix, float) for matrix in matrices)
    for matrix in matrices:
        if matrix.ndim != 2 or matrix.size == 0:
            raise ValueError(f"got shape {matrix.shape}, expected a filled matrix (n_runs, n_tasks)")
    if repetitions < 1 or not 0 < confidence < 1:
        raise ValueError(f"got {repetitions} repetitions at confidence {confidence}, expected at least 1, in (0, 1)")
    rng = np.random.default_rng(seed)
    at_once = max(1, NUMBERS_AT_ONCE // max(matrix.size for matrix in matrices))
    draws = []
    for first in range(0, repetitions, at_once):
        count = min(at_once, repetitions - first)
        draws.append(statistic(*(_redrawn(matrix, count, rng) for matrix in matrices)))
    tail = (1.0 - confidence) / 2.0
    # An observed value, not one interpolated: a ratio may be infinite, and inf - inf is not a number.
    low, high = np.quantile(np.concatenate(draws), [tail, 1.0 - tail], axis=0, method="nearest")
    return low, high


def _redrawn(matrix: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` matrices (count, n_runs, n_tasks) whose columns hold runs of the same column, with replacement."""
    drawn_runs = rng.integers(len(matrix), size=(count, *matrix.shape))
    return np.take_along_axis(matrix[None], drawn_runs, axis=1)


def _matrix(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim < 2 or values.shape[-1] == 0 or values.shape[-2] == 0:
        raise ValueError(f"got shape {values.shape}, expected a filled matrix (..., n_runs, n_tasks)")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} entries are not finite, expected none")
    return values
