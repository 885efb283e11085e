"""What report.html says beside answer, tables and figures: key numbers, cautions, trials, where results came from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pandas as pd

from analysis import labels, tables
from analysis.load import Run

# Below these, numbers are shown with a caution.
FEW_SEEDS, FEW_EPISODES = 3, 20


def key_numbers(run: Run, by_task: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(what, number, beside it): SafeMIL's where it has one row, else what the run covers: averages would mix tasks."""
    missing = len(run.failed) + len(run.unfinished)
    finished = ("Trials finished", str(len(run.trials)), f"of {len(run.trials) + missing}")
    rows = {method: by_task[by_task["method"] == method] for method in ("safemil", "bc-all")}
    if len(rows["safemil"]) != 1:
        settings = len(by_task[["method", *run.axes]].drop_duplicates())
        counts = [("Tasks", by_task["task"].nunique()), ("Methods and settings", settings)]
        seeds = ("Seeds", str(run.trials["seed"].nunique()), "")
        return [*[(what, str(count), "") for what, count in counts], seeds, finished]
    numbers = []
    for what, metric in (("cost", "normalized_cost"), ("CVaR 20 %", "cvar_cost_20"), ("return", "normalized_return")):
        ours, *other = [tables.decimal(value) for part in rows.values() for value in part[f"{metric}_mean"][:1]]
        numbers.append((f"SafeMIL, {what}", ours, f"BC-All {other[0]}" if other else ""))
    return [*numbers, finished]


def cautions(run: Run, by_task: pd.DataFrame) -> list[str]:
    """What a reader must know before trusting a number."""
    found = [f"The same task, method, setting and seed occurs more than once: {ids}." for ids in run.duplicates]
    seeds = by_task["seeds"]
    if seeds.min() < seeds.max():
        fewest = by_task[seeds == seeds.min()].iloc[0]
        name = labels.variant_label(fewest["method"], run.axes, [fewest[axis] for axis in run.axes])
        found.append(f"Rows rest on {seeds.min()} to {seeds.max()} seeds; the fewest: {name} on {fewest['task']}.")
    elif seeds.max() < FEW_SEEDS:
        found.append(f"Only {seeds.max()} seed{'s' if seeds.max() > 1 else ''} for each row.")
    if by_task["episodes_min"].min() < FEW_EPISODES:
        few = by_task["episodes_min"].min()
        found.append(f"As few as {few:.0f} evaluation episodes: the worst 20 % are {max(1.0, few / 5):.2g} of them.")
    if "split_fallback" in run.trials:
        fallbacks = run.trials[run.trials["split_fallback"] != ""].groupby("task")["split_fallback"].first()
        found += [f"{task}: D_N and D_U were not drawn by the cost bands: {why}." for task, why in fallbacks.items()]
    if (run.trials.groupby("task")["dataset_sha256"].nunique() > 1).any():
        found.append("Trials of one task were trained on different data files, see Provenance.")
    if run.trials["git_commit"].nunique() > 1:
        found.append("Trials were made by different versions of the code, see Provenance.")
    return found


@dataclass(frozen=True)
class TrialCell:
    """The trials behind one number of the tables: a task, a method, a setting."""

    anchor: str
    name: str
    commands: tuple[str, ...]
    trials: tuple[dict, ...]  # trial_id, numbers, warnings of each seed


def trial_cells(run: Run) -> list[TrialCell]:
    """Every trial in the tables, in blocks that the numbers link to, with the commands that made them."""
    columns = ["normalized_return", "normalized_cost", "cvar_cost_20", "auroc", "train_seconds", "eval_seconds"]
    cells = []
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=False, dropna=False):
        trials = tuple(
            {"trial_id": row["trial_id"], "numbers": [row[column] for column in columns], "warnings": row["warnings"]}
            for row in group.to_dict("records")
        )
        commands = group.get("command", [])
        name = f"{task}, {labels.variant_label(method, run.axes, values)}"
        found = tuple(sorted({str(command) for command in commands if command}))
        cells.append(TrialCell(labels.anchor(task, method, values), name, found, trials))
    return cells


def provenance(run: Run) -> list[tuple[str, str]]:
    """(what, value) pairs: commands, code, data and packages of this run."""
    trials = run.trials
    rows = [(key, str(run.record[key])) for key in ("grid", "command", "created") if run.record.get(key)]
    inside = not os.path.relpath(run.folder).startswith("..")
    rows.append(
        ("this report", f"python analysis/report.py {os.path.relpath(run.folder) if inside else run.folder.name}")
    )
    rows.append(("git commit", ", ".join(sorted(filter(None, trials["git_commit"].unique()))) or "not recorded"))
    for task, hashes in trials.groupby("task")["dataset_sha256"]:
        rows.append((f"data of {task}, sha256", ", ".join(sorted(filter(None, hashes.unique()))) or "not recorded"))
    for versions in sorted(filter(None, trials["package_versions"].unique())):
        rows.append(("packages", _flat_versions(versions)))
    spent = [_duration(trials[column].sum()) for column in ("train_seconds", "eval_seconds")]
    rows.append(("time, all trials", f"{spent[0]} of training, {spent[1]} of evaluation"))
    return rows


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _flat_versions(text: str) -> str:
    try:
        return ", ".join(f"{name} {version}" for name, version in sorted(json.loads(text).items()))
    except (ValueError, AttributeError):
        return text
