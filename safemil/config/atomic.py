"""Files written whole or not at all, whatever becomes of the process that writes them.

    with atomic_write(path) as temporary:      write to `temporary`; it takes the name `path` when the block ends
    discard(path)                              delete the file, and what killed processes left half-written of it

A process that is killed cannot clean up: what it left is deleted by the next one on its machine to write the same file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what is written there is renamed to ``path`` when the block ends.

    The folder is made if need be. An error inside the block deletes the temporary file and leaves ``path`` as it was.
    What is no file (/dev/stdout, a pipe) is written to as it is: a rename would put a file in its place.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover, writer in _half_written(path):
        if _is_dead(*writer):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}~{socket.gethostname()}~{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # as where a disk is full
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the error that led here says more
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Fail now where ``atomic_write`` would later.

    Raises:
        OSError: what the machine says.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.suppress(StopTrial), atomic_write(path) as temporary:
        if temporary != path:
            temporary.touch()
        raise StopTrial


class StopTrial(Exception):
    """Ends the trial of a write before anything takes the name."""


def discard(path: Path) -> None:
    """Delete ``path`` and its temporary files. Only for a caller who knows that no other process still writes it."""
    for file in (path, *(leftover for leftover, _ in _half_written(path))):
        file.unlink(missing_ok=True)


def _half_written(path: Path) -> list[tuple[Path, tuple[str, int]]]:
    """What is being, or was once, written of a file: (temporary, (host, process))."""
    pattern = re.compile(rf"\.{re.escape(path.name)}~([^~]*)~(\d+)\.tmp")
    names = os.listdir(path.parent) if path.parent.is_dir() else ()
    return [(path.with_name(name), (match[1], int(match[2]))) for name in names if (match := pattern.fullmatch(name))]


def _is_dead(host: str, process: int) -> bool:
    """Whether a process ran on this machine and is no more; those of other machines may live."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # alive, and somebody else's
    return False
