"""Where dataset files lie, and how a missing one is fetched. In: a ``Task``. Out: the path of its HDF5 file.

The dataset folder is ``$DSRL_DATASET_DIR``, else ``~/.dsrl/datasets``, with DSRL's own file names. The first of these
that is there is taken:

1. DSRL's file of the task, used as it is: no request, no check beyond what loading checks;
2. a file collected for the task (``python -m safemil.collect``), the one with the most trajectories;
3. a download of DSRL's file, from the first source that gives it: the addresses in ``$DSRL_SOURCES`` (comma separated),
   the Hugging Face mirror (``$HF_ENDPOINT`` is honored), DSRL's own server.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from safemil.config.errors import UserError
from safemil.data.download import SourceError, download, forget
from safemil.data.hdf5 import read_layout
from safemil.data.provenance import sha256, write_note
from safemil.data.tasks import Task, parse_file_name
from safemil.data.trajectories import DatasetError

logger = logging.getLogger(__name__)

HUGGING_FACE = "https://huggingface.co"
MIRROR = "datasets/YYY-45/DSRL/resolve/main"  # where DSRL's maintainers moved the files
DSRL_SERVER = "http://data.offline-saferl.org/download"  # the address in dsrl 0.1.0, out of order for long


def dataset_folder() -> Path:
    """``$DSRL_DATASET_DIR``, else ``~/.dsrl/datasets``, as an absolute path: workers have other working directories.

    It need not exist.
    """
    try:
        folder = Path(os.environ.get("DSRL_DATASET_DIR") or "~/.dsrl/datasets").expanduser()
    except RuntimeError:  # no HOME, and the user is in no list
        raise UserError("there is no home folder: set DSRL_DATASET_DIR to the folder of datasets") from None
    return Path(os.path.abspath(folder))


def source_addresses() -> list[str]:
    """Base addresses to download from, in the order they are tried."""
    extra = [address.strip() for address in os.environ.get("DSRL_SOURCES", "").split(",") if address.strip()]
    hugging_face = (os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    return [*extra, f"{hugging_face}/{MIRROR}", DSRL_SERVER]


def files_of(task: Task, folder: Path, n_trajectories: int | None = None) -> list[Path]:
    """The task's files in ``folder``, the one to use first: DSRL's own, then by falling number of trajectories.

    With ``n_trajectories``, only those whose name ends in that number.
    """
    names = [(path, parse_file_name(path.name)) for path in folder.glob("*.hdf5")]
    numbers = {path: number for path, (of_task, number) in names if of_task is task}
    wanted = [path for path in numbers if n_trajectories in (None, numbers[path])]
    return sorted(wanted, key=lambda path: (path.name != task.file_name, -numbers[path], path.name))


def find(task: Task) -> Path | None:
    """The task's file in the dataset folder, without any download; None when there is none."""
    files = files_of(task, dataset_folder())
    if not files:
        return None
    if task.file_name and files[0].name != task.file_name:
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
    if not task.file_name:
        raise UserError(
            f"no dataset for {task.name} in {dataset_folder()}, and there is none to download, as nobody has published"
            f" one: collect it, python -m safemil.collect --task {task.name}"
        )
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
    raise UserError(
        f"no dataset for {task.name}: {task.file_name} is not in {path.parent}, and no source gave it:\n"
        + "\n".join(answers or ["  (no sources)"])
        + "\nThree ways out:\n"
        + "  1. put the file there yourself, or point DSRL_DATASET_DIR to the folder that holds it;\n"
        + "  2. name a source that can be reached: DSRL_SOURCES=address,... or HF_ENDPOINT=address;\n"
        + f"  3. collect data: python -m safemil.collect --task {task.name} (--list shows the tasks that have recipes)"
    )


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
    write_note(path, {"source": url})
    logger.info("%s: SHA-256 %s", path, sha256(path))
