"""From a run's folder to rows of text, and from those to trials.csv: what the analysis knows about files.

In: RUN/trials/<trial id>/{row.json, done, error.txt, config.json} and the axes in run.json; where the trial folders are
gone, RUN/trials.csv alone. Out: one dict (column -> text, as it stands in trials.csv) per trial, in a fixed order.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError
from safemil.config.swept import BY_COLUMN, BY_SETTING, value_of

AXES = tuple(BY_COLUMN)  # settings a run may vary, in the order in which they name a row; a run's own are "axes"
METRICS = (
    *("return_mean", "return_std", "cost_mean", "cost_std"),
    *("normalized_return", "normalized_return_reference", "normalized_cost", "normalized_cost_reference"),
    *("cvar_cost_50", "cvar_cost_20", "cvar_cost_10", "cvar_cost_5", "violation_rate"),
    *("auroc", "auroc_unlabeled", "mil_loss_final", "normalized_return_last5", "normalized_cost_last5"),
)
TRIAL_COLUMNS = (
    *("trial_id", "task", "method", "seed", *AXES, *METRICS),
    *("cost_limit", "episodes", "train_seconds", "eval_seconds", "status", "warnings", "reason"),
    *("dataset_sha256", "git_commit", "package_versions"),
)


@dataclass(frozen=True)
class Problem:
    """A trial that is not in the tables, and why."""

    trial_id: str
    reason: str


def write_trials_csv(folder: Path | str) -> Path:
    """Derive RUN/trials.csv from the trial folders: sorted, replaced in one step, the same whoever calls it."""
    folder = Path(folder)
    if not (folder / "trials").is_dir():
        raise UserError(f"{folder / 'trials'}: no such folder, so {folder / 'trials.csv'} cannot be derived from it")
    rows, _ = read_rows(folder)
    further = sorted({column for row in rows for column in row} - set(TRIAL_COLUMNS))
    with atomic_write(folder / "trials.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*TRIAL_COLUMNS, *further], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "trials.csv"


def read_rows(folder: Path) -> tuple[list[dict[str, str]], list[Problem]]:
    """Finished and failed trials as rows sorted by task, method, settings and seed; and the unfinished ones."""
    unfinished: list[Problem] = []
    if (folder / "trials").is_dir():
        rows = []
        declared = (read_json(folder / "run.json") or {}).get("axes") or ()
        axes = [name for name in declared if column_of_setting(name) == name]
        for trial in sorted((folder / "trials").iterdir()):
            if trial.is_dir() and not trial.name.startswith("."):
                found = _read_trial(trial)
                if isinstance(found, Problem):
                    unfinished.append(found)
                else:
                    rows.append({**_settings(trial, axes), **found})
    elif (folder / "trials.csv").is_file():
        with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval=""))
        if rows and not {"trial_id", "task", "method", "seed", "status"} <= rows[0].keys():
            raise UserError(f"{folder / 'trials.csv'}: not a table of trials; its columns are {', '.join(rows[0])}")
    else:
        raise UserError(f"{folder}: found neither trials/ nor trials.csv; expected a run made by tune/run.py")
    rows = [{column: text(row.get(column)) for column in dict.fromkeys([*TRIAL_COLUMNS, *row])} for row in rows]
    return sorted(rows, key=_row_order), unfinished


def column_of_setting(name: str) -> str:
    """The column of a setting: "horizon" for "cost_model.segment_length"; its dotted name where it has none."""
    last = name.rsplit(".", 1)[-1]
    return BY_SETTING[name].column if name in BY_SETTING else last if last in TRIAL_COLUMNS else name


def is_failed(row: dict) -> bool:
    """Whether a row reports anything but success."""
    return row.get("status") not in ("ok", None, "")


def read_json(path: Path) -> dict | None:
    """The object in a JSON file; None where it is missing, unreadable or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def text(value: object) -> str:
    """The one text of a value in trials.csv; missing and nan are blank, a list is joined by ";"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return ";".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def number(cell: str) -> float:
    """The number in a cell; nan where there is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def setting(cell: str) -> int | float | str:
    """A setting as a value: 64.0 and 64 are the same bag size, "full" and "" stay words."""
    value = number(cell)
    if not math.isfinite(value):
        return cell
    return int(value) if value == int(value) else value


def value_order(value: int | float | str) -> tuple[int, float, str]:
    """Sort key of a setting: "" (not applicable), numbers by size, then "full" (a horizon), cost levels, others."""
    if isinstance(value, str):
        return ({"": 0, "full": 2, "low": 3, "middle": 4, "high": 5}.get(value, 6), 0.0, value)
    return (1, float(value), "")


def _row_order(row: dict[str, str]) -> tuple:
    settings = [value_order(setting(row[column])) for column in (*AXES, "seed")]
    return (row["task"], row["method"], settings, row["trial_id"])


def _settings(trial: Path, axes: Sequence[str]) -> dict[str, object]:
    """Settings that a grid varies and that have no column of their own, by their dotted names, from config.json."""
    config = (read_json(trial / "config.json") or {}) if axes else {}
    found = {name: value_of(config, name) for name in axes}
    return {name: value for name, value in found.items() if value is not None}


def _read_trial(trial: Path) -> dict | Problem:
    """One trial folder. ``done`` is written last: a row without it counts only if it reports a failure."""
    row = read_json(trial / "row.json")
    if row is not None and (is_failed(row) or (trial / "done").exists()):
        return {**row, "trial_id": trial.name}
    if (trial / "error.txt").is_file():
        lines = (trial / "error.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        config = read_json(trial / "config.json") or {}
        named = {key: config.get(key) for key in ("task", "method", "seed")}
        return {"trial_id": trial.name, **named, "status": "failed", "reason": lines[-1] if lines else ""}
    if (trial / "done").exists():
        return Problem(trial.name, "marked done without a readable row.json: remove its folder, then --resume")
    return Problem(trial.name, "not finished: still running, or stopped (--resume completes it)")
