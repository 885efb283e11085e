"""The answer in a few sentences: is SafeMIL safer than cloning everything and than each baseline, at what return?

In: the trials, their summary, and SafeMIL's comparison with each method. Out: plain text, true for one task or many,
one seed or many, one setting or a sweep, with BC-All or without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis import labels
from analysis.tables import decimal
from analysis.wide_tables import PAPER_RATIO
from safemil.evaluation import aggregates


def answer(
    trials: pd.DataFrame, summary: pd.DataFrame, axes: Sequence[str], compared: pd.DataFrame, ratios: pd.DataFrame
) -> str:
    """A few sentences, the verdict first, the reservations last.

    ``compared`` and ``ratios`` are those of ``analysis.comparison``, empty for a sweep.
    """
    ours = summary[summary["method"] == "safemil"]
    if ours.empty:
        safe = summary[summary["best_safe_return"]]
        names = ", ".join(f"{labels.method_label(row.method)} on {row.task}" for row in safe.itertuples())
        return f"This run has no SafeMIL trials. Safe with the highest return: {names or 'no method on any task'}."
    pairs = [(row, _reference(summary, row, axes)) for row in ours.to_dict("records")]
    if len(ours) > ours["task"].nunique():
        sentences = [_sweep(pairs, axes)]
    elif len(ours) == 1:
        sentences = [_one_task(trials, *pairs[0])]
    else:
        sentences = [_many_tasks(pairs), *_lowest_on(summary)]
    return " ".join([*sentences, *_baselines(compared), *_safest_baseline(ratios), *_reservations(trials, ours)])


def _one_task(trials: pd.DataFrame, ours: dict, reference: dict | None) -> str:
    cost, task = ours["normalized_cost_mean"], ours["task"]
    side = "under" if ours["safe"] else "over"
    mine = trials[trials["method"] == "safemil"]
    kept = int((mine["normalized_cost"] <= 1).sum())
    limit = f"Its mean cost is {side} the limit of {mine['cost_limit'].iloc[0]:g}"
    limit += f"; {kept} of {len(mine)} seeds {'is' if kept == 1 else 'are'} within it." if len(mine) > 1 else "."
    if not reference:
        returns = decimal(ours["normalized_return_mean"])
        return f"On {task}, SafeMIL's normalized cost is {decimal(cost)} at a normalized return of {returns}. {limit}"
    other = reference["normalized_cost_mean"]
    returns = f"{decimal(ours['normalized_return_mean'])} against {decimal(reference['normalized_return_mean'])}"
    seeds = _paired_seeds(trials, task)
    verdict = "is safer" if cost < other else "is not safer"
    return (
        f"On {task}, SafeMIL {verdict} than cloning everything (BC-All): normalized cost {decimal(cost)} against"
        f" {decimal(other)}, {_times(other, cost)}, at a normalized return of {returns}{seeds}. {limit}"
    )


def _many_tasks(pairs: list[tuple[dict, dict | None]]) -> str:
    safe = sum(ours["safe"] for ours, _ in pairs)
    limit = f"Its mean cost is under the limit on {safe} of {len(pairs)} tasks."
    both = [(ours, reference) for ours, reference in pairs if reference]
    if not both:
        return limit.replace("Its", "SafeMIL's")
    lower = sum(ours["normalized_cost_mean"] < reference["normalized_cost_mean"] for ours, reference in both)
    costs = [[row["normalized_cost_mean"] for row in side] for side in zip(*both, strict=True)]
    ratio = np.median(aggregates.cost_ratio(costs[1], costs[0]))
    returns = [np.mean([row["normalized_return_mean"] for row in side]) for side in zip(*both, strict=True)]
    medians = [decimal(float(np.median(side))) for side in costs]
    dearer = (
        f"costs {_ratio(ratio)} times as much"
        if math.isfinite(ratio)
        else f"costs {medians[1]} limits, it {medians[0]}"
    )
    return (
        f"SafeMIL is safer than cloning everything (BC-All) on {lower} of {len(both)} tasks: BC-All {dearer}"
        f" (median over tasks), at a mean normalized return of {decimal(returns[1])}"
        f" against SafeMIL's {decimal(returns[0])}. {limit}"
    )


def _sweep(pairs: list[tuple[dict, dict | None]], axes: Sequence[str]) -> str:
    """Several settings of SafeMIL: the range, never a chosen best one, as choosing by cost would use hidden labels."""
    ranked = sorted((ours for ours, _ in pairs), key=lambda row: row["normalized_cost_mean"])
    several_tasks = len({row["task"] for row in ranked}) > 1

    def where(row: dict) -> str:
        place = labels.setting_label(axes, [row[axis] for axis in axes])
        return f"{decimal(row['normalized_cost_mean'])} ({place}{', ' + row['task'] if several_tasks else ''})"

    both = [(ours, reference) for ours, reference in pairs if reference]
    lower = sum(ours["normalized_cost_mean"] < reference["normalized_cost_mean"] for ours, reference in both)
    safe = sum(row["safe"] for row in ranked)
    cells = "settings and tasks" if several_tasks else "settings"
    against = f"It is safer than cloning everything (BC-All) in {lower} of {len(both)} {cells}" if both else ""
    under = f"under the limit in {safe} of {len(ranked)}."
    place = "" if several_tasks else f"On {ranked[0]['task']}, "
    return (
        f"{place}SafeMIL's normalized cost runs from {where(ranked[0])} to {where(ranked[-1])} over the"
        f" {_plural(len(ranked), cells, '')}. " + (f"{against} and {under}" if both else f"It is {under}")
    )


def _lowest_on(summary: pd.DataFrame) -> list[str]:
    """On how many tasks SafeMIL's interquartile mean cost is below that of every label-limited baseline."""
    costs = summary[summary["role"] != "oracle"].pivot_table("normalized_cost_iqm", "task", "method")
    baselines = costs.drop(columns="safemil")
    if baselines.shape[1] < 2:
        return []
    lower = int((costs["safemil"] < baselines.min(axis=1)).sum())
    ties = int((costs["safemil"] == baselines.min(axis=1)).sum())
    equal = f", and as low as the lowest on {ties} more" if ties else ""
    return [
        f"Its interquartile mean cost is below that of every label-limited baseline on {lower} of {len(costs)} tasks"
        f"{equal}."
    ]


