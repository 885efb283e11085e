"""Arrays under the names of anybody's logs -> columns under ours.

Arrays are known by any of the names in ``NAMES``. Observations may also be several arrays, by keys: ``obs/position``,
``observation.state``. What has more than one meaning is refused with a ``UserError`` that says what was found and what
would be accepted; nothing is guessed, and nothing is dropped without a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemil.config.errors import UserError, printable

# Our name -> the names it goes by elsewhere
NAMES = {
    "observations": ("observations", "observation", "obs", "states"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward", "rews", "next.reward"),
    "costs": ("costs", "cost", "infos/costs", "infos/cost", "info/cost"),
    "terminals": ("terminals", "terminal", "terminations", "terminated"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
    "dones": ("dones", "done", "next.done"),  # either of the two; becomes terminals
}
SCALARS = ("rewards", "costs", "terminals", "timeouts", "dones")  # one number a step
OUTCOMES = ("rewards", "costs", "next_observations")  # which learners never see
EPISODES = ("offsets", "lengths", "episode_starts")  # (n + 1,) first rows and the end; (n,) numbers of rows; (n_steps,)
KEYED = ("observations", "next_observations")


@dataclass(frozen=True)
class Stored:
    """An array in a file, not yet read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Wanted:
    """What is to be read of a log."""

    observation_keys: tuple[str, ...] = ()  # of observations that are several arrays; side by side in this order
    outcomes: bool = True  # rewards, costs and next observations as well

    def names(self) -> list[str]:
        """Our names of the columns to read."""
        return [name for name in NAMES if self.outcomes or name not in OUTCOMES]


