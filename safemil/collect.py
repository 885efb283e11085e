"""Collect a dataset in the simulator with behavior policies, for when none can be downloaded.

    python -m safemil.collect --list                                   # tasks, recipes, how long each takes
    python -m safemil.collect --task BallCircle                        # 700 trajectories, 1 to 2 minutes on 2 cores
    python -m safemil.collect --task BallCircle --trajectories 120     # enough for a smoke test, 15 seconds
    python -m safemil.collect --task BallCircle --recipe scripted learned --output both.hdf5
    python -m safemil.collect --task BallRun CarRun --address auto     # one file each, on the Ray cluster at hand
    SAFEMIL_AGENTS=agents python -m safemil.collect --task AntVelocity # with public agents that lie in a folder

The file is in DSRL's format and under DSRL's kind of name (maximum cost and number of trajectories at its end) in the
dataset folder. Trajectory i depends on the seed and i alone, not on the number of workers. What was stopped goes on
where it was; an existing file is left alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from safemil.collection.collecting import collect
from safemil.collection.recipes.table import RECIPES
from safemil.config.errors import UserError, entry_point
from safemil.data.tasks import find_task


def _list_recipes() -> None:
    for task, recipes in RECIPES.items():
        for name, recipe in recipes.items():
            size = f"{recipe.n_trajectories} trajectories, about {recipe.minutes:g} min on 2 cores"
            print(f"{task:20} {name:10} {size}: {recipe.description}")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m safemil.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", nargs="+", metavar="TASK", help="which tasks to collect")
    which.add_argument("--list", action="store_true", help="the tasks and recipes there are")
    parser.add_argument("--recipe", nargs="+", metavar="NAME", help="one or more (default: the task's first)")
    parser.add_argument("--trajectories", type=int, metavar="N", help="of each recipe (default: its own number)")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per core)")
    parser.add_argument("--address", help="Ray cluster that works instead (auto: the one running here)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other data (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file, not to the dataset folder")
    parser.add_argument("--overwrite", action="store_true", help="collect again even if the file exists")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.list:
        return _list_recipes()
    tasks = [find_task(name) for name in options.task]  # every name is checked before the work begins
    if options.output is not None and len(tasks) > 1:
        raise UserError(f"--output names one file, but there are {len(tasks)} tasks")
    for task in tasks:
        path = collect(
            task,
            recipes=options.recipe,
            n_trajectories=options.trajectories,
            workers=options.workers,
            seed=options.seed,
            address=options.address,
            output=options.output,
            overwrite=options.overwrite,
        )
        print(path)


if __name__ == "__main__":
    sys.exit(main())
