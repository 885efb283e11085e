"""Run a grid: tasks x methods x seeds x axes, on this machine or a Ray cluster, and end in a table and a report.

Examples:
    python tune/run.py --list
    python tune/run.py --grid demo
    python tune/run.py --grid bagsize --tasks BallCircle --smoke
    python tune/run.py --grid paper --tasks SwimmerVelocity --methods safemil bc-all --seeds 0 1 2
    python tune/run.py --grid bagsize --set cost_model.steps=20000 policy.steps=20000 --dry-run
    python tune/run.py --grid paper --address auto --storage /shared/results --resume
    python tune/run.py --grid paper --shard 3/8 --storage /shared/results        # one job of an array, without Ray

Exit codes: 0 every trial finished; 1 some failed (the table still appears); 2 bad usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

try:
    from safemil.config.errors import UserError, entry_point
    from safemil.config.overrides import parse_assignments
    from safemil.config.ray_address import check_ray_address
    from safemil.nn import precision
except ModuleNotFoundError:
    sys.exit("error: the package is not installed; run `make install`, then .venv/bin/python tune/run.py ...")
from tune.grids import PRESETS, Grid, find_grid
from tune.trials import Trial, expand, packs

DEFAULT_STORAGE = "results"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "tune/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", help="which grid to run (see --list)")
    parser.add_argument("--tasks", nargs="+", metavar="T", help="replaces the grid's tasks")
    parser.add_argument("--methods", nargs="+", metavar="M", help="replaces the grid's methods")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="replaces the grid's seeds")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings", help="override settings")
    parser.add_argument("--preset", help=f"step counts and rates: {', '.join(PRESETS)} (default: the grid's)")
    parser.add_argument("--smoke", action="store_true", help="shrink every step count: any grid in minutes")
    parser.add_argument("--name", help="the run's name (default: the grid's, with -smoke)")
    parser.add_argument("--storage", default=DEFAULT_STORAGE, help="folder or URI that holds runs (default: results)")
    parser.add_argument("--resume", action="store_true", help="continue a run: finished trials are skipped")
    parser.add_argument("--address", help="of a running Ray cluster, e.g. auto (default: this machine alone)")
    parser.add_argument("--cpus-per-trial", type=float, metavar="X", help="cores of a pack (default: trains with one)")
    parser.add_argument("--gpus-per-trial", type=float, metavar="X", help="default: 0.25 where there is a GPU, else 0")
    precision.add_option(parser)
    parser.add_argument("--shard", metavar="I/N", help="run the I-th of N parts (1..N) in this process, without Ray")
    parser.add_argument(
        "--rollouts",
        choices=["auto", "apart"],
        default="auto",
        help="apart: as tasks beside the training, never in its process (auto: where trials use a GPU)",
    )
    parser.add_argument(
        "--save-every", type=float, default=60.0, metavar="SECONDS", help="of a training's state (default 60)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the trials and the total, start nothing")
    parser.add_argument("--list", action="store_true", help="grids, tasks and methods, a line each")
    options = parser.parse_args(arguments)
    if not options.list and not options.grid:
        parser.error("--grid NAME is required (--list shows them)")
    return options


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """``3/8`` -> (3, 8)."""
    if text is None:
        return None
    part, slash, parts = text.partition("/")
    if not slash or not part.isdigit() or not parts.isdigit() or not 1 <= int(part) <= int(parts):
        raise UserError(f"--shard {text}: expected I/N with 1 <= I <= N, for example 3/8")
    return int(part), int(parts)


def folder_name(options: argparse.Namespace) -> str:
    """The run's name: given, or the grid's."""
    return options.name or options.grid + ("-smoke" if options.smoke else "")


def run_uri(options: argparse.Namespace) -> str:
    """The run's place in an object store; empty where --storage is a folder."""
    from tune.storage import is_uri

    return f"{options.storage.rstrip('/')}/{folder_name(options)}" if is_uri(options.storage) else ""


