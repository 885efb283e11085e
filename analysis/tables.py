"""From summaries (numbers) to tables (text): the main table, the table over all tasks, a table per varied setting.

``analysis.table_text`` writes them as Markdown, LaTeX and console text, the report's template as HTML.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from analysis import labels
from analysis.dataset_records import dataset_warnings
from analysis.load import Run, load_run
from analysis.summary import REPETITIONS, summarize, summarize_over_tasks
from analysis.table_text import Cell, Row, Table, to_console

HEADERS = {
    "normalized_return": "Return ↑",
    "normalized_cost": "Cost ↓",
    "cvar_cost_20": "CVaR 20 % ↓",
    "auroc": "AUROC ↑",
    "auroc_unlabeled": "AUROC N:U ↑",
    "mil_loss_final": "MIL loss ↓",
}
MAIN_METRICS = ("normalized_return", "normalized_cost", "cvar_cost_20", "auroc")


def print_table(folder: Path | str) -> None:
    """Print a run's main table, and with several tasks the interquartile means, to the terminal.

    Raises:
        UserError: the run is missing or holds no finished trial.
    """
    run = load_run(folder)
    console = Console()
    by_task, over_tasks = summarize(run.trials, run.axes), summarize_over_tasks(run.trials, run.axes)
    shown = [main_table(run, by_task)] + ([overall_table(run, by_task, over_tasks)] if len(over_tasks) else [])
    for table in shown:
        notes = (*table.notes, *dataset_warnings(run.trials))
        console.print(to_console(replace(table, missing=missing_lines(run), notes=notes)))


def main_table(run: Run, summary: pd.DataFrame) -> Table:
    """Methods within each task: return, cost, CVaR of the worst 20 %, whether it is safe, and failure signatures."""
    columns = [metric for metric in MAIN_METRICS if summary[f"{metric}_mean"].notna().any()]
    rows = [
        Row(row["task"], row["role"], (Cell(marked_variant(row, run.axes)), *_cells(row, run.axes, columns)))
        for row in summary.to_dict("records")
    ]
    limits = sorted(run.trials["cost_limit"].dropna().unique())
    limit = f" ({', '.join(f'{limit:g}' for limit in limits)})" if limits else ""
    spread = "Mean ± standard deviation over seeds" if summary["seeds"].max() > 1 else "One seed: no spread"
    notes = [
        f"{spread}. Cost 1 is the limit{limit}; CVaR 20 % is the mean cost of the worst fifth of the episodes, on that"
        " scale. Return 0 and 1 are DSRL's lowest and highest reference returns.",
        "✓ and bold: mean cost at most 1 (beside it, in how many of the seeds, where they disagree). ★: highest return"
        " among the safe methods of a task, oracles aside.",
        *oracle_note(summary),
    ]
    names = [(labels.axis_short(axis), labels.axis_title(axis)) for axis in run.axes]
    notes += [f"{short}: {title}." for short, title in names if short not in title]
    return _with_letters("main", "Return and cost by task", "Task", ("Method", *_headers(columns)), rows, notes)


def overall_table(run: Run, by_task: pd.DataFrame, over_tasks: pd.DataFrame) -> Table:
    """Interquartile means with intervals: over all tasks, then task by task over its seeds."""
    parts = [("All tasks", over_tasks)] if len(over_tasks) else []
    rows = []
    for group, part in [*parts, *by_task.groupby("task", sort=True)]:
        for row in part.to_dict("records"):
            by_seed = (row.get("safe_seeds"), row["seeds"], "seed")
            within, of, unit = by_seed if "task" in row else (row["safe_tasks"], row["tasks"], "task")
            cells = [Cell(marked_variant(row, run.axes))]
            for metric in ("normalized_return", "normalized_cost"):
                cells.append(interval_cell(row, metric, f"{metric}_iqm", row_anchor(row, run.axes)))
            cells.append(Cell(f"{within} of {of} {unit}{'s' if of > 1 else ''}", within / of))
            rows.append(Row(str(group), row["role"], (*cells, Cell(str(row["seeds"]), row["seeds"]))))
    notes = [
        "IQM: mean of the middle half of all seeds and tasks; in brackets the 95 % stratified bootstrap interval"
        f" ({REPETITIONS} repetitions, seeds redrawn within each task: it speaks of these tasks).",
    ]
    if len(over_tasks) and over_tasks["normalized_cost_iqm"].isna().any():
        notes.append("–: the method lacks a task.")
    header = ("Method", "Return, IQM ↑", "Cost, IQM ↓", "Under the limit", "Seeds")
    return Table("overall", "Interquartile means", "Task", header, tuple(rows), tuple(notes))


def axis_table(run: Run, summary: pd.DataFrame, axis: str) -> Table:
    """One row per value of ``axis``, a block per task, method and other settings; methods without it are absent."""
    columns = [metric for metric in HEADERS if summary[f"{metric}_mean"].notna().any()]
    others = [other for other in run.axes if other != axis]
    rows = []
    for (task, method, *values), block in varying_blocks(summary, axis, others):
        group = f"{task}, {labels.variant_label(method, others, values)}"
        for row in block.assign(best_safe_return=False).to_dict("records"):
            cells = (Cell(labels.value_text(row[axis])), *_cells(row, run.axes, columns))
            rows.append(Row(group, row["role"], cells))
    title = labels.axis_title(axis)
    notes = ["Scales and marks as in the table by task."]
    if "auroc_unlabeled" in columns:
        notes.append("AUROC N:U: of D_N against D_U, held out; needs no hidden label, at most (1 + p) / 2.")
    header = (title[0].upper() + title[1:], *_headers(columns))
    return _with_letters(f"by_{axis}", f"By {title}", "Task and method", header, rows, notes)


def varying_blocks(summary: pd.DataFrame, axis: str, others: Sequence[str]) -> list[tuple[tuple, pd.DataFrame]]:
    """((task, method, *other settings), rows in order of ``axis``) for each block in which ``axis`` varies."""
    groups = summary.groupby(["task", "method", *others], sort=False, dropna=False)
    return [(key, block) for key, block in groups if block[axis].nunique(dropna=False) > 1]


def decimal(value: float) -> str:
    """Two digits, "–" for nan, "∞", never "-0.00"."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return "–" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"


