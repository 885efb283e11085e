"""A DSRL dataset file, read and written. In: an HDF5 file. Out: ``Trajectories`` and ``Outcomes``, or an error that
says which key, shape or row is wrong.

Keys: observations, next_observations, actions, rewards, costs, terminals, timeouts; an episode ends at each row where
terminals or timeouts is 1. Three things are mended rather than refused, each with a logged warning:

- Rows after the last end are an unfinished episode and are dropped. OSRL keeps them and gives them cost 0, so that
  such a tail would always count as safe.
- Actions of a known task outside [-1, 1] are clipped. Some of DSRL's own files (BallCircle, CarCircle, DroneCircle)
  hold the policy's sample as it was before the simulator clipped it (https://github.com/liuzuxin/DSRL/issues/5); the
  clipped action is the one that was executed. In a file of no known task they are refused.
- An episode longer than the task's horizon is kept.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.config.errors import printable
from safemil.data.actions import ROUNDING, in_range
from safemil.data.hdf5_access import opened
from safemil.data.layout import KEYS, Layout, attributes_of, columns_of, layout_of
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories, as_float32, check_resolution, first_bad_row

logger = logging.getLogger(__name__)

ROWS_PER_READ = 1 << 18  # so that reading needs little memory beside the result
IMAGE_ROWS_PER_READ, IMAGE_CHUNK = 1 << 12, 1 << 18  # the same; bytes that are compressed together
ACTION_LIMIT = 10.0  # no sampled action comes near this: the file is in other units


def read_layout(path: Path, task: Task | None = None) -> Layout:
    """Check keys, lengths, dimensions and episode ends of a file. Raises ``DatasetError``."""
    with opened(path) as file:
        layout = layout_of(columns_of(file), task)
        return dataclasses.replace(layout, attributes=attributes_of(file))


def load(path: str | Path, task: Task | None = None) -> tuple[Trajectories, Outcomes | None]:
    """Read a whole file. Outcomes are None when it has no rewards or no costs.

    With ``task``, dimensions are checked against it. Raises ``DatasetError`` naming file, key and row.
    """
    path = Path(path)
    with opened(path) as file:
        columns = columns_of(file)
        layout = layout_of(columns, task)
        n_kept = int(layout.offsets[-1])
        if n_kept < layout.n_steps:
            logger.warning("%s: dropped the last %d rows, an unfinished episode", path, layout.n_steps - n_kept)
        if task is not None and np.diff(layout.offsets).max() > task.horizon:
            longest = int(np.argmax(np.diff(layout.offsets)))
            steps = np.diff(layout.offsets)[longest]
            logger.warning("%s: trajectory %d has %d steps, a %s episode %d: is an end missing?",
                           path, longest, steps, task.name, task.horizon)  # fmt: skip
        actions = _floats(columns, "actions", n_kept)
        actions = in_range(actions) if task is None else _clipped(actions, path)
        trajectories = Trajectories(_observations(columns, n_kept), actions, layout.offsets)
        if not layout.has_outcomes:
            return trajectories, None
        rewards, costs = (_floats(columns, key, n_kept).reshape(-1) for key in ("rewards", "costs"))
        return trajectories, Outcomes(rewards, costs, layout.terminals[:n_kept], layout.offsets)


def save(
    path: str | Path,
    trajectories: Trajectories,
    outcomes: Outcomes | None,
    attributes: Mapping[str, str | int | float],
    *,
    next_observations: np.ndarray | None = None,
    last_observations: np.ndarray | None = None,
) -> None:
    """Write a file, whole or not at all. ``attributes`` become HDF5 attributes (provenance).

    Without ``next_observations`` (n_steps, observation_dim), they are taken from the following row, and for the last
    row of each trajectory from ``last_observations`` (n_trajectories, observation_dim); it repeats its own where these
    are not known either. Images are compressed, and next ones left out: they would double the file for one frame a
    trajectory. Equal arrays make equal files.
    """
    import h5py

    path, arrays = Path(path), _arrays(trajectories, outcomes, next_observations, last_observations)
    image = io.BytesIO()  # in memory: on a full disk HDF5 fails once more as it closes, in the worst case past Python
    with h5py.File(image, "w") as file:
        for key in KEYS:
            if key in arrays:
                file.create_dataset(key, data=arrays[key], **_storage(arrays[key]))
        file.attrs.update(attributes)
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(image.getbuffer())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror})") from error


def _arrays(
    trajectories: Trajectories,
    outcomes: Outcomes | None,
    next_observations: np.ndarray | None,
    last_observations: np.ndarray | None,
) -> dict[str, np.ndarray]:
    last_rows = trajectories.offsets[1:] - 1
    arrays = {"observations": trajectories.observations, "actions": trajectories.actions}
    if trajectories.observations.ndim == 2:
        arrays["next_observations"] = _following(trajectories, next_observations, last_observations)
    terminals = np.zeros(trajectories.n_steps, dtype=bool)
    if outcomes is not None:
        if not np.array_equal(outcomes.offsets, trajectories.offsets):
            raise DatasetError("outcomes and trajectories have different offsets: they are not of the same episodes")
        terminals = outcomes.terminals
        arrays |= {"rewards": outcomes.rewards, "costs": outcomes.costs}
    timeouts = np.zeros(trajectories.n_steps, dtype=bool)
    timeouts[last_rows] = ~terminals[last_rows]
    return arrays | {"terminals": terminals, "timeouts": timeouts}


def _storage(array: np.ndarray) -> dict[str, Any]:
    """How HDF5 is to keep an array: images compressed, a few whole ones together, all else as it is."""
    if array.ndim < 4:
        return {}
    rows = max(1, min(len(array), IMAGE_CHUNK // array[:1].nbytes))
    return {"chunks": (rows, *array.shape[1:]), "compression": "gzip", "compression_opts": 4}


def _following(
    trajectories: Trajectories, next_observations: np.ndarray | None, last_observations: np.ndarray | None
) -> np.ndarray:
    """The observation after each, as given or as it follows from the rows."""
    if next_observations is None:
        last_rows = trajectories.offsets[1:] - 1
        following = np.minimum(np.arange(trajectories.n_steps) + 1, trajectories.n_steps - 1)
        following[last_rows] = last_rows
        next_observations = trajectories.observations[following]
        if last_observations is not None:
            next_observations[last_rows] = last_observations
    next_observations = as_float32("next_observations", np.asarray(next_observations))
    if next_observations.shape != trajectories.observations.shape:
        found, expected = next_observations.shape, trajectories.observations.shape
        raise DatasetError(f"next_observations: shape {found}, but observations have {expected}")
    return next_observations


def _observations(columns: Mapping[str, Any], n_rows: int) -> np.ndarray:
    """Vectors as float32; images as they are, a few thousand at a time, as they may be compressed."""
    images = columns["observations"]
    if len(images.shape) == 2:
        return _floats(columns, "observations", n_rows)
    result = np.empty((n_rows, *images.shape[1:]), dtype=np.uint8)
    for start in range(0, n_rows, IMAGE_ROWS_PER_READ):
        images.read_direct(result, *(np.s_[start : min(start + IMAGE_ROWS_PER_READ, n_rows)],) * 2)
    return result


def _floats(columns: Mapping[str, Any], key: str, n_rows: int) -> np.ndarray:
    """The first ``n_rows`` of a dataset as float32, all finite."""
    dataset = columns[key]
    result = np.empty((n_rows, *dataset.shape[1:]), dtype=np.float32)
    # Whole storage chunks at a time: a compressed chunk that is read in two parts is decompressed twice.
    chunk = dataset.chunks[0] if dataset.chunks else 1
    step = max(1, ROWS_PER_READ // chunk) * chunk
    for start in range(0, n_rows, step):
        values = dataset[start : min(start + step, n_rows)]
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, reported below
            result[start : start + step] = values
        if (row := first_bad_row(result[start : start + step])) is not None:
            row += start
            raise DatasetError(
                f"{key!r}: row {row} of {n_rows} holds NaN or infinity ({printable(str(result[row]), 80)})"
            )
        check_resolution(repr(key), values, result[start : start + step])
    return result


def _clipped(actions: np.ndarray, path: Path) -> np.ndarray:
    excess = np.abs(actions).max(axis=1)
    if (largest := excess.max()) > ACTION_LIMIT:
        row = int(np.argmax(excess))
        raise DatasetError(f"'actions': row {row} reaches {largest:g}, expected [-1, 1]: other units, or not actions?")
    if largest > 1 + ROUNDING:
        n_outside = int((excess > 1 + ROUNDING).sum())
        logger.warning("%s: clipped %d of %d actions to [-1, 1] (largest %.3g)", path, n_outside, len(actions), largest)
    return np.clip(actions, -1.0, 1.0, out=actions)
