"""What is noted beside a dataset file: its SHA-256, where it came from. Valid until the file's size or time changes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safemil.config.atomic import atomic_write

logger = logging.getLogger(__name__)


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hexadecimal, kept in ``<name>.sha256`` beside it until its size or time changes."""
    path = Path(path)
    noted = read_note(path)
    if "sha256" in noted:
        return noted["sha256"]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    write_note(path, noted | {"sha256": digest.hexdigest()})
    return digest.hexdigest()


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _file_key(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def read_note(path: Path) -> dict[str, Any]:
    """What is noted beside a file (its SHA-256, where it came from); empty when the file has changed since."""
    try:
        noted = json.loads(_note_path(path).read_text())
        return noted if _file_key(path).items() <= noted.items() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Note something beside a file; lost when the file changes."""
    try:
        with atomic_write(_note_path(path)) as temporary:
            temporary.write_text(json.dumps(note | _file_key(path)) + "\n")
    except OSError as error:  # a shared folder that may only be read: computed again next time
        logger.debug("%s: no note written (%s)", path, error)


def origin_of(path: Path, attributes: dict[str, Any]) -> str:
    """Where a file comes from, in words; ``attributes`` are those in the file."""
    if "collected_by" in attributes:
        return "collected (recipe {recipe}, seed {seed})".format_map(attributes)
    if "converted_from" in attributes:
        return "converted ({format} {converted_from})".format_map(attributes)
    source = read_note(path).get("source")
    return f"downloaded from {source}" if source else "put there by hand"
