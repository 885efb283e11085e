"""From the tidy table of trials to numbers per task and method, and over all tasks. No text, no files.

Means and sample standard deviations (ddof=1) are over seeds: each trial is one run whose episodes were pooled before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import labels
from analysis.trial_rows import METRICS
from safemil import metrics

SUMMARIZED = (*METRICS, "train_seconds", "eval_seconds")
# 50 000 is the rule for published intervals; this many settles the second digit and keeps a report quick.
BOOTSTRAP_REPETITIONS = 2000


def summarize(trials: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row per task, method and setting: seeds, episodes, <metric>_mean, <metric>_std (nan for one seed), warnings.

    ``safe``: mean normalized cost at most 1. ``best_safe_return``: the largest return among a task's safe rows that are
    not oracles. ``warnings``: "signature (2 of 5 seeds)", joined by ";".
    """
    rows = []
    for (task, method, *setting), group in trials.groupby(["task", "method", *axes], sort=False, dropna=False):
        row = {"task": task, "method": method, **dict(zip(axes, setting, strict=True))}
        row |= {"role": labels.method_role(method), "seeds": group["seed"].nunique(), "trials": len(group)}
        row |= {"episodes_min": group["episodes"].min(), "episodes_max": group["episodes"].max()}
        for metric in SUMMARIZED:
            row |= {f"{metric}_mean": group[metric].mean(), f"{metric}_std": group[metric].std(ddof=1)}
        row |= {"safe": bool(row["normalized_cost_mean"] <= 1), "warnings": _count_warnings(group["warnings"])}
        rows.append(row)
    rows.sort(key=lambda row: (row["task"], *_place(row, axes)))
    summary = pd.DataFrame(rows)
    candidates = summary["normalized_return_mean"].where(summary["safe"] & (summary["role"] != "oracle"))
    best = candidates.groupby(summary["task"]).transform("max")
    return summary.assign(best_safe_return=candidates == best)


def summarize_over_tasks(trials: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row per method and setting: IQM of return and cost with 95 % intervals, tasks under the limit.

    ``improvement`` is the probability that a run costs less than a run of bc-all, averaged over tasks. All of these
    need every task (nan otherwise). The table is empty where the run has one task: there is nothing to aggregate.
    """
    tasks = sorted(trials["task"].unique())
    if len(tasks) < 2:
        return pd.DataFrame()
    rng = np.random.default_rng(0)
    reference = _matrix(trials[trials["method"] == "bc-all"], "normalized_cost", tasks)
    rows = []
    for (method, *setting), group in trials.groupby(["method", *axes], sort=False, dropna=False):
        costs = _matrix(group, "normalized_cost", tasks)
        row = {"method": method, **dict(zip(axes, setting, strict=True)), "role": labels.method_role(method)}
        row |= {"tasks": group["task"].nunique(), "seeds": len(costs)}
        row |= _interval("normalized_return", _matrix(group, "normalized_return", tasks), rng)
        row |= _interval("normalized_cost", costs, rng)
        row["safe_tasks"] = int((group.groupby("task")["normalized_cost"].mean() <= 1).sum())
        comparable = len(costs) > 0 and len(reference) > 0
        row["improvement"] = metrics.probability_of_improvement(-costs, -reference) if comparable else math.nan
        rows.append(row)
    return pd.DataFrame(sorted(rows, key=lambda row: _place(row, axes)))


def _interval(name: str, matrix: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Columns <name>_iqm, _low, _high of a matrix (seeds, tasks); no interval for one seed: it would have no width."""
    low, high = math.nan, math.nan
    if len(matrix) > 1:
        low, high = metrics.stratified_bootstrap(matrix, metrics.iqm, BOOTSTRAP_REPETITIONS, rng)
    return {f"{name}_iqm": metrics.iqm(matrix) if len(matrix) else math.nan, f"{name}_low": low, f"{name}_high": high}


def _matrix(group: pd.DataFrame, metric: str, tasks: Sequence[str]) -> np.ndarray:
    """Values (n_seeds, n_tasks) of the seeds that every task has."""
    wide = group.pivot_table(index="seed", columns="task", values=metric, aggfunc="mean")
    return wide.reindex(columns=tasks).dropna().to_numpy()


def _place(row: dict, axes: Sequence[str]) -> tuple:
    return labels.group_order(row["method"], [row[axis] for axis in axes])


def _count_warnings(cells: pd.Series) -> str:
    """Failure signatures of the trials of one row, each with the number of seeds that show it."""
    counts = Counter(name.strip() for cell in cells for name in set(cell.split(";")) if name.strip())
    return ";".join(f"{name} ({count} of {len(cells)} seeds)" for name, count in sorted(counts.items()))
