"""The runner as a user meets it: commands, exit codes, files, resuming, failures, with and without Ray."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from tests.conftest import run_python, write_ball_dataset
from tune import progress
from tune.job import Job
from tune.prepare import deal_out
from tune.run import main

pytestmark = pytest.mark.xdist_group("run")  # one worker, so that the dataset and the run are made once
DEMO = ["--grid", "demo", "--smoke", "--seeds", "0", "1", "--cpus-per-trial", "1"]
SMALL = ["--set", "policy.steps=30", "cost_model.steps=10", "cost_model.bag_size=4"]
COLUMNS = """task method seed bag_size horizon contamination weighting aggregator n_nonpreferred mixture return_mean
    cost_mean normalized_return normalized_cost cvar_cost_20 cvar_cost_50 cvar_cost_10 cvar_cost_5 auroc mil_loss_final
    cost_limit episodes train_seconds eval_seconds status dataset_sha256 git_commit package_versions"""
FILES = "config.json curves.csv episodes.csv policy.safetensors policy.json row.json done"


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory) -> Path:
    """A small dataset that passes for BallCircle's."""
    return write_ball_dataset(tmp_path_factory.mktemp("datasets")).parent


@pytest.fixture(scope="session")
def run(dataset_folder):
    """tune/run.py in a process of its own; its exit code must be the one expected."""

    def command(*arguments: str, storage: Path | str, exit_code: int = 0) -> str:
        shown = run_python("tune/run.py", *arguments, "--storage", storage, DSRL_DATASET_DIR=dataset_folder)
        assert shown.returncode == exit_code and "Traceback" not in shown.stderr, shown.stderr
        return shown.stderr

    return command


def test_list_names_grids_tasks_and_methods(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "bagsize" in listed and "bc-safe" in listed and "PointButton1" in listed


def test_dry_run_starts_nothing(tmp_path, capsys):
    assert main(["--grid", "bagsize", "--tasks", "BallCircle", "--dry-run", "--storage", str(tmp_path)]) == 0
    assert "35 trials in 7 packs" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_list_needs_no_torch():
    """What keeps it under a second."""
    shown = run_python("-c", "import sys, tune.run; tune.run.main(['--list']); sys.exit('torch' in sys.modules)")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--grid", "demos"], ["'demos'", "demo"]),
        (["--grid", "demo", "--tasks", "BalCircle"], ["BallCircle"]),
        (["--grid", "demo", "--methods", "bc"], ["'bc'"]),
        (["--grid", "demo", "--set", "policy.steps"], ["KEY=VALUE"]),
        (["--grid", "demo", "--set", "policy.steps=-5"], ["policy.steps", "-5"]),
        (["--grid", "demo", "--shard", "3/2"], ["I/N"]),
        (["--grid", "demo", "--save-every", "-1"], ["--save-every"]),
        ([], ["--grid NAME"]),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(arguments, words, tmp_path, capsys):
    try:
        code = main([*arguments, "--storage", str(tmp_path)])
    except SystemExit as left:  # argparse's own
        code = left.code
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and sum("error: " in line for line in said) == 1
    assert all(word in said[-1] for word in words) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [True, False])
