"""The benchmarks run: their figures are of a machine and a day, but what they measure must exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_ball_dataset

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(FOLDER / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_loads_and_tells_what_it_measures(script):
    assert f"python benchmarks/{script}" in run(script, "--help")


def test_figures_are_written_as_json(tmp_path):
    figures = tmp_path / "training.json"
    run("training.py", "--only", "joint", "--replicas", "1", "--rounds", "1", "--threads", "1", "--json", str(figures))
    found = json.loads(figures.read_text())
    assert found["updates_per_second"]["joint_1, torch"][0] > 1 and found["machine"]["threads"] == 1


def test_a_trial_besides_its_work(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from startup import trial_seconds

    first, second = trial_seconds(write_ball_dataset(tmp_path)).values()
    assert first > 0 and second > 0
