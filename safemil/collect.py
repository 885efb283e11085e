"""Collect a dataset in the simulator with behavior policies, for when none can be downloaded.

    python -m safemil.collect --task BallCircle                        # 700 trajectories, 1 to 2 minutes on 2 cores
    python -m safemil.collect --task BallCircle --trajectories 120     # enough for a smoke test, 15 seconds
    python -m safemil.collect --task BallCircle --seed 1 --output other.hdf5
    python -m safemil.collect --task BallCircle BallRun                # several tasks, one file each
    python -m safemil.collect --list                                   # the tasks that can be collected

In: a recipe of ``safemil.behaviors``. Out: a file in DSRL's format and under DSRL's kind of name (maximum cost and
number of trajectories at its end) in the dataset folder, its provenance in the HDF5 attributes. Trajectory i depends on
the seed and i alone, so the arrays do not depend on the number of workers. An existing file is left alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from safemil.behaviors import RECIPES, Recipe, find_recipe
from safemil.dataset_file import read_layout
from safemil.datasets import dataset_folder, files_of, lock
from safemil.errors import UserError, entry_point
from safemil.recording import assemble, record_all
from safemil.tasks import Task, find_task
from safemil.trajectories import save

logger = logging.getLogger(__name__)

SIMULATOR_PACKAGES = ("bullet-safety-gym", "dsrl", "gymnasium", "mujoco", "numpy", "pybullet", "safety-gymnasium")


def collect(
    task: Task,
    *,
    recipe: str = "scripted",
    n_trajectories: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Collect a dataset and return its path. A file that was collected with the same settings is returned as it is.

    Args:
        workers: processes; all cores by default. The result does not depend on it.
        output: a path instead of the dataset folder and DSRL's kind of name.
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        UserError: no such recipe, a number out of range, or a different file is in the way and ``overwrite`` is off.
    """
    chosen = find_recipe(task, recipe)
    n_trajectories = chosen.n_trajectories if n_trajectories is None else n_trajectories
    workers = _cores() if workers is None else workers
    for name, value, least in (("trajectories", n_trajectories, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"--{name} {value}: expected at least {least}")
    asked = {"task": task.name, "recipe": recipe, "seed": seed, "n_trajectories": n_trajectories}
    folder = dataset_folder() if output is None else output.parent
    with lock(folder, f"{task.file_stem}.collect"):  # a second process waits, then finds the first one's file
        present = [output] if output is not None else files_of(task, folder, n_trajectories)
        present = [path for path in present if path.exists()]
        if present and not overwrite:
            return _existing(present[0], asked)
        for path in present:
            _check_ours(path)
        logger.info("collecting %d trajectories of %s on %d process(es)", n_trajectories, task.name, workers)
        trajectories, outcomes, next_observations = assemble(
            record_all(task, recipe, n_trajectories, seed, workers, progress)
        )
        largest_cost = round(float(outcomes.costs_total.max()))
        path = output or folder / f"{task.file_stem}-{largest_cost}-{n_trajectories}.hdf5"
        if path.exists():
            _check_ours(path)
        save(path, trajectories, outcomes, asked | _provenance(chosen), next_observations=next_observations)
        for replaced in present:
            if replaced != path:
                replaced.unlink()
    return path


def _cores() -> int:
    """The cores this process may use: on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _provenance(recipe: Recipe) -> dict[str, str]:
    """No time and no machine, so that equal data make an equal file and an equal SHA-256."""
    versions = {package: _version(package) for package in SIMULATOR_PACKAGES}
    return {
        "collected_by": "safemil.collect",
        "parameters": json.dumps(recipe.parameters, sort_keys=True),
        "versions": json.dumps({name: version for name, version in versions.items() if version}, sort_keys=True),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path, asked: dict[str, str | int]) -> Path:
    found = read_layout(path).attributes
    different = [f"{name} {found.get(name, 'unknown')}" for name in asked if found.get(name) != asked[name]]
    if different:
        raise UserError(
            f"{path} exists and was made otherwise ({', '.join(different)}); --overwrite replaces it, --output names"
            " another file"
        )
    logger.info("%s exists already, collected with these settings; nothing to do (--overwrite repeats it)", path)
    return path


def _check_ours(path: Path) -> None:
    if "collected_by" not in read_layout(path).attributes:
        raise UserError(f"{path} was not made by this command and is not overwritten; move it, or use --output")


def _list_recipes() -> None:
    for task, recipes in RECIPES.items():
        for name, recipe in recipes.items():
            print(f"{task:20} {name:12} {recipe.n_trajectories:5} trajectories  {recipe.description}")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m safemil.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", nargs="+", metavar="TASK", help="which tasks to collect")
    which.add_argument("--list", action="store_true", help="the tasks and recipes there are")
    parser.add_argument("--recipe", default="scripted", help="kind of behavior policies (default: %(default)s)")
    parser.add_argument("--trajectories", type=int, metavar="N", help="how many (default: the recipe's own number)")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per core)")
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
            recipe=options.recipe,
            n_trajectories=options.trajectories,
            workers=options.workers,
            seed=options.seed,
            output=options.output,
            overwrite=options.overwrite,
        )
        print(path)


if __name__ == "__main__":
    sys.exit(main())
