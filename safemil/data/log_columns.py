"""The arrays of somebody's logs -> columns under our names and the offsets of the episodes: a ``Log``.

Arrays are known by any of the names in ``NAMES``. What has more than one meaning is refused with a ``UserError`` that
says what was found and what would be accepted; nothing is guessed, and nothing is dropped without a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemil.config.errors import UserError

# Our name -> the names it goes by elsewhere
NAMES = {
    "observations": ("observations", "observation", "obs", "states"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "costs": ("costs", "cost", "infos/costs", "infos/cost", "info/cost"),
    "terminals": ("terminals", "terminal", "terminations", "terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
    "dones": ("dones", "done"),  # either of the two; becomes terminals
}
SCALARS = ("rewards", "costs", "terminals", "timeouts", "dones")  # one number a step
EPISODES = ("offsets", "lengths")  # (n + 1,) first rows and the end; (n,) numbers of rows
ONE_STEP = "an end is 1 in the last row of an episode alone; are these masks or padding? If not, add `lengths`"


@dataclass(frozen=True, eq=False)
class Log:
    """Flat arrays under our names, the offsets of the episodes, and what else is to be said of them."""

    format: str
    columns: dict[str, np.ndarray]  # each (n_steps,) or (n_steps, d); ends as bool, the rest as it was stored
    offsets: np.ndarray  # (n_trajectories + 1,) int64
    notes: tuple[str, ...]  # for the report


def flat(kind: str, arrays: Mapping[str, Any]) -> Log:
    """Arrays that hold all episodes one after the other, which ``offsets``, ``lengths`` or ends tell apart.

    Raises:
        UserError: names, shapes or episodes are not clear.
    """
    columns, notes = named(arrays), unused(arrays)
    n_rows = len(columns["observations"])
    for name, values in columns.items():
        if len(values) != n_rows:
            raise UserError(f"{name} has {len(values)} rows, but observations {n_rows}; one a step is expected")
    given = [_given_offsets(name, np.asarray(arrays[name]), n_rows) for name in EPISODES if name in arrays]
    if given:
        offsets = given[0]
        if not np.array_equal(offsets, given[-1]):
            raise UserError("offsets and lengths are of different episodes; keep one")
        _check_ends(columns, offsets, [f"trajectory {index}" for index in range(len(offsets) - 1)])
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
    if n_tail := n_rows - int(offsets[-1]):
        notes += (f"dropped: the last {n_tail} of {n_rows} rows, an episode without an end",)
    return Log(kind, {name: values[: offsets[-1]] for name, values in columns.items()}, offsets, notes)


def _given_offsets(name: str, values: np.ndarray, n_rows: int) -> np.ndarray:
    """``offsets`` or ``lengths`` as offsets that go from 0 to the last row."""
    expected = f"expected {'0 and the end of each episode' if name == 'offsets' else 'the rows of each episode'}"
    if values.dtype.kind not in "fiu" or values.ndim != 1 or not np.array_equal(values, np.round(values)):
        raise UserError(f"{name}: {shortened(values.reshape(-1))}; {expected}, in whole numbers")
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
        for name, values in columns.items():
            if len(values) != len(columns["actions"]):
                raise UserError(f"{where}: {name} has {len(values)} rows, but actions {len(columns['actions'])}")
        widths = {name: values.shape[1:] for name, values in columns.items()}
        if widths != expected:
            raise UserError(f"{where} has {_described(widths)}, but {first} has {_described(expected)}")
    columns = {name: np.concatenate([episode[name] for episode in episodes.values()]) for name in expected}
    lengths = [len(episode["actions"]) for episode in episodes.values()]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    _check_ends(columns, offsets, list(episodes))
    return Log(kind, columns, offsets, notes)


def _check_ends(columns: Mapping[str, np.ndarray], offsets: np.ndarray, episodes: list[str]) -> None:
    """Refuse an end inside an episode: a later reader would cut the episode there."""
    for name in ("terminals", "timeouts"):
        inside = np.setdiff1d(np.flatnonzero(columns.get(name, ())), offsets[1:] - 1)
        if len(inside):
            number = int(np.searchsorted(offsets, inside[0], side="right")) - 1
            row, n_rows = inside[0] - offsets[number], offsets[number + 1] - offsets[number]
            where = f"{episodes[number]}: {name} is 1 in row {row} of {n_rows}"
            raise UserError(f"{where}, inside the episode; 1 is expected in its last row at most")


def named(arrays: Mapping[str, Any], available: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Those of the arrays that are known, under our names; ends as (n,) bool, other numbers of a step as (n,).

    ``available`` are all names in the file, for the message when observations or actions are not among them.
    """
    columns: dict[str, np.ndarray] = {}
    for name, aliases in NAMES.items():
        present = [alias for alias in aliases if alias in arrays]
        for alias in present:
            values = np.asarray(arrays[alias])
            if values.dtype.kind not in "fiub" or values.ndim == 0:
                raise UserError(f"{alias}: expected an array of numbers, found {values.dtype} of shape {values.shape}")
            if name in SCALARS:
                values = _one_a_step(alias, values, is_end=name in SCALARS[2:])
            if name in columns and not np.array_equal(columns[name], values):
                raise UserError(f"{' and '.join(present)} differ and would both be {name}; keep one")
            columns[name] = values
    for name in ("observations", "actions"):
        if name not in columns:
            raise UserError(f"no {name}; looked for {', '.join(NAMES[name])} (found {shortened(available or arrays)})")
    if (dones := columns.pop("dones", None)) is not None:
        timeouts = columns.get("timeouts", np.zeros(len(dones), dtype=bool))
        terminals = columns.get("terminals", dones)
        if not len(dones) == len(timeouts) == len(terminals):
            raise UserError(f"dones has {len(dones)} rows, terminals {len(terminals)}, timeouts {len(timeouts)}")
        if not (np.array_equal(dones, terminals) or np.array_equal(dones, terminals | timeouts)):
            raise UserError("dones is neither terminals nor terminals or timeouts; keep those two alone")
        if "terminals" not in columns:  # where dones holds every timeout as well, the rest of it are terminals
            terminals = dones if (timeouts & ~dones).any() else dones & ~timeouts
        columns["terminals"] = terminals
    return columns


def _one_a_step(name: str, values: np.ndarray, is_end: bool) -> np.ndarray:
    if values.ndim > 1 and values.size != len(values):
        raise UserError(f"{name}: shape {values.shape}; one number a step is expected, add them up first")
    values = values.reshape(-1)
    if not is_end:
        return values
    if not (flags := (values == 0) | (values == 1)).all():
        row = int(np.argmin(flags))
        raise UserError(
            f"{name}: row {row} is {values[row]}, expected 0 or 1, and 1 in the last row of an episode alone"
        )
    return values.astype(bool)


def unused(names: Iterable[str]) -> tuple[str, ...]:
    """A note on what is in the files and not read; none when everything is."""
    known = {alias for aliases in NAMES.values() for alias in aliases} | set(EPISODES)
    rest = [name for name in names if name not in known]
    return (f"not used: {shortened(rest)}",) if rest else ()


def _described(widths: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, width)) or 1}" for name, width in sorted(widths.items())) or "nothing"


def shortened(names: Iterable[Any], most: int = 8) -> str:
    """Some names, separated by commas, and how many more there are."""
    names = ["".join(letter if letter.isprintable() else "?" for letter in str(name)[:40]) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
