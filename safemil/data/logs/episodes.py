"""Columns -> a ``Log``: episodes begin and end where offsets, lengths, starts or flags say so, never by a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.logs.columns import EPISODES, NAMES, Wanted, named, one_a_step, read, shortened, unused

ONE_STEP = "an end is 1 in the last row of an episode alone; are these masks or padding? If not, add `lengths`"


@dataclass(frozen=True, eq=False)
class Log:
    """Flat arrays under our names, the offsets of the episodes, and what else is to be said of them."""

    format: str
    columns: dict[str, np.ndarray]  # each (n_steps,) or (n_steps, d); ends as bool, the rest as it was stored
    offsets: np.ndarray  # (n_trajectories + 1,) int64
    notes: tuple[str, ...]  # what was not used
    dropped: tuple[str, ...] = ()  # rows that are not in the columns


def flat(kind: str, arrays: Mapping[str, Any], wanted: Wanted) -> Log:
    """Arrays that hold all episodes one after the other, which ``offsets``, ``lengths``, starts or ends tell apart.

    Arrays of several environments at once, (n_steps, n_environments, d), are taken one environment after the other.

    Raises:
        UserError: names, shapes or episodes are not clear.
    """
    notes = unused(arrays, wanted)
    if n_environments := _n_environments(arrays):
        return _environments(kind, arrays, n_environments, wanted, notes)
    columns = named(arrays, wanted)
    n_rows = len(columns["observations"])
    if n_rows == 0:
        raise UserError("observations has no rows")
    for name, values in columns.items():
        if len(values) != n_rows:
            raise UserError(f"{name} has {len(values)} rows, but observations {n_rows}; one a step is expected")
    given = {name: _given_offsets(name, read(name, arrays[name]), n_rows) for name in EPISODES if name in arrays}
    if given:
        offsets = next(iter(given.values()))
        if not all(np.array_equal(offsets, others) for others in given.values()):
            raise UserError(f"{' and '.join(given)} are of different episodes; keep one")
        check_ends(columns, offsets, [f"trajectory {index}" for index in range(len(offsets) - 1)])
        return Log(kind, columns, offsets, notes)
    ends = [columns[name] for name in ("terminals", "timeouts") if name in columns]
    if not ends:
        raise UserError(f"no terminals or timeouts say where episodes end (found {shortened(arrays)})")
    last_rows = np.flatnonzero(np.logical_or.reduce(ends))
    if len(last_rows) == 0:
        raise UserError("no episode ends: terminals and timeouts are 0 in every row")
    offsets = np.concatenate([[0], last_rows + 1]).astype(np.int64)
    if (short := np.flatnonzero(np.diff(offsets) == 1)).size:
        raise UserError(f"{len(short)} episodes of one step, the first in row {offsets[short[0]]}: {ONE_STEP}")
    n_tail = n_rows - int(offsets[-1])
    dropped = (f"dropped: the last {n_tail} of {n_rows} rows, an episode without an end",) if n_tail else ()
    return Log(kind, {name: values[: offsets[-1]] for name, values in columns.items()}, offsets, notes, dropped)


def _n_environments(arrays: Mapping[str, Any]) -> int:
    """How many environments a step is of; 0 where observations and actions are not both of three dimensions."""
    shapes = [
        [arrays[alias].shape for alias in NAMES[name] if alias in arrays and len(arrays[alias].shape) == 3]
        for name in ("observations", "actions")
    ]
    if not all(shapes):
        return 0
    flags = (*NAMES["terminals"], *NAMES["timeouts"], *NAMES["dones"], "episode_starts")
    if not any(arrays[name].shape[:2] == shapes[0][0][:2] for name in flags if name in arrays):
        shape = printable(str(shapes[0][0]), 60)
        raise UserError(f"observations of shape {shape}: for episodes of equal length, make it two and add `lengths`")
    return shapes[0][0][1]


def _environments(kind: str, arrays: Mapping[str, Any], n: int, wanted: Wanted, notes: tuple[str, ...]) -> Log:
    """(n_steps, n, ...) arrays, as rollout and replay buffers are, one environment after the other."""
    known = {alias for aliases in NAMES.values() for alias in aliases} | set(EPISODES)
    values = {name: read(name, array) for name, array in arrays.items() if name in known}
    steps = {array.shape[:2] for array in values.values()}
    if len(steps) > 1:
        raise UserError(f"arrays of {shortened(sorted(steps))} steps and environments; expected the same of all")
    logs = []
    for number in range(n):
        try:
            logs.append(flat(kind, {name: array[:, number] for name, array in values.items()}, wanted))
        except UserError as error:
            raise UserError(f"environment {number}: {error}") from error
    columns = {name: np.concatenate([log.columns[name] for log in logs]) for name in logs[0].columns}
    lengths = np.concatenate([np.diff(log.offsets) for log in logs])
    dropped = tuple(f"environment {number}: {note}" for number, log in enumerate(logs) for note in log.dropped)
    return Log(kind, columns, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), notes, dropped)


def _given_offsets(name: str, values: np.ndarray, n_rows: int) -> np.ndarray:
    """``offsets``, ``lengths`` or ``episode_starts`` as offsets that go from 0 to the last row."""
    if name == "episode_starts":
        starts = one_a_step(name, values, is_end=True)
        if len(starts) != n_rows or not starts[0]:
            raise UserError(f"{name}: expected a flag for each of {n_rows} rows, the first of them 1")
        return np.concatenate([np.flatnonzero(starts), [n_rows]]).astype(np.int64)
    expected = f"expected {'0 and the end of each episode' if name == 'offsets' else 'the rows of each episode'}"
    if values.dtype.kind not in "fiu" or values.ndim != 1 or not np.array_equal(values, np.round(values)):
        raise UserError(f"{name}: {shortened(values.reshape(-1))}; {expected}, in whole numbers")
    if len(values) > n_rows + 1 or np.abs(values.astype(np.float64)).max(initial=0) > max(n_rows, 1) * 1e3:
        raise UserError(f"{name}: {shortened(values)}; {expected}, of {n_rows} rows")  # before sums overflow
    offsets = values.astype(np.int64)
    if name == "lengths":
        offsets = np.concatenate([[0], np.cumsum(offsets)])
    if len(offsets) < 2 or offsets[0] != 0 or np.any(np.diff(offsets) < 1):
        raise UserError(f"{name}: {shortened(values)}; {expected}, each of at least one row")
    if offsets[-1] != n_rows:
        raise UserError(f"{name}: the last episode ends at row {offsets[-1]}, but there are {n_rows} rows; {expected}")
    return offsets


def join(kind: str, episodes: dict[str, dict[str, np.ndarray]], notes: tuple[str, ...]) -> Log:
    """Episodes, by the name of their file or group, one after the other; all must have the same columns.

    Raises:
        UserError: columns or their widths differ, or an end lies inside an episode.
    """
    first = next(iter(episodes))
    expected = {name: values.shape[1:] for name, values in episodes[first].items()}
    for where, columns in episodes.items():
        if len(columns["actions"]) == 0:
            raise UserError(f"{where} has no rows")
        for name, values in columns.items():
            if len(values) != len(columns["actions"]):
                raise UserError(f"{where}: {name} has {len(values)} rows, but actions {len(columns['actions'])}")
        widths = {name: values.shape[1:] for name, values in columns.items()}
        if widths != expected:
            raise UserError(f"{where} has {_described(widths)}, but {first} has {_described(expected)}")
    columns = {name: np.concatenate([episode[name] for episode in episodes.values()]) for name in expected}
    lengths = [len(episode["actions"]) for episode in episodes.values()]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    check_ends(columns, offsets, list(episodes))
    return Log(kind, columns, offsets, notes)


def with_final_observation(arrays: Mapping[str, Any], wanted: Wanted) -> dict[str, np.ndarray]:
    """The columns of one episode; its observations may have a row more than the steps: the one after the last."""
    episode = named(arrays, wanted)
    n_steps = len(episode["actions"])
    if len(episode["observations"]) == n_steps + 1:
        if wanted.outcomes:
            episode["next_observations"] = episode["observations"][1:]
        episode["observations"] = episode["observations"][:-1]
    if len(episode.get("costs", ())) == n_steps + 1:  # infos may hold a row more as well: the reset's, in front
        episode["costs"] = episode["costs"][1:]
    return episode


def check_ends(columns: Mapping[str, np.ndarray], offsets: np.ndarray, episodes: list[str]) -> None:
    """Refuse an end inside an episode: a later reader would cut the episode there."""
    for name in ("terminals", "timeouts"):
        inside = np.setdiff1d(np.flatnonzero(columns.get(name, ())), offsets[1:] - 1)
        if len(inside):
            number = int(np.searchsorted(offsets, inside[0], side="right")) - 1
            row, n_rows = inside[0] - offsets[number], offsets[number + 1] - offsets[number]
            where = f"{episodes[number]}: {name} is 1 in row {row} of {n_rows}"
            raise UserError(f"{where}, inside the episode; 1 is expected in its last row at most")


def _described(widths: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{name} {printable('x'.join(map(str, width)), 20) or 1}" for name, width in sorted(widths.items())]
    return ", ".join(shown) or "nothing"
