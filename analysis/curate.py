"""From finished runs to small reference results that can be committed: results/reference/RUN/.

    python analysis/curate.py results/paper results/bagsize    # make reference RUNS="results/paper results/bagsize"
    python analysis/curate.py                                  # make reference: the reports of what is there again

A reference holds trials.csv, run.json, what the figures need of the trials (thinned, gzipped), film strips, the report
with its tables and svg figures, and README.md with the command and the hours it took. Its report is made from these
files alone, so `python analysis/report.py results/reference/RUN` makes the same one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import pandas as pd

    from analysis import index
    from analysis.figures import SCORE_COLUMNS, STEP_COLUMNS
    from analysis.load import CURVE_COLUMNS, Run, load_run, load_trial_tables
    from analysis.report import build_report
    from analysis.setting_figures import CURVE_PANELS
    from analysis.trial_rows import write_trials_csv
    from safemil.config.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")

REFERENCE = Path("results/reference")
MOST_BYTES = 4_000_000  # Vega is 0.4 MB of each page
CURVE_POINTS, SCORED_TRAJECTORIES = 25, 25  # kept of each trial: of each stage's curve, of each set and band


def curate(run_folder: Path, to: Path = REFERENCE) -> Path:
    """Write the reference of one finished run, replacing an older one; returns its folder.

    Raises:
        UserError: the run is unfinished, or missing.
    """
    if (run_folder / "trials").is_dir():
        write_trials_csv(run_folder)
    run = load_run(run_folder)
    if run.unfinished:
        raise UserError(
            f"{run_folder}: {len(run.unfinished)} trials are unfinished, the first {run.unfinished[0].trial_id};"
            " complete the run with --resume before it becomes a reference"
        )
    folder = to / run_folder.resolve().name
    if folder.resolve() == run_folder.resolve():
        raise UserError(f"{run_folder}: is a reference already; without arguments its report is made again")
    if (folder / "trials").is_dir():
        raise UserError(f"{folder}: is a run of its own and would be replaced; choose another --to")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("trials.csv", "run.json"):
        if (run_folder / name).is_file():
            shutil.copy(run_folder / name, folder / name)
    if (run_folder / "film_strips").is_dir():
        shutil.copytree(run_folder / "film_strips", folder / "film_strips")
    for name, table in _thinned(run).items():
        # Without a date inside, so that the same run gives the same file.
        packed = {"method": "gzip", "mtime": 0}
        table.to_csv(folder / f"{name}.gz", index=False, float_format="%.4g", compression=packed)
    (folder / "README.md").write_text(_readme(run), encoding="utf-8")
    build_report(folder, small=True)
    return folder


def _thinned(run: Run) -> dict[str, pd.DataFrame]:
    """File name -> what the figures need of it: fewer points of every curve, fewer trajectories of every set."""
    curves = load_trial_tables(run, "curves.csv", CURVE_COLUMNS)
    scores = load_trial_tables(run, "scores.csv", SCORE_COLUMNS)
    steps = load_trial_tables(run, "example_steps.csv", STEP_COLUMNS)
    curves = _every_nth(curves, ["trial_id", "stage"], CURVE_POINTS)
    scores = scores[(scores["set"] != "D_N") | (scores["part"] != "train")]
    scores = _every_nth(scores, ["trial_id", "set", "part", "band"], SCORED_TRAJECTORIES)
    steps = steps[steps["trial_id"].isin(steps[steps["method"] == "safemil"].groupby("task")["trial_id"].last())]
    kept = {"curves.csv": (curves, (*CURVE_COLUMNS, *CURVE_PANELS)), "example_steps.csv": (steps, STEP_COLUMNS)}
    kept["scores.csv"] = (scores, (*SCORE_COLUMNS, "predicted_cost", "weight"))
    return {
        name: table[["trial_id", *[column for column in columns if column in table]]]
        for name, (table, columns) in kept.items()
        if len(table)
    }


def _every_nth(table: pd.DataFrame, by: list[str], most: int) -> pd.DataFrame:
    """At most ``most`` rows of each group, evenly spaced, the last one among them: the same steps for all seeds."""
    place = table.groupby(by).cumcount(ascending=False)
    size = table.groupby(by)[by[0]].transform("size")
    stride = -(-size // most)
    return table[place % stride == 0]


def _readme(run: Run) -> str:
    trials = run.trials
    hours = [trials[column].sum() / 3600 for column in ("train_seconds", "eval_seconds")]
    commands = trials.get("command", pd.Series(dtype=object)).map(str).unique()
    recorded = sorted({*filter(None, commands), *filter(None, [run.record.get("command")])})
    return f"""# Reference results: {run.folder.resolve().name}

{len(trials)} trials ({len(run.failed)} failed) on {", ".join(sorted(trials["task"].unique()))};\
 {trials["seed"].nunique()} seeds, {trials["episodes"].min():.0f} or more episodes each.
{hours[0]:.2f} hours of training and {hours[1]:.2f} hours of evaluation, summed over trials.

{chr(10).join(f"    {command}" for command in recorded)}

The report again, from this folder alone: `make reference`.
"""


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("analysis/curate.py", description=__doc__, formatter_class=keep_lines)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="finished runs (default: those in --to)")
    parser.add_argument("--to", type=Path, default=REFERENCE, metavar="DIR", help=f"default: {REFERENCE}")
    options = parser.parse_args(arguments)
    if options.runs:
        folders = [curate(run, options.to) for run in options.runs]
    else:
        folders = sorted(path.parent for path in options.to.glob("*/trials.csv"))
        for folder in folders:
            build_report(folder, small=True)
    if not folders:
        raise UserError(f"{options.to}: holds no reference; name the finished runs to curate")
    for folder in folders:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        note = "" if size <= MOST_BYTES else f": more than {MOST_BYTES / 1e6:g} MB, too large to commit"
        print(f"reference: {folder} ({size / 1e6:.2f} MB{note})")
    print(f"index: {index.write_index(options.to)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
