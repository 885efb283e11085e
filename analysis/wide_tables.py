"""Further tables: methods x tasks as the paper prints them, SafeMIL against every other method, and diagnostics.

In: summaries (numbers), or the trials. Out: ``Table``, None where there is nothing to show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis import labels
from analysis.load import Run
from analysis.summary import REPETITIONS
from analysis.table_text import Cell, Row, Table
from analysis.tables import decimal, interval_cell, marked_variant, mean_text, oracle_note, row_anchor

BLOCKS = {
    "normalized_return": "Normalized return ↑",
    "normalized_cost": "Normalized cost ↓",
    "cvar_cost_20": "CVaR 20 % of the cost ↓",
}
PAPER_RATIO = 3.7  # the paper's "median 3.7x"; its formula is not stated in the sources we have
# column of trials.csv -> heading
DIAGNOSTICS = {
    "auroc": "AUROC ↑",
    "auroc_unlabeled": "AUROC N:U ↑",
    "auroc_unlabeled_train": "in training",
    "oracle_cost_spearman": "Spearman, true cost ↑",
    "oracle_step_auroc": "Step AUROC ↑",
    "saturated_share": "Saturated steps ↓",
    "length_correlation": "Length corr.",
    "weight_ess_share": "ESS of D_U",
}


def methods_by_task(run: Run, by_task: pd.DataFrame) -> Table:
    """Methods x tasks, a block for each of return, cost and CVaR; a safe cost in bold, ★ at the best safe return."""
    tasks = sorted(by_task["task"].unique())
    keys = ["method", *run.axes]
    rows = []
    for metric, title in BLOCKS.items():
        # In the order of the summary, which within each task is the order of the methods.
        for _, part in by_task.groupby(keys, sort=False, dropna=False):
            found = {row["task"]: row for row in part.to_dict("records")}
            cells = [_cell(found[task], metric, run.axes) if task in found else Cell("–", math.nan) for task in tasks]
            first = next(iter(found.values()))
            rows.append(Row(title, first["role"], (Cell(marked_variant(first, run.axes)), *cells)))
    low, high = by_task["episodes_min"].min(), by_task["episodes_max"].max()
    seeds = by_task["seeds"].min(), by_task["seeds"].max()
    notes = [
        f"Mean ± standard deviation over {_span(*seeds)} seeds, {_span(low, high)} episodes each. Cost 1 is the limit;"
        " bold: mean cost at most 1. ★: highest return among the safe methods of a task, oracles aside.",
    ]
    notes += oracle_note(by_task)
    return Table("methods_by_task", "Methods by tasks", "Metric", ("Method", *tasks), tuple(rows), tuple(notes))


def comparison_table(compared: pd.DataFrame) -> Table:
    """SafeMIL against each other method, from ``analysis.summary.compare_methods``."""
    rows = []
    for row in compared.to_dict("records"):
        name = labels.method_label(row["method"]) + (" †" if row["role"] == "oracle" else "")
        p = row["cost_difference_p"]
        cells = [Cell(name), interval_cell(row, "cost_difference")]
        cells.append(Cell("–" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}", p))
        cells += [interval_cell(row, column) for column in ("safer", "return_difference", "better_return")]
        lower = row["lower_iqm_tasks"]
        cells.append(Cell(f"{lower} of {row['tasks']}", lower / row["tasks"]))
        rows.append(Row("", row["role"], tuple(cells)))
    several = compared["tasks"].max() > 1
    means = "over the tasks' means, so that they speak of tasks like these" if several else "over seeds"
    notes = (
        "Differences: SafeMIL's normalized cost (return) minus the method's, seed by seed on the same split"
        f"{', mean over tasks' if several else ''}; below zero SafeMIL is safer. In brackets: 95 % t intervals {means}."
        " p: two-sided, signs of the paired differences flipped; with n pairs never below 2 to the power 1 - n.",
        "P: probability that a run of SafeMIL costs less (returns more) than a run of the method: Mann-Whitney, ties"
        f" half, averaged over tasks; 95 % stratified bootstrap intervals ({REPETITIONS} repetitions). Lower IQM: tasks"
        " on which SafeMIL's interquartile mean cost is lower.",
    )
    header = ("Against", "Cost difference ↓", "p", "P(costs less) ↑", "Return difference ↑", "P(returns more) ↑")
    return Table("comparison", "SafeMIL against each method", "", (*header, "Lower IQM"), tuple(rows), notes)


def ratio_table(ratios: pd.DataFrame) -> Table:
    """The median safety ratio in its readings, from ``analysis.summary.safety_ratios``, and the paper's number."""
    shown = [(row["reading"], interval_cell(row, "ratio"), str(row["tasks"])) for row in ratios.to_dict("records")]
    shown.append(("stated by the paper", Cell(decimal(PAPER_RATIO), PAPER_RATIO), "6"))
    rows = [Row("", "label-limited", (Cell(reading), ratio, Cell(tasks))) for reading, ratio, tasks in shown]
    count = ratios["baselines"].max()
    safest = f"the safest of {count} label-limited baselines" if count > 1 else "the one label-limited baseline"
    notes = (
        f"Median over tasks of the cost of {safest} (task by task, by its mean cost) over SafeMIL's; a cost below zero"
        " counts as zero. The paper's formula is not stated in the sources we have, so three readings are given.",
        f"In brackets: 95 % stratified bootstrap interval ({REPETITIONS} repetitions, the safest chosen anew in each).",
    )
    return Table("safety_ratio", "Median safety ratio", "", ("Reading", "Ratio ↑", "Tasks"), tuple(rows), notes)


