"""What a ``Table`` is, and how it is written: Markdown, LaTeX (booktabs), console. Text in, text out, no numbers."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table as ConsoleTable
from rich.text import Text

# What LaTeX would read as a command, and the signs our tables use.
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", **{character: f"\\{character}" for character in "&%$#_{}"}}
LATEX |= {"±": r"$\pm$", "×": r"$\times$", "✓": r"$\checkmark$", "✗": r"$\times$", "↑": r"$\uparrow$", "–": "--"}
LATEX |= {"↓": r"$\downarrow$", "†": r"$\dagger$", "−": "$-$", "★": r"$\star$", "∞": r"$\infty$", "≤": r"$\le$"}


@dataclass(frozen=True)
class Cell:
    """What is shown, what it is sorted by, and which trials it came from (``labels.anchor``, a link on the page)."""

    text: str
    value: float | str | None = None  # the row's place
    bold: bool = False
    anchor: str = ""


@dataclass(frozen=True)
class Row:
    """Cells under the table's header. ``group`` heads a block of rows; ``role`` is that of labels.method_role."""

    group: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to be written. ``name`` becomes the file name, ``notes`` stand below it, one per line.

    ``missing`` stands above it: the trials that should be in it and are not.
    """

    name: str
    title: str
    group_header: str  # "" where the table has no blocks
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...] = ()


def to_frame(table: Table) -> pd.DataFrame:
    """The table as it is shown, for a csv file: the block's name is its own first column."""
    header = [table.group_header or "group", *table.header]
    return pd.DataFrame([[row.group, *[cell.text for cell in row.cells]] for row in table.rows], columns=header)


def to_markdown(table: Table) -> str:
    """A GitHub table; the block's name is its own first column."""
    header = [table.group_header, *table.header] if table.group_header else list(table.header)
    lines = [f"### {table.title}", "", *[f"> {line}  " for line in table.missing], *[""] * bool(table.missing)]
    lines += [_markdown_line(header), _markdown_line([":--"] * len(header))]
    for row in table.rows:
        texts = [f"**{cell.text}**" if cell.bold else cell.text for cell in row.cells]
        lines.append(_markdown_line([row.group, *texts] if table.group_header else texts))
    return "\n".join([*lines, "", *[f"{note}  " for note in table.notes]]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A table environment with booktabs rules, by pandas' Styler; needs \\usepackage{booktabs,amssymb}."""
    texts = [[cell.text for cell in row.cells] for row in table.rows]
    # Numbers make the rows of a block distinct, which Styler needs; they are hidden, and blocks named once.
    index = pd.MultiIndex.from_arrays([[row.group for row in table.rows], range(len(table.rows))])
    frame = pd.DataFrame(texts, index, list(table.header))
    bold = [["textbf:--rwrap" if cell.bold else "" for cell in row.cells] for row in table.rows]
    style = frame.style.apply(lambda _: pd.DataFrame(bold, index, list(table.header)), axis=None)
    style.hide(level=1, axis=0) if table.group_header else style.hide(axis=0)
    for axis in (0, 1):
        style.format_index(lambda name: escape_latex(str(name)), axis=axis)
    caption = " ".join(f"{escape_latex(text.rstrip('.'))}." for text in (table.title, *table.missing[:1], *table.notes))
    made = style.format(escape_latex).to_latex(
        hrules=True,
        multirow_align="naive",
        column_format="l" * bool(table.group_header) + "l" + "r" * (len(table.header) - 1),
        caption=caption,
        label=f"tab:{table.name.replace('_', '-')}",
        position="t",
        position_float="centering",
    )
    missing = [f"% {' '.join(escape_latex(line).split())}" for line in table.missing]
    return "\n".join(["% needs \\usepackage{booktabs,amssymb}", *missing, made])


def to_console(table: Table) -> ConsoleTable:
    """A rich table for the end of a run, narrow enough for 80 columns: ``rich.console.Console().print`` shows it."""
    console = ConsoleTable(title_justify="left", caption_justify="left", box=SIMPLE_HEAD)
    console.title = "\n".join([table.title, *table.missing[:1]])
    console.caption, console.show_edge, console.padding = "\n".join(table.notes), False, (0, 1, 0, 0)
    shown = [place for place, name in enumerate(table.header) if name != "Best"]  # the star goes with the safe return
    for name in (table.header[place] for place in shown):
        heading = Text(textwrap.fill(name, 9))
        console.add_column(heading, justify="right" if name[-1] in "↑↓" else "left", no_wrap=name != "Notes")
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if table.group_header:
            console.add_row(Text(group, style="bold"))
        for row in rows:
            star = "★" * any(cell.text == "★" for cell in row.cells)
            cells = [row.cells[place] for place in shown]
            texts = [cell.text.replace(" ± ", "±") + star * (cell.text[:1] == "✓") for cell in cells]
            styles = [_console_style(row, cell) for cell in cells]
            console.add_row(*map(Text, texts, styles))
        console.add_section()
    return console


def escape_latex(text: str) -> str:
    """Plain text as LaTeX, with D_N and D_U as symbols and a minus before negative numbers."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", re.sub(r"D\\_([NU])\b", r"$D_\1$", escaped))


def _markdown_line(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _console_style(row: Row, cell: Cell) -> str:
    if cell.text[:1] in ("✓", "✗"):
        return "green" if cell.text[0] == "✓" else "red"
    return "bold" if cell.bold else "dim" if row.role == "oracle" else ""
