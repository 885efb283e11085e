"""What changed between two runs: settings that differ, rows that only one has, differences of means with intervals.

    python analysis/compare.py results/paper results/paper-2
    python analysis/compare.py results/reference/demo results/demo --metrics normalized_cost auroc
    python analysis/compare.py results/a results/b --csv difference.csv

Rows are matched by task, method and every setting that varies within either run; each difference is B - A of the means
over seeds, with a 95 % bootstrap interval (the seeds of each run are redrawn on their own, shared or not). A star marks
an interval without zero. Exit codes: 0; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

try:
    import numpy as np
    import pandas as pd
    from rich.console import Console

    from analysis import labels
    from analysis.load import Run, load_run
    from analysis.summary import REPETITIONS, SUMMARIZED, with_interval
    from analysis.table_text import Cell, Row, Table, to_console
    from analysis.tables import decimal
    from analysis.trial_rows import AXES, read_json
    from safemil.config.errors import UserError, entry_point
    from safemil.evaluation import aggregates
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")

SHOWN = ("normalized_return", "normalized_cost", "cvar_cost_20", "auroc", "mil_loss_final")
KEEP_LINES = argparse.RawDescriptionHelpFormatter
ORIGINS = ("dataset_sha256", "git_commit", "package_versions", "cost_limit", "episodes")


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = SHOWN, repetitions: int = REPETITIONS) -> pd.DataFrame:
    """One row per matched row and metric: means, seeds, ``difference`` (B - A), ``low``, ``high``, ``changed``.

    No interval, and nothing said to have changed, where a side has a single seed.
    """
    keys, pairs = _matched(a, b)
    rows = []
    for key, groups in pairs.items():
        for metric in metrics:
            values = [group[metric].dropna().to_numpy()[:, None] for group in groups]
            if min(map(len, values)) == 0:
                continue
            row = dict(zip(keys, key, strict=True)) | {"metric": metric}
            row |= {"mean_a": values[0].mean(), "mean_b": values[1].mean()}
            row |= {"seeds_a": len(values[0]), "seeds_b": len(values[1])}
            found = with_interval("difference", _difference, *values, repetitions=repetitions)
            row |= {name.removeprefix("difference_"): value for name, value in found.items()}
            rows.append(row | {"changed": bool(row["low"] > 0 or row["high"] < 0)})
    return pd.DataFrame(rows)


def rows_of_one(a: Run, b: Run) -> tuple[list[str], list[str]]:
    """Names of the rows that only A has, and of those that only B has."""
    keys, pairs = _matched(a, b)
    alone = [sorted(_rows(run, keys).keys() - pairs.keys(), key=_order) for run in (a, b)]
    only_a, only_b = ([_name(key, keys) for key in side] for side in alone)
    return only_a, only_b


def settings_that_differ(a: Run, b: Run) -> pd.DataFrame:
    """Columns setting, a, b, rows: what the matched rows were made with, where it is not the same.

    All settings of config.json where both runs have their trial folders, else the columns of trials.csv.
    """
    keys, pairs = _matched(a, b)
    counts: Counter[tuple[str, str, str]] = Counter()
    for groups in pairs.values():
        full = a.has_folders and b.has_folders
        left, right = (_settings(run, group, full) for run, group in zip((a, b), groups, strict=True))
        for name in (left.keys() | right.keys()) - set(keys):
            counts[name, left.get(name, "–"), right.get(name, "–")] += 1
    rows = [(*found, count) for found, count in sorted(counts.items()) if found[1] != found[2]]
    return pd.DataFrame(rows, columns=["setting", "a", "b", "rows"])


def comparison_of_runs(compared: pd.DataFrame, names: tuple[str, str]) -> Table:
    """The differences as a table: a block per metric."""
    keys = list(compared.columns[: compared.columns.get_loc("metric")])
    rows = []
    for metric in dict.fromkeys(compared["metric"]):
        for row in compared[compared["metric"] == metric].to_dict("records"):
            interval = "–" if math.isnan(row["low"]) else f"[{decimal(row['low'])}, {decimal(row['high'])}]"
            cells = (
                Cell(_name([row[key] for key in keys], keys)),
                Cell(decimal(row["mean_a"]), row["mean_a"]),
                Cell(decimal(row["mean_b"]), row["mean_b"]),
                Cell(decimal(row["difference"]), row["difference"], row["changed"]),
                Cell(interval + (" *" if row["changed"] else ""), row["low"]),
                Cell(f"{row['seeds_a']}, {row['seeds_b']}", row["seeds_a"]),
            )
            rows.append(Row(metric.replace("_", " "), labels.method_role(row["method"]), cells))
    notes = (f"A: {names[0]}. B: {names[1]}. *: the 95 % bootstrap interval of the difference has no zero in it.",)
    header = ("Row", "A", "B", "B − A", "Interval", "Seeds")
    return Table("difference", f"{names[1]} against {names[0]}", "Metric", header, tuple(rows), notes)


def _matched(a: Run, b: Run) -> tuple[list[str], dict[tuple, tuple[pd.DataFrame, pd.DataFrame]]]:
    """(task, method and the settings that vary within either run and that both know; key -> trials of A and of B)."""
    varying = [axis for axis in dict.fromkeys([*a.axes, *b.axes]) if axis in a.trials and axis in b.trials]
    keys = ["task", "method", *varying]
    rows = _rows(a, keys), _rows(b, keys)
    return keys, {key: (rows[0][key], rows[1][key]) for key in sorted(rows[0].keys() & rows[1].keys(), key=_order)}


def _rows(run: Run, keys: Sequence[str]) -> dict[tuple, pd.DataFrame]:
    return dict(iter(run.trials.groupby(list(keys), sort=False, dropna=False)))


def _settings(run: Run, group: pd.DataFrame, full: bool) -> dict[str, str]:
    """Setting -> text for the first trial of a row; several values of a row are joined."""
    found = {name: "; ".join(sorted(set(map(str, group[name])))) for name in (*AXES, *ORIGINS) if name in group}
    config = (read_json(run.folder / "trials" / group["trial_id"].iloc[0] / "config.json") or {}) if full else {}
    shared = {section: config.get(section) or {} for section in ("split", "evaluation")}
    flat = pd.json_normalize({**(config.get("method_config") or {}), **shared}).to_dict("records")
    return found | {name: str(value) for name, value in (flat[0] if flat else {}).items()}


def _difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return aggregates.mean(y) - aggregates.mean(x)


def _order(key: Sequence) -> tuple:
    return (key[0], labels.group_order(key[1], key[2:]))


def _name(key: Sequence, keys: Sequence[str]) -> str:
    return f"{key[0]}, {labels.variant_label(key[1], keys[2:], key[2:])}"


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser("analysis/compare.py", description=__doc__, formatter_class=KEEP_LINES)
    parser.add_argument("a", metavar="RUN_A", help="a run's folder, or a curated one with trials.csv")
    parser.add_argument("b", metavar="RUN_B", help="another")
    parser.add_argument("--metrics", nargs="+", default=SHOWN, metavar="M", help=f"default: {' '.join(SHOWN)}")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the differences as csv")
    options = parser.parse_args(arguments)
    for metric in options.metrics:
        if metric not in SUMMARIZED:
            raise UserError(f"--metrics: unknown metric {metric!r}; known: {', '.join(SUMMARIZED)}")
    if options.csv and not options.csv.parent.is_dir():
        raise UserError(f"{options.csv}: there is no folder {options.csv.parent}; make it first")
    a, b = load_run(options.a), load_run(options.b)
    compared = compare_runs(a, b, options.metrics)
    if compared.empty:
        tasks = [", ".join(sorted(run.trials["task"].unique())) for run in (a, b)]
        raise UserError(f"no row in common: {options.a} has {tasks[0]}, {options.b} has {tasks[1]}; compare like runs")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(to_console(comparison_of_runs(compared, (options.a, options.b))), soft_wrap=False)
    for name, rows in zip((options.a, options.b), rows_of_one(a, b), strict=True):
        if rows:
            console.print(f"Only in {name}: {'; '.join(rows)}")
    different = settings_that_differ(a, b)
    same = different.empty
    console.print("Settings, data and code are the same." if same else "What differs in settings and origins, rows:")
    for setting, left, right, count in different.itertuples(index=False):
        console.print(f"  {setting}: {left} | {right} | {count}")
    if options.csv:
        compared.to_csv(options.csv, index=False, lineterminator="\n")
        print(f"differences: {options.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
