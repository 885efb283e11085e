"""What becomes of a pack when something goes wrong: crashes, mistakes, diverged losses, full disks, other processes."""

import dataclasses
import errno
import os
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safemil.config.errors import UserError
from safemil.data.locate import sha256
from safemil.training.loop import TrainingError
from tests.conftest import write_ball_dataset
from tune import attempts, files, pack, rows
from tune.attempts import perform
from tune.claims import Claims
from tune.files import read_json, write_json
from tune.grids import find_grid
from tune.job import Job, is_done
from tune.trials import expand

SMALL = {
    "policy.steps": 20,
    "policy.batch_size": 16,
    "policy.hidden": (8,),
    "split.n_nonpreferred": 10,
    "split.n_unlabeled": 40,
    "evaluation.episodes": 1,
    "evaluation.checkpoints": 1,
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(attempts, "PAUSES", (0.0, 0.0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_ball_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job(dataset, tmp_path) -> Job:
    """Three seeds of bc-all in a run that has begun."""
    trials = expand(find_grid("demo"), methods=["bc-all"], seeds=[0, 1, 2], settings=SMALL)
    write_json(tmp_path / "run.json", {})
    values = tuple(trial.to_dict() for trial in trials)
    return Job(values, str(tmp_path / "trials"), str(dataset), dataset_sha256=sha256(dataset), session="mine")


class Failing:
    """Raises each of ``errors`` in turn, and then succeeds; counts its calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.packs = list(errors), []

    def __call__(self, job, progress):
        self.packs.append([trial.seed for trial in job.trials])
        if self.errors:
            raise self.errors.pop(0)
        return [{"trial_id": trial.id, "status": "ok"} for trial in job.trials]


def statuses(found) -> dict[int, str]:
    return {int(row["trial_id"].split("-s")[-1].split("-")[0]): row["status"] for row in found}


def test_a_crash_is_tried_again(job):
    run = Failing(RuntimeError("once"), OSError("twice"))
    assert statuses(perform(job, run=run)) == {0: "ok", 1: "ok", 2: "ok"} and len(run.packs) == 3


def test_a_crash_each_time_fails_with_its_traceback(job):
    run = Failing(*[RuntimeError("again")] * 9)
    assert statuses(perform(job, run=run)) == {0: "failed", 1: "failed", 2: "failed"} and len(run.packs) == 3
    folder = job.folder(job.trials[0])
    assert "Traceback" in (folder / "error.txt").read_text() and not is_done(folder)
    assert read_json(folder / "row.json")["reason"] == "RuntimeError: again"


def test_a_mistake_is_not_tried_again(job):
    run = Failing(UserError("no such thing"))
    assert set(statuses(perform(job, run=run)).values()) == {"failed"} and len(run.packs) == 1


def test_a_diverged_trial_fails_alone(job):
    run = Failing(TrainingError("not finite", [2, 3], 6))  # two networks for each seed, those of seed 1 diverged
    assert statuses(perform(job, run=run)) == {0: "ok", 1: "failed", 2: "ok"}
    assert run.packs == [[0, 1, 2], [0, 2]]


def test_all_diverged(job):
    run = Failing(TrainingError("not finite", [0, 1, 2], 3))
    assert set(statuses(perform(job, run=run)).values()) == {"failed"} and len(run.packs) == 1


def test_what_another_process_holds_is_left_to_it(job):
    run = Failing()
    with Claims(job.run_folder / "claims", "another").hold([job.trials[1].id]):
        assert perform(job, run=run) is None
    assert not run.packs and statuses(perform(job, run=run)) == {0: "ok", 1: "ok", 2: "ok"}


@pytest.mark.slow
def test_a_real_loss_that_is_nan_for_one_seed(job, monkeypatch):
    """Seed 1's weights are infinite; the others end as they do without it."""
    import baselines.bc
    from safemil.algorithm.cloning import clone_trajectories

    def fit(splits, config, context):
        chosen = [split.unlabeled for split in splits]
        size = [splits[0].trajectories.lengths[own].sum() for own in chosen]
        weights = [np.full(n, np.inf if seed == 1 else 1.0) for n, seed in zip(size, context.seeds, strict=True)]
        steps = baselines.bc.Transitions.from_splits(splits, context.device)
        return clone_trajectories(splits, chosen, config.policy, steps, context, weights=weights)

    monkeypatch.setattr(baselines.bc, "fit", fit)
    found = {row["seed"]: row for row in perform(job)}
    assert {seed: row["status"] for seed, row in found.items()} == {0: "ok", 1: "failed", 2: "ok"}
    assert "policy_loss is not finite at step" in found[1]["reason"] and "[1]" in found[1]["reason"]
    for trial in job.trials:
        folder = job.folder(trial)
        assert is_done(folder) == (trial.seed != 1)
        if trial.seed != 1:
            assert np.isfinite(pd.read_csv(folder / "curves.csv")["policy_loss"].dropna()).all()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["policy.safetensors", "config.json", "episodes.csv", "row.json"])
def test_a_full_disk_fails_in_one_line_and_leaves_nothing_half_done(job, place, monkeypatch):
    full = True
    write, write_bytes = files.write_atomically, Path.write_bytes

    def write_until_full(path, text):
        if full and path.name == place:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    def written_until_full(path, content):
        if full and place == "policy.safetensors" and ".safetensors~" in path.name:
            write_bytes(path, b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    for module in (files, rows, pack):
        monkeypatch.setattr(module, "write_atomically", write_until_full)
    monkeypatch.setattr(Path, "write_bytes", written_until_full)
    found = perform(job)
    assert set(statuses(found).values()) == {"failed"}
    for row in found:
        assert row["reason"] == f"the disk is full: {job.run_folder}; free some space, then --resume"
    assert not any(is_done(job.folder(trial)) for trial in job.trials)
    full = False
    assert set(statuses(perform(job)).values()) == {"ok"}
    for trial in job.trials:
        assert read_json(job.folder(trial) / "row.json")["status"] == "ok"
        assert not list(job.folder(trial).rglob("*.tmp")) and not (job.folder(trial) / "error.txt").exists()


def test_a_disk_too_full_for_a_claim(job, monkeypatch):
    def full(self, *arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Claims, "_claim", full)
    assert all(row["reason"].startswith("the disk is full") for row in perform(job, run=Failing()))


@pytest.mark.slow
def test_training_and_rollouts_apart(job):
    """As for trials that use a GPU: nothing is rolled out until it is asked for, and the rows are the same."""
    together = perform(job)
    apart = dataclasses.replace(job, trials_folder=f"{job.run_folder}/apart/trials")
    write_json(apart.run_folder / "run.json", {})
    assert perform(dataclasses.replace(apart, roll_out=False)) == []
    assert not any(is_done(apart.folder(trial)) for trial in apart.trials)
    after = perform(apart)
    for one, other in zip(together, after, strict=True):
        timed = {"train_seconds", "eval_seconds"}
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_a_node_without_the_folder_or_with_another_dataset_says_so(job, monkeypatch, tmp_path):
    elsewhere = dataclasses.replace(job, trials_folder=str(tmp_path / "not shared" / "trials"))
    (row, *_) = perform(elsewhere)
    assert "--storage must be a folder all nodes share, or a URI" in row["reason"]
    (row, *_) = perform(dataclasses.replace(job, dataset_sha256="0" * 64))
    assert "is not the file that the run began with" in row["reason"]
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path))
    monkeypatch.setenv("DSRL_SOURCES", "http://127.0.0.1:9")
    monkeypatch.setattr("safemil.data.locate.source_addresses", lambda: ["http://127.0.0.1:9"])
    (row, *_) = perform(dataclasses.replace(job, dataset="/nowhere/data.hdf5"))
    assert "no /nowhere/data.hdf5" in row["reason"] and "Three ways out" in row["reason"]


@pytest.mark.parametrize(("starts", "again"), [(0, True), (5, False)])
def test_a_pack_that_ray_could_not_start_is_scheduled_again_but_not_for_ever(job, tmp_path, starts, again):
    from tune.ray_runner import Rollouts, _board_callback

    details = tmp_path / "error.txt"
    details.write_text("ActorDiedError: The actor never ran - it was cancelled before it started running.")
    jobs = {"pack": dataclasses.replace(job, starts=starts)}
    finished: dict[str, list] = {}
    board = types.SimpleNamespace(waiting=lambda pack: None, finished=finished.__setitem__)
    rollouts = Rollouts(jobs, board, perform)
    trial = types.SimpleNamespace(config={"item": {"pack": "pack"}}, error_file=str(details))
    _board_callback(board, jobs, rollouts).on_trial_error(1, [], trial)
    assert (finished == {}) == again and bool(rollouts.unstarted) == again
    if again:
        assert rollouts.unstarted["pack"].starts == 1
    else:
        assert all(row["status"] == "failed" for row in finished["pack"])
