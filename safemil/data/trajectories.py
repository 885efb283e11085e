"""Trajectories: frozen arrays cut into episodes. What learners may see (``Trajectories``: observations, actions) and,
apart from it, what they never see (``Outcomes``: rewards, costs).

All steps of all episodes lie one after the other, without padding. ``offsets`` says where each one begins:

    row              0   1   2   3   4   5   6   7   8
    observations   [ o   o   o | o   o | o   o   o   o ]     (n_steps, observation_dim) float32, or images in uint8
    actions        [ a   a   a | a   a | a   a   a   a ]     (n_steps, action_dim)      float32
    trajectory     [     0     |   1   |       2       ]
    offsets          0           3       5               9   (n_trajectories + 1,)      int64

Trajectory i is the rows ``offsets[i]:offsets[i + 1]``; its length is ``lengths[i]``; the last offset is ``n_steps``.
``Outcomes`` holds one reward, cost and terminal per row under the same offsets. Files are read and written by
``safemil.data.hdf5``; no simulator is needed for either.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemil.config.errors import UserError, printable

LARGE = 1000.0  # smaller numbers are as fine in float32 as any network can tell
LOST_SHARE = 1e-3  # of a column's range, lost by rounding to float32


FIELDS = 8  # by as many, of an image
IMAGES_AT_ONCE = 4096


class DatasetError(UserError):
    """A dataset, or an array meant to become one, that is not what it should be."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Observations and actions of many episodes. Checked once, read-only after; ``len()`` counts trajectories."""

    observations: np.ndarray  # (n_steps, observation_dim) float32, or images (n_steps, height, width, channels) uint8
    actions: np.ndarray  # (n_steps, action_dim) float32
    offsets: np.ndarray  # (n_trajectories + 1,) int64

    def __post_init__(self) -> None:
        if np.ndim(self.observations) == 4:
            as_observations(self.observations)
            _freeze(self, "observations", np.uint8, ndim=4)
        else:
            _freeze(self, "observations", np.float32, ndim=2)
        _freeze(self, "actions", np.float32, ndim=2)
        _freeze(self, "offsets", np.int64, ndim=1)
        _check_offsets(self.offsets, {"observations": len(self.observations), "actions": len(self.actions)})

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_steps(self) -> int:
        return len(self.observations)

    @property
    def observation_dim(self) -> int | tuple[int, int, int]:
        """The length of a vector, or height, width and channels of an image."""
        first, *others = self.observations.shape[1:]
        return (first, others[0], others[1]) if others else first

    @property
    def observation_size(self) -> str:
        """The same in words."""
        size = self.observation_dim
        return f"{size} numbers" if isinstance(size, int) else f"{size[0]} x {size[1]} pixels of {size[2]} channels"

    @property
    def action_dim(self) -> int:
        return self.actions.shape[1]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(n_trajectories,) int64, the number of steps of each."""
        return _read_only(np.diff(self.offsets))

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Row indices (int64) of the trajectories ``indices``, concatenated in that order; repeats are repeated."""
        return _rows(self.offsets, indices)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Observations of these rows as short vectors, (n, d) float64: themselves, or of images the means of fields."""
        if self.observations.ndim == 2:
            return self.observations[rows].astype(np.float64)
        parts = np.array_split(rows, -(-len(rows) // IMAGES_AT_ONCE))
        return np.concatenate([field_means(self.observations[part]) for part in parts])

    def select(self, indices: Sequence[int] | np.ndarray) -> Trajectories:
        """A copy that holds the trajectories ``indices`` alone, in that order."""
        rows = self.rows(indices)
        return Trajectories(self.observations[rows], self.actions[rows], _offsets_of(self.lengths, indices))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Rewards, costs and terminals of the same episodes: for metrics and oracles alone, never handed to a learner."""

    rewards: np.ndarray  # (n_steps,) float32
    costs: np.ndarray  # (n_steps,) float32
    terminals: np.ndarray  # (n_steps,) bool: the simulator ended the episode at this step (not a mere time limit)
    offsets: np.ndarray  # (n_trajectories + 1,) int64, as in the trajectories they belong to

    def __post_init__(self) -> None:
        _freeze(self, "rewards", np.float32, ndim=1)
        _freeze(self, "costs", np.float32, ndim=1)
        _freeze(self, "terminals", bool, ndim=1)
        _freeze(self, "offsets", np.int64, ndim=1)
        _check_offsets(self.offsets, {name: len(getattr(self, name)) for name in ("rewards", "costs", "terminals")})

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def returns(self) -> np.ndarray:
        """(n_trajectories,) float64: the undiscounted sum of rewards of each trajectory."""
        return _sums(self.rewards, self.offsets)

    @functools.cached_property
    def costs_total(self) -> np.ndarray:
        """(n_trajectories,) float64: the undiscounted sum of costs of each trajectory."""
        return _sums(self.costs, self.offsets)

    def select(self, indices: Sequence[int] | np.ndarray) -> Outcomes:
        """A copy that holds the trajectories ``indices`` alone, in that order."""
        rows = _rows(self.offsets, indices)
        offsets = _offsets_of(np.diff(self.offsets), indices)
        return Outcomes(self.rewards[rows], self.costs[rows], self.terminals[rows], offsets)


