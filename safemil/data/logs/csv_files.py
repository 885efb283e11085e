"""csv files of anybody -> tables: any of the usual separators, byte-order marks, booleans as words, comments on top."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.logs.columns import Wanted
from safemil.data.logs.tables import Table, known

WORDS = {"true": 1.0, "false": 0.0}


def read_csv(path: Path, wanted: Wanted) -> Table:
    """The columns of one file; those of numbers as float64, the rest as text.

    Raises:
        UserError: there are no rows, rows of different lengths, or text where numbers are expected.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte-order mark in front
        lines = [line for line in file if line.strip()]
    while lines and lines[0].lstrip().startswith("#"):
        del lines[0]
    if len(lines) < 2:
        raise UserError("expected a header and at least one row under it")
    header, *rows = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count), strict=True)
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise UserError(f"row {number} has {len(row)} cells, the header {len(header)}")
    header = [name.strip() for name in header]
    if twice := {name for name in header if header.count(name) > 1}:
        raise UserError(f"two columns are called {printable(min(twice), 60)!r}; keep one")
    table = {name: np.array(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
    return {name: _numbers(cells, name, must=known(name) in wanted.names()) for name, cells in table.items()}


def _numbers(cells: np.ndarray, name: str, must: bool) -> np.ndarray:
    """Cells (n,) of text as float64; true and false are 1 and 0."""
    try:
        if any(not cell.isascii() or "_" in cell for cell in cells):  # float takes 1_0 and the digits of all scripts
            raise ValueError
        return cells.astype(np.float64)
    except ValueError:
        values = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                values[row] = WORDS.get(cell.strip().lower(), cell.replace("_", "?").encode("ascii"))
            except ValueError:
                if not must:
                    return cells
                found = printable(cell, 30)
                raise UserError(f"{printable(name, 60)}: row {row} is {found!r}, expected a number") from None
        return values
