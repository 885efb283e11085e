"""The last stage: a run's folder comes in, RUN/report/ goes out, with tables, figures and one page that stands alone.

    python analysis/report.py results/demo
    python analysis/report.py results/demo results/bagsize

Writes report/tables/*.{csv,md,tex}, report/figures/*.{svg,pdf} and report/report.html (figures, styles and scripts
inside, no network needed), and refreshes trials.csv where the trial folders are there. The same results give the same
files, but for the date on the page. From trials.csv alone everything is made again but what is drawn from files of the
trials: learning curves and calibration. Film strips (analysis/film_strips.py) are shown where RUN/film_strips is.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

try:
    import pandas as pd

    from analysis import page_text, plane, styles, summary, table_text, tables, wide_tables
    from analysis.dataset_records import dataset_warnings
    from analysis.figures import Drawing, draw_all
    from analysis.load import Run, load_run, write_trials_csv
    from analysis.table_text import Table
    from safemil.config.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    # Started as a script, Python sees analysis/ and not the folder above it: the packages must be installed.
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")


class Numbers(NamedTuple):
    """Everything that is computed of a run, once."""

    by_task: pd.DataFrame
    over_tasks: pd.DataFrame
    compared: pd.DataFrame
    ratios: pd.DataFrame


def build_report(run_folder: Path | str, small: bool = False) -> Path:
    """Write RUN/report/ and return the path of report.html; ``small``: no files of figures but the first svg.

    Raises:
        UserError: the run is missing, holds no finished trial, or cannot be written to.
    """
    folder = Path(run_folder)
    try:
        if (folder / "trials").is_dir():
            write_trials_csv(folder)
        run = load_run(folder)
        settled = run.trials, run.axes, summary.REPETITIONS
        functions = (summary.summarize, summary.summarize_over_tasks, summary.compare_methods, summary.safety_ratios)
        numbers = Numbers(*(function(*settled) for function in functions))
        shown = _write_tables(run, numbers)
        images = _write_figures(run.folder / "report" / "figures", run, numbers, small)
        page = run.folder / "report" / "report.html"
        page.write_text(_render(run, numbers, shown, images, small), encoding="utf-8")
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where}: {error.strerror}; the report needs to read and write RUN") from error
    return page


def _write_tables(run: Run, numbers: Numbers) -> list[Table]:
    """Every table as csv (numbers), md and tex (text); returned in the order of the page."""
    folder = _emptied(run.folder / "report" / "tables", ("csv", "md", "tex"))
    missing, of_data = tables.missing_lines(run), dataset_warnings(run.trials)
    shown = []
    for made, values in _tables(run, numbers):
        if made is not None:
            table = replace(made, missing=missing, notes=(*made.notes, *of_data))
            values = table_text.to_frame(table) if values is None else values
            values.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
            (folder / f"{table.name}.md").write_text(table_text.to_markdown(table), encoding="utf-8")
            (folder / f"{table.name}.tex").write_text(table_text.to_latex(table), encoding="utf-8")
            shown.append(table)
    if missing:
        states = (("failed", run.failed), ("unfinished", run.unfinished))
        problems = [{**vars(problem), "state": state} for state, found in states for problem in found]
        pd.DataFrame(problems).to_csv(folder / "missing_trials.csv", index=False, lineterminator="\n")
    return shown


def _tables(run: Run, numbers: Numbers) -> Iterator[tuple[Table | None, pd.DataFrame | None]]:
    """(table, what its csv holds; None: the texts of the table), in the order of the page."""
    yield tables.main_table(run, numbers.by_task), numbers.by_task
    if len(numbers.compared):
        yield wide_tables.comparison_table(numbers.compared), numbers.compared
    if len(numbers.ratios):
        yield wide_tables.ratio_table(numbers.ratios), numbers.ratios
    if run.trials["task"].nunique() > 1:
        yield wide_tables.methods_by_task(run, numbers.by_task), None
    over_tasks = numbers.over_tasks if len(numbers.over_tasks) else None
    yield tables.overall_table(run, numbers.by_task, numbers.over_tasks), over_tasks
    for axis in run.axes:
        others = [other for other in run.axes if other != axis]
        blocks = [block for _, block in tables.varying_blocks(numbers.by_task, axis, others)]
        yield tables.axis_table(run, numbers.by_task, axis), pd.concat(blocks)
    yield wide_tables.signatures_table(run), None
    yield wide_tables.diagnostics_table(run), None


def _write_figures(folder: Path, run: Run, numbers: Numbers, small: bool) -> list[tuple[Drawing, str, str]]:
    """svg and pdf files; returns each drawing with its svg and that of its narrow form, or "", as the page has them."""
    _emptied(folder, ("svg", "pdf", "png"))
    shown: list[tuple[Drawing, str, str]] = []
    for drawing in draw_all(run, numbers.by_task, numbers.over_tasks):
        wide = styles.to_svg(drawing.figure) if small else styles.save(drawing.figure, folder / drawing.name)
        if small and not shown:
            (folder / f"{drawing.name}.svg").write_text(wide, encoding="utf-8")
        narrow = _embedded(styles.to_svg(drawing.narrow).encode(), "svg+xml") if drawing.narrow else ""
        shown.append((drawing, _embedded(wide.encode(), "svg+xml"), narrow))
    return shown


def _film_strips(folder: Path) -> list[tuple[str, str]]:
    """(what it shows, image) of each film strip that analysis/film_strips.py has drawn of this run."""
    strips = sorted((folder / "film_strips").glob("*.png"))
    return [
        (strip.with_suffix(".txt").read_text(encoding="utf-8").strip(), _embedded(strip.read_bytes(), "png"))
        for strip in strips
    ]


def _render(run: Run, numbers: Numbers, shown: list[Table], images: list[tuple[Drawing, str, str]], small: bool) -> str:
    sections = {name: list(part) for name, part in groupby(images, key=lambda image: image[0].section)}
    specification = plane.specification(run, styles.styles(numbers.by_task, run.axes))
    return page_text.page(
        "report.html.j2",
        name=run.folder.resolve().name,
        headline=page_text.headline(run.trials, numbers.by_task, run.axes, numbers.compared, numbers.ratios),
        run=run,
        sections=sections,
        plane=json.dumps(specification).replace("<", "\\u003c"),
        code=plane.code(),
        dark={color: dark for color, (_, dark) in styles.DARK.items()},
        cautions=page_text.cautions(run, numbers.by_task),
        tables=shown,
        small=small,
        film_strips=_film_strips(run.folder),
        blocks=lambda table: [(group, list(rows)) for group, rows in groupby(table.rows, key=lambda row: row.group)],
        cells=page_text.trial_blocks(run),
        decimal=tables.decimal,
        provenance=page_text.provenance(run),
        command=page_text.report_command(run),
        link=lambda trial_id: f"../trials/{quote(trial_id)}/" if run.has_folders else "",
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _emptied(folder: Path, endings: tuple[str, ...]) -> Path:
    """The folder without the files an earlier report left there, so that none of them goes stale."""
    folder.mkdir(parents=True, exist_ok=True)
    for ending in endings:
        for path in folder.glob(f"*.{ending}"):
            path.unlink()
    return folder


@entry_point
def main(arguments: list[str] | None = None) -> int:
    """Command line: one report per run folder."""
    parser = argparse.ArgumentParser(description="Tables, figures and report.html of finished runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, such as results/demo")
    for folder in parser.parse_args(arguments).runs:
        print(f"report: {build_report(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
