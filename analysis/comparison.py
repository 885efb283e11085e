"""SafeMIL against every other method: is it safer, at what return, by what ratio. Numbers with intervals, no text.

In: the tidy table of trials. Out: one row per other method, and the safety ratio against the safest baseline of each
task in three readings, as the paper's formula for its 3.7x is not stated in the sources we have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import labels
from analysis.summary import run_matrix, t_interval, with_interval
from safemil.evaluation import aggregates

# reading -> column it is computed from, what is added to it. The first cannot be infinite, and is the one that is told.
RATIO_READINGS = {
    "cost plus 1": ("cost_mean", 1.0),
    "cost over cost limit": ("normalized_cost", 0.0),
    "cost above the reference, plus 1": ("normalized_cost_reference", 1.0),
}
FLIPS = 20_000  # of signs, where there are too many pairs to try every combination


def compare_methods(trials: pd.DataFrame, axes: Sequence[str], repetitions: int) -> pd.DataFrame:
    """One row per other method of a known role, over the tasks it shares with SafeMIL, in the order of ``labels``.

    ``<name>``, ``<name>_low``, ``<name>_high`` for the probabilities that a run of SafeMIL costs less (``safer``) and
    returns more (``better_return``), and for SafeMIL's cost and return minus the other's (``cost_difference``,
    ``return_difference``, with ``<name>_p``; see ``paired_columns``); ``lower_cost_tasks`` and ``lower_iqm_tasks`` of
    ``tasks``. Empty without SafeMIL, and where settings vary (``axes``): the mean over a sweep is no method.
    """
    rows = []
    others = sorted(set(trials["method"]) - {"safemil"}, key=labels.method_order)
    for method in () if axes else others:
        tasks = shared_tasks(trials, ["safemil", method])
        if not tasks or labels.method_role(method) == "unknown":
            continue
        costs, returns = (
            [run_matrix(trials[trials["method"] == name], metric, tasks) for name in ("safemil", method)]
            for metric in ("normalized_cost", "normalized_return")
        )
        interval = functools.partial(with_interval, repetitions=repetitions)
        means, middles = [matrix.mean(axis=0) for matrix in costs], [_iqm_by_task(matrix) for matrix in costs]
        row = {"method": method, "role": labels.method_role(method), "tasks": len(tasks)}
        row |= {"lower_cost_tasks": int((means[0] < means[1]).sum())}
        row |= {"lower_iqm_tasks": int((middles[0] < middles[1]).sum())}
        row |= interval("safer", _costs_less, *costs)
        row |= interval("better_return", aggregates.probability_of_improvement, *returns)
        for name in ("cost", "return"):
            row |= paired_columns(f"{name}_difference", paired_differences(trials, f"normalized_{name}", method, tasks))
        rows.append(row)
    return pd.DataFrame(rows)


def paired_differences(trials: pd.DataFrame, metric: str, method: str, tasks: Sequence[str]) -> list[np.ndarray]:
    """SafeMIL's value minus the method's for each seed that both have, (n_seeds,) for each task.

    Seeds share their split over methods, so that a difference has less noise in it than the two values.
    """
    wide = trials.pivot_table(metric, ["task", "seed"], "method", aggfunc="mean")
    differences = (wide["safemil"] - wide[method]).dropna()
    return [differences[differences.index.get_level_values("task") == task].to_numpy() for task in tasks]


def paired_columns(name: str, differences: Sequence[np.ndarray]) -> dict[str, float]:
    """Columns <name> (mean over tasks), <name>_low, <name>_high (95 %) and <name>_p of paired differences.

    The interval is Student's: with one task over its seeds, with several over the tasks' means, so that it speaks of
    tasks like these. p (two-sided, flips the signs of pairs) speaks of these tasks alone. nan where no seed is shared.
    """
    if not all(map(len, differences)):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_p"), math.nan)
    means = np.array([values.mean() for values in differences])
    low, high = t_interval(means if len(means) > 1 else differences[0])
    return {name: means.mean(), f"{name}_low": low, f"{name}_high": high, f"{name}_p": _flip_p(differences)}


def safety_ratios(trials: pd.DataFrame, axes: Sequence[str], repetitions: int) -> pd.DataFrame:
    """Columns reading, tasks, baselines, ratio, low, high: SafeMIL against the safest label-limited baseline of a task.

    Over the tasks that SafeMIL and every such baseline of the run have; empty where there are none, or settings vary.
    """
    baselines = sorted(
        (name for name in set(trials["method"]) if labels.method_role(name) == "label-limited"), key=labels.method_order
    )
    tasks = shared_tasks(trials, ["safemil", *baselines]) if baselines and not axes else []
    rows = []
    for reading, (column, offset) in RATIO_READINGS.items():
        if not tasks or trials[column].isna().any():
            continue
        matrices = [
            run_matrix(trials[trials["method"] == name], column, tasks) + offset for name in ("safemil", *baselines)
        ]
        row = {"reading": reading, "tasks": len(tasks), "baselines": len(baselines)}
        rows.append(row | with_interval("ratio", aggregates.safety_ratio, *matrices, repetitions=repetitions))
    return pd.DataFrame(rows)


def shared_tasks(trials: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    """Tasks in which each of the methods has a trial, sorted."""
    found = [set(trials.loc[trials["method"] == method, "task"]) for method in methods]
    return sorted(set.intersection(*found))


def _flip_p(differences: Sequence[np.ndarray]) -> float:
    """Share of sign patterns of the pairs whose mean over tasks is at least as far from zero as the one observed."""
    parts = np.concatenate([values / len(values) for values in differences])
    count = len(parts)
    if 2**count <= FLIPS:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(signs @ parts) >= abs(parts.sum()) - 1e-12).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, count))
    # The observed pattern is one of them, so that p is never zero.
    return float((1 + (np.abs(signs @ parts) >= abs(parts.sum()) - 1e-12).sum()) / (FLIPS + 1))


def _costs_less(costs: np.ndarray, other: np.ndarray) -> np.ndarray:
    return aggregates.probability_of_improvement(-costs, -other)


def _iqm_by_task(matrix: np.ndarray) -> np.ndarray:
    """(n_runs, n_tasks) -> (n_tasks,)."""
    return aggregates.iqm(matrix.T[:, :, None])
