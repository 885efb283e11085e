"""Who runs the packs: Ray Tune (all Ray calls of the suite are here), or this process alone. One signature.

    run_with_ray(works, board, ...)     packs side by side, on this machine or a cluster
    run_serially(works, board)          one after the other, without Ray: job arrays, debugging

Both hand each pack to ``tune.pack.perform`` and keep going when one fails. A crash is retried; a user's mistake is
not, since ``perform`` returns it as a failed row.
"""

from __future__ import annotations

import dataclasses
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune.pack import Work, fail, perform
from tune.progress import Board

RETRIES = 2  # of a pack whose process crashed; node failures are retried without limit by Ray itself
REPORT_INTERVAL = 1.0  # seconds between a pack's progress reports to the driver

RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our trial folders are the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C stops at once; finished trials are on disk already
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
}


def run_serially(works: dict[str, Work], board: Board) -> None:
    """Run the packs in this process, one after the other."""
    for pack, work in works.items():
        board.running(pack)

        def progress(stage: str, step: int, total: int, metrics: dict[str, float], pack: str = pack) -> None:
            board.running(pack, stage, step, total, metrics)

        try:
            rows = perform(work, progress)
        except Exception as error:  # one broken pack must not take the others with it
            rows = fail(work, f"{type(error).__name__}: {error}", traceback.format_exc())
        board.finished(pack, rows)


def trainable(config: dict[str, Any]) -> None:
    """What a Ray Tune trial runs: one pack. Module-level and given plain values, so that any node can import it."""
    from ray import tune as ray_tune

    spoke = 0.0

    def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > REPORT_INTERVAL:
            spoke = time.monotonic()
            ray_tune.report({"stage": stage, "stage_step": step, "stage_total": total, **metrics})

    rows = perform(Work(**config["job"]["work"]), progress)
    ray_tune.report({"stage": "over", "rows": rows})


def run_with_ray(
    works: dict[str, Work],
    board: Board,
    *,
    address: str | None,
    cpus: float,
    gpus: float,
    scratch: Path,
) -> None:
    """Run the packs as Ray Tune trials that all ask for the same resources, so that their processes are reused.

    Args:
        address: of a running cluster (``auto``), or None for one on this machine alone.
        scratch: folder for Tune's own state; nothing in it is needed afterwards.
    """
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})
    import ray
    from ray import tune as ray_tune

    jobs = [{"pack": pack, "work": dataclasses.asdict(work)} for pack, work in works.items()]
    local = {} if address else {"include_dashboard": False}
    ray.init(address=address, logging_level="ERROR", log_to_driver=False, **local)
    try:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": cpus, "gpu": gpus}),
            param_space={"job": ray_tune.grid_search(jobs)},
            tune_config=ray_tune.TuneConfig(reuse_actors=True),
            run_config=ray_tune.RunConfig(
                name="tune",
                storage_path=str(scratch),
                verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_board_callback(board, works)],
            ),
        )
        tuner.fit()
    finally:
        ray.shutdown()


def _board_callback(board: Board, works: dict[str, Work]) -> Any:
    from ray import tune as ray_tune

    class BoardCallback(ray_tune.Callback):
        """Tells the board what Tune hears; writes the failed rows of a pack that crashed once too often."""

        def __init__(self, board: Board, works: dict[str, Work]) -> None:
            self.board, self.works = board, works

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune pickles its callbacks for a restore that we never ask for; a terminal cannot be pickled

        def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            self.board.running(trial.config["job"]["pack"])

        def on_trial_result(
            self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            pack = trial.config["job"]["pack"]
            if result.get("stage") == "over":
                self.board.finished(pack, result["rows"])
            else:
                metrics = {name: value for name, value in result.items() if name.endswith("_loss")}
                self.board.running(pack, result["stage"], result["stage_step"], result["stage_total"], metrics)

        def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            pack = trial.config["job"]["pack"]
            details = Path(trial.error_file).read_text() if trial.error_file else "the process ended without a word"
            self.board.finished(pack, fail(self.works[pack], last_line(details), details))

    return BoardCallback(board, works)


def last_line(details: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line for line in details.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"
