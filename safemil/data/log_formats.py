"""Somebody's own log files, read. In: an npz or HDF5 file, a Minari dataset or a folder of csv. Out: a ``Log``."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from safemil.config.errors import UserError
from safemil.data.log_columns import NAMES, SCALARS, Log, flat, join, named, shortened, unused

WORDS = {"true": 1.0, "false": 0.0}


def read_log(source: Path) -> Log:
    """Read any of the formats.

    Raises:
        UserError: it is none of them, is damaged, or does not say clearly what its arrays and episodes are.
    """
    try:
        if minari := next((path for path in (source / "data", source) if (path / "main_data.hdf5").is_file()), None):
            return _read_hdf5(minari / "main_data.hdf5")
        if source.is_dir():
            return _read_csv(source)
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if source.suffix == ".npz":
            with source.open("rb") as file, np.load(file) as arrays:
                return flat("npz", arrays)
        if source.suffix in (".hdf5", ".h5"):
            return _read_hdf5(source)
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(source)) else f"{source}: {error}") from error
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, KeyError, BadZipFile, csv.Error) as error:
        raise UserError(f"{source}: cannot be read ({error})") from error
    raise UserError(f"{source}: expected .npz, .hdf5, .h5, a Minari dataset or a folder of .csv")


def _read_hdf5(path: Path) -> Log:
    import h5py

    with h5py.File(path) as file:
        episodes = sorted((name for name in file if re.fullmatch(r"episode_\d+", name)), key=lambda name: int(name[8:]))
        if episodes:
            read = {name: _minari_episode(_datasets(file[name]), name) for name in episodes}
            return join("Minari", read, unused(_datasets(file[episodes[0]])))
        return flat("HDF5", _datasets(file))


def _datasets(group: Any) -> dict[str, Any]:
    """The arrays in a group and below it by their paths, not yet read."""
    arrays: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if getattr(item, "shape", None) is not None:  # neither a group nor empty
            arrays[name] = item

    group.visititems(visit)
    return arrays


def _minari_episode(arrays: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """One group; its observations have a row more than the steps: the one after the last."""
    try:
        episode = named(arrays)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    n_steps = len(episode["actions"])
    if len(episode["observations"]) == n_steps + 1:
        episode["next_observations"] = episode["observations"][1:]
        episode["observations"] = episode["observations"][:-1]
    if len(episode.get("costs", ())) == n_steps + 1:  # infos may hold a row more as well: the reset's, in front
        episode["costs"] = episode["costs"][1:]
    return episode


def _read_csv(folder: Path) -> Log:
    def by_number(path: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    files = sorted((path for path in folder.glob("*.csv") if not path.name.startswith(".")), key=by_number)
    if not files:
        raise UserError("neither a Minari dataset nor any .csv in it")
    episodes: dict[str, dict[str, np.ndarray]] = {}
    notes: tuple[str, ...] = ()
    for path in files:
        try:
            episodes[path.name], notes = _csv_episode(path)
        except (UserError, csv.Error, UnicodeError) as error:
            raise UserError(f"{path}: {error}") from error
    return join("csv", episodes, notes)


def _csv_episode(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The columns of one file, and a note on those that are not used."""
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte-order mark in front
        lines = [line for line in file if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise UserError("expected a header and at least one row under it")
    header, *rows = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count))
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise UserError(f"row {number} has {len(row)} cells, the header {len(header)}")
    table = np.array(rows)
    positions, rest = _csv_columns([name.strip() for name in header])
    arrays = {name: _numbers(table[:, columns], name) for name, columns in positions.items()}
    return named(arrays, available=header), unused(rest)


def _csv_columns(header: list[str]) -> tuple[dict[str, list[int]], list[str]]:
    """Known name without its number -> positions of its columns, in the order of their numbers; and unknown names."""
    numbered: dict[str, list[tuple[int, int]]] = {}  # name -> (number, position); -1 for a name without a number
    for position, column in enumerate(header):
        end = re.search(r"[_.\[]?(\d+)\]?\Z", column)
        name, number = (column[: end.start()], int(end[1])) if end else (column, -1)
        numbered.setdefault(name, []).append((number, position))
    our_names = {alias: name for name, aliases in NAMES.items() for alias in aliases}
    for name in our_names.keys() & numbered.keys():
        numbers = sorted(number for number, _ in numbered[name])
        if len(numbers) > 1 and our_names[name] in SCALARS:
            raise UserError(f"{len(numbers)} columns of {name}; one number a step is expected, add them up first")
        if numbers != [-1] and numbers not in ([*range(len(numbers))], [*range(1, len(numbers) + 1)]):
            numbering = shortened("not" if number < 0 else number for number in numbers)
            raise UserError(f"columns of {name} numbered {numbering}; expected {name}_0, {name}_1, ..")
    known = {name: [position for _, position in sorted(pairs)] for name, pairs in numbered.items() if name in our_names}
    return known, [name for name in numbered if name not in our_names]


def _numbers(cells: np.ndarray, name: str) -> np.ndarray:
    """Cells (n, d) of text as float64; true and false are 1 and 0."""
    try:
        return cells.astype(np.float64)
    except ValueError:
        values = np.empty(cells.shape)
        for index, cell in np.ndenumerate(cells):
            try:
                values[index] = WORDS.get(cell.strip().lower(), cell)
            except ValueError:
                raise UserError(f"{name}: row {index[0]} is {cell[:30]!r}, expected a number") from None
        return values
