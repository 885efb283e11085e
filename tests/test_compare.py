"""Two runs against each other, and a finished run as a small reference; on invented results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import compare, curate
from analysis.load import load_run
from safemil.config.errors import UserError
from tests.fabricated_run import edit_row, small_run


@pytest.fixture
def two_runs(tmp_path) -> tuple[Path, Path]:
    """The same run twice; in B SafeMIL costs 2 more, one of its settings is another, and BC-Safe is not there."""
    a = small_run(tmp_path / "a")
    b = small_run(tmp_path / "b", methods=("safemil", "bc-all"))
    for seed in range(3):
        mine = b / "trials" / f"BallCircle-safemil-s{seed}-default"
        row = json.loads((mine / "row.json").read_text())
        edit_row(mine, normalized_cost=row["normalized_cost"] + 2, bag_size=64)
        for folder, beta in ((a, 0.6), (b, 0.1)):
            config = {"split": {"mixture": 0.5}, "method_config": {"weights": {"beta": beta}}}
            (folder / "trials" / mine.name / "config.json").write_text(json.dumps(config))
    return a, b


def test_differences_of_means_with_intervals(two_runs):
    table = compare.compare_runs(*map(load_run, two_runs), repetitions=500).set_index(["method", "metric"])
    cost = table.loc[("safemil", "normalized_cost")]
    assert cost["difference"] == pytest.approx(2.0)
    assert 0 < cost["low"] < 2 < cost["high"] and cost["changed"]
    assert not table.loc["bc-all", "changed"].any()
    assert (table["seeds_a"] == 3).all() and "bc-safe" not in table.index.get_level_values("method")


def test_one_seed_has_no_interval(two_runs):
    a, b = two_runs
    for seed in (1, 2):
        shutil.rmtree(b / "trials" / f"BallCircle-safemil-s{seed}-default")
    table = compare.compare_runs(load_run(a), load_run(b), ["normalized_cost"], 50).set_index("method")
    assert np.isnan(table.loc["safemil", "low"]) and not table.loc["safemil", "changed"]


def test_settings_and_rows_that_differ(two_runs):
    a, b = map(load_run, two_runs)
    assert compare.rows_of_one(a, b) == (["BallCircle, BC-Safe"], [])
    found = {row[0]: row[1:] for row in compare.settings_that_differ(a, b).itertuples(index=False)}
    assert found == {"bag_size": ("128", "64", 1), "weights.beta": ("0.6", "0.1", 1)}


def test_rows_of_a_sweep_are_matched_by_setting(tmp_path):
    sweeps = [
        small_run(tmp_path / name, methods=("safemil",), settings=[{"bag_size": k} for k in values])
        for name, values in (("a", (1, 8)), ("b", (8, 64)))
    ]
    a, b = map(load_run, sweeps)
    assert compare.compare_runs(a, b, ["auroc"], 50)["bag_size"].tolist() == [8]
    assert compare.rows_of_one(a, b) == (["BallCircle, SafeMIL (K=1)"], ["BallCircle, SafeMIL (K=64)"])


def test_compare_on_screen_and_as_csv(two_runs, tmp_path, capsys):
    a, b = two_runs
    assert compare.main([str(a), str(b), "--csv", str(tmp_path / "difference.csv")]) == 0
    shown = capsys.readouterr().out
    assert "BallCircle, SafeMIL" in shown and "2.00" in shown and "] *" in shown
    assert f"Only in {a}: BallCircle, BC-Safe" in shown and "weights.beta: 0.6 | 0.1 | 1" in shown
    table = pd.read_csv(tmp_path / "difference.csv")
    assert set(table["metric"]) == {"normalized_return", "normalized_cost", "cvar_cost_20", "auroc", "mil_loss_final"}


def test_mistakes_are_one_line(two_runs, tmp_path, capsys):
    a, b = map(str, two_runs)
    other = str(small_run(tmp_path / "other", tasks=("CarRun",)))
    for arguments, message in (
        ([a, str(tmp_path / "nowhere")], "no such run folder (there are: a, b, other)"),
        ([a, other], "no row in common"),
        ([a, b, "--metrics", "cost"], "unknown metric 'cost'"),
        ([a, b, "--csv", str(tmp_path / "no" / "x.csv")], "there is no folder"),
    ):
        assert compare.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1


# --- references --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_reference_is_small_and_makes_its_own_report(tmp_path, capsys):
    run = small_run(tmp_path / "run", points=100)
    assert curate.main([str(run), "--to", str(tmp_path / "reference")]) == 0
    folder = tmp_path / "reference" / "run"
    assert f"reference: {folder}" in capsys.readouterr().out
    kept = {path.name for path in folder.iterdir()}
    assert kept == {
        *("README.md", "run.json", "trials.csv", "report", "curves.csv.gz", "scores.csv.gz", "example_steps.csv.gz"),
    }
    readme = (folder / "README.md").read_text()
    # 9 trials of 41.5 and 12.25 seconds.
    assert "0.10 hours of training and 0.03 hours of evaluation" in readme and "tune/run.py --grid demo" in readme
    figures = {path.name for path in (folder / "report" / "figures").iterdir()}
    assert figures == {"forest.svg"}
    page = (folder / "report" / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in ("curves", "scores", "steps"))
    assert (tmp_path / "reference" / "index.html").is_file()
    assert "../trials/" not in page and ".pdf" not in page
    assert pd.read_csv(folder / "curves.csv.gz").groupby(["trial_id", "stage"]).size().max() <= curate.CURVE_POINTS

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "report.html"}
    assert curate.main(["--to", str(tmp_path / "reference")]) == 0
    curate.curate(run, tmp_path / "again")
    for path, content in before.items():
        assert path.read_bytes() == content, path
        assert (tmp_path / "again" / "run" / path.relative_to(folder)).read_bytes() == content, path


def test_only_finished_runs_become_references_and_runs_are_never_replaced(tmp_path):
    run = small_run(tmp_path / "results" / "demo")
    with pytest.raises(UserError, match="is a reference already"):
        curate.curate(run, tmp_path / "results")
    with pytest.raises(UserError, match="is a run of its own"):
        curate.curate(small_run(tmp_path / "second" / "demo"), tmp_path / "results")
    (run / "trials" / "BallCircle-safemil-s0-default" / "done").unlink()
    with pytest.raises(UserError, match="1 trials are unfinished, the first BallCircle-safemil-s0-default"):
        curate.curate(run, tmp_path / "reference")
    assert curate.main(["--to", str(tmp_path / "reference")]) == 2