def first_bad_row(array: np.ndarray) -> int | None:
    """The first row of a float array (n,) or (n, d) that holds NaN or infinity; None when there is none."""
    finite = np.isfinite(array)
    if finite.all():
        return None
    return int(np.argmin(finite if finite.ndim == 1 else finite.all(axis=1)))


def as_observations(values: np.ndarray) -> np.ndarray:
    """Vectors (n, d) as float32, images (n, height, width, channels) as they are. Raises ``DatasetError``."""
    array = np.asarray(values)
    if array.ndim != 4:
        return array.astype(np.float32)
    check_image_type("observations", array.dtype)
    return array


def check_image_type(name: str, dtype: np.dtype) -> None:
    """Refuse images that are not of whole numbers from 0 to 255."""
    if dtype != np.uint8:
        raise DatasetError(f"{name}: images of {dtype}; uint8 is expected, (n_steps, height, width, channels)")


def field_means(images: np.ndarray) -> np.ndarray:
    """Means over 8 x 8 fields of each channel of images (n, height, width, channels), (n, d) float64."""
    for axis in (1, 2):
        size = images.shape[axis]
        edges = np.linspace(0, size, min(FIELDS, size) + 1).astype(int)
        sums = np.add.reduceat(images, edges[:-1], axis=axis, dtype=np.float64)
        images = sums / np.diff(edges).reshape(-1, *(1,) * (3 - axis))
    return images.reshape(len(images), -1)


def as_float32(name: str, values: np.ndarray) -> np.ndarray:
    """An array (n,) or (n, d) as float32, all finite. Raises ``DatasetError`` naming the row or column at fault."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity
        array = np.ascontiguousarray(values, dtype=np.float32)
    if (row := first_bad_row(array)) is not None:
        found = printable(str(array[row]), 80)
        raise DatasetError(f"{name}: row {row} holds NaN or infinity ({found}); remove that trajectory")
    check_resolution(name, values, array)
    return array


def check_resolution(name: str, values: np.ndarray, rounded: np.ndarray) -> None:
    """Refuse large numbers, as time stamps are, whose differences are lost when they become float32.

    Args:
        values: (n,) or (n, d) as they were given; ``rounded`` are the same as float32.

    Raises:
        DatasetError: rounding changes a column by more than ``LOST_SHARE`` of the range of its values.
    """
    if len(values) == 0 or np.can_cast(values.dtype, np.float32):
        return
    low, high, error = (
        np.atleast_1d(part) for part in (values.min(axis=0), values.max(axis=0), np.abs(values - rounded).max(axis=0))
    )
    largest = np.maximum(np.abs(low), np.abs(high))
    lost = np.flatnonzero((high > low) & (error > LOST_SHARE * (high - low)) & (largest >= LARGE))
    if lost.size:
        column = lost[0]
        spacing = np.spacing(np.float32(largest[column]))
        raise DatasetError(
            f"{name}: column {column} runs from {low[column]:.17g} to {high[column]:.17g}, where float32 has steps of"
            f" {spacing:g}; subtract an offset from it, or leave it out"
        )


def _freeze(owner: Trajectories | Outcomes, name: str, dtype: type, ndim: int) -> None:
    """Replace the field by a read-only view (a copy when the type differs), after checking dimensions and values."""
    values = np.asarray(getattr(owner, name))
    if values.ndim != ndim:
        raise DatasetError(f"{name}: shape {values.shape} has {values.ndim} dimension(s), expected {ndim}")
    array = as_float32(name, values) if dtype is np.float32 else np.ascontiguousarray(values, dtype=dtype)
    object.__setattr__(owner, name, _read_only(array.view()))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _check_offsets(offsets: np.ndarray, lengths: dict[str, int]) -> None:
    if len(offsets) < 1 or offsets[0] != 0:
        raise DatasetError(f"offsets: must begin with 0, found {offsets[:3].tolist()}")
    if np.any(np.diff(offsets) < 1):
        where = int(np.argmax(np.diff(offsets) < 1))
        raise DatasetError(f"offsets: trajectory {where} has no rows ({offsets[where]} to {offsets[where + 1]})")
    for name, n_steps in lengths.items():
        if offsets[-1] != n_steps:
            raise DatasetError(f"{name}: {n_steps} rows, but the offsets end at {offsets[-1]}; both must agree")


def _rows(offsets: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    # Indexing a range first gives numpy's own treatment of negative numbers, masks and numbers out of range.
    chosen = np.arange(len(offsets) - 1)[indices]
    lengths = np.diff(offsets)[chosen]
    starts_in_result = np.cumsum(lengths) - lengths
    return np.repeat(offsets[:-1][chosen] - starts_in_result, lengths) + np.arange(lengths.sum())


def _offsets_of(lengths: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    chosen = lengths[np.arange(len(lengths))[indices]]
    return np.concatenate([[0], np.cumsum(chosen)]).astype(np.int64)


def _sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    if len(offsets) == 1:
        return _read_only(np.zeros(0))
    return _read_only(np.add.reduceat(values, offsets[:-1], dtype=np.float64))