def mean_text(row: dict, metric: str) -> str:
    """ "0.42 ± 0.03" from the columns <metric>_mean and _std, the mean alone for one seed."""
    mean, std = row[f"{metric}_mean"], row[f"{metric}_std"]
    return decimal(mean) if math.isnan(std) else f"{decimal(mean)} ± {decimal(std)}"


def row_anchor(row: dict, axes: Sequence[str]) -> str:
    """Where the page lists the trials of one row of the summary; "" for a row over all tasks."""
    return labels.anchor(row["task"], row["method"], [row[axis] for axis in axes]) if "task" in row else ""


def interval_cell(row: dict, name: str, center: str = "", anchor: str = "") -> Cell:
    """ "0.42 [0.31, 0.55]" from the columns ``center`` (else ``name``), <name>_low and <name>_high."""
    middle, low, high = row[center or name], row[f"{name}_low"], row[f"{name}_high"]
    text = decimal(middle) if math.isnan(low) else f"{decimal(middle)} [{decimal(low)}, {decimal(high)}]"
    return Cell(text, middle, anchor=anchor)


def missing_lines(run: Run) -> tuple[str, ...]:
    """How many trials are not in the tables, then each with its reason."""
    problems = [("failed", run.failed), ("unfinished or never started", run.unfinished)]
    counts = " and ".join(f"{len(found)} {state}" for state, found in problems if found)
    if not counts:
        return ()
    total = len(run.trials) + len(run.failed) + len(run.unfinished)
    listed = [f"{problem.trial_id}: {' '.join(problem.reason.split())}" for _, found in problems for problem in found]
    return (f"Not in this table: of {total} trials, {counts}.", *listed)


def marked_variant(row: dict, axes: Sequence[str]) -> str:
    """ "SafeMIL (K=64)", oracles with a dagger."""
    mark = " †" if row["role"] == "oracle" else ""
    return labels.variant_label(row["method"], axes, [row[axis] for axis in axes]) + mark


def oracle_note(summary: pd.DataFrame) -> list[str]:
    """What the dagger means, where a row has one."""
    note = "†: oracle, trained with labels, costs or rewards that the other methods do not see."
    return [note] if (summary["role"] == "oracle").any() else []


def _cells(row: dict, axes: Sequence[str], columns: Sequence[str]) -> list[Cell]:
    """Everything right of a row's name: metrics, safe or not, seeds and episodes, letters of the failure signatures."""
    anchor = row_anchor(row, axes)
    bold = {"normalized_cost": row["safe"]}
    cells = [Cell(mean_text(row, name), row[f"{name}_mean"], bold.get(name, False), anchor) for name in columns]
    low, high = row["episodes_min"], row["episodes_max"]
    episodes = "?" if math.isnan(low) else f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
    within = "" if row["safe_seeds"] in (0, row["trials"]) else f" {row['safe_seeds']}/{row['trials']}"
    cells.append(Cell(("✓" if row["safe"] else "✗") + within, row["safe"] + row["safe_seeds"] / row["trials"]))
    cells.append(Cell("★" if row["best_safe_return"] else "", int(row["best_safe_return"])))
    # "collapse (2 of 5 seeds);saturation (5 of 5 seeds)" -> "a 2/5, b 5/5"
    shown = sorted(re.findall(r"([^;]+) \((\d+) of (\d+) seeds\)", row["warnings"]))
    letters = ", ".join(f"{_letter(name)} {count}/{of}" for name, count, of in shown)
    return [*cells, Cell(f"{row['seeds']} × {episodes}", row["seeds"], anchor=anchor), Cell(letters, letters)]


def _headers(columns: Sequence[str]) -> tuple[str, ...]:
    return (*[HEADERS[metric] for metric in columns], "Safe", "Best", "Seeds × episodes", "Notes")


def _letter(signature: str) -> str:
    """The letter of a failure signature, the same in every table; its name where it is unknown."""
    return dict(zip(labels.SIGNATURES, string.ascii_lowercase, strict=False)).get(signature, signature)


def _with_letters(name: str, title: str, group: str, header: Sequence[str], rows: list[Row], notes: list[str]) -> Table:
    """A table with what its letters stand for, without columns in which nothing stands."""
    used = " ".join(row.cells[-1].text for row in rows)
    kept = [place for place in range(len(header)) if any(row.cells[place].text for row in rows)]
    rows = [replace(row, cells=tuple(row.cells[place] for place in kept)) for row in rows]
    known = [signature for signature in labels.SIGNATURES if re.search(rf"\b{_letter(signature)} \d", used)]
    notes = [*notes, *[f"{_letter(signature)}: {signature} (in so many of the seeds)" for signature in known]]
    return Table(name, title, group, tuple(header[place] for place in kept), tuple(rows), tuple(notes))
