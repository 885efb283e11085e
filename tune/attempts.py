"""A pack of trials carried through whatever happens: claimed, tried again after a crash, its failures written down.

    perform     Job -> rows, or None while another process is at work on one of its trials

What a failure means: a crash is tried again after a pause; a user's mistake and a full disk fail every trial of the
pack at once; a diverged loss fails the trials it belongs to, and the others train again without them (replicas do not
depend on each other).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any

from safemil.config.errors import UserError
from safemil.training.memory import release_freed_memory
from tune.claims import Claims
from tune.files import read_json
from tune.job import Job, Progress, is_done, no_progress
from tune.rows import failure_row, write_failure
from tune.storage import pull_trials, push_trials

PAUSES = (1.0, 5.0)  # seconds before the second and the third attempt; there is no fourth

Rows = list[dict[str, Any]]
Run = Callable[[Job, Progress], Rows]


def perform(job: Job, progress: Progress = no_progress, run: Run | None = None) -> Rows | None:
    """Run a pack; returns its rows, or None where another process holds one of its trials.

    Args:
        run: what is done with the claimed pack (``tune.pack.run_pack``).
    """
    ids = [trial.id for trial in job.trials]
    try:
        claims = Claims(job.run_folder / "claims", job.session)
        deaths = max(map(claims.attempts, ids))
        time.sleep((0.0, *PAUSES)[min(deaths, len(PAUSES))])
        with claims.hold(ids) as holder:
            if holder is not None:
                return None
            if job.storage:
                pull_trials(job.storage, job.trials_folder, ids)
            rows = attempt(job, progress, run)
            release_freed_memory()
            if job.storage:
                push_trials(job.storage, job.trials_folder, ids)
            return rows
    except OSError as error:
        if not is_disk_full(error):
            raise
        return fail(job, reason_for(error, job), traceback.format_exc())


def attempt(job: Job, progress: Progress, run: Run | None = None) -> Rows:
    """Run a claimed pack until it ends or has crashed once too often."""
    from safemil.training.loop import TrainingError

    if run is None:
        from tune.pack import run_pack

        run = run_pack
    failed: Rows = []
    pauses = list(PAUSES)
    while job.pack:
        try:
            return failed + run(job, progress)
        except TrainingError as error:
            ids = [trial.id for trial in job.trials]
            diverged = {ids[position] for position in error.seeds(len(ids))}
            failed += fail(only(job, diverged), str(error), traceback.format_exc())
            job = only(job, set(ids) - diverged)
        except Exception as error:
            if not pauses or isinstance(error, UserError) or is_disk_full(error):
                return failed + fail(job, reason_for(error, job), traceback.format_exc())
            time.sleep(pauses.pop(0))
    return failed


def only(job: Job, trial_ids: Collection[str]) -> Job:
    """The job for some of its trials."""
    pairs = zip(job.pack, job.trials, strict=True)
    return dataclasses.replace(job, pack=tuple(values for values, trial in pairs if trial.id in trial_ids))


def fail(job: Job, reason: str, details: str) -> Rows:
    """Write a failed row for every trial of the pack that is not done; returns the rows of the pack."""
    rows = []
    for trial in job.trials:
        folder = job.folder(trial)
        rows.append(read_json(folder / "row.json") if is_done(folder) else failure_row(folder, trial, reason))
        if not is_done(folder):
            with contextlib.suppress(OSError):  # a full disk: the row is reported all the same, the trial stays undone
                write_failure(folder, trial, rows[-1], details)
    return rows


def record(job: Job, rows: Rows) -> None:
    """Write down the failures that came back from a machine whose disk is not seen from here."""
    for trial in job.trials:
        row = next((row for row in rows if row["trial_id"] == trial.id and row["status"] != "ok"), None)
        if row is not None and not (job.folder(trial) / "row.json").exists():
            with contextlib.suppress(OSError):
                write_failure(job.folder(trial), trial, row, row["reason"] + "\n")


def reason_for(error: Exception, job: Job) -> str:
    """One line for the row of a failed trial."""
    if is_disk_full(error):
        return f"the disk is full: {job.run_folder}; free some space, then --resume"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that no space is left (libraries wrap it)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "StorageFull" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
