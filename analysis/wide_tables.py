"""Tables across tasks: methods x tasks as the paper prints them, and SafeMIL against every other method.

In: summaries (numbers). Out: ``Table``; ``analysis.table_text`` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis import labels
from analysis.load import Run
from analysis.summary import REPETITIONS
from analysis.table_text import Cell, Row, Table
from analysis.tables import decimal, interval_cell, marked_variant, mean_text, row_anchor

BLOCKS = {
    "normalized_return": "Normalized return ↑",
    "normalized_cost": "Normalized cost ↓",
    "cvar_cost_20": "CVaR 20 % of the cost ↓",
}
PAPER_RATIO = 3.7  # the paper's "median 3.7x"; its formula is not stated in the sources we have


def methods_by_task(run: Run, by_task: pd.DataFrame) -> Table:
    """Methods x tasks, a block for each of return, cost and CVaR; ✓ at a safe cost, the best safe method in bold."""
    tasks = sorted(by_task["task"].unique())
    keys = ["method", *run.axes]
    rows = []
    for metric, title in BLOCKS.items():
        # In the order of the summary, which within each task is the order of the methods.
        for place, (_, part) in enumerate(by_task.groupby(keys, sort=False, dropna=False)):
            found = {row["task"]: row for row in part.to_dict("records")}
            first = next(iter(found.values()))
            cells = [Cell(marked_variant(first, run.axes), f"{place:05d}")]
            cells += [
                _cell(found[task], metric, run.axes) if task in found else Cell("–", float("nan")) for task in tasks
            ]
            rows.append(Row(title, first["role"], tuple(cells)))
    low, high = by_task["episodes_min"].min(), by_task["episodes_max"].max()
    seeds = by_task["seeds"].min(), by_task["seeds"].max()
    notes = [
        f"Mean ± standard deviation over {_span(*seeds)} seeds, {_span(low, high)} episodes each. Cost 1 is the limit;"
        " ✓: mean cost at most 1. Bold: highest return among the safe methods of a task, oracles aside.",
    ]
    if (by_task["role"] == "oracle").any():
        notes.append("†: oracle, trained with labels, costs or rewards that the other methods do not see.")
    header = ("Method", *tasks)
    return Table("methods_by_task", "Methods by tasks", "Metric", header, tuple(rows), tuple(notes))


def comparison_table(compared: pd.DataFrame) -> Table:
    """SafeMIL against each other method, from ``analysis.comparison.compare_methods``."""
    rows = []
    for place, row in enumerate(compared.to_dict("records")):
        name = labels.method_label(row["method"]) + (" †" if row["role"] == "oracle" else "")
        cells = [Cell(name, f"{place:05d}")]
        cells += [interval_cell(row, column) for column in ("ratio", "safer", "return_difference", "better_return")]
        lower = row["lower_iqm_tasks"]
        cells.append(Cell(f"{lower} of {row['tasks']}", lower / row["tasks"]))
        rows.append(Row("", row["role"], tuple(cells)))
    notes = (
        "Cost ratio: median over tasks of the method's mean cost over SafeMIL's; above 1 SafeMIL is safer. Return"
        " difference: SafeMIL's normalized return minus the method's, mean over tasks.",
        "P: probability that a run of SafeMIL costs less (returns more) than a run of the method: Mann-Whitney, ties"
        " half, averaged over tasks. Lower IQM: tasks on which SafeMIL's interquartile mean cost is lower.",
        f"In brackets: 95 % stratified bootstrap intervals ({REPETITIONS} repetitions).",
    )
    header = ("Against", "Cost ratio ↑", "P(costs less) ↑", "Return difference ↑", "P(returns more) ↑", "Lower IQM")
    return Table("comparison", "SafeMIL against each method", "", header, tuple(rows), notes)


def ratio_table(ratios: pd.DataFrame) -> Table:
    """The median safety ratio in its readings, from ``analysis.comparison.safety_ratios``, and the paper's number."""
    rows = [
        Row(
            "",
            "label-limited",
            (Cell(row["reading"], f"{place:05d}"), interval_cell(row, "ratio"), Cell(str(row["tasks"]), "")),
        )
        for place, row in enumerate(ratios.to_dict("records"))
    ]
    rows.append(
        Row(
            "",
            "label-limited",
            (Cell("stated by the paper", "z"), Cell(decimal(PAPER_RATIO), PAPER_RATIO), Cell("6", "")),
        )
    )
    count = ratios["baselines"].max()
    safest = f"the safest of {count} label-limited baselines" if count > 1 else "the one label-limited baseline"
    notes = (
        f"Median over tasks of the cost of {safest} (task by task, by its mean cost) over SafeMIL's; a cost below zero"
        " counts as zero. The paper's formula is not stated in the sources we have, so three readings are given.",
        f"In brackets: 95 % stratified bootstrap interval ({REPETITIONS} repetitions, the safest chosen anew in each).",
    )
    return Table("safety_ratio", "Median safety ratio", "", ("Reading", "Ratio ↑", "Tasks"), tuple(rows), notes)


def _cell(row: dict, metric: str, axes: Sequence[str]) -> Cell:
    safe = " ✓" if metric == "normalized_cost" and row["safe"] else ""
    best = bool(row["best_safe_return"])
    return Cell(mean_text(row, metric) + safe, row[f"{metric}_mean"], best, row_anchor(row, axes))


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
