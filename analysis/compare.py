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
    from analysis.summary import REPETITIONS
    from analysis.table_text import Cell, Row, Table, to_console
    from analysis.tables import decimal
    from analysis.trial_rows import AXES, METRICS, read_json
    from safemil.config.errors import UserError, entry_point
    from safemil.evaluation import aggregates
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")

SHOWN = ("normalized_return", "normalized_cost", "cvar_cost_20", "auroc", "mil_loss_final")
ORIGINS = ("dataset_sha256", "git_commit", "package_versions", "cost_limit", "episodes")


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = SHOWN, repetitions: int = REPETITIONS) -> pd.DataFrame:
    """One row per matched row and metric: means, seeds, ``difference`` (B - A), ``low``, ``high``, ``changed``.

    No interval, and nothing said to have changed, where a side has a single seed.
    """
    keys = matching_columns(a, b)
    groups_a, groups_b = _cells(a, keys), _cells(b, keys)
    rows = []
    for key in sorted(groups_a.keys() & groups_b.keys(), key=lambda key: _order(key, keys)):
        for metric in metrics:
            values = [group[metric].dropna().to_numpy()[:, None] for group in (groups_a[key], groups_b[key])]
            if min(map(len, values)) == 0:
                continue
            row = dict(zip(keys, key, strict=True)) | {"metric": metric}
            row |= {"mean_a": values[0].mean(), "mean_b": values[1].mean()}
            row |= {"seeds_a": len(values[0]), "seeds_b": len(values[1])}
            row |= {"difference": row["mean_b"] - row["mean_a"], "low": math.nan, "high": math.nan}
            if min(map(len, values)) > 1:
                ends = aggregates.stratified_bootstrap(_difference, *values, repetitions=repetitions)
                row |= dict(zip(("low", "high"), map(float, ends), strict=True))
            row["changed"] = bool(row["low"] > 0 or row["high"] < 0)
            rows.append(row)
    return pd.DataFrame(rows)


def matching_columns(a: Run, b: Run) -> list[str]:
    """task, method and the settings that vary within either run and that both know."""
    varying = [axis for axis in dict.fromkeys([*a.axes, *b.axes]) if axis in a.trials and axis in b.trials]
    return ["task", "method", *varying]


def rows_of_one(a: Run, b: Run) -> tuple[list[str], list[str]]:
    """Names of the rows that only A has, and of those that only B has."""
    keys = matching_columns(a, b)
    found_a, found_b = set(_cells(a, keys)), set(_cells(b, keys))
    only = (found_a - found_b, found_b - found_a)
    return tuple([_name(key, keys) for key in sorted(side, key=lambda key: _order(key, keys))] for side in only)


def settings_that_differ(a: Run, b: Run) -> pd.DataFrame:
    """Columns setting, a, b, rows: what the matched rows were made with, where it is not the same.

    All settings of config.json where both runs have their trial folders, else the columns of trials.csv.
    """
    keys = matching_columns(a, b)
    groups_a, groups_b = _cells(a, keys), _cells(b, keys)
    counts: Counter[tuple[str, str, str]] = Counter()
    for key in groups_a.keys() & groups_b.keys():
        full = a.has_folders and b.has_folders
        left, right = _settings(a, groups_a[key], full), _settings(b, groups_b[key], full)
        for name in left.keys() | right.keys():
            pair = left.get(name, "–"), right.get(name, "–")
            if name not in keys and pair[0] != pair[1]:
                counts[(name, *pair)] += 1
    rows = [(*difference, count) for difference, count in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["setting", "a", "b", "rows"])


def comparison_of_runs(compared: pd.DataFrame, names: tuple[str, str]) -> Table:
    """The differences as a table: a block per metric."""
    keys = list(compared.columns[: compared.columns.get_loc("metric")])
    rows = []
    for metric in dict.fromkeys(compared["metric"]):
        for place, row in enumerate(compared[compared["metric"] == metric].to_dict("records")):
            interval = "–" if math.isnan(row["low"]) else f"[{decimal(row['low'])}, {decimal(row['high'])}]"
            cells = (
                Cell(_name([row[key] for key in keys], keys), f"{place:05d}"),
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


def _cells(run: Run, keys: Sequence[str]) -> dict[tuple, pd.DataFrame]:
    return dict(iter(run.trials.groupby(list(keys), sort=False, dropna=False)))


def _settings(run: Run, group: pd.DataFrame, full: bool) -> dict[str, str]:
    """Setting -> text for the first trial of a row; several values of a row are joined."""
    found = {name: "; ".join(sorted(set(map(str, group[name])))) for name in (*AXES, *ORIGINS) if name in group}
    config = read_json(run.folder / "trials" / group["trial_id"].iloc[0] / "config.json") if full else None
    for section in ("split", "evaluation", "method_config"):
        prefix = "" if section == "method_config" else f"{section}."
        found |= _flat((config or {}).get(section) or {}, prefix)
    return found


def _flat(values: dict, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": str(value)}
    return found


def _difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return aggregates.mean(y) - aggregates.mean(x)


def _order(key: Sequence, keys: Sequence[str]) -> tuple:
    return (key[0], labels.group_order(key[1], key[2:]))


def _name(key: Sequence, keys: Sequence[str]) -> str:
    return f"{key[0]}, {labels.variant_label(key[1], keys[2:], key[2:])}"


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        "analysis/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="RUN_A", help="a run's folder, or a curated one with trials.csv")
    parser.add_argument("b", metavar="RUN_B", help="another")
    parser.add_argument("--metrics", nargs="+", default=SHOWN, metavar="M", help=f"default: {' '.join(SHOWN)}")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the differences as csv")
    options = parser.parse_args(arguments)
    known = [*METRICS, "train_seconds", "eval_seconds"]
    for metric in options.metrics:
        if metric not in known:
            raise UserError(f"--metrics: unknown metric {metric!r}; known: {', '.join(known)}")
    if options.csv and not options.csv.parent.is_dir():
        raise UserError(f"{options.csv}: there is no folder {options.csv.parent}; make it first")
    a, b = load_run(options.a), load_run(options.b)
    compared = compare_runs(a, b, options.metrics)
    only_a, only_b = rows_of_one(a, b)
    if compared.empty:
        tasks = [", ".join(sorted(run.trials["task"].unique())) for run in (a, b)]
        raise UserError(f"no row in common: {options.a} has {tasks[0]}, {options.b} has {tasks[1]}; compare like runs")
    _print(Console(), compared, settings_that_differ(a, b), (only_a, only_b), (options.a, options.b))
    if options.csv:
        compared.to_csv(options.csv, index=False, lineterminator="\n")
        print(f"differences: {options.csv}")
    return 0


def _print(
    console: Console,
    compared: pd.DataFrame,
    settings: pd.DataFrame,
    only: tuple[list[str], list[str]],
    names: tuple[str, str],
) -> None:
    console.print(to_console(comparison_of_runs(compared, names)))
    for name, rows in zip(names, only, strict=True):
        if rows:
            console.print(f"Only in {name}: {'; '.join(rows)}", markup=False, highlight=False, soft_wrap=True)
    if len(settings):
        console.print("Settings and origins that differ (A | B | rows):")
        for setting, left, right, count in settings.itertuples(index=False):
            console.print(f"  {setting}: {left} | {right} | {count}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print("Settings, data and code are the same.")


if __name__ == "__main__":
    sys.exit(main())
