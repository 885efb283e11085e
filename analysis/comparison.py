"""SafeMIL against every other method: is it safer, at what return, by what ratio. Numbers with intervals, no text.

In: the tidy table of trials. Out: one row per other method, and the safety ratio against the safest baseline of each
task in three readings, as the paper's formula for its 3.7x is not stated in the sources we have.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import labels
from analysis.summary import run_matrix, with_interval
from safemil.evaluation import aggregates

# reading -> column it is computed from, what is added to it
RATIO_READINGS = {
    "cost over cost limit": ("normalized_cost", 0.0),
    "cost above the reference, plus 1": ("normalized_cost_reference", 1.0),
    "cost plus 1": ("cost_mean", 1.0),
}


def compare_methods(trials: pd.DataFrame, axes: Sequence[str], repetitions: int) -> pd.DataFrame:
    """One row per other method, over the tasks it shares with SafeMIL, in the order of ``labels``.

    ``<name>``, ``<name>_low``, ``<name>_high`` for the probabilities that a run of SafeMIL costs less (``safer``) and
    returns more (``better_return``), for the ratio of costs and for the difference of returns (SafeMIL's minus the
    other's, mean over tasks); ``lower_cost_tasks`` and ``lower_iqm_tasks`` of ``tasks``. Empty without SafeMIL, and
    where settings vary (``axes``): the mean over a sweep is no method.
    """
    rows = []
    others = sorted(set(trials["method"]) - {"safemil"}, key=labels.method_order)
    for method in () if axes else others:
        tasks = shared_tasks(trials, ["safemil", method])
        if not tasks:
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
        row |= interval("ratio", aggregates.safety_ratio, *costs)
        row |= interval("return_difference", _mean_difference, *returns)
        rows.append(row)
    return pd.DataFrame(rows)


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


def _costs_less(costs: np.ndarray, other: np.ndarray) -> np.ndarray:
    return aggregates.probability_of_improvement(-costs, -other)


def _mean_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return aggregates.mean(x) - aggregates.mean(y)


def _iqm_by_task(matrix: np.ndarray) -> np.ndarray:
    """(n_runs, n_tasks) -> (n_tasks,)."""
    return aggregates.iqm(matrix.T[:, :, None])
