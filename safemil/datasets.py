"""Dataset files: where they lie, and how a missing one is fetched. In: a ``Task``. Out: the path of its HDF5 file.

    python -m safemil.datasets list                       # what lies in the dataset folder
    python -m safemil.datasets fetch PointGoal1 CarRun    # download what is missing

The dataset folder is ``$DSRL_DATASET_DIR``, else ``~/.dsrl/datasets``, with DSRL's own file names. The first of these
that is there is taken:

1. DSRL's file of the task, used as it is: no request, no check beyond what loading checks;
2. a file collected for the task (``python -m safemil.collect``), the one with the most trajectories;
3. a download of DSRL's file, from the first source that gives it: the addresses in ``$DSRL_SOURCES`` (comma separated),
   the Hugging Face mirror (``$HF_ENDPOINT`` is honored), DSRL's own server.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safemil.behaviors import RECIPES
from safemil.dataset_file import read_layout
from safemil.download import SourceError, download, forget
from safemil.errors import UserError, entry_point
from safemil.tasks import TASKS, Task, find_task
from safemil.trajectories import DatasetError

logger = logging.getLogger(__name__)

FILE_NAME = re.compile(r"(Safety.+)-\d+-(\d+)\.hdf5")  # stem, maximum cost, number of trajectories
HUGGING_FACE = "https://huggingface.co"
MIRROR = "datasets/YYY-45/DSRL/resolve/main"  # where DSRL's maintainers moved the files
DSRL_SERVER = "http://data.offline-saferl.org/download"  # the address in dsrl 0.1.0, out of order for long


def dataset_folder() -> Path:
    """``$DSRL_DATASET_DIR``, else ``~/.dsrl/datasets``. It need not exist."""
    return Path(os.environ.get("DSRL_DATASET_DIR") or "~/.dsrl/datasets").expanduser()


def source_addresses() -> list[str]:
    """Base addresses to download from, in the order they are tried."""
    extra = [address.strip() for address in os.environ.get("DSRL_SOURCES", "").split(",") if address.strip()]
    hugging_face = (os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    return [*extra, f"{hugging_face}/{MIRROR}", DSRL_SERVER]


def files_of(task: Task, folder: Path, n_trajectories: int | None = None) -> list[Path]:
    """The task's files in ``folder``, the one to use first: DSRL's own, then by falling number of trajectories.

    With ``n_trajectories``, only those whose name ends in that number.
    """
    matches = [(path, FILE_NAME.fullmatch(path.name)) for path in folder.glob("*.hdf5")]
    numbers = {path: int(match[2]) for path, match in matches if match and match[1] == task.file_stem}
    wanted = [path for path in numbers if n_trajectories in (None, numbers[path])]
    return sorted(wanted, key=lambda path: (path.name != task.file_name, -numbers[path], path.name))


def find(task: Task) -> Path | None:
    """The task's file in the dataset folder, without any download; None when there is none."""
    files = files_of(task, dataset_folder())
    if not files:
        return None
    if files[0].name != task.file_name:
        others = f" (also there: {', '.join(path.name for path in files[1:])})" if files[1:] else ""
        logger.info("%s: DSRL's file is not there, using the collected %s%s", task.name, files[0], others)
    return files[0]


