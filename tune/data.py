"""All data of the study, with their hashes, in one command: `make data`.

    python tune/data.py                         # collect what is missing, verify what is there
    python tune/data.py --tasks BallCircle CarRun
    python tune/data.py --check                 # verify alone, collect nothing

Tasks are those of ``STUDY_TASKS`` (tune/grids.py), hashes those on the committed cards (results/datasets). A file that
is there and right is left alone; a collection that was stopped goes on where it was; DSRL's own files are used as they
are. Exit code 1: a file is missing or differs from its card.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

try:
    from safemil.collection.collecting import collect
    from safemil.collection.recipes.table import find_recipe
    from safemil.config.errors import UserError, entry_point
    from safemil.data.locate import find
    from safemil.data.provenance import sha256
    from safemil.data.tasks import Task, find_task, parse_file_name
    from tune.grids import STUDY_TASKS
except ModuleNotFoundError as missing:
    # Started as a script, Python sees tune/ and not the folder above it: the packages must be installed.
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make data does it)")

CARDS = Path(__file__).parent.parent / "results" / "datasets"


def card_hashes(folder: Path) -> dict[str, str]:
    """Task -> SHA-256 on its card."""
    hashes = {}
    for page in folder.glob("*.md"):
        task, _ = parse_file_name(f"{page.stem}.hdf5")
        found = re.search(r"SHA-256 `([0-9a-f]{64})`", page.read_text())
        if task is not None and found is not None:
            hashes[task.name] = found[1]
    return hashes


def obtain(task: Task, expected: str | None, *, check: bool, overwrite: bool, workers: int | None) -> tuple[bool, str]:
    """Have one task's file: whether it is as it should be, and a line that says so."""
    path, begun = find(task), time.perf_counter()
    if path is not None and path.name == task.file_name:
        return True, "DSRL's own file, used as it is"
    present = path is not None and (expected is None or sha256(path) == expected)
    if not present and not check and (path is None or overwrite):
        try:
            path = collect(task, workers=workers, overwrite=overwrite)
        except UserError as error:
            return False, f"not collected: {error}"
    if path is None:
        return False, f"missing (about {find_recipe(task).minutes:g} min to collect)"
    minutes = (time.perf_counter() - begun) / 60
    took = "" if present or check else f", collected in {minutes:.1f} min"
    if expected is None:
        return True, f"{path.name}{took}; no card to compare it with"
    if sha256(path) != expected:
        return (
            False,
            f"{path.name}{took}: SHA-256 {sha256(path)[:12]}, on its card {expected[:12]}; --overwrite repeats it",
        )
    return True, f"{path.name}{took}: as on its card"


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", metavar="T", default=STUDY_TASKS, help="default: the study's")
    parser.add_argument("--check", action="store_true", help="verify what is there, collect nothing")
    parser.add_argument("--overwrite", action="store_true", help="collect files again that differ from their cards")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per core)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    tasks, hashes, begun = [find_task(name) for name in options.tasks], card_hashes(CARDS), time.perf_counter()
    n_wrong = 0
    for task in tasks:
        right, line = obtain(
            task,
            hashes.get(task.name),
            check=options.check,
            overwrite=options.overwrite,
            workers=options.workers,
        )
        n_wrong += not right
        print(f"{'ok ' if right else 'NOT'} {task.name:22} {line}", flush=True)
    print(f"{len(tasks) - n_wrong} of {len(tasks)} in {(time.perf_counter() - begun) / 60:.1f} min")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
