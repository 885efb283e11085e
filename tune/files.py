"""Small files of a run, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.atomic import atomic_write


def write_json(path: Path, values: Any) -> None:
    """Write whole or not at all; NaN becomes null."""
    write_atomically(path, json.dumps(without_nan(values), indent=2, default=float) + "\n")


def without_nan(values: Any) -> Any:
    """NaN and infinities as None, all through; JSON has no such numbers."""
    if isinstance(values, dict):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [without_nan(value) for value in values]
    if isinstance(values, (float, np.floating)):
        return float(values) if np.isfinite(values) else None
    return values


def write_atomically(path: Path, text: str) -> None:
    """Through a temporary name in the same folder; on the disk, not in its cache, when this returns."""
    with atomic_write(path) as temporary, temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's values."""
    return json.loads(path.read_text())
