"""The benchmarks run: their figures are of a machine and a day, but what they measure must exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import write_ball_dataset

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "\ndef main()" in path.read_text())


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(FOLDER / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_loads_and_tells_what_it_measures(script):
    if script == "jax_yardstick.py":
        pytest.importorskip("jax")
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


def test_the_gpu_s_benchmark_runs_on_a_cpu(tmp_path):
    dataset = write_ball_dataset(tmp_path)
    sections = ("same", "pixels", "rates", "grid", "pack")
    small = ("split.n_nonpreferred=20", "split.n_unlabeled=40", "cost_model.bag_size=8", "policy.hidden=16")
    options = ("--task", "BallCircle", "--device", "cpu", "--quick", "--updates", "30", "--out", str(tmp_path / "out"))
    run("gpu.py", "--dataset", str(dataset), *options, "--only", *sections, "--set", *small)
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert all("error" not in found[name] for name in sections)
    assert found["same"]["differences"] == {"safemil": {"resumed": 0.0}, "ppl": {"resumed": 0.0}}
    assert found["pack"]["largest_auroc_difference"] == 0
    assert "## The same policies" in (tmp_path / "out" / "gpu.md").read_text()


def test_what_is_said_of_speed_is_what_was_measured():
    page = (FOLDER / "README.md").read_text().replace("\n", " ")
    found = json.loads((FOLDER / "measured" / "h200-2026-11-27.json").read_text())
    assert all(own["uncaptured"] == own["resumed"] == 0 for own in found["same"]["differences"].values())
    rates = {(row["loop"], row["precision"], row["replicas"]): row for row in found["rates"]["rows"]}
    cloning = rates["BC", "highest", 400]["replica_updates_per_second"]
    fastest_osrl = max(rate for name, rate in found["rivals"].items() if name.startswith("osrl"))
    assert f"{cloning / fastest_osrl:.0f} times OSRL's trainer" in page
    assert f"{found['grid']['hours']:.1f} hours in float32" in page
    compiled = json.loads((FOLDER / "measured" / "h200-2026-11-27-compiled.json").read_text())
    assert compiled["same"]["passed"] and compiled["grid"]["precision"] == "high"
    assert f"{compiled['grid']['hours']:.1f} hours [compiled and at `--precision high`]" in page
    nine = json.loads((FOLDER / "measured" / "h200-2026-11-27-uniq-osil.json").read_text())
    new = sum(row["hours_of_three_tasks"] for row in nine["grid"]["rows"] if row["method"] in ("uniq", "osil"))
    assert nine["same"]["passed"] and f"{nine['grid']['hours']:.1f} hours [of nine methods]" in page
    assert f"{new:.1f} of them for those two" in page
    assert all(round(row["outside_kernels"], 2) <= 0.05 for row in rates.values() if row["replicas"] >= 100)
    five = [row["outside_kernels"] for row in rates.values() if row["replicas"] == 5]
    assert min(five) > 0.095 and max(five) < 0.205
    on_cpu = json.loads((FOLDER / "measured" / "cpu-2026-11-27.json").read_text())
    for part in ("cloning, highest", "cost step, highest", "joint, highest, one core"):
        for name, value in on_cpu[part].items():
            if name.endswith("_ratio"):
                told = page.split(f"| {name} | ")[1].split(" ")[0]
                assert float(told) == round(value, len(told.partition(".")[2]))


def test_what_is_said_of_the_common_loss_is_what_was_measured():
    results = FOLDER.parent / "results"
    told = " ".join((results / "README.md").read_text().split())
    rows = pd.read_csv(results / "reference" / "fair" / "trials.csv")
    assert set(rows["seed"]) == {0, 1, 2} and set(rows["task"]) == {"BallCircle"}
    dwbc, everything = (rows.loc[rows["method"] == name, "normalized_cost"].mean() for name in ("dwbc", "bc-all"))
    assert f"DWBC-NU costs {dwbc:.2f} on BallCircle" in told and f"where BC-All costs {everything:.2f}" in told
