"""HDF5 files of anybody, opened with care. In: a path. Out: its datasets, or one line that says what is wrong.

Nothing outside the file is read: links to other files, external storage and virtual datasets are refused, soft links
inside the file are followed. Nothing is allocated that the file cannot hold. A file that crashes the HDF5 library, as
some damaged ones do, crashes a process that was forked for it.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError, printable
from safemil.data.trajectories import DatasetError

MOST_PACKED = 1100  # deflate packs 1032 bytes into one at best, other filters less
SMALL = 1 << 26  # bytes that need no proof: arrays that were never written take no room in a file
MOST_LINKS = 16  # soft links one behind the other, and groups in each other
OUTSIDE = "which is not read; copy it into the file (h5repack, or h5py's copy with expand_external=True)"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open HDF5 file; every error inside gets the path in front.

    Raises:
        DatasetError: for whatever the file is to blame for.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError as error:
        raise DatasetError(f"{path}: {error}") from None
    except (MemoryError, ValueError) as error:  # numpy says either
        raise DatasetError(f"{path}: needs more memory than there is ({printable(str(error), 120)})") from error
    except (OSError, RuntimeError, KeyError) as error:  # a damaged file shows in any of the three
        raise DatasetError(f"{path}: {why_unreadable(path, error)}") from error


def why_unreadable(path: Path, error: Exception) -> str:
    """What is the matter with a file on which the library gave up with ``error``."""
    if not path.is_file():
        return "no such file" if not path.exists() else "not a file"
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "this file may not be read by you; ask its owner, or `chmod +r` it"
    with path.open("rb") as file:
        head = file.read(512)
    said = printable(str(error), 120)
    if not head:
        return "the file is empty (0 bytes); delete it and fetch or collect it again"
    if "unable to lock" in str(error):
        return f"another process is writing this file ({said}); wait for it, or end it"
    if "filter" in str(error) or "plugin" in str(error):
        return (
            f"compressed with a filter that is not installed ({said}); `pip install hdf5plugin`, or store it with gzip"
        )
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        size = path.stat().st_size
        return f"truncated or damaged HDF5 file ({size} bytes: {said}); delete it and fetch or collect it again"
    if head.lstrip()[:1] == b"<":
        return "a web page (HTML), not an HDF5 file: a download was answered with a page; delete it and fetch it again"
    return f"not an HDF5 file (it begins with {head[:8]!r})"


def member(group: Any, name: str, n_links: int = 0) -> Any:
    """The group or dataset ``name`` (a path) of a group, reached without leaving the file; None when there is none.

    Raises:
        UserError: it lies in another file, or behind links that go in a circle.
    """
    import h5py

    for part in filter(None, name.split("/")):
        key = part.encode()
        if not isinstance(group, h5py.Group) or not group.id.links.exists(key):
            return None
        kind = group.id.links.get_info(key).type
        if kind == h5py.h5l.TYPE_HARD:
            group = group[part]
            continue
        if kind != h5py.h5l.TYPE_SOFT:
            raise UserError(f"{printable(name, 60)!r} is a link to another file, {OUTSIDE}")
        if n_links >= MOST_LINKS:
            raise UserError(f"{printable(name, 60)!r} is a link that leads to itself")
        target = group.id.links.get_val(key).decode(errors="replace")
        group = member(group.file if target.startswith("/") else group, target, n_links + 1)
        if group is None:
            raise UserError(f"{printable(name, 60)!r} is a link to {printable(target, 60)!r}, which is not there")
    return group


def datasets(group: Any, depth: int = 0) -> dict[str, Any]:
    """All datasets in a group and below it, by their paths; those behind soft links too.

    Raises:
        UserError: as ``member``.
    """
    import h5py

    if depth > MOST_LINKS:
        raise UserError("groups lie in each other without end: a link leads back to a group around it")
    found: dict[str, Any] = {}
    for name in group:
        item = member(group, name)
        if isinstance(item, h5py.Group):
            found |= {f"{name}/{inner}": dataset for inner, dataset in datasets(item, depth + 1).items()}
        elif isinstance(item, h5py.Dataset) and item.shape is not None:  # neither a named type nor empty
            found[name] = item
    return found


def check_stored(dataset: Any, name: str) -> None:
    """Refuse a dataset whose values are not in its file, or of a shape that the file cannot hold.

    Raises:
        UserError: that, in one line.
    """
    import h5py

    described = dataset.id.get_create_plist()
    if described.get_external_count() or described.get_layout() == h5py.h5d.VIRTUAL:
        raise UserError(f"{printable(name, 60)!r} keeps its values in another file, {OUTSIDE}")
    size = os.path.getsize(dataset.file.filename)
    n_elements = max(dataset.size or 0, _product(dataset.chunks or ()))
    declared = n_elements * dataset.dtype.itemsize
    check_size(declared, size, f"{printable(name, 60)!r} of shape {printable(str(dataset.shape), 60)}")


def check_size(declared: int, stored: int, what: str) -> None:
    """Refuse what would need more memory than there is, or than ``stored`` bytes can be unpacked to.

    Raises:
        UserError: that, in one line.
    """
    if declared > max(SMALL, MOST_PACKED * stored):
        raise UserError(f"{what} would need {declared:.3g} bytes, but the file has {stored}: is it damaged?")
    if hasattr(os, "sysconf") and declared > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise UserError(f"{what} needs {declared / 1e9:.1f} GB; this machine has {memory / 1e9:.1f} GB of memory")


def check_survivable(path: Path, read: Callable[[], Any]) -> None:
    """Have a forked process call ``read`` first: some damaged files make the HDF5 library crash.

    Where processes cannot be forked safely (anywhere but on Linux) nothing is checked.

    Raises:
        DatasetError: the process was killed by it.
    """
    if sys.platform != "linux":
        return
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of other threads: the child calls into HDF5 and numpy alone
        process = os.fork()
    if process == 0:
        _read_in_silence(read)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == signal.SIGKILL:
            raise DatasetError(f"{path}: reading it was killed, as when memory runs out; free some, or keep fewer rows")
        raise DatasetError(f"{path}: damaged HDF5 file: the HDF5 library crashes on it; fetch or collect it again")


def _read_in_silence(read: Callable[[], Any]) -> None:
    """The life of the forked process; it ends here."""
    import faulthandler
    import resource

    try:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the C library says as it aborts
        read()
    except BaseException:  # noqa: S110 - the caller meets it again, and says it
        pass
    finally:
        os._exit(0)


def _product(sizes: tuple[int, ...]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
