"""From the tidy table of trials to numbers per task and method, and over all tasks. No text, no files.

Means and sample standard deviations (ddof=1) are over seeds: each trial is one run whose episodes were pooled before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis import labels
from analysis.trial_rows import METRICS
from safemil.evaluation import aggregates

SUMMARIZED = (*METRICS, "train_seconds", "eval_seconds")
REPETITIONS = 50_000  # of every bootstrap in a report


def summarize(trials: pd.DataFrame, axes: Sequence[str], repetitions: int = REPETITIONS) -> pd.DataFrame:
    """One row per task, method and setting: seeds, episodes, <metric>_mean, <metric>_std (nan for one seed), warnings.

    Return and cost also as interquartile mean over seeds with its interval: <metric>_iqm, <metric>_low, <metric>_high.

    ``safe``: mean normalized cost at most 1, ``safe_seeds``: how many seeds' are. ``best_safe_return``: the largest
    return among a task's safe rows of SafeMIL and the label-limited methods. ``warnings``: "signature (2 of 5 seeds)",
    joined by ";".
    """
    rows = []
    for (task, method, *setting), group in trials.groupby(["task", "method", *axes], sort=False, dropna=False):
        row = {"task": task, "method": method, **dict(zip(axes, setting, strict=True))}
        row |= {"role": labels.method_role(method), "seeds": group["seed"].nunique(), "trials": len(group)}
        row |= {"episodes_min": group["episodes"].min(), "episodes_max": group["episodes"].max()}
        for metric in SUMMARIZED:
            row |= {f"{metric}_mean": group[metric].mean(), f"{metric}_std": group[metric].std(ddof=1)}
        for metric in ("normalized_return", "normalized_cost"):
            row |= _iqm_columns(metric, run_matrix(group, metric, [task]), repetitions)
        row |= {
            "safe": bool(row["normalized_cost_mean"] <= 1),
            "safe_seeds": int((group["normalized_cost"] <= 1).sum()),
        }
        row |= {"warnings": _count_warnings(group["warnings"])}
        rows.append(row)
    rows.sort(key=lambda row: (row["task"], *_place(row, axes)))
    summary = pd.DataFrame(rows)
    candidates = summary["normalized_return_mean"].where(
        summary["safe"] & summary["role"].isin(["ours", "label-limited"])
    )
    best = candidates.groupby(summary["task"]).transform("max")
    return summary.assign(best_safe_return=candidates == best)


def summarize_over_tasks(trials: pd.DataFrame, axes: Sequence[str], repetitions: int = REPETITIONS) -> pd.DataFrame:
    """One row per method and setting: IQM of return and cost with 95 % intervals, tasks under the limit.

    The IQM needs every task (nan otherwise). The table is empty where the run has one task: nothing to aggregate.
    """
    tasks = sorted(trials["task"].unique())
    if len(tasks) < 2:
        return pd.DataFrame()
    rows = []
    for (method, *setting), group in trials.groupby(["method", *axes], sort=False, dropna=False):
        row = {"method": method, **dict(zip(axes, setting, strict=True)), "role": labels.method_role(method)}
        row |= {"tasks": group["task"].nunique(), "seeds": int(group.groupby("task")["seed"].nunique().min())}
        for metric in ("normalized_return", "normalized_cost"):
            matrix = run_matrix(group, metric, tasks)
            row |= _iqm_columns(metric, matrix, repetitions)
        row["safe_tasks"] = int((group.groupby("task")["normalized_cost"].mean() <= 1).sum())
        rows.append(row)
    return pd.DataFrame(sorted(rows, key=lambda row: _place(row, axes)))


def run_matrix(group: pd.DataFrame, metric: str, tasks: Sequence[str]) -> np.ndarray:
    """Values (n_runs, n_tasks) of the trials of one method and setting, (0, n_tasks) where a task has none.

    Tasks are redrawn on their own, so runs of one row need not share a seed: each task gives its first n_runs seeds,
    as many as the task with the fewest has.
    """
    by_task = [group[group["task"] == task].groupby("seed")[metric].mean().dropna().to_numpy() for task in tasks]
    n_runs = min(map(len, by_task))
    return np.stack([values[:n_runs] for values in by_task], axis=1)


def with_interval(
    name: str, statistic: Callable[..., np.ndarray], *matrices: np.ndarray, repetitions: int
) -> dict[str, float]:
    """Columns <name>, <name>_low, <name>_high of a statistic of matrices (n_runs, n_tasks).

    nan where a matrix is empty; no interval where one has a single run: it would have no width.
    """
    fewest = min(map(len, matrices))
    row = {name: float(statistic(*matrices)) if fewest else math.nan}
    low, high = math.nan, math.nan
    if fewest > 1:
        low, high = map(float, aggregates.stratified_bootstrap(statistic, *matrices, repetitions=repetitions))
    return {**row, f"{name}_low": low, f"{name}_high": high}


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean, Student's t; (nan, nan) for fewer than two values.

    The percentile bootstrap of a mean of five covers 84 % where values are normal, 70 % where they are lognormal.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _iqm_columns(metric: str, matrix: np.ndarray, repetitions: int) -> dict[str, float]:
    found = with_interval("iqm", aggregates.iqm, matrix, repetitions=repetitions)
    return {f"{metric}_{name.removeprefix('iqm_')}": value for name, value in found.items()}


def _place(row: dict, axes: Sequence[str]) -> tuple:
    return labels.group_order(row["method"], [row[axis] for axis in axes])


def _count_warnings(cells: pd.Series) -> str:
    """Failure signatures of the trials of one row, each with the number of seeds that show it."""
    counts = Counter(name.strip() for cell in cells for name in set(cell.split(";")) if name.strip())
    return ";".join(f"{name} ({count} of {len(cells)} seeds)" for name, count in sorted(counts.items()))
