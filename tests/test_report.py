"""The headline and the report, on invented results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import report, summary
from analysis.page_text import headline
from safemil.config.errors import UserError
from tests.fabricated_run import edit_row, small_run, trial_values, trials_frame

ROOT = Path(__file__).resolve().parent.parent


# --- the headline ------------------------------------------------------------------------------------------------


def headline_of(rows: list[dict], axes: tuple[str, ...] = ()) -> str:
    trials = trials_frame([{"cost_mean": 25 * row["normalized_cost"], **row} for row in rows])
    compared, ratios = (compare(trials, axes, 200) for compare in (summary.compare_methods, summary.safety_ratios))
    return " ".join(headline(trials, summary.summarize(trials, axes, 20), axes, compared, ratios))


def test_headline_of_one_task_has_its_numbers_and_its_reservations():
    rows = [trial_values("safemil", s, c, 0.5) for s, c in enumerate((0.4, 1.2))]
    text = headline_of([*rows, *[trial_values("bc-all", s, 2.4, 0.7) for s in (0, 1)]])
    for said in ("BallCircle", "under the cost limit", "0.80", "1 of 2 seeds", "0.50", "2.40 at 0.70"):
        assert said in text
    worse = headline_of([trial_values("safemil", 0, 3.0, warnings="safe but immobile"), trial_values("bc-all", 0, 2.0)])
    assert "over the cost limit" in worse and "One seed" in worse and "1 of 1 SafeMIL trials" in worse
    assert "BC-All" not in headline_of([trial_values("safemil", 0, 0.5)])
    assert "No SafeMIL trials" in (text := headline_of([trial_values("bc-all", 0, 0.5)])) and "BC-All on" in text


def test_headline_over_tasks_counts_safe_tasks():
    costs = {"safemil": (0.5, 2.0), "bc-all": (2.0, 4.0), "ppl": (1.0, 3.0)}
    rows = [trial_values(m, 0, c, task=t) for m, pair in costs.items() for t, c in zip("AB", pair, strict=True)]
    text = headline_of(rows)
    assert "under the limit on 1 of 2 tasks (every seed's on 1)" in text and "(BC-All) on 0" in text
    # The median of (1 + 1) / (0.5 + 1) and (3 + 1) / (2 + 1).
    assert "1.33 times as much" in text and "the paper states 3.7" in text


def test_headline_of_a_sweep_is_the_range_and_tells_seeds_from_means():
    costs = {1: (3.0, 3.0), 8: (0.5, 1.1), 64: (0.4, 0.6)}
    rows = [trial_values("safemil", s, c, bag_size=k) for k, pair in costs.items() for s, c in enumerate(pair)]
    text = headline_of(rows, ("bag_size",))
    assert "from 0.50 (K=64) to 3.00 (K=1)" in text and "in 2 of 3 settings, every seed's in 1" in text


def test_headline_says_which_baselines_it_is_not_safer_than():
    costs = {"safemil": (0.5, 0.6, 0.7), "ppl": (1.0, 1.1, 1.2), "dwbc": (0.4, 0.6, 0.8), "safedice": (0.1, 0.2, 0.3)}
    text = headline_of([trial_values(m, s, c) for m, own in costs.items() for s, c in enumerate(own)])
    assert "safer than PPL; not told apart from DWBC-NU; less safe than SafeDICE" in text


# --- the report --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A sweep over K with a failed trial whose message needs escaping, and its report."""
    settings = [{"bag_size": k} for k in (1, 64)]
    folder = small_run(tmp_path_factory.mktemp("results") / "sweep", settings=settings, axes=["bag_size"])
    failed = folder / "trials" / "BallCircle-safemil-s2-bag_size_64"
    edit_row(failed, status="failed", reason="<script>alert(1)</script> & more")
    (failed / "done").unlink()
    page = report.build_report(folder)
    return folder, page.read_text()


def without_date(page: str) -> str:
    return re.sub(r"Made [\d-]+ [\d:]+ UTC", "", page)


@pytest.mark.slow
def test_report_files(reported):
    folder, _ = reported
    files = {str(path.relative_to(folder / "report")) for path in (folder / "report").rglob("*") if path.is_file()}
    kinds = ("forest", "return_cost", "by_bag_size", "curves", "scores", "predicted_true", "weights", "steps")
    tables = ("main", "overall", "by_bag_size", "diagnostics")
    assert files == {
        "report.html",
        "tables/missing_trials.csv",
        *(f"tables/{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")),
        *(f"figures/{kind}.{ending}" for kind in kinds for ending in ("svg", "pdf")),
    }
    table = pd.read_csv(folder / "report" / "tables" / "main.csv")
    assert table["seeds"].tolist() == [3, 2, 3, 3]
    assert (folder / "trials.csv").is_file()


