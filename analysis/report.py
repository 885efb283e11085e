"""The last stage: a run's folder comes in, RUN/report/ goes out, with tables, figures and one page that stands alone.

    python analysis/report.py results/demo
    python analysis/report.py results/demo results/bagsize

Writes report/tables/*.{csv,md,tex}, report/figures/*.{png,pdf} and report/report.html (images and styles inside, no
network needed), and refreshes trials.csv where the trial folders are there. The same results give the same files, but
for the date on the page. From trials.csv alone everything but the learning curves is made again.
"""

from __future__ import annotations

import argparse
import base64
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

try:
    import jinja2
    import pandas as pd

    from analysis import figures, labels, page_text, summary, table_text, tables
    from analysis.answer import answer
    from analysis.load import Run, load_curves, load_run, write_trials_csv
    from analysis.looks import looks
    from safemil.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    # Started as a script, Python sees analysis/ and not the folder above it: the packages must be installed.
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")


@dataclass(frozen=True)
class Drawing:
    """A figure on its way to the page: the stem of its file names, its heading and what it shows."""

    name: str
    title: str
    caption: str
    figure: figures.Figure
    narrow: bool = False


def build_report(run_folder: Path | str) -> Path:
    """Write RUN/report/ and return the path of report.html.

    Raises:
        UserError: the run is missing, holds no finished trial, or cannot be written to.
    """
    folder = Path(run_folder)
    try:
        if (folder / "trials").is_dir():
            write_trials_csv(folder)
        run = load_run(folder)
        by_task = summary.summarize(run.trials, run.axes)
        over_tasks = summary.summarize_over_tasks(run.trials, run.axes)
        shown = _write_tables(run, by_task, over_tasks)
        drawings = _draw(run, by_task)
        images = _write_figures(run.folder / "report" / "figures", drawings)
        page = run.folder / "report" / "report.html"
        page.write_text(_render(run, by_task, shown, drawings, images), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror}; the report needs to read and write RUN"
        ) from error
    return page


def _write_tables(run: Run, by_task: pd.DataFrame, over_tasks: pd.DataFrame) -> list[tables.Table]:
    """Every table as csv (numbers), md and tex (text); returned in the order of the page."""
    folder = _emptied(run.folder / "report" / "tables", ("csv", "md", "tex"))
    numbers = {"main": by_task}
    made = [tables.main_table(run, by_task)]
    if len(over_tasks):
        numbers["overall"] = over_tasks
        made.append(tables.overall_table(run, over_tasks))
    for axis in run.axes:
        others = [other for other in run.axes if other != axis]
        blocks = [block for _, block in tables.varying_blocks(by_task, axis, others)]
        numbers[f"by_{axis}"] = pd.concat(blocks)
        made.append(tables.axis_table(run, by_task, axis))
    for table in made:
        numbers[table.name].to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
        (folder / f"{table.name}.md").write_text(table_text.to_markdown(table), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(table_text.to_latex(table), encoding="utf-8")
    return made


def _draw(run: Run, by_task: pd.DataFrame) -> list[Drawing]:
    look_of = looks(by_task, run.axes)
    curves = load_curves(run)
    plane = figures.return_cost_plane(run.trials, run.axes, look_of)
    caption = "Small points are seeds, large ones their mean; hollow ones are oracles. Better is up and to the left."
    drawings = [Drawing("return_cost", "Return against cost", caption, plane, narrow=run.trials["task"].nunique() == 1)]
    for axis in run.axes:
        others = [other for other in run.axes if other != axis]
        caption = "White points are seeds, colored ones their mean; level lines are methods without this setting."
        caption += " A MIL loss below its floor means that D_N was memorized."
        for task in sorted({key[0] for key, _ in tables.varying_blocks(by_task, axis, others)}):
            figure = figures.axis_curves(run.trials, task, axis, others)
            title = f"{task}: by {labels.axis_title(axis)}"
            drawings.append(Drawing(f"by_{axis}_{task}", title, caption, figure))
    caption = "Mean over seeds at the steps that all seeds have; bands are 95 % bootstrap intervals of that mean."
    for task in sorted(run.trials["task"].unique()):
        figure = figures.learning_curves(curves, task, run.axes, look_of)
        if figure is not None:
            drawings.append(Drawing(f"curves_{task}", f"{task}: learning curves", caption, figure))
    return drawings


def _write_figures(folder: Path, drawings: list[Drawing]) -> list[str]:
    """png and pdf files; returns the png images as base64 text for the page."""
    _emptied(folder, ("png", "pdf"))
    images = []
    for drawing in drawings:
        png, _ = figures.save(drawing.figure, folder / drawing.name)
        images.append(base64.b64encode(png.read_bytes()).decode())
    return images


def _render(
    run: Run, by_task: pd.DataFrame, shown: list[tables.Table], drawings: list[Drawing], images: list[str]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        name=run.folder.resolve().name,
        answer=answer(run.trials, by_task, run.axes),
        numbers=page_text.key_numbers(run, by_task),
        run=run,
        cautions=page_text.cautions(run, by_task),
        tables=shown,
        drawings=list(zip(drawings, images, strict=True)),
        blocks=lambda table: [(group, list(rows)) for group, rows in groupby(table.rows, key=lambda row: row.group)],
        trials=page_text.trial_rows(run),
        decimal=tables.decimal,
        provenance=page_text.provenance(run),
        link=lambda trial_id: f"../trials/{quote(trial_id)}/" if run.has_folders else "",
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


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
