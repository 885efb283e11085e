"""Twelve kinds of bad input, each as a user would meet it: one clear line, exit code 2 or 1, nothing half-written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import write_ball_dataset

ROOT = Path(__file__).resolve().parent.parent
RUN = [
    "tune/run.py",
    "--grid",
    "demo",
    "--methods",
    "bc-all",
    "--seeds",
    "0",
    "--shard",
    "1/1",
    "--cpus-per-trial",
    "1",
]
QUICK = ["policy.steps=2", "evaluation.episodes=1", "evaluation.checkpoints=1", "split.n_nonpreferred=10"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_ball_dataset(tmp_path_factory.mktemp("whole"))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")


def missing_key(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["costs"]


def not_a_number(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["observations"][7, 2] = np.nan


def unequal_lengths(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        actions = file["actions"][:-3]
        del file["actions"]
        file["actions"] = actions


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


def is_one_clear_line(shown: subprocess.CompletedProcess, *words: str) -> None:
    said = [line for line in shown.stderr.splitlines() if line.startswith(("error:", "failed:"))]
    assert len(said) == 1, shown.stderr
    assert "Traceback" not in shown.stderr + shown.stdout
    for word in words:
        assert word in said[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncated, ["truncated"]),
        (html, ["HTML"]),
        (missing_key, ["costs"]),
        (not_a_number, ["observations", "7"]),
        (unequal_lengths, ["actions"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_dataset_fails_its_trial(spoil, words, whole, tmp_path):
    path = tmp_path / "data" / whole.name
    path.parent.mkdir()
    shutil.copy(whole, path)
    spoil(path)
    storage = tmp_path / "results"
    shown = run(*RUN, "--storage", str(storage), "--set", *QUICK, DSRL_DATASET_DIR=str(path.parent))
    assert shown.returncode in (1, 2)
    is_one_clear_line(shown, path.name, *words)
    assert not list(storage.rglob("done")) and not list(storage.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "BalCircle"], ["unknown task 'BalCircle'", "BallCircle"]),
        (["--methods", "safemill"], ["unknown method 'safemill'", "safemil"]),
        (["--set", "policy.step=3"], ["policy.step", "policy.steps"]),
        (["--set", "policy.steps=-3"], ["policy.steps", "at least 1"]),
        (["--set", "policy.steps=many"], ["policy.steps", "many"]),
        (["--grid", "dmo"], ["unknown grid 'dmo'", "demo"]),
        (["--storage", "gopher://x/y"], ["gopher"]),
        (["--save-every", "-1"], ["--save-every"]),
    ],
    ids=["task", "method", "key", "value", "type", "grid", "storage", "interval"],
)
def test_a_mistake_on_the_command_line_starts_nothing(arguments, words, tmp_path):
    storage = tmp_path / "results"
    shown = run(*RUN, "--storage", str(storage), *arguments)
    assert shown.returncode == 2
    is_one_clear_line(shown, *words)
    assert not storage.exists()


@pytest.mark.slow
def test_too_few_trajectories(whole, tmp_path):
    settings = [*QUICK[:-1], "split.n_nonpreferred=100"]
    arguments = ["--storage", str(tmp_path / "results"), "--set", *settings]
    shown = run(*RUN, *arguments, DSRL_DATASET_DIR=str(whole.parent))
    assert shown.returncode == 1
    is_one_clear_line(shown, "the split needs", "holds 60 trajectories")
    assert not list(tmp_path.rglob("done"))


@pytest.mark.slow
def test_no_ray_at_the_address(whole, tmp_path):
    arguments = [word for word in RUN if word not in ("--shard", "1/1")]
    storage = str(tmp_path / "results")
    shown = run(*arguments, "--storage", storage, "--address", "nowhere", DSRL_DATASET_DIR=str(whole.parent))
    assert shown.returncode == 2
    is_one_clear_line(shown, "--address nowhere", "no Ray cluster answers")


@pytest.mark.slow
def test_an_empty_dataset_folder_variable_counts_as_unset():
    code = (
        "from safemil.simulation.simulators import make; from safemil.data.tasks import find_task;"
        "from safemil.data.locate import *; make(find_task('BallRun')).close(); print(dataset_folder())"
    )
    shown = run("-c", code, DSRL_DATASET_DIR="")
    assert shown.returncode == 0 and shown.stdout.strip().endswith(".dsrl/datasets"), shown.stderr


def test_a_reader_that_stops_early_is_no_error():
    """As in `python tune/run.py --list | head -1`."""
    command = f"{sys.executable} tune/run.py --list | head -1; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "Traceback" not in shown.stderr and "BrokenPipe" not in shown.stderr
    assert shown.returncode in (0, 1, 141)