@pytest.mark.slow
def test_report_page_stands_alone_and_says_what_matters(reported):
    _, page = reported
    assert page.count('src="data:image/svg+xml;base64,') == 8 + 3 and page.count('<img class="narrow"') == 3
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|<link|src="(?!data:)""", page)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    # The headline and the first figure, then what is missing, then the tables, then the figures.
    parts = [
        "SafeMIL&#39;s normalized cost runs from",
        'id="forest"',
        "1 trial failed",
        'id="main"',
        'id="by_bag_size"',
        'id="diagnostics"',
        'id="return-against-cost"',
        'id="learning-curves"',
        'id="trials"',
    ]
    assert [page.index(part) for part in parts] == sorted(page.index(part) for part in parts)
    assert 'href="../trials/BallCircle-safemil-s2-bag_size_64/error.txt"' in page
    assert "python tune/run.py --grid demo" in page and "0123456789abcdef" in page and "torch 2.13.0" in page
    assert "Rows rest on 2 to 3 seeds; the fewest: SafeMIL (K=64) on BallCircle." in page
    assert page.count("Not in this table: of 12 trials, 1 failed.") == page.count('class="sortable') - 1


@pytest.mark.slow
def test_every_number_leads_to_its_trials(reported):
    _, page = reported
    anchors = set(re.findall(r'href="#(trials-[^"]+)"', page))
    assert anchors == {f"trials-BallCircle-{name}" for name in ("safemil-1", "safemil-64", "bc-all", "bc-safe")}
    assert anchors <= set(re.findall(r'<tbody id="([^"]+)"', page))


@pytest.mark.slow
def test_tables_list_what_is_missing_above_them(reported):
    folder, _ = reported
    markdown = (folder / "report" / "tables" / "main.md").read_text()
    assert markdown.index("1 failed") < markdown.index("BallCircle-safemil-s2-bag_size_64") < markdown.index("| Task")
    latex = (folder / "report" / "tables" / "main.tex").read_text()
    assert "% BallCircle-safemil-s2-bag\\_size\\_64: " in latex and "1 failed" in latex
    listed = pd.read_csv(folder / "report" / "tables" / "missing_trials.csv")
    assert listed.to_dict("records") == [
        {
            "trial_id": "BallCircle-safemil-s2-bag_size_64",
            "reason": "<script>alert(1)</script> & more",
            "state": "failed",
        }
    ]


@pytest.mark.slow
def test_report_is_deterministic_and_leaves_nothing_stale(reported, tmp_path):
    folder, page = reported
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "report" / "figures" / "curves_of_old.svg").write_bytes(b"")
    again = report.build_report(copy).read_text()
    # The name of the run is the same, the folder above it is not.
    assert without_date(again) == without_date(page)
    for old in sorted((folder / "report").rglob("*.*")):
        if old.name != "report.html":
            assert (copy / old.relative_to(folder)).read_bytes() == old.read_bytes(), old.name
    assert not (copy / "report" / "figures" / "curves_of_old.svg").exists()


@pytest.mark.slow
def test_report_from_trials_csv_alone(reported, tmp_path):
    folder, _ = reported
    copy = tmp_path / folder.name
    copy.mkdir()
    for name in ("trials.csv", "run.json"):
        shutil.copy(folder / name, copy / name)
    before = (copy / "trials.csv").read_bytes()
    page = report.build_report(copy).read_text()
    assert "1 trial failed" in page and "../trials/" not in page
    assert (copy / "report" / "tables" / "main.csv").read_bytes() == (folder / "report/tables/main.csv").read_bytes()
    assert not (copy / "report" / "figures" / "curves.svg").exists()
    assert (copy / "trials.csv").read_bytes() == before


def broken_runs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Runs that cannot be reported, with what the one line must say."""
    small_run(folder / "fine")
    failed = small_run(folder / "failed")
    for path in (failed / "trials").iterdir():
        edit_row(path, status="failed", reason="disk\nis full")
    unfinished = small_run(folder / "unfinished")
    for path in (unfinished / "trials").glob("*/done"):
        path.unlink()
    (folder / "empty").mkdir()
    (folder / "no_trials" / "trials").mkdir(parents=True)
    (folder / "alien").mkdir()
    (folder / "alien" / "trials.csv").write_text("a,b\n1,2\n")
    return {
        "missing": (folder / "misspelt", "no such run folder (there are: alien, failed, fine, no_trials, unfinished)"),
        "empty": (folder / "empty", "found neither trials/ nor trials.csv"),
        "no trials": (folder / "no_trials", "no finished trial, 0 unfinished"),
        "failed": (failed, "no finished trial, 9 failed, 0 unfinished. First failure: disk is full (log: "),
        "unfinished": (unfinished, "no finished trial, 9 unfinished; run tune/run.py with --resume"),
        "alien": (folder / "alien", "not a table of trials; its columns are a, b"),
    }


def test_nothing_to_report_is_one_line_and_exit_code_2(tmp_path, capsys):
    for folder, expected in broken_runs(tmp_path).values():
        assert report.main([str(folder)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert captured.err.startswith("error: ") and expected in captured.err
        with pytest.raises(UserError):
            report.build_report(folder)


def test_report_that_cannot_be_written_is_one_line(tmp_path, capsys):
    folder = small_run(tmp_path / "run", methods=("safemil",), seeds=(0,), points=1)
    (folder / "report").write_text("in the way")
    assert report.main([str(folder)]) == 2
    assert re.fullmatch(r"error: .*report.*; the report needs to read and write RUN\n", capsys.readouterr().err)


@pytest.mark.slow
def test_report_runs_as_a_script(tmp_path):
    folder = small_run(tmp_path / "run", methods=("safemil",), seeds=(0,), points=1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "analysis" / "report.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {folder / 'report' / 'report.html'}\n"
