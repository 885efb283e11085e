"""A pack of trials carried through whatever happens: claimed, tried again after a crash, its failures written down.

    perform     Work -> rows, or None while another process is at work on one of its trials

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
from collections.abc import Callable
from typing import Any

from safemil.config.errors import UserError
from tune.claims import Claims
from tune.files import read_json
from tune.rows import failure_row, write_failure
from tune.storage import pull_trials, push_trials
from tune.work import Progress, Work, is_done, no_progress

PAUSES = (1.0, 5.0)  # seconds before the second and the third attempt; there is no fourth

Rows = list[dict[str, Any]]
Run = Callable[[Work, Progress], Rows]


def perform(work: Work, progress: Progress = no_progress, run: Run | None = None) -> Rows | None:
    """Run a pack; returns its rows, or None where another process holds one of its trials.

    Args:
        run: what is done with the claimed pack (``tune.pack.run_pack``).
    """
    try:
        claims = Claims(work.run_folder / "claims", work.session)
        ids = [trial.id for trial in work.trials]
        deaths = max(map(claims.attempts, ids))
        time.sleep(PAUSES[min(deaths, len(PAUSES)) - 1] if deaths else 0.0)
        with claims.hold(ids) as holder:
            if holder is not None:
                return None
            if work.storage:
                pull_trials(work.storage, work.trials_folder, ids)
            rows = attempt(work, progress, run)
            if work.storage:
                push_trials(work.storage, work.trials_folder, ids)
            return rows
    except OSError as error:
        if not is_disk_full(error):
            raise
        return fail(work, disk_full(work), traceback.format_exc())


def attempt(work: Work, progress: Progress, run: Run | None = None) -> Rows:
    """Run a claimed pack until it ends or has crashed once too often."""
    from safemil.training.loop import TrainingError

    if run is None:
        from tune.pack import run_pack as run
    failed: Rows = []
    for pause in (*PAUSES, None):
        while work.pack:
            try:
                return failed + run(work, progress)
            except UserError as error:
                return failed + fail(work, str(error), traceback.format_exc())
            except TrainingError as error:
                diverged, work = without(work, error.seeds(len(work.pack)))
                failed += fail(diverged, str(error), traceback.format_exc())
            except Exception as error:
                if is_disk_full(error):
                    return failed + fail(work, disk_full(work), traceback.format_exc())
                if pause is None:
                    return failed + fail(work, f"{type(error).__name__}: {error}", traceback.format_exc())
                time.sleep(pause)
                break
    return failed


def without(work: Work, positions: list[int]) -> tuple[Work, Work]:
    """The trials at ``positions`` as a pack of their own, and the others."""
    taken = tuple(values for index, values in enumerate(work.pack) if index in positions)
    rest = tuple(values for index, values in enumerate(work.pack) if index not in positions)
    return dataclasses.replace(work, pack=taken), dataclasses.replace(work, pack=rest)


def fail(work: Work, reason: str, details: str) -> Rows:
    """Write a failed row for every trial of the pack that is not done; returns the rows of the pack."""
    rows = []
    for trial in work.trials:
        folder = work.folder(trial)
        if is_done(folder):
            rows.append(read_json(folder / "row.json"))
            continue
        rows.append(failure_row(folder, trial, reason))
        with contextlib.suppress(OSError):  # a full disk: the row is reported all the same, the trial stays undone
            write_failure(folder, trial, rows[-1], details)
    return rows


def record(work: Work, rows: Rows) -> None:
    """Write down the failures that came back from a machine whose disk is not seen from here."""
    failed = {row["trial_id"]: row for row in rows if row["status"] != "ok"}
    for trial in work.trials:
        folder = work.folder(trial)
        if trial.id in failed and not (folder / "row.json").exists():
            with contextlib.suppress(OSError):
                write_failure(folder, trial, failed[trial.id], failed[trial.id]["reason"] + "\n")


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that no space is left (libraries wrap it)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen) or "StorageFull" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def disk_full(work: Work) -> str:
    """One line for it."""
    return f"the disk is full: {work.run_folder}; free some space, then --resume"
