"""The leaderboard over runs, on invented results."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analysis import index
from analysis.load import load_run
from tests.fabricated_run import edit_row, small_run


@pytest.fixture
def root(tmp_path):
    """A short run, a longer one of the same task, the same with another setting, and a sweep one folder deeper."""
    short = small_run(tmp_path / "short", seeds=(0,), points=1)
    small_run(tmp_path / "long", points=1)
    other = small_run(tmp_path / "other", methods=("bc-all",), seeds=range(9), points=1)
    for run, command in (
        (short, "tune/run.py --grid demo"),
        (other, "tune/run.py --set policy.head=det a.b=1 --name o"),
    ):
        for trial in (run / "trials").iterdir():
            edit_row(trial, command=command)
    small_run(tmp_path / "more" / "sweep", methods=("safemil",), settings=[{"bag_size": k} for k in (1, 8)], points=1)
    return tmp_path


def test_the_best_documented_run_of_a_row_is_shown_and_the_others_are_named(root):
    board = index.leaderboard(index.find_runs(root), root).set_index(["method", "setting"])
    mine = board.loc[("bc-all", "")]
    assert (mine["run"], mine["runs"], mine["seeds"]) == ("long", "long short", 3)
    expected = load_run(root / "long").trials.query("method == 'bc-all'")["normalized_cost"].mean()
    assert mine["normalized_cost_mean"] == pytest.approx(expected)
    assert board.loc[("bc-all", "policy.head=det a.b=1"), "run"] == "other", "other settings are a row of their own"
    assert board.loc[("safemil", "K=8"), "run"] == "more/sweep"
    assert board.index[board["best"]].tolist() == [("safemil", "")], "oracles and settings of sweeps aside"


def test_without_a_command_on_record_a_run_comes_last(root):
    record = json.loads((root / "long" / "run.json").read_text())
    (root / "long" / "run.json").write_text(json.dumps({**record, "command": "", "created": ""}))
    board = index.leaderboard(index.find_runs(root), root).set_index(["method", "setting"])
    assert board.loc[("bc-all", ""), "run"] == "short"


def test_page_csv_and_json_say_the_same_each_time(root, capsys):
    (root / "broken").mkdir()
    (root / "broken" / "trials.csv").write_text("a,b\n1,2\n")
    assert index.main([str(root)]) == 0
    said = capsys.readouterr()
    assert said.out == f"index: {root / 'index.html'}\n" and "left out: " in said.err
    first = {name: (root / name).read_bytes() for name in ("index.html", "index.csv", "index.json")}
    index.write_index(root)
    assert first == {name: (root / name).read_bytes() for name in first}
    table, listed = pd.read_csv(root / "index.csv"), json.loads(first["index.json"])
    assert table["normalized_cost_mean"].tolist() == pytest.approx([row["normalized_cost_mean"] for row in listed])
    page = first["index.html"].decode()
    assert all(f'href="{run}/report/report.html"' in page for run in ("long", "short", "other", "more/sweep"))
    assert page.count("<tr class=") - page.count('<tr class="group"') == len(table)


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    for folder, said in ((tmp_path, "holds no run with a finished trial"), (tmp_path / "gone", "no such folder")):
        assert index.main([str(folder)]) == 2
        assert said in (error := capsys.readouterr().err) and error.count("\n") == 1
