"""Each method's settings by the label-free AUROC of its score, on held-out D_N against held-out D_U: nothing else.

    python tune/run.py --grid tuning --tasks BallCircle BallRun
    python tune/tuning.py results/tuning            # prints the choice and stores it in tune/tuned.json

In: the rows of a finished tuning run. Out: task and method -> settings, which the paper grid takes. No cost, no return
and no hidden label has a say; equal scores go to the setting that the grid names first.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError, entry_point
from safemil.config.overrides import flatten

STORE = Path(__file__).with_name("tuned.json")
SCORE = "auroc_unlabeled"


@functools.cache
def store() -> dict[str, Any]:
    """What is stored: ``{"settings": {task: {method: {setting: value}}}, "from": [...]}``."""
    return json.loads(STORE.read_text()) if STORE.exists() else {"settings": {}, "from": []}


def stored_settings(task: str, method: str) -> dict[str, Any]:
    """Dotted settings chosen for a method on a task; none where it was not tuned, which leaves the defaults."""
    return store()["settings"].get(task, {}).get(method, {})


def read_scores(run: Path) -> dict[tuple[str, str], dict[int, list[float]]]:
    """(task, method) -> number of the point in the grid -> score of each seed.

    Raises:
        UserError: there is no such run, a trial is missing or failed, or a setting was trained that the grid has not.
    """
    from tune.files import read_json
    from tune.grids import TUNING

    if not (run / "run.json").exists():
        raise UserError(f"{run} is no run (it has no run.json); start one: python tune/run.py --grid tuning")
    scores: dict[tuple[str, str], dict[int, list[float]]] = {}
    for trial_id in read_json(run / "run.json")["trials"]:
        folder = run / "trials" / trial_id
        row = read_json(folder / "row.json") if (folder / "row.json").exists() else {}
        if row.get(SCORE) is None:
            raise UserError(f"{trial_id}: {row.get('reason', 'not finished')}; go on with --grid tuning --resume first")
        config = read_json(folder / "config.json")
        values = {**flatten(config["method_config"]), **flatten({"evaluation": config["evaluation"]})}
        points = TUNING.get(row["method"], ())
        number = next((n for n, point in enumerate(points) if point.items() <= values.items()), None)
        if number is None:
            raise UserError(
                f"{trial_id}: its settings are none of the tuning grid's (--set, --smoke or an older grid?)"
            )
        scores.setdefault((row["task"], row["method"]), {}).setdefault(number, []).append(row[SCORE])
    return scores


def choose(scores: dict[tuple[str, str], dict[int, list[float]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> method -> the settings with the best mean score."""
    from tune.grids import TUNING

    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for (task, method), points in scores.items():
        best = max(sorted(points), key=lambda number: sum(points[number]) / len(points[number]))
        varied = [name for name in TUNING[method][0] if len({str(point[name]) for point in TUNING[method]}) > 1]
        chosen.setdefault(task, {})[method] = {name: TUNING[method][best][name] for name in varied}
    return chosen


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the scores and the choice; store it."""
    from rich.console import Console
    from rich.table import Table

    from tune.files import read_json, write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished tuning run")
    parser.add_argument("--dry-run", action="store_true", help="print the choice, store nothing")
    options = parser.parse_args(arguments)
    scores = read_scores(options.run)
    chosen = choose(scores)
    table = Table("task", "method", "label-free AUROC of each setting", "chosen", box=None)
    for (task, method), points in scores.items():
        means = "  ".join(f"{sum(points[n]) / len(points[n]):.3f}" for n in sorted(points))
        table.add_row(task, method, means, " ".join(f"{k}={v}" for k, v in chosen[task][method].items()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if not options.dry_run:
        known = store()
        settings = {**known["settings"]}
        for task, methods in chosen.items():
            settings[task] = {**settings.get(task, {}), **methods}
        command = read_json(options.run / "run.json")["command"]
        write_json(STORE, {"settings": settings, "from": list(dict.fromkeys([*known["from"], command]))})
        print(f"stored in {STORE}; the paper grid takes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
