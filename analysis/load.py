"""From a run's folder to one tidy table: first stage of the analysis. Reads files only, starts and trains nothing.

In: a RUN folder (rows through ``analysis.trial_rows``, curves.csv, run.json). Out: a ``Run`` with one row per finished
trial, the trials that failed or are unfinished, and which settings vary; and the curves as one long table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import trial_rows
from analysis.trial_rows import AXES, METRICS, TRIAL_COLUMNS, Problem
from analysis.trial_rows import write_trials_csv as write_trials_csv
from safemil.config.errors import UserError

CURVE_COLUMNS = ("stage", "step")  # every row of curves.csv has these
NUMBERS = (*METRICS, "seed", "cost_limit", "episodes", "train_seconds", "eval_seconds")


@dataclass(frozen=True, eq=False)
class Run:
    """One run as tidy tables. ``trials`` has TRIAL_COLUMNS and any further columns of the rows; numbers are floats,
    settings (AXES) are int, float or str, "" where a method has no such setting."""

    folder: Path
    trials: pd.DataFrame  # one row per trial that finished and was evaluated
    failed: tuple[Problem, ...]
    unfinished: tuple[Problem, ...]
    axes: tuple[str, ...]  # columns that vary within a task and a method
    record: dict  # run.json, {} without one
    has_folders: bool  # False where the table came from trials.csv alone

    @property
    def duplicates(self) -> list[str]:
        """Cells in which one seed occurs more than once: trials that differ in a setting no column names."""
        groups = self.trials.groupby(["task", "method", *self.axes, "seed"], dropna=False, sort=True)["trial_id"]
        return [", ".join(ids) for _, ids in groups if len(ids) > 1]


def load_run(folder: Path | str) -> Run:
    """Read RUN. Raises UserError when it is missing or holds no finished trial, as there is nothing to report then."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder{_runs_beside(folder)}; expected one made by tune/run.py")
    record = trial_rows.read_json(folder / "run.json") or {}
    rows, unfinished = trial_rows.read_rows(folder)
    evaluated, failed = [], []
    for row in rows:
        if trial_rows.is_failed(row):
            failed.append(Problem(row["trial_id"], row["reason"] or "no reason recorded"))
        elif row["normalized_cost"] == "" or row["normalized_return"] == "":
            unfinished.append(Problem(row["trial_id"], "has no normalized_cost or no normalized_return: evaluate it"))
        else:
            evaluated.append(row)
    # Optional key of run.json: the ids that the grid planned, so that a trial without any trace is missed too.
    traces = {row["trial_id"] for row in rows} | {problem.trial_id for problem in unfinished}
    planned = [str(name) for name in record.get("trials", ())]
    unfinished += [Problem(name, "planned, never started") for name in planned if name not in traces]
    if not evaluated:
        raise UserError(_nothing_to_show(folder, failed, unfinished))
    trials = _frame(evaluated)
    axes = varying_axes(trials, record.get("axes") or ())
    has_folders = (folder / "trials").is_dir()
    return Run(folder, trials, tuple(failed), tuple(unfinished), axes, record, has_folders)


def load_trial_tables(run: Run, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """One file of every finished trial (curves.csv, scores.csv, example_steps.csv) as one table, with whose it is.

    Empty where there are none. Trials without the file, or whose file lacks one of ``columns``, are left out; so are
    rows in which one is blank (a half-written last line).
    A reference (analysis/curate.py) has no trial folders but one such file, RUN/<name>.gz, for all of them.
    """
    frames = []
    if not run.has_folders and (run.folder / f"{name}.gz").is_file():
        frames = [pd.read_csv(run.folder / f"{name}.gz")]
    for trial_id in run.trials["trial_id"]:
        path = run.folder / "trials" / trial_id / name
        if path.is_file() and path.stat().st_size > 0:
            table = pd.read_csv(path, on_bad_lines="skip")
            if set(columns) <= set(table.columns):
                if "step" in columns:
                    table = table.assign(step=pd.to_numeric(table["step"], errors="coerce"))
                table = table.dropna(subset=list(columns)).dropna(axis="columns", how="all")
                frames.append(table.assign(trial_id=trial_id))
    identity = ["trial_id", "task", "method", "seed", *AXES, *run.axes, "cost_limit"]
    known = run.trials[list(dict.fromkeys(identity))]
    if not frames:
        return pd.DataFrame(columns=[*known.columns, *columns])
    return pd.concat(frames, ignore_index=True).merge(known, on="trial_id", validate="many_to_one")


def varying_axes(trials: pd.DataFrame, declared: Iterable[str] = ()) -> tuple[str, ...]:
    """Settings that vary within a task and a method, in the order of ``declared`` (run.json), then of AXES.

    An undeclared one counts only if it still varies when task, method, seed and the axes before it are fixed: so a
    horizon chosen by task, or a |D_U| that follows from the mixture, is not taken for an experiment.
    """
    columns = [trial_rows.column_of_setting(name) for name in declared]
    declared = [name for name in columns if name in trials.columns and name not in ("task", "method", "seed")]
    axes: list[str] = []
    for name in dict.fromkeys([*declared, *AXES]):
        fixed = ["task", "method"] if name in declared else ["task", "method", "seed", *axes]
        if trials.groupby(fixed, dropna=False)[name].nunique(dropna=False).max() > 1:
            axes.append(name)
    return tuple(axes)


def _frame(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Rows of text -> table with floats, settings and text; the same table from trial folders and from trials.csv."""
    columns = {}
    for column in dict.fromkeys(column for row in rows for column in row):
        texts = [row.get(column, "") for row in rows]
        if column in NUMBERS:
            columns[column] = pd.Series([trial_rows.number(text) for text in texts], dtype=float)
        elif column in AXES or column not in TRIAL_COLUMNS:
            columns[column] = pd.Series([trial_rows.setting(text) for text in texts], dtype=object)
        else:
            columns[column] = pd.Series(texts, dtype=object)
    return pd.DataFrame(columns)


def _runs_beside(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    runs = sorted(p.name for p in folder.parent.iterdir() if (p / "trials").is_dir() or (p / "trials.csv").is_file())
    return f" (there are: {', '.join(runs[:8])}{', ...' if len(runs) > 8 else ''})" if runs else ""


def _nothing_to_show(folder: Path, failed: list[Problem], unfinished: list[Problem]) -> str:
    if not failed:
        advice = "run tune/run.py with --resume, then report again"
        return f"{folder}: no finished trial, {len(unfinished)} unfinished; {advice}"
    reason, log = " ".join(failed[0].reason.split()), folder / "trials" / failed[0].trial_id / "error.txt"
    counts = f"no finished trial, {len(failed)} failed, {len(unfinished)} unfinished"
    return f"{folder}: {counts}. First failure: {reason} (log: {log})"