def named(arrays: Mapping[str, Any], wanted: Wanted, available: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Those of the arrays that are known, under our names; ends as (n,) bool, other numbers of a step as (n,).

    ``available`` are all names in the file, for the message when observations or actions are not among them.

    Raises:
        UserError: observations or actions are missing, an array is not of numbers, or two are meant to be the same.
    """
    columns: dict[str, np.ndarray] = {}
    for name in wanted.names():
        keys = observation_keys(arrays, name, wanted.observation_keys) if name in KEYED else []
        if keys:
            columns[name] = _side_by_side({key: read(key, arrays[key]) for key in keys})
            continue
        present = [alias for alias in NAMES[name] if alias in arrays]
        for alias in present:
            values = read(alias, arrays[alias])
            if name in SCALARS:
                values = one_a_step(alias, values, is_end=name in SCALARS[2:])
            if name in columns and not np.array_equal(columns[name], values):
                raise UserError(f"{' and '.join(present)} differ and would both be {name}; keep one")
            columns[name] = values
    for name in ("observations", "actions"):
        if name not in columns:
            raise UserError(f"no {name}; looked for {', '.join(NAMES[name])} (found {shortened(available or arrays)})")
    if (dones := columns.pop("dones", None)) is not None:
        columns["terminals"] = _terminals(dones, columns)
    return columns


def observation_keys(arrays: Mapping[str, Any], name: str, chosen: tuple[str, ...] = ()) -> list[str]:
    """Full names of the arrays that make up the observations (``name``: or the next ones) side by side.

    Empty when they are one array under one of its names, or not there.

    Raises:
        UserError: there are several and none was chosen, or what was chosen is not there.
    """
    keyed: dict[str, str] = {}  # key -> full name
    for alias in NAMES[name]:
        keyed |= {full[len(alias) + 1 :]: full for full in arrays if full.startswith((f"{alias}/", f"{alias}."))}
    if chosen:
        absent = [key for key in chosen if key not in keyed and key not in arrays]
        if name == "next_observations":  # whole arrays under other names have no next ones
            return [] if absent or not keyed.keys() >= set(chosen) else [keyed[key] for key in chosen]
        if absent:
            raise UserError(
                f"no observation key {printable(absent[0], 60)!r}; there are {_keys(keyed or arrays, arrays)}"
            )
        return [keyed.get(key, key) for key in chosen]
    numeric = [full for full in keyed.values() if arrays[full].dtype.kind in "fiub"]
    if any(alias in arrays for alias in NAMES[name] if alias not in ("states", "next_states")):
        return []
    if len(numeric) > 1 and name == "observations":
        keys = _keys({key: full for key, full in keyed.items() if full in numeric}, arrays)
        raise UserError(f"observations are {len(numeric)} arrays, {keys}; choose with --observation-keys")
    return numeric if len(numeric) == 1 else []


def _keys(keyed: Iterable[str], arrays: Mapping[str, Any]) -> str:
    """Keys with the widths of their arrays."""
    full = keyed if isinstance(keyed, dict) else {}
    shapes = {key: arrays[full.get(key, key)].shape[1:] for key in keyed if full.get(key, key) in arrays}
    return shortened(f"{key} ({'x'.join(map(str, shape)) or 1})" for key, shape in shapes.items())


def read(name: str, array: Any) -> np.ndarray:
    """The values of an array of numbers; what is anything else is refused without being read."""
    if array.dtype.kind not in "fiub" or len(array.shape) == 0:
        found = f"{printable(str(array.dtype), 60)} of shape {printable(str(array.shape), 60)}"
        raise UserError(f"{printable(name, 60)}: expected an array of numbers, found {found}")
    return array.read() if isinstance(array, Stored) else np.asarray(array)


def _side_by_side(parts: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) and (n, d) arrays as one (n, sum of d)."""
    if len(parts) == 1 and (only := next(iter(parts.values()))).ndim == 4:  # an image needs no company
        return only
    for name, values in parts.items():
        if values.ndim > 2:
            shape = printable(str(values.shape), 60)
            raise UserError(f"{printable(name, 60)}: shape {shape}; only vectors go side by side; an image is alone")
    lengths = {printable(name, 60): len(values) for name, values in parts.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"observation keys of different lengths: {shortened(f'{k} {n}' for k, n in lengths.items())}")
    return np.concatenate([values.reshape(len(values), -1) for values in parts.values()], axis=1)


def _terminals(dones: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Ends of episodes that are the task's own, from flags that may hold every end."""
    timeouts = columns.get("timeouts", np.zeros(len(dones), dtype=bool))
    terminals = columns.get("terminals", dones)
    if not len(dones) == len(timeouts) == len(terminals):
        raise UserError(f"dones has {len(dones)} rows, terminals {len(terminals)}, timeouts {len(timeouts)}")
    if not (np.array_equal(dones, terminals) or np.array_equal(dones, terminals | timeouts)):
        raise UserError("dones is neither terminals nor terminals or timeouts; keep those two alone")
    if "terminals" in columns:
        return terminals
    return dones if (timeouts & ~dones).any() else dones & ~timeouts  # where dones hold every time-out as well


def one_a_step(name: str, values: np.ndarray, is_end: bool) -> np.ndarray:
    """(n,) from (n,) or (n, 1); ends as bool.

    Raises:
        UserError: there are more numbers than rows, or an end is neither 0 nor 1.
    """
    if values.ndim > 1 and values.size != len(values):
        shape = printable(str(values.shape), 60)
        raise UserError(f"{name}: shape {shape}; one number a step is expected, add them up first")
    values = values.reshape(-1)
    if not is_end:
        return values
    if not (flags := (values == 0) | (values == 1)).all():
        row = int(np.argmin(flags))
        raise UserError(
            f"{name}: row {row} is {values[row]}, expected 0 or 1, and 1 in the last row of an episode alone"
        )
    return values.astype(bool)


def unused(names: Collection[str], wanted: Wanted) -> tuple[str, ...]:
    """A note on what is in the files and not read; none when everything is."""
    known = {alias for aliases in NAMES.values() for alias in aliases} | set(EPISODES)
    chosen = wanted.observation_keys
    if any(name.startswith(("obs/", "observations/")) for name in names):
        known -= {"states", "next_states"}

    def is_read(name: str) -> bool:
        key = re.sub(rf"\A({'|'.join(alias for ours in KEYED for alias in NAMES[ours])})[/.]", "", name)
        return name in known or name in chosen or (key != name and (key in chosen or not chosen))

    rest = [name for name in names if not is_read(name)]
    return (f"not used: {shortened(rest)}",) if rest else ()


def shortened(names: Iterable[Any], most: int = 8) -> str:
    """Some names, separated by commas, and how many more there are."""
    names = [printable(str(name), 40) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