def fetch(task: Task, *, sources: Sequence[str] | None = None, progress: bool | None = None) -> Path:
    """The task's dataset file, downloaded if need be. Two processes that want the same file download it once.

    Args:
        sources: base addresses instead of ``source_addresses()``.
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        UserError: no source gave the file; the message says what each one answered, and the three ways out.
    """
    if (path := find(task)) is not None:
        return path
    path = dataset_folder() / task.file_name
    with lock(path.parent, task.file_name):
        if path.exists():  # another process has downloaded it meanwhile
            return path
        answers = []
        for base in source_addresses() if sources is None else sources:
            url = f"{base.rstrip('/')}/{task.file_name}"
            try:
                _download_checked(url, path, task, progress)
                return path
            except SourceError as error:
                logger.info("%s: %s", url, error)
                answers.append(f"  {url}: {error}")
    collect = f"collect data: python -m safemil.collect --task {task.name}"
    if task.name not in RECIPES:
        collect = f"take a task that can be collected ({', '.join(RECIPES)}); {task.name} has no recipe yet"
    raise UserError(
        f"no dataset for {task.name}: {task.file_name} is not in {path.parent}, and no source gave it:\n"
        + "\n".join(answers or ["  (no sources)"])
        + "\nThree ways out:\n"
        + "  1. put the file there yourself, or point DSRL_DATASET_DIR to the folder that holds it;\n"
        + "  2. name a source that can be reached: DSRL_SOURCES=address,... or HF_ENDPOINT=address;\n"
        + f"  3. {collect}"
    )


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal, kept in ``<name>.sha256`` beside it until its size or time changes."""
    path = Path(path)
    noted = _read_note(path)
    if "sha256" in noted:
        return noted["sha256"]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    _write_note(path, noted | {"sha256": digest.hexdigest()})
    return digest.hexdigest()


@contextlib.contextmanager
def lock(folder: Path, name: str) -> Iterator[None]:
    """One process at a time in here, among those that use this folder and name. Makes the folder."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file_lock = FileLock(folder / f".{name}.lock")
        try:
            file_lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process is at work on %s in %s; waiting for it", name, folder)
            file_lock.acquire()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); set DSRL_DATASET_DIR to a folder of yours") from error
    try:
        yield
    finally:
        file_lock.release()


def _download_checked(url: str, path: Path, task: Task, progress: bool | None) -> None:
    """Download to a temporary name, check keys, lengths and episode ends, and only then give it its name."""
    part = path.with_name(path.name + ".part")
    logger.info("downloading %s", url)
    download(url, part, progress=progress)
    try:
        read_layout(part, task)
    except DatasetError as error:
        forget(part)
        raise SourceError(f"what came is not the dataset: {error}") from error
    os.replace(part, path)
    forget(part)
    _write_note(path, {"source": url})
    logger.info("%s: SHA-256 %s", path, sha256(path))


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _file_key(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _read_note(path: Path) -> dict[str, Any]:
    """What is noted beside a file (its SHA-256, where it came from); empty when the file has changed since."""
    try:
        noted = json.loads(_note_path(path).read_text())
        return noted if _file_key(path).items() <= noted.items() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _write_note(path: Path, note: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(note | _file_key(path)) + "\n")
        os.replace(temporary, _note_path(path))
    except OSError as error:  # a shared folder that may only be read: computed again next time
        logger.debug("%s: no note written (%s)", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()


def _describe(path: Path) -> tuple[str, str, str, str, str]:
    """(task, file, size, trajectories, where it comes from) of a file in the dataset folder."""
    stem = match[1] if (match := FILE_NAME.fullmatch(path.name)) else None
    task = next((task for task in TASKS.values() if task.file_stem == stem), None)
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    try:
        layout = read_layout(path, task)
    except DatasetError as error:
        return task.name if task else "?", path.name, size, "-", f"cannot be used: {error}".replace(f"{path}: ", "")
    if "collected_by" in layout.attributes:
        origin = "collected (recipe {recipe}, seed {seed})".format_map(layout.attributes)
    else:
        origin = _read_note(path).get("source", "put there by hand")
    return task.name if task else "?", path.name, size, str(len(layout.offsets) - 1), origin


def _list(folder: Path) -> None:
    rows = [_describe(path) for path in sorted(folder.glob("*.hdf5"))]
    for part in sorted(folder.glob("*.part")):
        rows.append(("", part.name, f"{part.stat().st_size / 1e6:.1f} MB", "-", "unfinished download; fetch goes on"))
    if not rows:
        print(f"no dataset in {folder}")
        return
    rows = [("task", "file", "size", "trajectories", "from"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(f"{folder}:")
    for name, file, size, count, origin in rows:
        print(f"{name:{widths[0]}}  {file:{widths[1]}}  {size:>{widths[2]}}  {count:>{widths[3]}}  {origin}")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m safemil.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | fetch")
    commands.add_parser("list", help="what lies in the dataset folder: task, file, size, trajectories, where from")
    fetching = commands.add_parser("fetch", help="download what is missing and print the paths")
    fetching.add_argument("tasks", nargs="+", metavar="TASK")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.command == "list":
        _list(dataset_folder())
    else:
        for task in [find_task(name) for name in options.tasks]:  # every name is checked before the first download
            print(fetch(task))


if __name__ == "__main__":
    sys.exit(main())
