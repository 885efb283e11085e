"""Dataset files: list, fetch, describe, convert.

    python -m safemil.datasets list                       # what lies in the dataset folder
    python -m safemil.datasets fetch PointGoal1 CarRun    # download what is missing
    python -m safemil.datasets card BallCircle            # what it holds and how hard it is: a page and a picture
    python -m safemil.datasets card BallCircle --clone    # and what cloning all of it, or its safe part, makes of it
    python -m safemil.datasets convert logs.npz --output mine.hdf5    # somebody's own logs, see convert --help

The dataset folder is ``$DSRL_DATASET_DIR``, else ``~/.dsrl/datasets``, with DSRL's own file names.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from safemil.config.errors import UserError, entry_point
from safemil.data.convert import __doc__ as convert_help
from safemil.data.convert import convert
from safemil.data.hdf5 import read_layout
from safemil.data.locate import dataset_folder, fetch, find
from safemil.data.logs.reading import add_options
from safemil.data.provenance import origin_of
from safemil.data.tasks import Task, find_task, parse_file_name
from safemil.data.trajectories import DatasetError


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m safemil.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | fetch | card | convert")
    commands.add_parser("list", help="what lies in the dataset folder: task, file, size, trajectories, where from")
    fetching = commands.add_parser("fetch", help="download what is missing and print the paths")
    fetching.add_argument("tasks", nargs="+", metavar="TASK")
    carding = commands.add_parser("card", help="a page and a picture of what a dataset holds")
    carding.add_argument("datasets", nargs="+", metavar="TASK|FILE")
    carding.add_argument("--task", help="of files that are not named as DSRL's")
    carding.add_argument("--clone", action="store_true", help="also what cloning makes of it: some minutes")
    carding.add_argument("--workers", type=int, metavar="W", help="processes for --clone (default: one per core)")
    carding.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: the working directory")
    converting = commands.add_parser(
        "convert",
        help="HDF5, npz, csv, Parquet, Minari, robomimic or LeRobot -> DSRL's layout",
        description=convert_help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    converting.add_argument("source", type=Path, help="a file or a folder")
    add_options(converting)
    converting.add_argument("--task", help="check the dimensions against this task's")
    converting.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    task = find_task(options.task) if getattr(options, "task", None) else None
    if options.command == "list":
        print(inventory(dataset_folder()))
    elif options.command == "fetch":
        for wanted in [find_task(name) for name in options.tasks]:  # every name is checked before the first download
            print(fetch(wanted))
    elif options.command == "card":
        from safemil.collection.assessment import assess
        from safemil.collection.cloning_check import clone_both
        from safemil.simulation.worker_pool import usable_cores

        cloning, workers = clone_both if options.clone else None, options.workers or usable_cores()
        for path, of_task in [_named_dataset(name, task) for name in options.datasets]:
            print(assess(path, of_task, options.output, cloning, workers))
    else:
        chosen = {"observation_keys": options.observation_keys, "action_bounds": options.action_bounds}
        print(*convert(options.source, options.output, task, **chosen), options.output, sep="\n")


def _named_dataset(name: str, task: Task | None) -> tuple[Path, Task]:
    """The file that a task's name, or a path, stands for, and its task."""
    path = Path(name)
    if path.suffix != ".hdf5":
        wanted = find_task(name)
        if (dataset := find(wanted)) is None:
            raise UserError(f"no dataset of {wanted.name} in {dataset_folder()}: fetch or collect one first")
        return dataset, wanted
    if (task := task or parse_file_name(path.name)[0]) is None:
        raise UserError(f"{path}: its name does not say which task it is of; add --task TASK")
    return path, task


def inventory(folder: Path) -> str:
    """Task, file, size, number of trajectories and origin of every dataset in a folder, finished or not: a table."""
    rows = [_describe(path) for path in sorted(folder.glob("*.hdf5"))]
    for part in sorted(folder.glob("*.part")):
        rows.append(("", part.name, _size(part), "-", "unfinished download; fetch goes on"))
    for parts in sorted(folder.glob("*.parts")):
        n_done = len(list(parts.glob("*.npz")))
        rows.append(("", parts.name, "", str(n_done), "unfinished collection; the same command goes on"))
    if not rows:
        return f"no dataset in {folder}"
    rows = [("task", "file", "size", "trajectories", "from"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:{widths[0]}}  {file:{widths[1]}}  {size:>{widths[2]}}  {count:>{widths[3]}}  {origin}"
        for name, file, size, count, origin in rows
    ]
    return "\n".join([f"{folder}:", *lines])


def _describe(path: Path) -> tuple[str, str, str, str, str]:
    """(task, file, size, trajectories, where it comes from) of a dataset file."""
    task, _ = parse_file_name(path.name)
    try:
        layout = read_layout(path, task)
        count, origin = str(len(layout.offsets) - 1), origin_of(path, layout.attributes)
    except DatasetError as error:
        count, origin = "-", f"cannot be used: {error}".replace(f"{path}: ", "")
    return task.name if task else "?", path.name, _size(path), count, origin


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
