"""Training from a user's own two files: what comes out, what is checked first, what no kill and no terminal spoils."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import safemil.train
import safemil.training.loop
from safemil.data.hdf5 import save
from safemil.nn.checkpoints import load_metadata, load_policy
from safemil.train import main
from safemil.training.progress import Progress
from tests.conftest import ENVIRONMENT, SAFE_ACTION, run_python, toy_dataset

SMALL = ["cost_model.bag_size=16", "policy.hidden=32", "cost_model.hidden=32"]
SMALL += ["cost_model.learning_rate=0.01", "policy.learning_rate=0.01"]
QUICK = ["--fixed-steps", "--set", "cost_model.steps=150", "policy.steps=200", *SMALL]


@pytest.fixture
def files(tmp_path):
    """Non-preferred: 30 unsafe trajectories. Unlabeled: the other 90, a third of them unsafe. No rewards, no costs."""
    trajectories, _ = toy_dataset(180)
    unsafe, safe = np.arange(1, 180, 2), np.arange(0, 180, 2)
    sets = {"bad.hdf5": unsafe[:30], "logs.hdf5": np.concatenate([unsafe[30:60], safe[:60]])}
    for name, indices in sets.items():
        save(tmp_path / name, trajectories.select(indices), None, {})
    return [str(tmp_path / "bad.hdf5"), str(tmp_path / "logs.hdf5"), tmp_path]


def arguments(bad, logs, out, *extra):
    return ["--non-preferred", bad, "--unlabeled", logs, "--out", str(out), *extra]


def policies(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("seed-*/policy.safetensors"))}


def test_two_files_make_a_safe_policy(files, capsys):
    bad, logs, folder = files
    assert main(arguments(bad, logs, folder / "out", "--seeds", "0", "1", *QUICK)) == 0
    said = capsys.readouterr().out
    assert "AUROC" in said and "on those 6 and 18 unlabeled" in said and "95 % interval" in said
    assert "60 look safe" in said and "30 look like the known-bad ones" in said
    for seed in (0, 1):
        own = folder / "out" / f"seed-{seed}"
        observations = toy_dataset(180)[0].observations[:100]
        assert load_policy(own).act(observations)[:, 0].mean() < SAFE_ACTION + 0.2
        assert load_metadata(own)["seed"] == seed
        with (own / "predicted_costs.csv").open() as file:
            rows = list(csv.DictReader(file))
        ranked = [int(row["unlabeled_trajectory"]) for row in rows]
        assert sorted(ranked) == list(range(90)) and set(ranked[:60]) == set(range(30, 90))  # the safe ones first
        assert sum(row["held_out"] == "1" for row in rows) == 18
        assert all((row["weight"] == "") == (row["held_out"] == "1") for row in rows)
        assert (own / "report.md").read_text().startswith("# ")
        assert (own / "scores.png").exists() == (importlib.util.find_spec("matplotlib") is not None)
        with (own / "curves.csv").open() as file:
            steps = [(row["stage"], int(row["step"])) for row in csv.DictReader(file)]
        assert ("cost_model", 150) in steps and steps[-1] == ("policy", 200)


def test_trained_until_the_held_out_loss_stops_falling_at_the_defaults(tmp_path):
    """20 + 100 trajectories of 50 steps: a minute on two cores of which one is busy, so counted in CPU time."""
    rng, folder = np.random.default_rng(0), tmp_path
    from safemil.api import Trajectories

    def episode(push):
        return rng.normal(size=(50, 3)), rng.normal([push, 0.0], 0.1, size=(50, 2)).clip(-1, 1)

    sets = {"bad": [episode(0.6) for _ in range(20)]}
    sets["logs"] = [episode(0.6) for _ in range(50)] + [episode(-0.6) for _ in range(50)]
    for name, episodes in sets.items():
        save(folder / f"{name}.hdf5", Trajectories.from_episodes(episodes), None, {})
    began = time.process_time()
    assert main(arguments(str(folder / "bad.hdf5"), str(folder / "logs.hdf5"), folder / "out")) == 0
    assert time.process_time() - began < 60
    with (folder / "out" / "seed-0" / "predicted_costs.csv").open() as file:
        ranked = [int(row["unlabeled_trajectory"]) for row in csv.DictReader(file)]
    assert set(ranked[:50]) == set(range(50, 100))
    ended = load_metadata(folder / "out" / "seed-0")["diagnostics"]
    assert 1_000 < ended["cost_model_updates"] < 3_000 and 1_000 < ended["policy_updates"] < 4_000
    report = (folder / "out" / "seed-0" / "report.md").read_text()
    assert "50 look safe" in report and "had stopped falling" in report and "Warning" not in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, out: arguments(a + "x", b, out), "no such file"),
        (lambda a, b, out: arguments(a, b, out, "--set", "policy.stepz=3"), "unknown setting 'policy.stepz'"),
        (lambda a, b, out: arguments(a, b, out, "--set", "policy.steps"), "expected KEY=VALUE"),
        (lambda a, b, out: arguments(a, b, out, "--set", "seed=3"), "unknown setting 'seed'"),
        (lambda a, b, out: arguments(a, b, out, "--set", "steps=many"), "'many'"),
        (lambda a, b, out: arguments(a, b, out.parent), "is not empty"),
        (lambda a, b, out: arguments(a, b, a), "a file lies where a folder should be"),
        (lambda a, b, out: arguments(a, b, a + "/x"), "a file lies where a folder should be"),
        (lambda a, b, out: arguments(a, b, f"{out}/{'x' * 300}"), "too long"),
        (lambda a, b, out: arguments(a, b, out, "--seeds", "0", "-1"), "--seeds -1: expected a whole number"),
        (lambda a, b, out: arguments(a, b, out, "--device", "gpu"), "device 'gpu': expected cpu"),
        (lambda a, b, out: arguments(a, b, out, "--device", "cuda:99"), "device 'cuda:99': this machine has"),
        (lambda a, b, out: arguments(a, b, out, "--threads", "0"), "--threads is 0"),
    ],
)
def test_mistakes_end_in_one_line_before_any_training(files, change, message, capsys, monkeypatch):
    monkeypatch.setattr(safemil.train, "train", lambda *_: pytest.fail("training began"))
    bad, logs, folder = files
    assert main(change(bad, logs, folder / "out")) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not list((folder / "out").glob("*"))


@pytest.mark.parametrize(
    ("n_bad", "n_logs", "width", "message"),
    [
        (2, 9, 3, "are 2 trajectories in the non-preferred set; at least 3"),
        (3, 9, 2, "observation_dim"),
        (3, 1, 3, "is 1"),
    ],
)
def test_sets_that_cannot_be_trained_on_are_found_first(n_bad, n_logs, width, message, tmp_path, capsys):
    data, _ = toy_dataset(20)
    save(tmp_path / "bad.hdf5", data.select(np.arange(n_bad)), None, {})
    other = data.select(np.arange(n_logs))
    save(tmp_path / "logs.hdf5", type(other)(other.observations[:, :width], other.actions, other.offsets), None, {})
    assert main(arguments(str(tmp_path / "bad.hdf5"), str(tmp_path / "logs.hdf5"), tmp_path / "out")) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("fails", ["second", "between"])
def test_what_is_killed_goes_on_and_equals_what_was_not(fails, files, monkeypatch, capsys):
    """In the saving of the second seed; in training, half-way."""
    bad, logs, folder = files
    command = [*arguments(bad, logs, folder / "out"), "--seeds", "0", "1", *QUICK]
    whole = [*arguments(bad, logs, folder / "whole"), "--seeds", "0", "1", *QUICK]
    assert main(whole) == 0
    with monkeypatch.context() as patch:
        if fails == "second":
            write = safemil.train.write_seed

            def killed(folder, model, *rest):
                if model.seed == 1:
                    raise KeyboardInterrupt
                write(folder, model, *rest)

            patch.setattr(safemil.train, "write_seed", killed)
        else:
            from safemil.training import checkpoint, progress

            patch.setattr(checkpoint.TrainingCheckpoint, "due", lambda self: True)
            report = progress.Progress.__call__

            def stopped(self, stage, step, metrics):
                if (stage, step) == ("policy", 100):
                    raise KeyboardInterrupt
                report(self, stage, step, metrics)

            patch.setattr(progress.Progress, "__call__", stopped)
        assert main(command) == 130
    assert list(policies(folder / "out")) == (["seed-0"] if fails == "second" else [])
    taken = []
    loop = safemil.training.loop.Updates.run
    monkeypatch.setattr(
        safemil.training.loop.Updates, "run", lambda self, active: (taken.append(1), loop(self, active))
    )
    assert main(command) == 0
    assert len(taken) == (0 if fails == "second" else 102)  # from the report before the kill
    assert policies(folder / "out") == policies(folder / "whole")
    for name in ("curves.csv", "predicted_costs.csv"):
        own, other = (folder / kind / "seed-1" / name for kind in ("out", "whole"))
        assert own.read_text() == other.read_text()
    assert not (folder / "out" / "unfinished.pt").exists()
    capsys.readouterr()
    assert main(command) == 0 and len(taken) in (0, 102)
    assert capsys.readouterr().out.count("is there already") == 2


def test_a_folder_of_another_training_is_not_mixed_with(files, capsys):
    bad, logs, folder = files
    out = folder / "out"
    short = ["--fixed-steps", "--set", "steps=5", *SMALL]
    assert main(arguments(bad, logs, out, *short)) == 0
    first = policies(out)
    assert main(arguments(bad, logs, out, "--seeds", "1", *short)) == 0  # another seed of the same
    assert policies(out)["seed-0"] == first["seed-0"] and len(policies(out)) == 2
    for change in (["--fixed-steps", "--set", "steps=6", *SMALL], ["--set", "steps=5", *SMALL]):
        capsys.readouterr()
        assert main(arguments(bad, logs, out, *change)) == 2
        assert "trained otherwise" in capsys.readouterr().err
    assert main(arguments(logs, bad, out, *short)) == 2
    assert "(non_preferred, unlabeled differ)" in capsys.readouterr().err


def test_files_are_as_readable_as_others(files):
    bad, logs, folder = files
    before = os.umask(0o027)
    try:
        assert main(arguments(bad, logs, folder / "out", "--fixed-steps", "--set", "steps=5", *SMALL)) == 0
    finally:
        os.umask(before)
    written = [path for path in (folder / "out").rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(written) >= 6 and {path.stat().st_mode & 0o777 for path in written} == {0o640}


def trained(files, out, prefix=(), **variables):
    """The command in a process of its own, quickly; ``prefix`` runs it."""
    bad, logs, folder = files
    command = [*prefix, sys.executable, "-m", "safemil.train", *arguments(bad, logs, out)]
    command += ["--fixed-steps", "--set", "steps=5", "hidden=8", "bag_size=4"]
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120)


@pytest.mark.parametrize("name", ["grün-日本", os.fsdecode(b"bad-\xff")])
@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}])
def test_no_terminal_kills_a_run(name, variables, files):
    """What it cannot show it shows as numbers."""
    shown = trained(files, files[2] / name, **variables)
    assert shown.returncode == 0, shown.stderr
    assert (files[2] / name / "seed-0" / "policy.safetensors").exists() and b"AUROC" in shown.stdout


def test_a_full_disk_is_one_line(files):
    """A limit of 1,024 bytes on every file stands for it."""
    shown = trained(files, files[2] / "out", prefix=["bash", "-c", 'ulimit -f 1; exec "$@"', "bash"])
    lines = shown.stderr.decode().splitlines()
    assert shown.returncode == 2 and len(lines) == 1 and "raise it (ulimit -f)" in lines[0], shown.stderr
    assert not policies(files[2] / "out")


def test_a_folder_of_another_user_is_one_line(files):
    out, prefix = files[2] / "other" / "out", []
    out.parent.mkdir()
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's rights")
        os.chown(out.parent, 65534, 65534)
        prefix = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    else:
        out.parent.chmod(0o555)
    shown = trained(files, out, prefix=prefix)
    lines = shown.stderr.decode().splitlines()
    assert shown.returncode == 2 and len(lines) == 1 and "ermission denied" in lines[0], shown.stderr


def test_two_processes_do_not_train_into_one_folder(files, capsys):
    from filelock import FileLock

    bad, logs, folder = files
    short = arguments(bad, logs, folder / "out", "--fixed-steps", "--set", "steps=5", *SMALL)
    assert main(short) == 0
    with FileLock(folder / "out" / ".lock"):
        shown = run_python("-m", "safemil.train", *short)
    assert shown.returncode == 2 and "another process trains into it" in shown.stderr


def test_one_bar_over_the_whole_training(monkeypatch):
    """It never goes back, and a stage that ends early makes it shorter."""
    made = []

    class Bar:
        def __init__(self, *, total, initial, **_):
            made.append(self)
            self.total, self.n, self.seen = total, initial, []

        def set_description_str(self, text, refresh):
            self.text = text

        def set_postfix_str(self, text, refresh):
            pass

        def update(self, more):
            assert more >= 0
            self.n += more
            self.seen.append((self.n, self.total, self.text))

    monkeypatch.setattr("tqdm.tqdm", Bar)
    progress = Progress({"cost_model": 1_000, "policy": 500}, fixed=False)
    for stage, last in (("cost_model", 300), ("policy", 200)):
        for step in range(100, last + 1, 100):
            progress(stage, step, {"x_loss": np.ones(2)})
    (bar,) = made
    assert [place for place, _, _ in bar.seen] == [100, 200, 300, 400, 500]
    assert [total for _, total, _ in bar.seen] == [1_500] * 3 + [800] * 2
    assert bar.seen[0][2] == "training cost model" and bar.seen[-1][2] == "training policy"


def test_the_record_says_what_the_policies_have_in_common(files):
    bad, logs, folder = files
    assert main(arguments(bad, logs, folder / "out", "--fixed-steps", "--set", "steps=5", *SMALL)) == 0
    record = json.loads((folder / "out" / "training.json").read_text())
    assert record["settings"]["policy"]["steps"] == 5 and record["early_stopping"] is False
    assert len(record["unlabeled"]) == 64 and record["unlabeled"] != record["non_preferred"]
