"""Tables of anybody, a row a step -> arrays by name and episode: numbered columns are put together, words are numbers.

A table is ``{column: values}``: of a csv, a parquet file, a pandas frame. ``observation_0, observation_1, ..`` are one
array, in the order of their numbers. A column ``episode`` (or ``episode_index``, ..) says which episode a row is of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.logs.columns import KEYED, NAMES, SCALARS, Wanted, shortened, unused
from safemil.data.logs.episodes import Log, flat, join, with_final_observation

EPISODE_COLUMNS = (
    "episode_index",
    "episode_id",
    "episode",
    "trajectory_index",
    "trajectory_id",
    "trajectory",
    "traj_id",
)
STEP_COLUMNS = ("frame_index", "step_index", "step", "timestep")  # of a row in its episode
Table = Mapping[str, np.ndarray]  # column -> (n_rows,) or (n_rows, d)


def by_number(text: object) -> list[tuple[bool, int | str]]:
    """A key that sorts ``episode9`` before ``episode10``."""
    return [
        (part.isdecimal(), int(part) if part.isdecimal() else part)
        for part in re.split(r"(\d{1,18})", str(text))
        if part
    ]


def log_of_tables(kind: str, tables: Mapping[str, Table], wanted: Wanted) -> Log:
    """Tables by the names of their files. Without a column of episodes each of several files is one.

    Raises:
        UserError: columns or episodes are not clear.
    """
    episodes: dict[str, dict[str, np.ndarray]] = {}
    notes: tuple[str, ...] = ()
    for where, table in tables.items():
        parts, rest = {}, {}
        try:
            arrays = together(table)
            column = next((name for name in EPISODE_COLUMNS if name in table), None)
            rest = {name: values for name, values in arrays.items() if name not in (column, *STEP_COLUMNS)}
            if column is None and len(tables) == 1 and not where:
                return flat(kind, rest, wanted)
            parts = {where: arrays} if column is None else _split(column, np.asarray(table[column]), arrays)
            for episode, values in parts.items():
                if both := episodes.keys() & {episode}:
                    raise UserError(
                        f"{both.pop()} is in another file as well; expected a file for each, or other numbers"
                    )
                _check_steps(episode, values)
                episodes[episode] = with_final_observation({name: values[name] for name in rest}, wanted)
        except UserError as error:
            raise UserError(f"{where}: {error}" if where else str(error)) from error
        notes = unused(rest, wanted)
    return join(kind, dict(sorted(episodes.items(), key=lambda item: by_number(item[0]))), notes)


def _split(column: str, numbers: np.ndarray, arrays: Table) -> dict[str, dict[str, np.ndarray]]:
    """The rows of each episode, by ``<column> <number>``."""
    if numbers.dtype.kind == "f" and (np.isnan(numbers).any() or (numbers % 1).any()):
        raise UserError(f"{column}: expected a whole number in each row")
    if numbers.ndim != 1:
        raise UserError(f"{column}: shape {numbers.shape}, expected one number in each row")
    found, first = np.unique(numbers, return_inverse=True)
    order, counts = np.argsort(first, kind="stable"), np.bincount(first, minlength=len(found))
    rows = np.split(order, np.cumsum(counts)[:-1])
    names = [
        printable(f"{column} {value:g}" if numbers.dtype.kind in "fiub" else f"{column} {value}", 60) for value in found
    ]
    return {name: {key: values[of] for key, values in arrays.items()} for name, of in zip(names, rows, strict=True)}


def _check_steps(episode: str, arrays: Table) -> None:
    """Refuse rows that are out of order, missing or doubled, where a column counts them."""
    for name in STEP_COLUMNS:
        steps = np.asarray(arrays.get(name, ()))
        if steps.dtype.kind not in "fiu" or steps.ndim != 1 or len(steps) < 2:
            continue
        steps = steps.astype(np.float64)
        if len(np.unique(rises := np.diff(steps))) > 1 or rises[0] <= 0:
            row = int(np.argmax((rises != rises[0]) | (rises <= 0))) + 1
            found = f"{name} goes from {steps[row - 1]:g} to {steps[row]:g} in row {row}"
            raise UserError(f"{episode}: {found}; rows in order, none missing and none twice, are expected")


def together(table: Table) -> dict[str, np.ndarray]:
    """Numbered columns of known names as one array (n, d), in the order of their numbers; the others as they are.

    Raises:
        UserError: numbers are missing, doubled or mixed with a column without one.
    """
    numbered: dict[str, list[tuple[int, str]]] = {}  # name -> (number, column); -1 for a name without a number
    for column in table:
        name, number = _name_and_number(column)
        numbered.setdefault(name, []).append((number, column))
    arrays: dict[str, np.ndarray] = {}
    for name, pairs in numbered.items():
        if (ours := known(name)) is None or (len(pairs) == 1 and pairs[0][0] < 0):
            arrays |= {column: table[column] for _, column in pairs}
            continue
        numbers = sorted(number for number, _ in pairs)
        if len(numbers) > 1 and ours in SCALARS:
            raise UserError(f"{len(numbers)} columns of {name}; one number a step is expected, add them up first")
        if numbers not in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
            numbering = shortened("not" if number < 0 else number for number in numbers)
            raise UserError(f"columns of {printable(name, 60)} numbered {numbering}; expected {name}_0, {name}_1, ..")
        parts = [table[column] for _, column in sorted(pairs)]
        if any(part.ndim != 1 for part in parts):
            raise UserError(f"columns of {printable(name, 60)} are numbered and hold lists; expected one or the other")
        arrays[name] = np.column_stack(parts)
    return arrays


def known(column: str) -> str | None:
    """Our name of what a column holds or is a part of: by its name without its number, or as a key of observations."""
    name, _ = _name_and_number(column)
    for ours, aliases in NAMES.items():
        if name in aliases or column in aliases or (ours in KEYED and name.startswith(_prefixes(aliases))):
            return ours
    return None


def _prefixes(aliases: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{alias}{separator}" for alias in aliases for separator in "./")


def _name_and_number(column: str) -> tuple[str, int]:
    """``action_3`` or ``action[3]`` as (action, 3); -1 for a column without a number."""
    end = re.search(r"[_.\[]?(\d{1,9})\]?\Z", column)
    return (column[: end.start()], int(end[1])) if end else (column, -1)
