"""Parquet and Arrow files of anybody -> tables, and from there a ``Log``. Needs pyarrow, when such a file is read.

data.parquet, or a folder of them                              tables, a row a step; lists are vectors
meta/info.json, data/chunk-000/{file,episode}_000.parquet      LeRobot, versions 2 and 3
data/0/part-0.{arrow,parquet} .. and metadata.json             Minari; a row more than steps in each
state.json, data-00000-of-00001.arrow                          imitation, and others: a row a trajectory
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.hdf5_access import check_size
from safemil.data.logs.columns import NAMES, Wanted, unused
from safemil.data.logs.episodes import Log, join, with_final_observation
from safemil.data.logs.tables import Table, by_number, log_of_tables

SUFFIXES = (".parquet", ".arrow", ".feather")


def read_arrow(path: Path, wanted: Wanted) -> Log:
    """One file with all episodes: flags of ends, a column ``episode``, or a row a trajectory.

    Raises:
        UserError: it cannot be read, or does not say clearly what it holds.
    """
    kind = path.suffix.removeprefix(".")
    return _log(kind, {"": read_table(path)}, wanted)


def read_folder(files: list[Path], wanted: Wanted) -> Log:
    """A folder of such files."""
    kind = files[0].suffix.removeprefix(".")
    return _log(f"folder of {kind}", {path.name: read_table(path) for path in files}, wanted)


def read_lerobot(folder: Path, wanted: Wanted) -> Log:
    """A LeRobot dataset; what ``meta/info.json`` says of episodes and frames must be there.

    Raises:
        UserError: as ``read_arrow``; or episodes or frames are missing.
    """
    info = read_json(folder / "meta" / "info.json")
    files = sorted((folder / "data").glob("*/*.parquet"), key=lambda path: by_number(path.relative_to(folder)))
    if not files:
        raise UserError("no data/*/*.parquet; the dataset was fetched without its data")
    log = log_of_tables("LeRobot", {str(path.relative_to(folder)): read_table(path) for path in files}, wanted)
    _check_totals(info, log, "meta/info.json", "total_frames")
    return log


def read_minari(folder: Path, wanted: Wanted) -> Log:
    """Minari's Arrow or Parquet storage: a folder for each episode in ``folder``.

    Raises:
        UserError: as ``read_arrow``; or what ``metadata.json`` says of episodes and steps is not there.
    """
    numbers = sorted((path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()), key=by_number)
    episodes, notes = {}, tuple[str, ...]()
    for path in numbers:
        files = sorted((file for file in path.iterdir() if file.suffix in SUFFIXES), key=by_number)
        if len(files) != 1:
            raise UserError(f"{path.name}: {len(files)} files; expected one part-0 in each episode's folder")
        try:
            table = read_table(files[0])
            arrays = {name: values[: _n_rows(name, values)] for name, values in table.items()}
            episodes[f"episode {path.name}"] = with_final_observation(arrays, wanted)
        except UserError as error:
            raise UserError(f"{path.name}/{files[0].name}: {error}") from error
        notes = unused(table, wanted)
    log = join("Minari", episodes, notes)
    _check_totals(read_json(folder / "metadata.json"), log, "metadata.json", "total_steps")
    return log


def _n_rows(name: str, values: np.ndarray) -> int:
    """Rows of a Minari column: all but observations and infos are padded by one."""
    padded = not name.startswith(("observations", "infos"))
    return len(values) - 1 if padded else len(values)


def _check_totals(described: dict[str, Any], log: Log, where: str, steps: str) -> None:
    found = {"total_episodes": len(log.offsets) - 1, steps: int(log.offsets[-1])}
    for name, number in found.items():
        if name in described and described[name] != number:
            said = printable(str(described[name]), 20)
            raise UserError(
                f"{number} {name.removeprefix('total_')} found, but {where} says {said}; is a file missing?"
            )


def read_json(path: Path) -> dict[str, Any]:
    """An object of a json file beside the data; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name}: not json ({printable(str(error), 80)}); fetch it again") from error
    if not isinstance(described, dict):
        raise UserError(f"{path.name}: expected an object; fetch it again")
    return described


