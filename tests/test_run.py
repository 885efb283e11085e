"""The runner as a user meets it: commands, exit codes, files, resuming, failures, with and without Ray."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import write_ball_dataset

pytestmark = pytest.mark.xdist_group("run")  # one worker, so that the dataset and the run are made once
ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--cpus-per-trial", "1", "--set", "policy.steps=30", "cost_model.steps=10", "cost_model.bag_size=4"]


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory) -> Path:
    """A small dataset that passes for BallCircle's."""
    return write_ball_dataset(tmp_path_factory.mktemp("datasets")).parent


def run(*arguments: str, datasets: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"DSRL_DATASET_DIR": str(datasets)} if datasets else {})}
    command = [sys.executable, "tune/run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def test_list_names_grids_tasks_and_methods():
    shown = run("--list")
    assert shown.returncode == 0
    for word in ("bagsize", "bc-safe", "PointButton1"):
        assert word in shown.stdout


def test_dry_run_starts_nothing(tmp_path):
    shown = run("--grid", "bagsize", "--tasks", "BallCircle", "--dry-run", "--storage", str(tmp_path))
    assert shown.returncode == 0
    assert "35 trials in 7 packs" in shown.stdout
    assert not list(tmp_path.iterdir())


def test_the_list_needs_no_torch():
    """What keeps it under a second."""
    code = "import sys, tune.run; tune.run.main(['--list']); sys.exit('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "demos"], "unknown grid 'demos'; nearest: demo"),
        (["--grid", "demo", "--tasks", "BalCircle"], "BallCircle"),
        (["--grid", "demo", "--methods", "bc"], "unknown method 'bc'"),
        (["--grid", "demo", "--set", "policy.steps"], "expected KEY=VALUE"),
        (["--grid", "demo", "--set", "policy.steps=-5"], "expected at least 1"),
        (["--grid", "demo", "--shard", "3/2"], "expected I/N"),
        ([], "--grid NAME is required"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(arguments, message, tmp_path):
    shown = run(*arguments, "--storage", str(tmp_path))
    assert shown.returncode == 2
    assert message in shown.stderr and "Traceback" not in shown.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="session")
def finished_run(dataset_folder, tmp_path_factory) -> Path:
    """A demo run without Ray, two shards filling one folder."""
    storage = tmp_path_factory.mktemp("results")
    for shard in ("1/2", "2/2"):
        arguments = ["--grid", "demo", "--smoke", "--seeds", "0", "1", "--shard", shard, "--storage", str(storage)]
        shown = run(*arguments, *SMALL, datasets=dataset_folder)
        assert shown.returncode == 0, shown.stderr
    return storage / "demo-smoke"


@pytest.mark.slow
def test_shards_fill_one_run(finished_run):
    table = pd.read_csv(finished_run / "trials.csv")
    assert len(table) == 6 and (table["status"] == "ok").all()
    assert set(table["method"]) == {"safemil", "bc-all", "bc-safe"}
    columns = "task method seed bag_size horizon contamination weighting aggregator n_nonpreferred mixture return_mean"
    columns += " cost_mean normalized_return normalized_cost cvar_cost_20 cvar_cost_50 cvar_cost_10 cvar_cost_5 auroc"
    columns += " mil_loss_final cost_limit episodes train_seconds eval_seconds status dataset_sha256 git_commit"
    assert set(columns.split()) | {"package_versions"} <= set(table.columns)
    assert table["normalized_cost"].notna().all() and (table["episodes"] == 2).all()
    assert table.loc[table["method"] == "safemil", "auroc"].between(0, 1).all()
    assert (finished_run / "report" / "report.html").exists()


@pytest.mark.slow
def test_a_trial_folder_is_whole(finished_run):
    for folder in (finished_run / "trials").iterdir():
        names = {path.name for path in folder.iterdir()}
        assert {
            "config.json",
            "curves.csv",
            "episodes.csv",
            "policy.safetensors",
            "policy.json",
            "row.json",
            "done",
        } <= names
        config = json.loads((folder / "config.json").read_text())
        assert config["package_versions"]["torch"] and len(config["dataset_sha256"]) == 64
        assert config["precision"] == "highest"
        assert config["split_record"]["protocol"] == "mix50" and config["command"].startswith("python tune/run.py")
        episodes = pd.read_csv(folder / "episodes.csv")
        row = json.loads((folder / "row.json").read_text())
        final = episodes[episodes["checkpoint_step"] == episodes["checkpoint_step"].max()]
        assert row["cost_mean"] == pytest.approx(final["cost"].mean())
        assert row["normalized_cost"] == pytest.approx(final["cost"].mean() / 25)
        assert "evaluation" in set(pd.read_csv(folder / "curves.csv")["stage"])
        if config["method"] == "safemil":
            scores = pd.read_csv(folder / "scores.csv")
            assert (scores.loc[scores["weight"].notna(), "set"] == "D_U").all() and scores[
                "predicted_cost"
            ].notna().all()
            assert set(pd.read_csv(folder / "example_steps.csv")["band"]) == {"nonpreferred", "preferred"}


@pytest.mark.slow
def test_evaluation_repeats_from_the_checkpoint_alone(finished_run, dataset_folder, tmp_path):
    """Delete what evaluation wrote, resume: nothing is trained, the same episodes come back."""
    copied = tmp_path / "demo-smoke"
    shutil.copytree(finished_run, copied)
    folder = next((copied / "trials").glob("*-bc-all-s0-*"))
    before, trained = pd.read_csv(folder / "episodes.csv"), (folder / "policy.safetensors").stat().st_mtime_ns
    for name in ("episodes.csv", "row.json", "done", "evaluation.json"):
        (folder / name).unlink()
    arguments = ["--grid", "demo", "--smoke", "--seeds", "0", "1", "--shard", "1/1", "--storage", str(tmp_path), *SMALL]
    shown = run(*arguments, datasets=dataset_folder)
    assert shown.returncode == 0, shown.stderr
    pd.testing.assert_frame_equal(pd.read_csv(folder / "episodes.csv"), before)
    assert (folder / "policy.safetensors").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_ray_equals_serial_refuses_to_mix_runs_and_resumes(finished_run, dataset_folder, tmp_path):
    arguments = ["--grid", "demo", "--smoke", "--seeds", "0", "1", "--storage", str(tmp_path), *SMALL]
    shown = run(*arguments, datasets=dataset_folder)
    assert shown.returncode == 0, shown.stderr
    metrics = ["trial_id", "cost_mean", "return_mean", "normalized_cost", "auroc", "mil_loss_final"]
    with_ray, serial = (pd.read_csv(path / "trials.csv")[metrics] for path in (tmp_path / "demo-smoke", finished_run))
    pd.testing.assert_frame_equal(with_ray, serial, rtol=1e-4)
    again = run(*arguments, datasets=dataset_folder)
    assert again.returncode == 2 and "--resume continues it" in again.stderr and "--name" in again.stderr
    resumed = run(*arguments, "--resume", datasets=dataset_folder)
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
def test_failed_trials_are_reported_and_the_rest_goes_on(dataset_folder, tmp_path):
    """500 trajectories in D_N cannot be had from 120; the other grid point can."""
    arguments = [
        "--grid",
        "demo",
        "--smoke",
        "--methods",
        "bc-all",
        "bc-safe",
        "--seeds",
        "0",
        "--storage",
        str(tmp_path),
    ]
    settings = ["--cpus-per-trial", "1", "--set", "policy.steps=20", "split.n_nonpreferred=500"]
    shown = run(*arguments, "--shard", "1/1", *settings, datasets=dataset_folder)
    assert shown.returncode == 1
    assert "the split needs" in shown.stderr and "error.txt" in shown.stderr and "Traceback" not in shown.stderr
    table = pd.read_csv(tmp_path / "demo-smoke" / "trials.csv")
    assert (table["status"] == "failed").all() and table["reason"].str.contains("the split needs").all()


@pytest.mark.slow
def test_storage_as_uri(dataset_folder, tmp_path):
    storage = f"file://{tmp_path}/store"
    arguments = ["--grid", "demo", "--smoke", "--methods", "bc-all", "--seeds", "0", "--storage", storage]
    arguments += ["--shard", "1/1", "--cpus-per-trial", "1", "--set", "policy.steps=20"]
    shown = run(*arguments, datasets=dataset_folder)
    assert shown.returncode == 0, shown.stderr
    assert len(pd.read_csv(tmp_path / "store" / "demo-smoke" / "trials.csv")) == 1
    assert len(list((tmp_path / "store" / "demo-smoke" / "trials").glob("*/done"))) == 1
