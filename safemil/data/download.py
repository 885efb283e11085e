"""Download one file over HTTP, resumed after a break. In: an address and a ``.part`` path. Out: the whole file there,
or ``SourceError`` with the reason; the caller checks the contents and renames.

What has arrived stays in the ``.part`` file, and ``.part.json`` beside it says which file it is the beginning of
(address, ETag, size). So a broken connection, or a killed process, costs only what had not arrived: the rest is asked
for with a Range request. Where the server ignores it, or the file has changed, the download begins anew.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from safemil.config.errors import UserError

logger = logging.getLogger(__name__)

TIMEOUTS = (5.0, 30.0)  # seconds to connect (without a network that should be quick), and without a single byte
FRUITLESS_ATTEMPTS = 4  # in a row; then the source is given up
PROGRESS_BYTES = 1 << 16  # an attempt that comes less than this further than all before it is fruitless
PAUSE = 0.5  # seconds before the second attempt, doubled each time
BLOCK = 1 << 16
BUSY = (429, 500, 502, 503, 504)  # worth asking again


class FileKind(NamedTuple):
    """What is expected of a server, so that a page that asks for a login is not taken for it."""

    name: str  # "an HDF5 file"
    signature: bytes  # the file's first bytes


HDF5 = FileKind("an HDF5 file", b"\x89HDF\r\n\x1a\n")


class SourceError(Exception):
    """This source does not give the file; the next one may."""


class _Broken(Exception):
    """The transfer stopped; another attempt may go on from there."""


def download(url: str, part: Path, *, kind: FileKind = HDF5, progress: bool | None = None) -> None:
    """Fetch ``url`` into ``part``, going on where an earlier attempt stopped.

    Args:
        kind: what the file must begin with.
        progress: show a bar on stderr; by default only on a terminal.

    Raises:
        SourceError: the source cannot be reached, refuses, sends another kind of file, or breaks again and again.
        UserError: the disk is full.
    """
    import requests
    from tqdm import tqdm
    from urllib3 import Retry

    ask_again = Retry(
        total=None, connect=0, read=0, status=FRUITLESS_ATTEMPTS - 1, status_forcelist=BUSY, backoff_factor=PAUSE,
        respect_retry_after_header=False, raise_on_status=False,
    )  # fmt: skip
    hidden = None if progress is None else not progress  # None: hidden unless stderr is a terminal
    with requests.Session() as session, tqdm(desc=part.stem, unit="B", unit_scale=True, disable=hidden) as bar:
        session.headers["Accept-Encoding"] = "identity"  # else sizes are those of a compressed stream
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=ask_again))
        furthest = fruitless = 0
        while True:
            try:
                return _attempt(session, url, part, kind, bar)
            except _Broken as error:
                fruitless = 0 if _size(part) - furthest >= PROGRESS_BYTES else fruitless + 1
                furthest = max(furthest, _size(part))
                if fruitless >= FRUITLESS_ATTEMPTS:
                    raise SourceError(f"{error} ({fruitless} times in a row)") from error
                logger.info("%s: %s; trying again", url, error)
                time.sleep(PAUSE * 2**fruitless)


def forget(part: Path) -> None:
    """Delete a partial download and what is noted of it."""
    for path in (part, _note_path(part)):
        path.unlink(missing_ok=True)


def _attempt(session: Any, url: str, part: Path, kind: FileKind, bar: Any) -> None:
    """One request. Returns when the file is whole; raises ``_Broken`` when another request may help."""
    import requests

    note = _read_note(part)
    start = _size(part) if note.get("url") == url and note.get("size") else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    response = None
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            version = {"url": url, "etag": response.headers.get("ETag"), "size": _whole_size(response)}
            if response.status_code == 416 and start == version["size"]:
                return  # "range not satisfiable": the last byte had arrived before the break
            continued = response.headers.get("Content-Range", "").startswith(f"bytes {start}-") and version == note
            if response.status_code == 416 or (response.status_code == 206 and not continued):
                forget(part)  # the beginning of another version is of no use
                raise _Broken("the server's file has changed")
            if response.status_code not in (200, 206):
                times = f" ({FRUITLESS_ATTEMPTS} times in a row)" if response.status_code in BUSY else ""
                raise SourceError(f"the server answers {response.status_code} {response.reason}{times}")
            _store(response, part, start if response.status_code == 206 else 0, version, kind, bar)
    except requests.RequestException as error:
        if response is not None or start:
            raise _Broken(f"the connection broke ({_innermost(error)})") from error
        raise SourceError(f"no connection ({_innermost(error)})") from error
    except OSError as error:
        raise UserError(f"{part}: cannot be written ({error})") from error


def _store(response: Any, part: Path, start: int, version: dict[str, Any], kind: FileKind, bar: Any) -> None:
    """Write the answer's bytes from ``start`` on; raises ``_Broken`` when there are fewer than announced."""
    blocks, size = response.iter_content(BLOCK), version["size"]
    first = next(blocks, b"")
    if start == 0 and not first.startswith(kind.signature):  # seen before anything is overwritten
        sent = "a web page (HTML)" if first.lstrip()[:1] == b"<" else f"something else ({first[:16]!r})"
        raise SourceError(f"the server sent {sent} instead of {kind.name}")
    if size is not None and size - start > (free := shutil.disk_usage(part.parent).free):
        raise UserError(f"{part.parent}: the download needs {size - start} bytes, {free} are free")
    bar.reset(size)
    bar.update(start)
    _note_path(part).write_text(json.dumps(version))
    with part.open("ab" if start else "wb") as file:
        for block in itertools.chain([first], blocks):
            file.write(block)
            bar.update(len(block))
    if size is not None and _size(part) < size:
        raise _Broken(f"{_size(part)} of {size} bytes came")


def _whole_size(response: Any) -> int | None:
    """The size of the whole file, from Content-Range ("bytes 5-9/10") or Content-Length; None when neither tells."""
    ranged = response.headers.get("Content-Range", "").rpartition("/")[2]
    told = ranged or (response.headers.get("Content-Length", "") if response.status_code == 200 else "")
    return int(told) if told.isdigit() else None


def _read_note(part: Path) -> dict[str, Any]:
    """What an earlier attempt noted of ``part``: address, ETag and size; empty when nothing can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads(_note_path(part).read_text()))
    return {}


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _innermost(error: BaseException) -> str:
    """The innermost cause, the one that can be read."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return f"{type(error).__name__}: {error}"