def signatures_table(run: Run) -> Table | None:
    """Every failure signature found: a block for each, a row for each task, method and setting that shows it."""
    found: dict[str, list[Row]] = {}
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=True, dropna=False):
        shown = [{name.strip() for name in cell.split(";") if name.strip()} for cell in group["warnings"]]
        name, anchor = labels.variant_label(method, run.axes, values), labels.anchor(task, method, values)
        for signature in sorted(set().union(*shown)):
            count = sum(signature in names for names in shown)
            cells: tuple[Cell, ...] = (Cell(f"{task}, {name}"), Cell(f"{count} of {len(group)}", count, anchor=anchor))
            cells += tuple(_mean(group, column, anchor) for column in ("normalized_return", "normalized_cost"))
            found.setdefault(signature, []).append(Row(signature, labels.method_role(method), cells))
    if not found:
        return None
    rows = tuple(row for signature in sorted(found) for row in found[signature])
    notes = ["Means over all seeds of the row. A signature is a suspicion: it says where to look first."]
    notes += [f"{name}: {labels.SIGNATURES[name]}." for name in sorted(found) if name in labels.SIGNATURES]
    header = ("Where", "Seeds", "Return", "Cost")
    return Table("signatures", "Failure signatures found", "Signature", header, rows, tuple(notes))


def diagnostics_table(run: Run) -> Table | None:
    """Means over seeds of what the score looks like, for every task, method and setting that has a score."""
    columns = [name for name in DIAGNOSTICS if name in run.trials and _numbers(run.trials[name]).notna().any()]
    rows = []
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=True, dropna=False):
        if any(_numbers(group[name]).notna().any() for name in columns):
            name, anchor = labels.variant_label(method, run.axes, values), labels.anchor(task, method, values)
            cells = [Cell(name), *[_mean(group, column, anchor) for column in columns]]
            order = (task, labels.group_order(method, values))
            rows.append((order, Row(task, labels.method_role(method), tuple(cells))))
    if not rows:
        return None
    notes = (
        "Means over seeds. AUROC: non-preferred against preferred trajectories that training never used; N:U: D_N"
        " against D_U, held out, at most (1 + p) / 2. Step AUROC: steps that truly cost against steps that do not. ESS:"
        " effective sample size of the weights as a share of D_U.",
    )
    ordered = tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))
    header = ("Method", *[DIAGNOSTICS[name] for name in columns])
    return Table("diagnostics", "What the score looks like", "Task", header, ordered, notes)


def _cell(row: dict, metric: str, axes: Sequence[str]) -> Cell:
    star = " ★" if metric == "normalized_return" and row["best_safe_return"] else ""
    bold = metric == "normalized_cost" and bool(row["safe"])
    return Cell(mean_text(row, metric) + star, row[f"{metric}_mean"], bold, row_anchor(row, axes))


def _span(low: float, high: float) -> str:
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _mean(group: pd.DataFrame, column: str, anchor: str) -> Cell:
    value = _numbers(group[column]).mean()
    return Cell(decimal(value), value, anchor=anchor)


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")
