"""Packs side by side on a Ray cluster. With tune/ray_cluster.py, every call to Ray of the suite.

    with connected(address) as cluster:                 tune/ray_cluster.py
        run_with_ray(jobs, board, ...)                  a schedule, as tune/schedulers.py has it

A pack is a Ray Tune trial that trains, and rolls out itself. Where its ``Job`` is not to roll out (trials that use a
GPU), each of its trained trials is rolled out as a task of its own that asks for CPUs alone, beside the training of the
packs that follow: a GPU never waits for a simulator.

All trials ask for the same resources, so that Tune reuses their processes. A process that dies is replaced
``RETRIES`` times; a pack whose processes Ray could not even start is scheduled again later; whatever else goes wrong is
dealt with in tune/attempts.py, inside the process.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tune.attempts import fail, only, perform, record
from tune.job import Job, Progress, no_progress
from tune.progress import Board
from tune.schedulers import Jobs

RETRIES = 2  # of a pack whose process died; Ray itself retries without limit what a preempted node takes along
NEVER_RAN = "The actor never ran"  # Ray's words where it could not start a process: no fault of the pack
STARTING_PAUSE = 5.0  # seconds until it is asked again, and as many more each time
STARTS = 5  # rounds in which a pack may find no process
REPORT_INTERVAL = 2.0  # seconds between a pack's progress reports to the driver

Perform = Callable[[Job, Progress], "list[dict[str, Any]] | None"]


def run_with_ray(
    jobs: Jobs,
    board: Board,
    *,
    cpus: float,
    gpus: float,
    concurrent: int | None = None,
    perform: Perform = perform,
) -> Jobs:
    """Run the packs; returns those that are locked elsewhere, or that Ray could not start.

    Args:
        cpus, gpus: of each pack.
        concurrent: at most so many packs at once (None: as many as fit).
        perform: what is done with a job, in the process that Ray gives it.
    """
    from ray import tune as ray_tune

    items = [{"pack": pack, "job": dataclasses.asdict(job)} for pack, job in jobs.items()]
    rollouts = Rollouts(jobs, board, perform)
    # A thread of Tune's may still write into it after Ctrl-C; that must not hide the interrupt.
    with tempfile.TemporaryDirectory(prefix="safemil-tune-", ignore_cleanup_errors=True) as scratch:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(functools.partial(trainable, perform=perform), {"cpu": cpus, "gpu": gpus}),
            param_space={"item": ray_tune.grid_search(items)},
            tune_config=ray_tune.TuneConfig(reuse_actors=True, max_concurrent_trials=concurrent),
            run_config=ray_tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_board_callback(board, jobs, rollouts)],
            ),
        )
        tuner.fit()
    rollouts.finish()
    if rollouts.unstarted:
        time.sleep(STARTING_PAUSE * max(job.starts for job in rollouts.unstarted.values()))
    return {**rollouts.locked_elsewhere, **rollouts.unstarted}


def trainable(config: dict[str, Any], perform: Perform) -> None:
    """What a Ray Tune trial runs: one pack. Module-level and given plain values, so that any node can import it."""
    from ray import tune as ray_tune

    spoke = time.monotonic()  # a report costs a round trip to the driver: none before the first interval is over

    def progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > REPORT_INTERVAL:
            spoke = time.monotonic()
            ray_tune.report({"stage": stage, "stage_step": step, "stage_total": total, **metrics})

    rows = perform(Job(**config["item"]["job"]), progress)
    ray_tune.report({"stage": "over", "rows": rows})


class Rollouts:
    """What becomes of a pack once its training is over: finished, locked elsewhere, or rolled out as tasks of Ray's."""

    def __init__(self, jobs: Jobs, board: Board, perform: Perform) -> None:
        self.jobs, self.board, self.perform = jobs, board, perform
        self.locked_elsewhere: Jobs = {}
        self.unstarted: Jobs = {}
        self.tasks: dict[Any, tuple[str, Job]] = {}  # what ray.wait is given -> its pack, its one trial
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def trained(self, pack: str, rows: list[dict[str, Any]] | None) -> None:
        """A pack's process has ended with these rows; those that are missing are still to be rolled out."""
        import ray

        if pack in self.rows or pack in self.locked_elsewhere:
            return None  # Tune repeats a trial's last result when the trial ends
        job = self.jobs[pack]
        if rows is None:
            return self._locked(pack)
        record(job, rows)
        over = {row["trial_id"] for row in rows}
        self.rows[pack] = list(rows)
        missing = [trial.id for trial in job.trials if trial.id not in over]
        if not missing:
            return self.board.finished(pack, self.rows[pack])
        self.board.running(pack, "evaluation", 0, len(missing))
        task = ray.remote(self.perform).options(num_cpus=1, num_gpus=0, max_retries=RETRIES)
        on_a_core = dataclasses.replace(job, roll_out=True, device="cpu", gpus=0.0, workers=1, threads=1)
        for trial_id in missing:
            alone = only(on_a_core, [trial_id])
            self.tasks[task.remote(alone, no_progress)] = pack, alone

    def collect(self, timeout: float = 0.0) -> None:
        """Take in the tasks that have ended."""
        import ray

        if not self.tasks:
            return
        ended, _ = ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=timeout)
        for reference in ended:
            pack, alone = self.tasks.pop(reference)
            try:
                rows = ray.get(reference)
            except ray.exceptions.RayError as error:
                rows = fail(alone, last_line(str(error)), str(error))
            if rows is None:
                self._locked(pack)
            else:
                record(alone, rows)
                self.rows[pack] += rows
            open_ = sum(other == pack for other, _ in self.tasks.values())
            if not open_ and pack not in self.locked_elsewhere:
                self.board.finished(pack, self.rows[pack])
            elif open_:
                n = len(self.jobs[pack].pack)
                self.board.running(pack, "evaluation", n - open_, n)

    def finish(self) -> None:
        """Wait for all tasks."""
        while self.tasks:
            self.collect(timeout=1.0)

    def _locked(self, pack: str) -> None:
        self.locked_elsewhere[pack] = self.jobs[pack]
        self.board.waiting(pack)


