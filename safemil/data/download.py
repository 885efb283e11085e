"""Download one file over HTTP, resumed after a break. In: an address and a ``.part`` path. Out: the whole file there,
or ``SourceError`` with the reason; the caller checks the contents and renames.

What has arrived stays in the ``.part`` file, and beside it (``.part.json``) which version of which file it belongs to
(address, ETag, size), so that a broken connection, or a killed process, costs only what had not arrived. Resuming asks
for the rest with a Range request and starts afresh where the server ignores the range or the file has changed.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0  # seconds; a machine without a network should say so quickly
READ_TIMEOUT = 30.0  # seconds without a single byte
FRUITLESS_ATTEMPTS = 4  # in a row; then the source is given up
PROGRESS_BYTES = 1 << 16  # an attempt that comes less than this further than all before it is fruitless
PAUSE = 0.5  # seconds before the second attempt, doubled each time
BLOCK = 1 << 16
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
BUSY = frozenset({429, 500, 502, 503, 504})  # worth asking again


class SourceError(Exception):
    """This source does not give the file; the next one may."""


class _Broken(Exception):
    """The transfer stopped; another attempt may go on from there."""


@dataclass(frozen=True)
class _Version:
    """Which bytes a ``.part`` file holds the beginning of."""

    url: str
    etag: str | None
    size: int | None  # of the whole file, None where the server does not tell


def download(url: str, part: Path, *, progress: bool | None = None) -> None:
    """Fetch ``url`` into ``part``, going on where an earlier attempt stopped.

    Args:
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        SourceError: the source cannot be reached, refuses, sends something else than HDF5, or breaks again and again.
        UserError: the disk is full.
    """
    import requests
    from tqdm import tqdm

    hidden = None if progress is None else not progress  # None: hidden unless stderr is a terminal
    fruitless = 0
    with (
        requests.Session() as session,
        tqdm(desc=part.stem, unit="B", unit_scale=True, unit_divisor=1024, disable=hidden) as bar,
    ):
        session.headers["Accept-Encoding"] = "identity"  # else sizes are those of a compressed stream
        transfer = _Transfer(session, url, part, bar)
        while True:
            before = transfer.furthest
            try:
                transfer.attempt()
                return
            except _Broken as error:
                fruitless = 0 if transfer.furthest - before >= PROGRESS_BYTES else fruitless + 1
                if fruitless >= FRUITLESS_ATTEMPTS:
                    raise SourceError(f"{error} ({fruitless} times in a row)") from error
                logger.info("%s: %s; trying again", url, error)
                time.sleep(PAUSE * 2**fruitless)


def forget(part: Path) -> None:
    """Delete a partial download and what is known of it."""
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


class _Transfer:
    """The attempts at one address; ``furthest`` is how far into the file any of them came."""

    def __init__(self, session: Any, url: str, part: Path, bar: Any) -> None:
        self.session, self.url, self.part, self.bar = session, url, part, bar
        self.furthest = 0

    def attempt(self) -> None:
        """One request. Returns when the file is whole; raises ``_Broken`` when another request may help."""
        import requests

        known = self._known_version()
        start = _size(self.part) if known else 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        answered = False
        try:
            with self.session.get(
                self.url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)
            ) as response:
                answered = True
                if response.status_code == 416:
                    return self._nothing_left(response, start)
                _check_answer(response)
                version = _Version(self.url, response.headers.get("ETag"), _total(response))
                if response.status_code == 206 and not _continues(response, start, known, version):
                    forget(self.part)  # the end of another version is of no use
                    raise _Broken("the server's file has changed")
                self._store(response, start if response.status_code == 206 else 0, version)
        except requests.RequestException as error:
            if answered or start:
                raise _Broken(f"the connection broke ({_reason(error)})") from error
            raise SourceError(f"no connection ({_reason(error)})") from error

    def _nothing_left(self, response: Any, start: int) -> None:
        """ "Range not satisfiable": the last byte had arrived before the break, or the file is another one now."""
        if start == 0 or _total(response) != start:
            forget(self.part)
            raise _Broken("the server's file has become shorter")

    def _store(self, response: Any, start: int, version: _Version) -> None:
        """Write the answer's bytes from ``start`` on; raises ``_Broken`` when there are fewer than announced."""
        blocks = response.iter_content(BLOCK)
        first = next(blocks, b"")
        if start == 0 and not first.startswith(HDF5_SIGNATURE):  # seen before anything is overwritten
            kind = "a web page (HTML)" if first.lstrip()[:1] == b"<" else f"something else ({first[:16]!r})"
            raise SourceError(f"the server sent {kind} instead of an HDF5 file")
        if version.size is not None and version.size - start > (free := shutil.disk_usage(self.part.parent).free):
            raise UserError(f"{self.part.parent}: the download needs {version.size - start} bytes, {free} are free")
        self.bar.reset(version.size)
        self.bar.update(start)
        _note_of(self.part).write_text(json.dumps(asdict(version)))
        with self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for block in itertools.chain([first], blocks):
                try:
                    file.write(block)
                except OSError as error:
                    raise UserError(f"{self.part}: cannot be written ({error})") from error
                self.furthest = max(self.furthest, file.tell())
                self.bar.update(len(block))
        if version.size is not None and _size(self.part) < version.size:
            raise _Broken(f"{_size(self.part)} of {version.size} bytes came")

    def _known_version(self) -> _Version | None:
        """What an earlier attempt noted of ``part``; None when it cannot be gone on with."""
        try:
            known = _Version(**json.loads(_note_of(self.part).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return known if known.url == self.url and known.size is not None and _size(self.part) else None


def _check_answer(response: Any) -> None:
    code = response.status_code
    if code in BUSY:
        raise _Broken(f"the server answers {code} {response.reason}")
    if code not in (200, 206):
        raise SourceError(f"the server answers {code} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise SourceError("the server sent a web page (HTML) instead of an HDF5 file")


def _continues(response: Any, start: int, known: _Version | None, version: _Version) -> bool:
    """Whether the bytes of a 206 answer follow the ``start`` ones that are here already."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if known is None or match is None or int(match[1]) != start:
        return False
    return known.size == version.size and (None in (known.etag, version.etag) or known.etag == version.etag)


def _total(response: Any) -> int | None:
    """The size of the whole file, from Content-Range or Content-Length."""
    match = re.match(r"bytes (?:\d+-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
    if match:
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == 200 and length.isdigit() else None


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    """The innermost cause, the one that can be read."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{type(error).__name__}: {error}"