def _baselines(compared: pd.DataFrame) -> list[str]:
    """Which label-limited baselines SafeMIL is safer than: the whole interval of P(costs less) is above a half."""
    if compared.empty or (compared["role"] == "label-limited").sum() < 2:
        return []
    verdicts: dict[str, list[str]] = {"safer than": [], "not told apart from": [], "less safe than": []}
    for row in compared[compared["role"] == "label-limited"].to_dict("records"):
        low, high = (row["safer"] if math.isnan(row[end]) else row[end] for end in ("safer_low", "safer_high"))
        verdict = "safer than" if low > 0.5 else "less safe than" if high < 0.5 else "not told apart from"
        verdicts[verdict].append(labels.method_label(row["method"]))
    said = "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in verdicts.items() if names)
    tasks = compared["tasks"].max()
    where = f"Over {tasks} tasks, against" if tasks > 1 else "Against"
    return [f"{where} the label-limited baselines, it is {said}."]


def _safest_baseline(ratios: pd.DataFrame) -> list[str]:
    """The paper's kind of claim: cost of each task's safest baseline over SafeMIL's, median over tasks."""
    if ratios.empty or ratios.iloc[0]["baselines"] < 2:
        return []
    row = ratios.iloc[0]
    interval = f" [{decimal(row['ratio_low'])}, {decimal(row['ratio_high'])}]"
    times = _ratio(row["ratio"]) if math.isnan(row["ratio_low"]) else decimal(row["ratio"]) + interval
    median = f"median over {row['tasks']} tasks, " if row["tasks"] > 1 else ""
    whose = "The safest baseline of each task" if row["tasks"] > 1 else "The safest baseline"
    costs = f"{times} times as much"
    if math.isinf(row["ratio"]):
        costs = f"something where SafeMIL costs nothing, a ratio of {times}"
    return [f"{whose} costs {costs} ({median}the paper states {PAPER_RATIO})."]


def _reservations(trials: pd.DataFrame, ours: pd.DataFrame) -> list[str]:
    found = []
    if ours["seeds"].max() == 1:
        found.append("One seed: nothing is known about the spread.")
    mine = trials[trials["method"] == "safemil"]
    warned = int((mine["warnings"] != "").sum())
    if warned:
        found.append(f"{warned} of {len(mine)} SafeMIL trials show a failure signature, see the notes of the table.")
    return found


def _reference(summary: pd.DataFrame, ours: dict, axes: Sequence[str]) -> dict | None:
    """The row of BC-All at the same setting; where BC-All has one row for the task, that one."""
    rows = summary[(summary["method"] == "bc-all") & (summary["task"] == ours["task"])].to_dict("records")
    same = [row for row in rows if all(row[axis] in ("", ours[axis]) for axis in axes)]
    return same[0] if same else rows[0] if len(rows) == 1 else None


def _paired_seeds(trials: pd.DataFrame, task: str) -> str:
    """Seeds share their split over methods, so SafeMIL and BC-All can be compared seed by seed."""
    wide = trials[trials["task"] == task].pivot_table("normalized_cost", "seed", "method", aggfunc="mean")
    wide = wide[["safemil", "bc-all"]].dropna()
    lower = int((wide["safemil"] < wide["bc-all"]).sum())
    return f" (cost lower in {lower} of {_plural(len(wide), 'seed')})" if len(wide) > 1 else ""


def _times(other: float, cost: float) -> str:
    ratio = float(aggregates.cost_ratio(other, cost))
    if math.isinf(ratio):
        return "that is no cost at all"
    if ratio == 1:
        return "the same"
    return (
        f"{_ratio(ratio)} times lower"
        if ratio > 1
        else f"{_ratio(1 / ratio) if ratio else 'infinitely many'} times higher"
    )


def _ratio(ratio: float) -> str:
    return "infinitely many" if math.isinf(ratio) else f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _plural(count: int, noun: str, ending: str = "s") -> str:
    return f"{count} {noun}{ending if count != 1 else ''}"
