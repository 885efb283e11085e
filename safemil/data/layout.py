"""What must be true of an HDF5 dataset before its observations are read. In: an open file. Out: its layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from safemil.config.errors import printable
from safemil.data.hdf5_access import check_stored, member
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, check_image_type

KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What a file holds, known without reading its observations and actions."""

    n_steps: int  # rows in the file, the unfinished tail included
    offsets: np.ndarray  # (n_trajectories + 1,) int64
    terminals: np.ndarray  # (n_steps,) bool
    has_outcomes: bool
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)  # provenance, empty for DSRL's own files


def columns_of(file: Any) -> dict[str, Any]:
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


def attributes_of(file: Any) -> dict[str, Any]:
    """Texts and numbers beside the data."""
    return {name: value for name, value in file.attrs.items() if isinstance(value, str | int | float | np.number)}


def layout_of(columns: Mapping[str, Any], task: Task | None) -> Layout:
    """Check lengths, dimensions and episode ends. Raises ``DatasetError``."""
    ends = [key for key in ("terminals", "timeouts") if key in columns]
    if not ends:
        raise DatasetError("neither 'terminals' nor 'timeouts' is there, so it is unknown where episodes end")
    if columns["actions"].dtype.kind in "iub" and columns["actions"].shape[1:] in ((), (1,)):
        raise DatasetError("'actions' are whole numbers in one column: discrete; real numbers in [-1, 1] are expected")
    n_steps = next(iter(columns["observations"].shape), 0)
    if n_steps == 0:
        raise DatasetError("'observations' has no rows")
    for key, dataset in columns.items():
        size = None if task is None else task.action_dim if key == "actions" else task.observation_dim
        if key.endswith("observations") and len(dataset.shape) == 4:
            _check_images(key, dataset, n_steps, size)
        else:
            matrix = key.endswith(("observations", "actions"))
            _check_shape(key, dataset.shape, n_steps, matrix=matrix, width=size)
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


def _check_images(key: str, images: Any, n_steps: int, size: int | tuple[int, int, int] | None) -> None:
    check_image_type(repr(key), images.dtype)
    if len(images) != n_steps or size not in (None, images.shape[1:]):
        expected = f"({n_steps}, {'height, width, channels' if size is None else str(size).strip('()')})"
        raise DatasetError(f"{key!r} has shape {images.shape}, expected {expected}; is this the file of another task?")


def _check_shape(
    key: str, shape: tuple[int, ...], n_steps: int, matrix: bool, width: int | tuple[int, int, int] | None
) -> None:
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
