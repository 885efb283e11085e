"""A leaderboard over runs: a folder of runs comes in, one page of tasks x methods goes out, also as csv and json.

    python analysis/index.py results
    python analysis/index.py results/reference

Reads every RUN below the folder that has trials.csv or trials/. Of the rows of one task, method and setting the best
documented run's is shown (command, commit, data and date on record), then the one with most seeds and episodes, then
the newest; the others are linked. Writes index.html (it stands alone), index.csv and index.json into the folder.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import pandas as pd

    from analysis import labels
    from analysis.load import Run, load_run
    from analysis.page_text import page
    from analysis.summary import summarize
    from analysis.tables import mean_text
    from analysis.trial_rows import column_of_setting
    from safemil.config.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")

ROW = ["task", "method", "setting"]
ORIGIN = ("git_commit", "dataset_sha256", "command")
METRICS = ("normalized_return", "normalized_cost", "cvar_cost_20")


def find_runs(root: Path) -> list[Run]:
    """Every run below ``root`` that has a finished trial, by path.

    Raises:
        UserError: there is none.
    """
    folders = {path.parent for name in ("trials", "trials.csv") for path in root.rglob(name)}
    inner = {folder for folder in folders if any(parent in folders for parent in folder.parents)}
    runs = []
    for folder in sorted(folders - inner):
        try:
            runs.append(load_run(folder))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not runs:
        raise UserError(f"{root}: holds no run with a finished trial; expected RUN folders made by tune/run.py")
    return runs


def leaderboard(runs: Sequence[Run], root: Path) -> pd.DataFrame:
    """One row per task, method and setting, of the run that documents it best; ``runs`` names all that have it."""
    frames = []
    for run in runs:
        summary = summarize(run.trials, run.axes, repetitions=10)
        origins = [_origin(run, row) for row in summary.to_dict("records")]
        settings = [
            ", ".join(filter(None, [labels.setting_label(run.axes, values), _overridden(origin["command"], run.axes)]))
            for values, origin in zip(summary[list(run.axes)].to_numpy(), origins, strict=True)
        ]
        frames.append(summary.assign(setting=settings, run=run.folder.relative_to(root).as_posix(), axes=len(run.axes)))
        frames[-1][list(origins[0])] = [list(origin.values()) for origin in origins]
    rows = pd.concat(frames, ignore_index=True)
    rows["documented"] = rows[["command", "git_commit", "dataset_sha256", "created"]].ne("").sum(axis=1)
    best = ["documented", "seeds", "episodes_min", "created", "run"]
    rows = rows.sort_values([*ROW, *best], ascending=[True] * 3 + [False] * 5, kind="stable")
    names = rows.groupby(ROW, sort=False)["run"].agg(" ".join).rename("runs")
    shown = rows.drop_duplicates(ROW).merge(names, on=ROW)
    shown["label"] = [labels.method_label(method) for method in shown["method"]]
    plain = shown["setting"].eq("") & shown["safe"] & shown["role"].isin(["ours", "label-limited"])
    candidates = shown["normalized_return_mean"].where(plain)
    shown["best"] = candidates.notna() & candidates.eq(candidates.groupby(shown["task"]).transform("max"))
    place = [(row.task, labels.method_order(row.method), row.setting) for row in shown.itertuples()]
    shown = shown.loc[[index for _, index in sorted(zip(place, shown.index, strict=True))]]
    numbers = [f"{metric}_{end}" for metric in METRICS for end in ("mean", "std")]
    columns = [*ROW, "label", "role", *numbers, "safe", "best", "seeds", "episodes_min", "run", "created"]
    return shown[[*columns, "git_commit", "dataset_sha256", "command", "documented", "runs"]].reset_index(drop=True)


def write_index(root: Path) -> Path:
    """Write index.html, index.csv and index.json into ``root``; returns the page.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected one that holds RUN folders, such as results")
    board = leaderboard(find_runs(root), root)
    board.to_csv(root / "index.csv", index=False, lineterminator="\n")
    (root / "index.json").write_text(json.dumps(json.loads(board.to_json(orient="records")), indent=1) + "\n")
    rows = board.to_dict("records")
    for row in rows:
        row |= {"texts": [(mean_text(row, metric), row[f"{metric}_mean"]) for metric in METRICS]}
        row |= {"links": [(run, f"{run}/report/report.html") for run in row["runs"].split()]}
    html = page("index.html.j2", rows=rows, root=root.resolve().name)
    (root / "index.html").write_text(html, encoding="utf-8")
    return root / "index.html"


def _origin(run: Run, row: dict) -> dict[str, str]:
    """Where the numbers of one row of the summary came from, "" where it is not on record."""
    trials = run.trials
    for name in ("task", "method", *run.axes):
        trials = trials[trials[name] == row[name]]
    found = {name: sorted(filter(None, trials.get(name, pd.Series(dtype=str)).astype(str).unique())) for name in ORIGIN}
    commands = found["command"] or [str(run.record.get("command", ""))]
    created = str(run.record.get("created", ""))
    return {
        **{name: "; ".join(values) for name, values in found.items()},
        "command": "; ".join(commands),
        "created": created,
    }


def _overridden(command: str, axes: Sequence[str]) -> str:
    """What a command overrides of the defaults, but for what the table names already: a row of its own."""
    names = [setting for text in re.findall(r"--set((?: [\w.]+=\S+)+)", command) for setting in text.split()]
    names += re.findall(r"--smoke", command)
    return " ".join(dict.fromkeys(name for name in names if column_of_setting(name.split("=")[0]) not in axes))


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("analysis/index.py", description=__doc__, formatter_class=keep_lines)
    parser.add_argument("root", type=Path, nargs="?", default=Path("results"), metavar="DIR", help="default: results")
    print(f"index: {write_index(parser.parse_args(arguments).root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
