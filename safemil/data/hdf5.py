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
from safemil.data.hdf5_access import check_stored, member, opened
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories, as_float32, check_resolution, first_bad_row

logger = logging.getLogger(__name__)

KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
ROWS_PER_READ = 1 << 18  # so that reading needs little memory beside the result
ACTION_LIMIT = 10.0  # no sampled action comes near this: the file is in other units


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What a file holds, known without reading its observations and actions."""

    n_steps: int  # rows in the file, the unfinished tail included
    offsets: np.ndarray  # (n_trajectories + 1,) int64
    terminals: np.ndarray  # (n_steps,) bool
    has_outcomes: bool
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)  # provenance, empty for DSRL's own files


def read_layout(path: Path, task: Task | None = None) -> Layout:
    """Check keys, lengths, dimensions and episode ends of a file. Raises ``DatasetError``."""
    with opened(path) as file:
        layout = _layout(_columns(file), task)
        return dataclasses.replace(layout, attributes=_attributes(file))


def load(path: str | Path, task: Task | None = None) -> tuple[Trajectories, Outcomes | None]:
    """Read a whole file. Outcomes are None when it has no rewards or no costs.

    With ``task``, dimensions are checked against it. Raises ``DatasetError`` naming file, key and row.
    """
    path = Path(path)
    with opened(path) as file:
        columns = _columns(file)
        layout = _layout(columns, task)
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
        trajectories = Trajectories(_floats(columns, "observations", n_kept), actions, layout.offsets)
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
) -> None:
    """Write a file, whole or not at all. ``attributes`` become HDF5 attributes (provenance).

    Without ``next_observations`` (n_steps, observation_dim), they are taken from the following row; the last row of
    each trajectory repeats its own observation, as its successor is unknown. Equal arrays make equal files.
    """
    import h5py

    path, arrays = Path(path), _arrays(trajectories, outcomes, next_observations)
    image = io.BytesIO()  # in memory: on a full disk HDF5 fails once more as it closes, in the worst case past Python
    with h5py.File(image, "w") as file:
        for key in KEYS:
            if key in arrays:
                file.create_dataset(key, data=arrays[key])
        file.attrs.update(attributes)
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(image.getbuffer())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror})") from error


def _arrays(
    trajectories: Trajectories, outcomes: Outcomes | None, next_observations: np.ndarray | None
) -> dict[str, np.ndarray]:
    last_rows = trajectories.offsets[1:] - 1
    if next_observations is None:
        following = np.minimum(np.arange(trajectories.n_steps) + 1, trajectories.n_steps - 1)
        following[last_rows] = last_rows
        next_observations = trajectories.observations[following]
    next_observations = as_float32("next_observations", np.asarray(next_observations))
    if next_observations.shape != trajectories.observations.shape:
        found, expected = next_observations.shape, trajectories.observations.shape
        raise DatasetError(f"next_observations: shape {found}, but observations have {expected}")
    terminals = np.zeros(trajectories.n_steps, dtype=bool)
    arrays = {"observations": trajectories.observations, "next_observations": next_observations}
    arrays["actions"] = trajectories.actions
    if outcomes is not None:
        if not np.array_equal(outcomes.offsets, trajectories.offsets):
            raise DatasetError("outcomes and trajectories have different offsets: they are not of the same episodes")
        terminals = outcomes.terminals
        arrays |= {"rewards": outcomes.rewards, "costs": outcomes.costs}
    timeouts = np.zeros(trajectories.n_steps, dtype=bool)
    timeouts[last_rows] = ~terminals[last_rows]
    return arrays | {"terminals": terminals, "timeouts": timeouts}


def _columns(file: Any) -> dict[str, Any]:
    """Those of the keys that are in the file, as datasets that are safe to read but not yet read."""
    columns = {key: item for key in KEYS if (item := member(file, key)) is not None}
    for key in ("observations", "actions"):
        if key not in columns:
            found = printable(", ".join(sorted(file)), 200) or "no keys at all"
            raise DatasetError(f"key {key!r} is missing; found {found}")
    for key, item in columns.items():
        if getattr(getattr(item, "dtype", None), "kind", "") not in tuple("fiub") or item.shape is None:
            raise DatasetError(f"{key!r} is not an array of numbers but {printable(str(item), 100)}")
        check_stored(item, key)
    return columns


def _attributes(file: Any) -> dict[str, Any]:
    """Texts and numbers beside the data."""
    return {name: value for name, value in file.attrs.items() if isinstance(value, str | int | float | np.number)}


def _layout(columns: Mapping[str, Any], task: Task | None) -> Layout:
    ends = [key for key in ("terminals", "timeouts") if key in columns]
    if not ends:
        raise DatasetError("neither 'terminals' nor 'timeouts' is there, so it is unknown where episodes end")
    if columns["actions"].dtype.kind in "iub" and columns["actions"].shape[1:] in ((), (1,)):
        raise DatasetError("'actions' are whole numbers in one column: discrete; real numbers in [-1, 1] are expected")
    n_steps = next(iter(columns["observations"].shape), 0)
    if n_steps == 0:
        raise DatasetError("'observations' has no rows")
    for key, dataset in columns.items():
        width = None if task is None else task.action_dim if key == "actions" else task.observation_dim
        _check_shape(key, dataset.shape, n_steps, matrix=key.endswith(("observations", "actions")), width=width)
    flags = {key: _flags(columns, key) for key in ends}
    last_rows = np.flatnonzero(np.logical_or.reduce(list(flags.values())))
    if len(last_rows) == 0:
        raise DatasetError(f"no episode ends: {' and '.join(ends)} are 0 in all {n_steps} rows")
    return Layout(
        n_steps=n_steps,
        offsets=np.concatenate([[0], last_rows + 1]).astype(np.int64),
        terminals=flags.get("terminals", np.zeros(n_steps, dtype=bool)),
        has_outcomes="rewards" in columns and "costs" in columns,
    )


def _check_shape(key: str, shape: tuple[int, ...], n_steps: int, matrix: bool, width: int | None) -> None:
    expected = f"({n_steps}, {'d' if width is None else width})" if matrix else f"({n_steps},)"
    if shape[:1] != (n_steps,):
        found = shape[0] if shape else 0
        raise DatasetError(f"{key!r} has {found} rows, but 'observations' has {n_steps}; they must be equal")
    if matrix and (len(shape) != 2 or (width is not None and shape[1] != width)):
        raise DatasetError(
            f"{key!r} has shape {printable(str(shape), 60)}, expected {expected}; is this the file of another task?"
        )
    if not matrix and shape not in ((n_steps,), (n_steps, 1)):
        raise DatasetError(f"{key!r} has shape {printable(str(shape), 60)}, expected {expected}")


def _flags(columns: Mapping[str, Any], key: str) -> np.ndarray:
    values = columns[key][:].reshape(-1)
    if values.dtype != bool and not (ok := (values == 0) | (values == 1)).all():
        row = int(np.argmin(ok))
        raise DatasetError(f"{key!r}: row {row} is {values[row]}, expected 0 or 1")
    return values.astype(bool)


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
