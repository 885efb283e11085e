"""Who runs the packs, in what order: this process alone, or Ray (tune/ray_runner.py). And when a run is over.

    run_to_the_end(schedule, works, board)    until no pack is left, waiting for those that others are at work on
    run_serially(works, board)                a schedule: one after the other, for job arrays and debugging

A schedule runs the packs it can, tells the board, and returns those that another process holds.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from tune.attempts import fail, perform
from tune.claims import Claims, Holder
from tune.files import read_json
from tune.progress import Board
from tune.work import Work, is_done

POLL = (1.0, 15.0)  # seconds between two looks at what others hold: at first, at most

Works = dict[str, Work]  # pack id -> work
Schedule = Callable[[Works], Works]


def run_to_the_end(schedule: Schedule, works: Works, board: Board) -> None:
    """Run the packs. What another process is at work on is waited for, and taken over if that process dies."""
    while works:
        works = wait_for_others(schedule(works), board)


def run_serially(works: Works, board: Board) -> Works:
    """Run the packs in this process, one after the other."""
    held = {}
    for pack, work in works.items():
        board.running(pack)

        def progress(stage: str, step: int, total: int, metrics: dict[str, float], pack: str = pack) -> None:
            board.running(pack, stage, step, total, metrics)

        try:
            rows = perform(work, progress)
        except Exception as error:  # one broken pack must not take the others with it
            rows = fail(work, f"{type(error).__name__}: {error}", traceback.format_exc())
        if rows is None:
            held[pack] = work
            board.waiting(pack)
        else:
            board.finished(pack, rows)
    return held


def wait_for_others(held: Works, board: Board) -> Works:
    """Returns once a held pack is free again (all that are not done), or all are done (none)."""
    pause, announced = POLL[0], False
    while held:
        held = {pack: work for pack, work in held.items() if not _others_are_done(pack, work, board)}
        holders = {pack: holder for pack, work in held.items() if (holder := _holder(work))}
        if len(holders) < len(held):
            return held
        if held and not announced:
            names = ", ".join(sorted({str(holder) for holder in holders.values()}))
            board.say(f"waiting for {len(held)} packs that others are at work on ({names}); Ctrl-C leaves them to it")
            announced = True
        if held:
            time.sleep(pause)
            pause = min(2 * pause, POLL[1])
    return {}


def _holder(work: Work) -> Holder | None:
    claims = Claims(work.run_folder / "claims", work.session)
    return next((holder for trial in work.trials if (holder := claims.holder(trial.id))), None)


def _others_are_done(pack: str, work: Work, board: Board) -> bool:
    folders = [work.folder(trial) for trial in work.trials]
    if not all(map(is_done, folders)):
        return False
    rows: list[dict[str, Any]] = [read_json(folder / "row.json") for folder in folders]
    board.finished(pack, rows)
    return True
