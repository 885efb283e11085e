"""Training from a user's own two files."""

import csv

import numpy as np
import pytest

from safemil.data.hdf5 import save
from safemil.nn.checkpoints import load_metadata, load_policy
from safemil.train import main
from tests.conftest import SAFE_ACTION, toy_dataset

QUICK = ["--set", "cost_model.steps=150", "cost_model.bag_size=16", "policy.steps=200", "policy.hidden=32"]
QUICK += ["cost_model.hidden=32", "cost_model.learning_rate=0.01", "policy.learning_rate=0.01"]


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


def test_two_files_make_a_safe_policy(files, capsys):
    bad, logs, folder = files
    assert main(arguments(bad, logs, folder / "out", "--seeds", "0", "1", *QUICK)) == 0
    assert "AUROC" in capsys.readouterr().out
    for seed in (0, 1):
        policy = load_policy(folder / "out" / f"seed-{seed}")
        observations = toy_dataset(180)[0].observations[:100]
        assert policy.act(observations)[:, 0].mean() < SAFE_ACTION + 0.2
        assert load_metadata(folder / "out" / f"seed-{seed}")["seed"] == seed
        with (folder / "out" / f"seed-{seed}" / "predicted_costs.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 72  # four fifths of 90
        ranked = [int(row["unlabeled_trajectory"]) for row in rows]
        assert len(set(ranked)) == 72 and min(ranked) >= 0 and max(ranked) < 90
        assert all(index >= 30 for index in ranked[:40])  # the cheapest are safe ones: rows 30 and on of that file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, out: arguments(a + "x", b, out), "no such file"),
        (lambda a, b, out: arguments(a, b, out, "--set", "policy.stepz=3"), "unknown setting 'policy.stepz'"),
        (lambda a, b, out: arguments(a, b, out, "--set", "policy.steps"), "expected KEY=VALUE"),
        (lambda a, b, out: arguments(a, b, out.parent), "is not empty"),
    ],
)
def test_mistakes_end_in_one_line(files, change, message, capsys):
    bad, logs, folder = files
    assert main(change(bad, logs, folder / "out")) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (folder / "out").exists()
