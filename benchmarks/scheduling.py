"""What scheduling costs: many short trials through the real Ray path, against the time they compute.

    python benchmarks/scheduling.py                     # 200 trials of one second on two cores
    python benchmarks/scheduling.py --trials 50 --seconds 0.2 --cpus 4 --json scheduling.json

Each trial is claimed, retried, reported and marked done as in a run; its work alone is replaced, by arithmetic that keeps
one core busy for the given time. overhead = (wall time - ideal) / ideal, where ideal = trials x seconds / cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from safemil.errors import UserError, entry_point
from tune.files import write_json
from tune.grids import find_grid
from tune.trials import expand, packs


def compute(work: Any, progress: Any, seconds: float) -> list[dict[str, Any]]:
    import torch

    began, value = time.perf_counter(), torch.ones(100, 100) / 100
    while time.perf_counter() - began < seconds:
        value = value @ value
        progress("policy", 1, 2, {"policy_loss": float(value[0, 0])})
    for trial in work.trials:
        folder = Path(work.trials_folder) / trial.id
        write_json(folder / "row.json", {"trial_id": trial.id, "status": "ok"})
        (folder / "done").touch()
    return [{"trial_id": trial.id, "status": "ok"} for trial in work.trials]
