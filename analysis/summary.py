"""From the tidy table of trials to numbers: per task and method, over all tasks, SafeMIL against others. No text.

Means and sample standard deviations (ddof=1) are over seeds: each trial is one run whose episodes were pooled before.
"""

from __future__ import annotations

import functools
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
# reading -> column it is computed from, what is added to it. The first cannot be infinite, and is the one that is told.
RATIO_READINGS = {
    "normalized cost plus 1": ("normalized_cost", 1.0),
    "cost over cost limit": ("normalized_cost", 0.0),
    "cost above the reference, plus 1": ("normalized_cost_reference", 1.0),
}
FLIPS = 20_000  # of signs, where there are too many pairs to try every combination


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


def _iqm_columns(metric: str, matrix: np.ndarray, repetitions: int) -> dict[str, float]:
    found = with_interval("iqm", aggregates.iqm, matrix, repetitions=repetitions)
    return {f"{metric}_{name.removeprefix('iqm_')}": value for name, value in found.items()}


def _place(row: dict, axes: Sequence[str]) -> tuple:
    return labels.group_order(row["method"], [row[axis] for axis in axes])


def _count_warnings(cells: pd.Series) -> str:
    """Failure signatures of the trials of one row, each with the number of seeds that show it."""
    counts = Counter(name.strip() for cell in cells for name in set(cell.split(";")) if name.strip())
    return ";".join(f"{name} ({count} of {len(cells)} seeds)" for name, count in sorted(counts.items()))


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
