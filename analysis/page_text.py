"""What report.html says beside tables and figures: a headline, cautions, trials, where results came from.

Every sentence is computed, and true for one task or many, one seed or many, one setting or a sweep.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from analysis import labels, tables
from analysis.load import Run
from analysis.wide_tables import PAPER_RATIO

# Below these, numbers are shown with a caution.
FEW_SEEDS, FEW_EPISODES = 3, 20


def page(template: str, **content: object) -> str:
    """A page from one of the templates beside this file; whatever the templates do not know is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: str(name).endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**content)


def headline(
    trials: pd.DataFrame, summary: pd.DataFrame, axes: Sequence[str], compared: pd.DataFrame, ratios: pd.DataFrame
) -> tuple[str, str]:
    """Is SafeMIL safe, and safer than others: the verdict in one sentence; and what else is to be said, maybe nothing.

    ``compared`` and ``ratios`` are those of ``analysis.summary``, empty for a sweep.
    """
    ours = summary[summary["method"] == "safemil"]
    if ours.empty:
        safe = summary[summary["best_safe_return"]]
        names = ", ".join(f"{labels.method_label(row.method)} on {row.task}" for row in safe.itertuples())
        return f"No SafeMIL trials here. Safe with the highest return: {names or 'no method on any task'}.", ""
    sweep = len(ours) > ours["task"].nunique()
    verdict = _over_settings(ours, axes) if sweep else _over_tasks(ours, summary[summary["method"] == "bc-all"])
    more = [verdict[1], *_safest_baseline(ratios), *_reservations(trials, ours)]
    return f"{verdict[0]}{_against_baselines(compared)}.", " ".join(filter(None, more))


def _over_tasks(ours: pd.DataFrame, everything: pd.DataFrame) -> tuple[str, str]:
    """One setting of SafeMIL, on one task or several, beside BC-All where the run has it on the same tasks."""
    everything = everything[everything["task"].isin(ours["task"])]
    beside = len(everything) == len(ours)
    costs, returns = (
        [tables.decimal(rows[f"normalized_{name}_mean"].mean()) for rows in (ours, everything)]
        for name in ("cost", "return")
    )
    if len(ours) == 1:
        row = ours.iloc[0]
        seeds = f", {row['safe_seeds']} of {row['trials']} seeds within it" if row["trials"] > 1 else ""
        other = f"; cloning everything (BC-All) costs {costs[1]} at {returns[1]}" if beside else ""
        return (
            f"On {row['task']}, SafeMIL is {'under' if row['safe'] else 'over'} the cost limit: normalized cost"
            f" {costs[0]} (the limit is 1{seeds}) at a normalized return of {returns[0]}{other}",
            "",
        )
    every = int((ours["safe_seeds"] == ours["trials"]).sum())
    other = f"; that of cloning everything (BC-All) on {everything['safe'].sum()}" if beside else ""
    mean = returns[0] + (f", BC-All's {returns[1]}" if beside else "")
    return (
        f"SafeMIL's mean cost is under the limit on {ours['safe'].sum()} of {len(ours)} tasks (every seed's on {every})"
        f"{other}",
        f"Mean normalized return: {mean}.",
    )


def _over_settings(ours: pd.DataFrame, axes: Sequence[str]) -> tuple[str, str]:
    """Several settings of SafeMIL: the range, never a chosen best one, as choosing by cost would use hidden labels."""
    ranked = ours.sort_values("normalized_cost_mean", kind="stable").to_dict("records")
    several = ours["task"].nunique() > 1

    def where(row: dict) -> str:
        place = labels.setting_label(axes, [row[axis] for axis in axes])
        return f"{tables.decimal(row['normalized_cost_mean'])} ({place}{', ' + row['task'] if several else ''})"

    every = int((ours["safe_seeds"] == ours["trials"]).sum())
    return (
        f"{'' if several else 'On ' + ranked[0]['task'] + ', '}SafeMIL's normalized cost runs from {where(ranked[0])}"
        f" to {where(ranked[-1])}: its mean is under the limit in {ours['safe'].sum()} of {len(ours)} settings, every"
        f" seed's in {every}",
        "",
    )