def command_line() -> str:
    """The command as typed."""
    return shlex.join(["python", "tune/run.py", *sys.argv[1:]])


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, prepare, run, tabulate."""
    options = parse_arguments(arguments)
    if options.list or options.dry_run:
        from tune import listing
    if options.list:
        listing.print_list()
        return 0
    grid, shard = find_grid(options.grid), parse_shard(options.shard)
    if options.save_every < 0:
        raise UserError(f"--save-every {options.save_every:g}: expected a number of seconds, 0 or more")
    planned = expand(
        grid,
        tasks=options.tasks,
        methods=options.methods,
        seeds=options.seeds,
        preset=options.preset,
        smoke=options.smoke,
        settings=parse_assignments(options.settings),
    )
    part, parts = shard or (1, 1)
    trials = [trial for pack in packs(planned)[part - 1 :: parts] for trial in pack]
    if options.dry_run:
        listing.print_trials(trials, f"{options.storage.rstrip('/')}/{folder_name(options)}")
        return 0
    if options.address is not None and shard is None:
        check_ray_address(options.address)
    folder = run(grid, planned, trials, options, serial=shard is not None)
    return 130 if folder is None else finish(folder, trials, options)


def run(
    grid: Grid, planned: list[Trial], trials: list[Trial], options: argparse.Namespace, *, serial: bool
) -> Path | None:
    """Run ``trials``, this process's part of those planned; returns the run's folder, or None when interrupted."""
    from tune.listing import labels_of
    from tune.places import run_here, run_on_ray
    from tune.prepare import make_jobs, open_run, prepare_datasets
    from tune.progress import Board
    from tune.storage import pull, working_folder

    folder, uri = working_folder(options.storage, folder_name(options)), run_uri(options)
    if uri:
        pull(uri, folder)
    axes = {name: list(values) for name, values in grid.axes.items()}
    origin = {"grid": options.grid, "command": command_line(), "axes": axes, "precision": options.precision}
    open_run(folder, planned, origin, join=options.resume or serial)
    try:
        datasets = prepare_datasets(trials, download=options.grid != "demo")
        jobs = make_jobs(
            trials,
            datasets,
            folder,
            command=command_line(),
            storage=uri,
            session=uuid.uuid4().hex,
            keep_every=options.save_every,
            precision=options.precision,
        )
        labels = labels_of(planned)
        if jobs:
            with Board({pack: labels[pack] for pack in jobs}) as board:
                asked = {"cpus": options.cpus_per_trial, "gpus": options.gpus_per_trial}
                if serial:
                    run_here(jobs, board, **asked)
                else:
                    run_on_ray(jobs, board, address=options.address, apart=options.rollouts == "apart", **asked)
    except KeyboardInterrupt:
        again = command_line() if options.resume or serial else f"{command_line()} --resume"
        print(f"interrupted; what is finished is kept in {uri or folder}. Go on with: {again}", file=sys.stderr)
        return None
    return folder


def finish(folder: Path, trials: list[Trial], options: argparse.Namespace) -> int:
    """trials.csv, the table on screen, the report; exit code 1 if any trial failed or is missing."""
    from analysis.report import build_report
    from analysis.tables import print_table
    from analysis.trial_rows import is_failed, read_rows, write_trials_csv
    from tune.prepare import discard_stages, one_at_a_time
    from tune.storage import pull, push_files

    uri = run_uri(options)
    if uri:
        pull(uri, folder)
    rows, _ = read_rows(folder)
    failed = [row for row in rows if is_failed(row)]
    with one_at_a_time(folder):
        write_trials_csv(folder)
        discard_stages(folder)
        if len(failed) < len(rows):
            print_table(folder)
            report = build_report(folder)
            print(f"report: {uri + '/' + report.relative_to(folder).as_posix() if uri else report}")
    for row in failed:
        log = f"{uri or folder}/trials/{row['trial_id']}/error.txt"
        print(f"failed: {row['trial_id']}: {row['reason']} ({log})", file=sys.stderr)
    missing = {trial.id for trial in trials} - {row["trial_id"] for row in rows}
    for trial_id in sorted(missing):
        reason = "neither a result nor a reason could be written; --resume tries again"
        print(f"missing: {trial_id}: {reason}", file=sys.stderr)
    if uri:
        push_files(uri, folder, ["run.json", "trials.csv", "report"])
    return 1 if failed or missing else 0


if __name__ == "__main__":
    sys.exit(main())