def _board_callback(board: Board, jobs: Jobs, rollouts: Rollouts) -> Any:
    from ray import tune as ray_tune

    class BoardCallback(ray_tune.Callback):
        """Tells the board what Tune hears; writes the failed rows of a pack that crashed once too often."""

        def __init__(self, board: Board, jobs: Jobs, rollouts: Rollouts) -> None:
            self.board, self.jobs, self.rollouts = board, jobs, rollouts

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune pickles its callbacks for a restore that we never ask for; a terminal cannot be pickled

        def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:
            self.rollouts.collect()

        def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            self.board.running(trial.config["item"]["pack"])

        def on_trial_result(
            self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            pack = trial.config["item"]["pack"]
            if result.get("stage") == "over":
                self.rollouts.trained(pack, result["rows"])
            else:
                metrics = {name: value for name, value in result.items() if name.endswith("_loss")}
                self.board.running(pack, result["stage"], result["stage_step"], result["stage_total"], metrics)

        def on_trial_recover(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            name = self.board.names[trial.config["item"]["pack"]]
            self.board.say(f"{name}: its process died; trying again")

        def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            pack = trial.config["item"]["pack"]
            details = Path(trial.error_file).read_text() if trial.error_file else "the process ended without a word"
            job = self.jobs[pack]
            if NEVER_RAN in details and job.starts < STARTS:
                self.rollouts.unstarted[pack] = dataclasses.replace(job, starts=job.starts + 1)
                return self.board.waiting(pack)
            return self.board.finished(pack, fail(job, last_line(details), details))

    return BoardCallback(board, jobs, rollouts)


def last_line(details: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line for line in details.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "unknown"