def _against_baselines(compared: pd.DataFrame) -> str:
    """Which label-limited baselines SafeMIL is safer than: the interval of the cost difference is below zero."""
    rows = compared[compared["role"] == "label-limited"] if len(compared) else compared
    verdicts: dict[str, list[str]] = {"safer than": [], "not told apart from": [], "less safe than": []}
    for row in rows.to_dict("records"):
        low, high = row["cost_difference_low"], row["cost_difference_high"]
        verdict = "safer than" if high < 0 else "less safe than" if low > 0 else "not told apart from"
        if not math.isnan(low):
            verdicts[verdict].append(labels.method_label(row["method"]))
    said = "; ".join(f"{verdict} {', '.join(names)}" for verdict, names in verdicts.items() if names)
    several = " over tasks like these" if said and rows["tasks"].max() > 1 else ""
    return f"; by 95 % intervals of cost differences paired by seed{several}, it is {said}" if said else ""


def _safest_baseline(ratios: pd.DataFrame) -> list[str]:
    """The paper's kind of claim: cost of each task's safest baseline over SafeMIL's, median over tasks."""
    if ratios.empty or ratios.iloc[0]["baselines"] < 2:
        return []
    row = ratios.iloc[0]
    return [
        f"The safest baseline of each task costs {tables.interval_cell(row, 'ratio').text} times as much"
        f" ({row['reading']}, median over tasks: {row['tasks']}; the paper states {PAPER_RATIO})."
    ]


def _reservations(trials: pd.DataFrame, ours: pd.DataFrame) -> list[str]:
    found = []
    if ours["seeds"].max() == 1:
        found.append("One seed: nothing is known about the spread.")
    mine = trials[trials["method"] == "safemil"]
    warned = int((mine["warnings"] != "").sum())
    if warned:
        found.append(f"{warned} of {len(mine)} SafeMIL trials show a failure signature, listed below.")
    return found


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


def trial_blocks(run: Run) -> list[dict]:
    """Every trial in the tables, in blocks that the numbers link to: anchor, name, commands, trials (rows of texts)."""
    columns = ["normalized_return", "normalized_cost", "cvar_cost_20", "auroc", "train_seconds", "eval_seconds"]
    blocks = []
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=False, dropna=False):
        trials = [(row["trial_id"], [row[name] for name in columns], row["warnings"]) for _, row in group.iterrows()]
        commands = sorted({str(command) for command in group.get("command", []) if command})
        name = f"{task}, {labels.variant_label(method, run.axes, values)}"
        anchor = labels.anchor(task, method, values)
        blocks.append({"anchor": anchor, "name": name, "commands": commands, "trials": trials})
    return blocks


def provenance(run: Run) -> list[tuple[str, str]]:
    """(what, value) pairs: commands, code, data and packages of this run."""
    trials = run.trials
    rows = [(key, str(run.record[key])) for key in ("grid", "command", "created") if run.record.get(key)]
    rows.append(("this report", report_command(run)))
    rows.append(("git commit", ", ".join(sorted(filter(None, trials["git_commit"].unique()))) or "not recorded"))
    for task, hashes in trials.groupby("task")["dataset_sha256"]:
        rows.append((f"data of {task}, sha256", ", ".join(sorted(filter(None, hashes.unique()))) or "not recorded"))
    for versions in sorted(filter(None, trials["package_versions"].unique())):
        rows.append(("packages", _flat_versions(versions)))
    hours = [trials[column].sum() / 3600 for column in ("train_seconds", "eval_seconds")]
    rows.append(("time, all trials", f"{hours[0]:.2g} hours of training, {hours[1]:.2g} hours of evaluation"))
    return rows


def report_command(run: Run) -> str:
    """The command that makes the report again."""
    inside = not os.path.relpath(run.folder).startswith("..")
    return f"python analysis/report.py {os.path.relpath(run.folder) if inside else run.folder.name}"


def _flat_versions(text: str) -> str:
    try:
        return ", ".join(f"{name} {version}" for name, version in sorted(json.loads(text).items()))
    except (ValueError, AttributeError):
        return text
