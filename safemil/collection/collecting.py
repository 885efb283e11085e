"""Collecting a dataset. In: a task and its recipes. Out: an HDF5 file that tells in its attributes how it was made.

Trajectory i depends on the seed and i alone, so the arrays do not depend on the number of workers. A collection that
was stopped goes on where it was; an existing file is left alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from safemil.collection.checkpoint import CollectionCheckpoint, record_all
from safemil.collection.recipes import table
from safemil.collection.recipes.table import find_recipe, recipe_name
from safemil.collection.recording import Recording, assemble
from safemil.config.errors import UserError
from safemil.data.card import return_coverage
from safemil.data.hdf5 import read_layout, save
from safemil.data.locate import dataset_folder, files_of, lock
from safemil.data.tasks import Task
from safemil.simulation.worker_pool import usable_cores

logger = logging.getLogger(__name__)

# What a file records: a package that its simulator does not use must not change its bytes.
DSRL_PACKAGES = ("bullet-safety-gym", "dsrl", "gymnasium", "mujoco", "numpy", "pybullet", "safety-gymnasium")
OWN_PACKAGES = ("panda-gym", "pettingzoo")  # of the suite's own tasks, besides
DSRL_FAMILIES = ("bullet", "velocity", "navigation")
LEARNING_PACKAGES = ("fast-safe-rl", "tianshou", "torch")


def collect(
    task: Task,
    *,
    recipes: Sequence[str] | None = None,
    n_trajectories: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    address: str | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Collect a dataset and return its path. A file that was collected with the same settings is returned as it is.

    What is finished lies in a folder beside it until all is there: called again after a break, it goes on from there.

    Args:
        recipes: their names; the trajectories of several come one after the other. By default the task's first.
        n_trajectories: of each recipe; by default what the recipe says.
        workers: processes; all cores by default. The result does not depend on it.
        address: of a Ray cluster that works instead of processes here.
        output: a path instead of the dataset folder and DSRL's kind of name.
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        UserError: no such recipe, a number out of range, or a different file is in the way and ``overwrite`` is off.
    """
    chosen = [recipe_name(task, name) for name in recipes or (None,)]
    sizes = {name: n_trajectories or find_recipe(task, name).n_trajectories for name in chosen}
    workers = usable_cores() if workers is None else workers
    for name, value, least in (("trajectories", n_trajectories, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: expected at least {least}")
    total = sum(sizes.values())
    asked: dict[str, str | int] = {"task": task.name, "recipe": "+".join(sizes), "seed": seed, "n_trajectories": total}
    folder = dataset_folder() if output is None else output.parent
    with lock(folder, f"{task.file_stem}.collect"):  # a second process waits, then finds the first one's file
        present = [output] if output is not None else files_of(task, folder, total)
        present = [path for path in present if path.exists()]
        if present and not overwrite:
            return _existing(present[0], asked, _provenance(task, list(sizes))["parameters"])
        for path in present:
            _check_ours(path)
        checkpoints = {name: _checkpoint(folder, task, name, seed) for name in sizes}
        recorded = [
            _recorded(task, name, size, seed, checkpoints[name], workers, address, progress)
            for name, size in sizes.items()
        ]
        trajectories, outcomes, last_observations = assemble(sum(recorded, []))
        path = output or folder / f"{task.file_stem}-{round(float(outcomes.costs_total.max()))}-{total}.hdf5"
        if path.exists():
            _check_ours(path)
        attributes = asked | {"recipes": json.dumps(sizes)} | _provenance(task, list(sizes))
        save(path, trajectories, outcomes, attributes, last_observations=last_observations)
        for replaced in present:
            if replaced != path:
                replaced.unlink()
        for checkpoint in checkpoints.values():
            checkpoint.remove()
    if (coverage := return_coverage(outcomes, task)) is not None:
        logger.warning("%s: %s", path.name, coverage)
    return path


def _recorded(
    task: Task,
    name: str,
    size: int,
    seed: int,
    checkpoint: CollectionCheckpoint,
    workers: int,
    address: str | None,
    progress: bool | None,
) -> list[Recording]:
    recipe = find_recipe(task, name)
    n_units = recipe.n_units(size)
    where = f"Ray at {address}" if address else f"{workers} process(es)"
    recipe.prepare()
    logger.info("collecting %d trajectories of %s (recipe %s) on %s", size, task.name, name, where)
    try:
        recordings = record_all(
            task, name, n_units, seed, checkpoint, workers=workers, address=address, progress=progress
        )
    except KeyboardInterrupt:
        logger.info("what is finished is kept in %s; the same command goes on from there", checkpoint.folder)
        raise
    return recipe.choose(recordings, size, seed)


def _checkpoint(folder: Path, task: Task, recipe: str, seed: int) -> CollectionCheckpoint:
    """Where finished units are kept, under a name that stands for everything a unit depends on.

    That is the provenance, and the text of the recipes: a controller may change and its ranges not. So a collection
    never goes on with what another one left.
    """
    provenance = json.dumps(_provenance(task, [recipe]), sort_keys=True).encode()
    sources = [path.read_bytes() for path in sorted(Path(table.__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join([provenance, *sources])).hexdigest()[:8]
    return CollectionCheckpoint(folder / f"{task.file_stem}.{recipe}-seed{seed}-{digest}.parts")


def _provenance(task: Task, recipes: Sequence[str]) -> dict[str, str]:
    """HDF5 attributes: parameters and versions; no time and no machine, so that equal data make an equal file."""
    parameters = {name: find_recipe(task, name).parameters for name in recipes}
    packages = DSRL_PACKAGES + (OWN_PACKAGES if task.family not in DSRL_FAMILIES else ())
    packages += LEARNING_PACKAGES if "learned" in recipes else ()
    versions = {package: version for package in packages if (version := _version(package))}
    return {
        "collected_by": "safemil.collect",
        "parameters": json.dumps(parameters if len(recipes) > 1 else parameters[recipes[0]], sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path, asked: dict[str, str | int], parameters: str) -> Path:
    stored = read_layout(path).attributes
    different = [f"{name} {stored.get(name, 'unknown')}" for name in asked if stored.get(name) != asked[name]]
    if not different and stored.get("parameters") != parameters:
        different = ["the recipe's parameters have changed since"]
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
