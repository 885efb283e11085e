"""What is noted beside a dataset file: its SHA-256, where it came from. Valid until the file's size or time changes."""

from __future__ import annotations

import collections
import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from safemil.config.atomic import atomic_write

logger = logging.getLogger(__name__)


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal, kept in ``<name>.sha256`` beside it until its size or time changes."""
    path = Path(path)
    note = read_note(path)
    if "sha256" not in note:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        note["sha256"] = digest.hexdigest()
        write_note(path, note)
    return note["sha256"]


def read_note(path: Path) -> dict[str, Any]:
    """What is noted beside a file; empty when nothing is, or when the file has changed since."""
    try:
        note = json.loads(_note_path(path).read_text())
        return note if _stamp(path).items() <= note.items() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Note something beside a file. In a folder that may only be read nothing is noted, and no error is raised."""
    try:
        with atomic_write(_note_path(path)) as temporary:
            temporary.write_text(json.dumps(note | _stamp(path)) + "\n")
    except OSError as error:
        logger.debug("%s: no note written (%s)", path, error)


def origin_of(path: Path, attributes: dict[str, Any]) -> str:
    """Where a file comes from, in words; ``attributes`` are the HDF5 attributes in it, which may hold anything."""
    said = collections.defaultdict(lambda: "unknown", {name: plain(value) for name, value in attributes.items()})
    if "collected_by" in attributes:
        return "collected (recipe {recipe}, seed {seed})".format_map(said)
    if "converted_from" in attributes:
        return "converted ({format} {converted_from})".format_map(said)
    source = plain(read_note(path).get("source", ""), 200)
    return f"downloaded from {source}" if source else "put there by hand"


def plain(text: object, most: int = 80) -> str:
    """Foreign text for a terminal or a page: letters, digits and harmless signs; no markup, no controls."""
    return re.sub(r"[^\w .,:;()/+=@%-]", "?", str(text)[:most])


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _stamp(path: Path) -> dict[str, int]:
    return {"size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
