"""Who runs the packs, in what order: this process alone, or Ray (tune/ray_runner.py). And when a run is over.

    run_to_the_end(schedule, jobs, board)    until no pack is left, waiting for those that others are at work on
    run_serially(jobs, board)                a schedule: one after the other, for job arrays and debugging

A schedule runs the packs it can, tells the board, and returns those that are locked elsewhere: by another process.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable

from tune.attempts import fail, perform
from tune.claims import Claims
from tune.files import read_json
from tune.job import Job, is_done
from tune.progress import Board

POLL = (1.0, 15.0)  # seconds between two looks at what is locked elsewhere: at first, at most

Jobs = dict[str, Job]  # pack id -> job
Schedule = Callable[[Jobs], Jobs]


def run_to_the_end(schedule: Schedule, jobs: Jobs, board: Board) -> None:
    """Run the packs. What another process is at work on is waited for, and taken over if that process dies."""
    while jobs:
        jobs = wait_for_others(schedule(jobs), board)


def run_serially(jobs: Jobs, board: Board) -> Jobs:
    """Run the packs in this process, one after the other."""
    locked_elsewhere = {}
    for pack, job in jobs.items():
        board.running(pack)
        try:
            rows = perform(job, functools.partial(board.running, pack))
        except Exception as error:  # one broken pack must not take the others with it
            rows = fail(job, f"{type(error).__name__}: {error}", traceback.format_exc())
        if rows is None:
            locked_elsewhere[pack] = job
            board.waiting(pack)
        else:
            board.finished(pack, rows)
    return locked_elsewhere


def wait_for_others(locked_elsewhere: Jobs, board: Board) -> Jobs:
    """Returns once a pack is free again (all that are not done), or all are done (none)."""
    pause, announced = POLL[0], False
    while True:
        locked_elsewhere = {pack: job for pack, job in locked_elsewhere.items() if not _is_over(pack, job, board)}
        holders = {pack: holder for pack, job in locked_elsewhere.items() if (holder := _holder(job))}
        if len(holders) < len(locked_elsewhere) or not holders:
            return locked_elsewhere
        if not announced:
            names = ", ".join(sorted(set(holders.values())))
            board.say(
                f"waiting for {len(holders)} packs that others are at work on ({names}); Ctrl-C leaves them to it"
            )
            announced = True
        time.sleep(pause)
        pause = min(2 * pause, POLL[1])


def _holder(job: Job) -> str:
    """The process at work on one of the job's trials; empty where there is none."""
    claims = Claims(job.run_folder / "claims", job.session)
    return next((str(holder) for trial in job.trials if (holder := claims.holder(trial.id))), "")


def _is_over(pack: str, job: Job, board: Board) -> bool:
    """Whether others have finished the pack; the board is told."""
    folders = [job.folder(trial) for trial in job.trials]
    over = all(map(is_done, folders))
    if over:
        board.finished(pack, [read_json(folder / "row.json") for folder in folders])
    return over
