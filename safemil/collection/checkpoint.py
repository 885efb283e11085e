"""Recording the units of a collection in many processes. In: a recipe, a seed, a number of units. Out: recordings.

Finished units are kept in a checkpoint until all of them are there. A unit depends on (task, recipe, seed, its number)
alone, so neither the number of workers nor their order matters, and a collection that was stopped goes on.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from safemil.collection.recipes.table import find_recipe
from safemil.collection.recording import Recording, assemble, disassemble
from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError
from safemil.config.ray_address import check_ray_address
from safemil.data.tasks import Task
from safemil.data.trajectories import Outcomes, Trajectories
from safemil.simulation.worker_pool import Chunk, WorkerDied, run_chunks

UNITS_PER_CHUNK = 4  # few enough that workers end together, and that the progress bar moves


class CollectionCheckpoint:
    """A folder with one file per finished unit, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, unit: int, recordings: list[Recording]) -> None:
        """Keep the recordings of a unit. Raises ``UserError`` when the folder cannot be written."""
        trajectories, outcomes, last_observations = assemble(recordings)
        arrays = {name: getattr(trajectories, name) for name in ("observations", "actions", "offsets")}
        arrays |= {name: getattr(outcomes, name) for name in ("rewards", "costs", "terminals")}
        try:
            with atomic_write(self._path(unit)) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays, last_observations=last_observations)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error})") from error

    def load(self, unit: int) -> list[Recording] | None:
        """The recordings of a unit; None when it is not there, or its file was damaged later."""
        try:
            with self._path(unit).open("rb") as file, np.load(file) as arrays:
                trajectories = Trajectories(arrays["observations"], arrays["actions"], arrays["offsets"])
                outcomes = Outcomes(arrays["rewards"], arrays["costs"], arrays["terminals"], arrays["offsets"])
                return disassemble(trajectories, outcomes, arrays["last_observations"])
        except (OSError, BadZipFile, KeyError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the folder: the dataset file is written, and nothing is left to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, unit: int) -> Path:
        return self.folder / f"{unit:06d}.npz"


def record_all(
    task: Task,
    recipe: str,
    n_units: int,
    seed: int,
    checkpoint: CollectionCheckpoint,
    *,
    workers: int,
    address: str | None = None,
    progress: bool | None = None,
) -> list[Recording]:
    """The recordings of units 0 .. n_units - 1, in that order; each unit goes to ``checkpoint`` when it is finished.

    Args:
        workers: processes on this machine.
        address: of a Ray cluster that works instead of them.
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        UserError: the checkpoint cannot be written, a unit ended its worker twice, or no Ray cluster answers.
    """
    from tqdm import tqdm

    hidden = None if progress is None else not progress  # None: hidden unless stderr is a terminal
    finished = {unit: recordings for unit in range(n_units) if (recordings := checkpoint.load(unit)) is not None}
    missing = [unit for unit in range(n_units) if unit not in finished]
    size = max(1, min(UNITS_PER_CHUNK, len(missing) // workers))
    chunks = [Chunk(recipe, tuple(missing[first : first + size])) for first in range(0, len(missing), size)]
    work = functools.partial(record_units, task, seed)
    with tqdm(total=n_units, initial=len(finished), desc=f"collect {task.name}", disable=hidden) as bar:
        for chunk, recorded in _run(work, chunks, workers, address):
            for unit, recordings in zip(chunk.indices, recorded, strict=True):
                checkpoint.save(unit, recordings)
                finished[unit] = recordings
                bar.update()
    return [recording for unit in range(n_units) for recording in finished[unit]]


def record_units(task: Task, seed: int, recipe: str, indices: Sequence[int]) -> list[list[Recording]]:
    """Some units, one after the other: the work of one process."""
    chosen = find_recipe(task, recipe)
    return [chosen.record(task, seed, unit) for unit in indices]


def _run(
    work: Callable, chunks: list[Chunk], workers: int, address: str | None
) -> Iterator[tuple[Chunk, list[list[Recording]]]]:
    if address is not None:
        yield from _on_cluster(work, chunks, address)
    elif workers == 1:
        yield from ((chunk, work(chunk.subject, indices=chunk.indices)) for chunk in chunks)
    else:
        try:
            yield from run_chunks(work, chunks, workers)
        except WorkerDied as error:
            raise UserError(str(error)) from error


def _on_cluster(work: Callable, chunks: list[Chunk], address: str) -> Iterator[tuple[Chunk, list[list[Recording]]]]:
    import ray

    check_ray_address(address)
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    try:

        @ray.remote(num_cpus=1, max_retries=2)
        def perform(chunk: Chunk) -> list[list[Recording]]:
            return work(chunk.subject, indices=chunk.indices)

        running = {perform.remote(chunk): chunk for chunk in chunks}
        while running:
            (done, *_), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
    finally:
        ray.shutdown()
