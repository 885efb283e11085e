"""A pack of the paper's preset from the dataset file to its policies, on the device and beside it on CPUs.

    python benchmarks/gpu_pack.py DATASET TASK UPDATES DEVICE THREADS FOLDER [KEY=VALUE ...]      # one of the two

Both draw the same numbers and round differently, so trajectories of weights part in time; what is learned must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1, 2, 3, 4)
AUROC_TOLERANCE = 0.01


def train_pack(dataset: Path, task: str, updates: int, device: str, threads: int, folder: Path, settings: list) -> None:
    """As ``tune/run.py --grid paper`` trains it, up to the policies: `paper` preset, all seeds packed."""
    from safemil.config.overrides import parse_assignments
    from tune.grids import GRIDS
    from tune.job import Job
    from tune.pack import run_pack
    from tune.trials import expand

    chosen = {"policy.steps": str(updates), "evaluation.checkpoints": "1", **parse_assignments(settings)}
    trials = expand(GRIDS["paper"], tasks=[task], methods=["safemil"], seeds=SEEDS, preset="paper", settings=chosen)
    (folder / "run.json").write_text("{}")
    job = Job(
        tuple(trial.to_dict() for trial in trials),
        str(folder / "trials"),
        str(dataset),
        device=device,
        threads=threads,
        roll_out=False,
    )
    started = time.perf_counter()
    reports: list[tuple[int, float]] = []
    run_pack(job, lambda stage, step, total, metrics: reports.append((step, time.perf_counter())))
    (first, began), (last, ended) = reports[0], reports[-1]
    seconds = {"seconds": time.perf_counter() - started, "updates_per_second": (last - first) / (ended - began)}
    (folder / "seconds.json").write_text(json.dumps(seconds))


def result(folder: Path) -> dict[str, Any]:
    """AUROC of each seed, all trajectory scores, times."""
    import pandas as pd

    trials = sorted((folder / "trials").iterdir())
    scores = [pd.read_csv(trial / "scores.csv") for trial in trials]
    return {
        "auroc": [json.loads((trial / "diagnostics.json").read_text())["auroc"] for trial in trials],
        "scores": np.concatenate([own["predicted_cost"].to_numpy() for own in scores]),
        **json.loads((folder / "seconds.json").read_text()),
    }


def compare_packs(dataset: Path, task: str, updates: int, device: str, settings: list[str]) -> dict[str, Any]:
    """The pack on the device, and at the same time on half of the machine's cores."""
    threads = max(1, (os.cpu_count() or 2) // 2)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in ("device", "cpu")}
        running = {}
        for name, own, share in (("cpu", "cpu", threads), ("device", device, 1)):
            folders[name].mkdir()
            command = [sys.executable, __file__, str(dataset), task, str(updates), own, str(share)]
            running[name] = subprocess.Popen([*command, str(folders[name]), *settings])
        codes = {name: process.wait() for name, process in running.items()}
        if any(codes.values()):
            raise RuntimeError(f"a pack failed: exit codes {codes}")
        found = {name: result(folder) for name, folder in folders.items()}
    ours, reference = found["device"], found["cpu"]
    apart = float(np.abs(ours["scores"] - reference["scores"]).max())
    difference = float(np.abs(np.subtract(ours["auroc"], reference["auroc"])).max())
    return {
        "task": task,
        "updates": updates,
        "seeds": len(SEEDS),
        "cpu_threads": threads,
        **{f"{name}_{key}": own[key] for name, own in found.items() for key in own if key != "scores"},
        "largest_score_difference": apart,
        "spread_of_scores": float(reference["scores"].std()),
        "largest_auroc_difference": difference,
        "tolerance": AUROC_TOLERANCE,
        "passed": difference <= AUROC_TOLERANCE,
    }


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    path, name, count, where, cores, place, *others = sys.argv[1:]
    train_pack(Path(path), name, int(count), where, int(cores), Path(place), others)
