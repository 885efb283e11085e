"""What scheduling costs: many short trials through the real Ray path, against the time they compute.

    python benchmarks/scheduling.py                     # 200 trials of one second on two cores
    python benchmarks/scheduling.py --trials 50 --seconds 0.2 --cpus 4 --json scheduling.json

A trial is scheduled, claimed, reported and marked done as in a run; its work alone is replaced, by arithmetic that
keeps one core busy for so many seconds. overhead = (wall time - ideal) / ideal, ideal = trials x seconds / cores; the
wall time includes starting Ray and, in each of its processes, importing torch.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from measuring import arguments, finish, machine, show

from safemil.config.errors import entry_point
from tune.attempts import perform
from tune.files import write_json
from tune.grids import find_grid
from tune.job import Job, Progress
from tune.progress import Board
from tune.trials import expand


def compute(job: Job, progress: Progress, seconds: float) -> list[dict[str, Any]]:
    """In place of ``tune.pack.run_pack``: keeps a core busy, reports as training does, writes the row."""
    import torch

    torch.set_num_threads(job.threads)
    began, value = time.perf_counter(), torch.ones(100, 100) / 100
    while time.perf_counter() - began < seconds:
        value = value @ value
        progress("policy", 1, 2, {"policy_loss": float(value[0, 0])})
    rows = [{"trial_id": trial.id, "status": "ok"} for trial in job.trials]
    for trial, row in zip(job.trials, rows, strict=True):
        write_json(job.folder(trial) / "row.json", row)
        (job.folder(trial) / "done").touch()
    return rows


class Silent(Board):
    """Counts the packs that ended."""

    ended = 0

    def running(self, *_: Any) -> None:
        """Says nothing."""

    def finished(self, pack: str, rows: Sequence[dict[str, Any]]) -> None:
        """Counts."""
        self.ended += 1


def measure(n_trials: int, seconds: float, cpus: int) -> dict[str, float]:
    """One run; times in seconds."""
    from tune.ray_cluster import connected
    from tune.ray_runner import run_with_ray

    trials = expand(find_grid("demo"), methods=["bc-all"], seeds=range(n_trials))
    with tempfile.TemporaryDirectory() as folder:
        jobs = {trial.id: Job((trial.to_dict(),), f"{folder}/trials", "", session="one") for trial in trials}
        board = Silent({pack: {"trial": pack} for pack in jobs})
        began = time.perf_counter()
        with connected(None) as cluster:
            connecting = time.perf_counter() - began
            run = functools.partial(perform, run=functools.partial(compute, seconds=seconds))
            run_with_ray(jobs, board, cpus=cluster.cpus / cpus, gpus=0.0, perform=run)
        wall = time.perf_counter() - began
        if board.ended != n_trials:
            raise RuntimeError(f"{board.ended} of {n_trials} trials ended")
    ideal = n_trials * seconds / cpus
    return {
        "trials": n_trials,
        "seconds per trial": seconds,
        "cores": cpus,
        "wall": wall,
        "ideal": ideal,
        "starting Ray": connecting,
        "overhead": (wall - ideal) / ideal,
    }


@entry_point
def main(command: Sequence[str] | None = None) -> None:
    """Measure; table and figures."""
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cpus", type=int, default=os.cpu_count())
    options = parser.parse_args(command)
    runs = [measure(options.trials, options.seconds, options.cpus) for _ in range(options.rounds)]
    show(
        "Seconds",
        ["", *(f"run {number + 1}" for number in range(len(runs)))],
        [[name, *(float(run[name]) for run in runs)] for name in runs[0]],
    )
    finish({"machine": machine(), "runs": runs, "overhead_ratio": min(run["overhead"] for run in runs)}, options.json)


if __name__ == "__main__":
    main()