def test_the_board_tells_what_became_of_each_pack(terminal, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", -1.0)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with progress.Board({pack: {"task": pack, "policy.hidden": "[8]"} for pack in "abcd"}, console) as board:
        for pack in "abc":
            board.running(pack)
            board.running(pack, "policy", 3, 10, {"policy_loss": 0.5})
        board.finished(
            "a", [{"status": "ok", "normalized_cost": cost, "normalized_return": 1.0} for cost in (0.5, 1.0)]
        )
        board.finished("b", [{"status": "failed", "reason": "no luck"}])
        board.waiting("c")
        board.finished("d", [{"status": "ok"}])
    shown = console.file.getvalue()
    assert "a [8]: cost 0.75, return 1.00 (0 s)" in shown and "failed b [8]: no luck" in shown
    assert "d [8]: cost , return  (elsewhere)" in shown and "[3/4]" in shown
    assert ("policy 3/10" in shown) != terminal  # bars there, a line now and then here


@pytest.mark.parametrize(("cores", "sizes"), [(1, [5, 2]), (3, [5, 2]), (4, [3, 2, 1, 1]), (64, [1] * 7)])
def test_packs_are_parted_where_cores_would_be_idle(cores, sizes):
    packs = {"a": tuple({"seed": seed} for seed in range(5)), "b": tuple({"seed": seed} for seed in range(2))}
    jobs = {name: Job(pack, "trials", "dataset") for name, pack in packs.items()}
    dealt = deal_out(jobs, cores)
    assert [len(job.pack) for job in dealt.values()] == sizes
    seeds = {
        name: sorted(own["seed"] for part in dealt if part.split()[0] == name for own in dealt[part].pack)
        for name in packs
    }
    assert seeds == {"a": [0, 1, 2, 3, 4], "b": [0, 1]}
    console = Console(file=io.StringIO(), width=100)
    with progress.Board({name: {"task": name} for name in packs}, console) as board:
        board.divide(list(dealt))
        for part in dealt:
            board.finished(part, [{"status": "ok"}])
    assert f"[{len(sizes)}/{len(sizes)}] b" in console.file.getvalue()
    assert ("a, part 2/2" in console.file.getvalue()) == (cores == 4)


@pytest.fixture(scope="session")
def finished_run(run, tmp_path_factory) -> Path:
    """A demo run without Ray, two shards filling one folder."""
    storage = tmp_path_factory.mktemp("results")
    for shard in ("1/2", "2/2"):
        run(*DEMO, *SMALL, "--shard", shard, storage=storage)
    return storage / "demo-smoke"


@pytest.mark.slow
def test_shards_fill_one_run(finished_run):
    table = pd.read_csv(finished_run / "trials.csv")
    assert len(table) == 6 and (table["status"] == "ok").all()
    assert set(table["method"]) == {"safemil", "bc-all", "bc-safe"} and set(COLUMNS.split()) <= set(table.columns)
    assert table["normalized_cost"].notna().all() and (table["episodes"] == 2).all()
    assert table.loc[table["method"] == "safemil", "auroc"].between(0, 1).all()
    assert (finished_run / "report" / "report.html").exists()


@pytest.mark.slow
def test_a_trial_folder_is_whole(finished_run):
    for folder in (finished_run / "trials").iterdir():
        assert set(FILES.split()) <= {path.name for path in folder.iterdir()}
        config, row = (json.loads((folder / name).read_text()) for name in ("config.json", "row.json"))
        assert config["package_versions"]["torch"] and len(config["dataset_sha256"]) == 64
        assert config["precision"] == "highest" and config["split_record"]["protocol"] == "mix50"
        assert config["command"].startswith("python tune/run.py")
        episodes = pd.read_csv(folder / "episodes.csv")
        final = episodes[episodes["checkpoint_step"] == episodes["checkpoint_step"].max()]
        assert row["cost_mean"] == pytest.approx(final["cost"].mean())
        assert row["normalized_cost"] == pytest.approx(final["cost"].mean() / 25)
        curves = pd.read_csv(folder / "curves.csv")
        assert "evaluation" in set(curves["stage"])
        taken = curves.groupby("stage")["step"].max()  # fixed numbers: no held-out loss ends a study's training
        assert taken["policy"] == 30 and taken.get("cost_model", 10) == 10
        assert not [name for name in curves if name in ("held_out_mil_loss", "held_out_policy_loss")]
        if config["method"] == "safemil":
            scores = pd.read_csv(folder / "scores.csv")
            assert (scores.loc[scores["weight"].notna(), "set"] == "D_U").all() and scores[
                "predicted_cost"
            ].notna().all()
            assert set(pd.read_csv(folder / "example_steps.csv")["band"]) == {"nonpreferred", "preferred"}


@pytest.mark.slow
def test_evaluation_repeats_from_the_checkpoint_alone(finished_run, run, tmp_path):
    """Delete what evaluation wrote, resume: nothing is trained, the same episodes come back."""
    shutil.copytree(finished_run, tmp_path / "demo-smoke")
    folder = next((tmp_path / "demo-smoke" / "trials").glob("*-bc-all-s0-*"))
    before, trained = pd.read_csv(folder / "episodes.csv"), (folder / "policy.safetensors").stat().st_mtime_ns
    for name in ("episodes.csv", "row.json", "done", "evaluation.json"):
        (folder / name).unlink()
    run(*DEMO, *SMALL, "--shard", "1/1", storage=tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "episodes.csv"), before)
    assert (folder / "policy.safetensors").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_ray_equals_serial_refuses_to_mix_runs_and_resumes(finished_run, run, tmp_path):
    run(*DEMO, *SMALL, storage=tmp_path)
    metrics = ["trial_id", "cost_mean", "return_mean", "normalized_cost", "auroc", "mil_loss_final"]
    with_ray, serial = (pd.read_csv(path / "trials.csv")[metrics] for path in (tmp_path / "demo-smoke", finished_run))
    pd.testing.assert_frame_equal(with_ray, serial, rtol=1e-4)
    refused = run(*DEMO, *SMALL, storage=tmp_path, exit_code=2)
    assert "--resume" in refused and "--name" in refused
    run(*DEMO, *SMALL, "--resume", storage=tmp_path)


@pytest.mark.slow
def test_failed_trials_are_reported_with_the_table(run, tmp_path):
    """500 trajectories in D_N cannot be had from 120."""
    arguments = [*DEMO, "--methods", "bc-all", "bc-safe", "--set", "policy.steps=20", "split.n_nonpreferred=500"]
    said = run(*arguments, "--shard", "1/1", storage=tmp_path, exit_code=1)
    assert "the split needs" in said and "error.txt" in said
    table = pd.read_csv(tmp_path / "demo-smoke" / "trials.csv")
    assert (table["status"] == "failed").all() and table["reason"].str.contains("the split needs").all()


@pytest.mark.slow
def test_storage_as_uri(run, tmp_path):
    arguments = [*DEMO, "--methods", "bc-all", "--set", "policy.steps=20", "--shard", "1/1"]
    run(*arguments, storage=f"file://{tmp_path}/store")
    assert len(pd.read_csv(tmp_path / "store" / "demo-smoke" / "trials.csv")) == 2
    assert len(list((tmp_path / "store" / "demo-smoke" / "trials").glob("*/done"))) == 2