def _log(kind: str, tables: dict[str, Table], wanted: Wanted) -> Log:
    """The log of tables whose rows are steps, or trajectories."""
    actions = [tables[where].get(alias) for where in tables for alias in NAMES["actions"]]
    if all(column is None or column.dtype != object for column in actions):
        return log_of_tables(kind, tables, wanted)
    episodes, notes = {}, tuple[str, ...]()
    for where, table in tables.items():
        for row in range(len(next(iter(table.values())))):
            episode = f"{where} row {row}".lstrip()
            try:
                episodes[episode] = with_final_observation(_of_trajectory(table, row), wanted)
            except UserError as error:
                raise UserError(f"{episode}: {error}") from error
        notes = unused(table, wanted)
    return join(kind, episodes, notes)


def _of_trajectory(table: Table, row: int) -> dict[str, np.ndarray]:
    """The arrays of one trajectory, from a table with a row for each; a flag of its end counts for its last step."""
    arrays = {}
    n_steps = next(len(table[alias][row]) for alias in NAMES["actions"] if alias in table)
    for name, column in table.items():
        values = np.asarray(column[row])
        if values.ndim == 0 and values.dtype.kind in "biuf" and name in (*NAMES["terminals"], *NAMES["timeouts"]):
            values = np.where(np.arange(n_steps) == n_steps - 1, values, 0)
        arrays[name] = values
    return arrays


def read_table(path: Path) -> Table:
    """The columns of a file: (n_rows,), or (n_rows, d) of lists; structs as ``name/field``; text and bytes as object.

    Raises:
        UserError: pyarrow is missing, or the file is damaged or needs more memory than there is.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("reading Parquet and Arrow files needs pyarrow: pip install pyarrow") from error
    if path.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
            check_size(sum(group.total_byte_size for group in groups), path.stat().st_size, path.name)
            table = file.read()
    else:
        with path.open("rb") as head:
            open_it = pyarrow.ipc.open_file if head.read(6) == b"ARROW1" else pyarrow.ipc.open_stream
        with pyarrow.OSFile(str(path)) as source:
            table = open_it(source).read_all()
    columns: dict[str, np.ndarray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        _add(columns, printable(name, 200), column.combine_chunks())
    return columns


def _add(columns: dict[str, np.ndarray], name: str, column: Any) -> None:
    import pyarrow
    import pyarrow.types as types

    if isinstance(column, pyarrow.ChunkedArray):  # of no rows
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    kind = column.type
    if types.is_struct(kind):
        for field, values in zip(kind, column.flatten(), strict=True):
            _add(columns, f"{name}/{printable(field.name, 100)}", values)
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        columns[name] = _vectors(name, column)
    elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        columns[name] = column.to_numpy(zero_copy_only=False)
    else:
        columns[name] = np.empty(len(column), dtype=object)


def _vectors(name: str, column: Any) -> np.ndarray:
    """Lists as (n_rows, d), or as objects where each holds lists itself."""
    import pyarrow.types as types

    inner = column.type.value_type
    if types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
        cells = np.empty(len(column), dtype=object)
        for row in range(len(column)):
            cells[row] = _cell(column[row].values)
        return cells
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        return np.empty(len(column), dtype=object)
    flat, n_rows = column.flatten().to_numpy(zero_copy_only=False), len(column)
    width = len(flat) // n_rows if n_rows else 0
    lengths = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False)) if n_rows else np.empty(0)
    if column.null_count or (lengths != width).any():
        cells = np.empty(n_rows, dtype=object)
        for row in range(n_rows):
            cells[row] = _cell(column[row].values)
        return cells
    return flat.reshape(n_rows, width)


def _cell(values: Any) -> np.ndarray:
    """The value of one cell: (d,) or (n, d); an empty array where there is none or its rows differ."""
    if values is None:
        return np.empty(0)
    columns: dict[str, np.ndarray] = {}
    _add(columns, "cell", values)
    return next(iter(columns.values()), np.empty(0))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The visible files of some suffixes, in the order of their numbers."""
    found = (path for path in folder.iterdir() if path.suffix in suffixes and not path.name.startswith("."))
    return sorted((path for path in found if path.is_file()), key=lambda path: by_number(path.name))
