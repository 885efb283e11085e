"""From result folders to tables, on invented results: what is read, what is counted, what is left out."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis import labels, summary, sweeps, table_text, tables, trial_rows, wide_tables
from analysis.load import Run, load_run, varying_axes, write_trials_csv
from safemil.config.swept import SWEPT
from safemil.evaluation import aggregates
from safemil.evaluation.diagnostics import failure_signatures
from tests.fabricated_run import edit_row, small_run, trial_values, trials_frame

ROOT = Path(__file__).resolve().parent.parent


# --- loading -----------------------------------------------------------------------------------------------------


def test_trials_csv_alone_gives_the_same_table(tmp_path):
    folder = small_run(tmp_path / "run")
    edit_row(folder / "trials" / "BallCircle-safemil-s1-default", warnings=["cost collapse", "weight collapse"])
    from_folders = load_run(folder)
    write_trials_csv(folder)
    shutil.rmtree(folder / "trials")
    from_table = load_run(folder)
    assert from_folders.has_folders and not from_table.has_folders
    pd.testing.assert_frame_equal(from_folders.trials, from_table.trials)
    assert from_table.trials["warnings"].tolist().count("cost collapse;weight collapse") == 1


def test_trials_csv_has_fixed_columns_and_does_not_depend_on_the_order_of_writing(tmp_path):
    first = small_run(tmp_path / "first")
    second = small_run(tmp_path / "second", seeds=(2, 0, 1), methods=("bc-safe", "safemil", "bc-all"))
    edit_row(first / "trials" / "BallCircle-safemil-s0-default", discount=0.99)
    edit_row(second / "trials" / "BallCircle-safemil-s0-default", discount=0.99)
    content = write_trials_csv(first).read_bytes()
    assert content == write_trials_csv(second).read_bytes() == write_trials_csv(second).read_bytes()
    rows = list(csv.reader(content.decode().splitlines()))
    assert tuple(rows[0]) == (*trial_rows.TRIAL_COLUMNS, "discount")
    assert [row[2:4] for row in rows[1:4]] == [["bc-all", "0"], ["bc-all", "1"], ["bc-all", "2"]]
    assert sorted(path.name for path in first.iterdir()) == ["run.json", "trials", "trials.csv"]


def test_settings_are_sorted_by_size_and_full_comes_last(tmp_path):
    folder = small_run(tmp_path, methods=("safemil",), seeds=(0,), settings=[{"horizon": h} for h in ("full", 100, 5)])
    assert load_run(folder).trials["horizon"].tolist() == [5, 100, "full"]


def test_failed_and_unfinished_trials_are_listed_and_left_out(tmp_path):
    folder = small_run(tmp_path)
    safemil, bc_all, bc_safe = (
        folder / "trials" / f"BallCircle-{m}-s0-default" for m in ("safemil", "bc-all", "bc-safe")
    )
    edit_row(safemil, status="failed", reason="mil_loss is not finite at step 12")
    (bc_all / "done").unlink()
    (bc_safe / "row.json").write_text('{"task": "Ball')
    no_row = folder / "trials" / "BallCircle-safemil-s1-default"
    (no_row / "row.json").unlink()
    (no_row / "done").unlink()
    (no_row / "error.txt").write_text("Traceback\nOSError: disk is full\n")
    edit_row(folder / "trials" / "BallCircle-bc-all-s1-default", normalized_cost=None)
    planned = {**json.loads((folder / "run.json").read_text()), "trials": ["BallCircle-ppl-s0-default", bc_all.name]}
    (folder / "run.json").write_text(json.dumps(planned))
    run = load_run(folder)
    failed = {problem.trial_id: problem.reason for problem in run.failed}
    assert failed == {safemil.name: "mil_loss is not finite at step 12", no_row.name: "OSError: disk is full"}
    unfinished = {problem.trial_id: problem.reason for problem in run.unfinished}
    assert "not finished" in unfinished[bc_all.name]
    assert "without a readable row.json" in unfinished[bc_safe.name]
    assert "no normalized_cost" in unfinished["BallCircle-bc-all-s1-default"]
    assert "never started" in unfinished["BallCircle-ppl-s0-default"]
    assert len(run.trials) == 9 - 5


def test_axes_are_what_varies_within_a_task_and_a_method():
    rows = [trial_values("safemil", s, 1.0, task=t, horizon=h) for s in (0, 1) for t, h in (("A", 5), ("B", 10))]
    assert varying_axes(trials_frame([*rows, trial_values("ppl", 0, 1.0, task="A", bag_size=1)])) == ()
    rows = [
        trial_values("safemil", 0, 1.0, mixture=m, n_unlabeled=n, bag_size=k)
        for m, n in ((0.2, 60), (0.5, 96))
        for k in (1, 8)
    ]
    assert varying_axes(trials_frame(rows)) == ("bag_size", "n_unlabeled")
    assert varying_axes(trials_frame(rows), ["split.mixture", "cost_model.bag_size"]) == ("mixture", "bag_size")
    # Seeds of one setting only: known from run.json alone.
    rows = [trial_values("safemil", 0, 1.0, horizon=5), trial_values("safemil", 1, 1.0, horizon="full")]
    assert varying_axes(trials_frame(rows)) == ()
    assert varying_axes(trials_frame(rows), ["cost_model.segment_length", "policy.steps"]) == ("horizon",)


def test_the_same_seed_twice_is_noticed(tmp_path):
    folder = small_run(tmp_path)
    shutil.copytree(
        folder / "trials" / "BallCircle-safemil-s0-default", folder / "trials" / "BallCircle-safemil-s0-other"
    )
    assert load_run(folder).duplicates == ["BallCircle-safemil-s0-default, BallCircle-safemil-s0-other"]


# --- numbers -----------------------------------------------------------------------------------------------------


def test_summary_by_hand():
    costs = {"safemil": (0.8, 1.2), "ppl": (1.5, 1.7), "bc-safe": (0.1, 0.3), "dwbc": (0.2,)}
    goals = {"safemil": 0.6, "ppl": 0.9, "bc-safe": 0.8, "dwbc": 0.4}
    table = summary.summarize(
        trials_frame([trial_values(m, s, c, goals[m]) for m, cs in costs.items() for s, c in enumerate(cs)]), ()
    )
    assert table["method"].tolist() == ["safemil", "ppl", "dwbc", "bc-safe"]
    row = table.set_index("method")
    assert row.loc["safemil", "normalized_cost_mean"] == pytest.approx(1.0)
    assert row.loc["safemil", "normalized_cost_std"] == pytest.approx(math.sqrt(0.08))
    assert math.isnan(row.loc["dwbc", "normalized_cost_std"])
    assert row["safe"].to_dict() == {"safemil": True, "ppl": False, "dwbc": True, "bc-safe": True}
    # BC-Safe returns more, but it is an oracle; PPL too, but it is not safe.
    assert row.index[row["best_safe_return"]].tolist() == ["safemil"]


def test_summary_over_tasks_needs_every_task():
    rows = [
        trial_values(m, s, c + s, task=t)
        for m, c in (("safemil", 0.0), ("bc-all", 4.0))
        for s in range(4)
        for t in "AB"
    ]
    table = summary.summarize_over_tasks(trials_frame([*rows, trial_values("ppl", 0, 1.0, task="A")]), ()).set_index(
        "method"
    )
    assert table.loc["safemil", "normalized_cost_iqm"] == aggregates.iqm(np.repeat([[0.0], [1.0], [2.0], [3.0]], 2, 1))
    assert table.loc["safemil", "normalized_cost_low"] < 1.5 < table.loc["safemil", "normalized_cost_high"]
    assert table.loc["safemil", "safe_tasks"] == 0
    assert math.isnan(table.loc["ppl", "normalized_cost_iqm"])
    assert summary.summarize_over_tasks(trials_frame([trial_values("safemil", 0, 1.0)]), ()).empty


def test_runs_of_tasks_with_different_seeds_are_all_used():
    """Tasks are redrawn on their own, so a run of a matrix need not be of one seed."""
    rows = [
        trial_values("safemil", s, c, task=t)
        for t, s, c in (("A", 0, 1.0), ("A", 3, 2.0), ("B", 1, 5.0), ("B", 2, 6.0))
    ]
    matrix = summary.run_matrix(trials_frame(rows), "normalized_cost", ["A", "B"])
    assert matrix.tolist() == [[1.0, 5.0], [2.0, 6.0]]
    assert summary.run_matrix(trials_frame(rows[:3]), "normalized_cost", ["A", "B"]).tolist() == [[1.0, 5.0]]
    assert summary.run_matrix(trials_frame(rows), "normalized_cost", ["A", "B", "C"]).shape == (0, 3)


def test_summary_has_the_interquartile_mean_of_each_task():
    rows = [trial_values("safemil", s, c) for s, c in enumerate((0.0, 1.0, 2.0, 50.0))]
    row = summary.summarize(trials_frame(rows), (), 500).iloc[0]
    assert row["normalized_cost_iqm"] == 1.5
    assert 0 <= row["normalized_cost_low"] < 1.5 < row["normalized_cost_high"] <= 50


# --- comparison --------------------------------------------------------------------------------------------------


def compared_by_hand() -> pd.DataFrame:
    costs = {"safemil": (0.5, 1.0), "ppl": (1.0, 4.0), "dwbc": (3.0, 2.0), "bc-safe": (0.25, 0.5)}
    rows = [
        trial_values(m, s, c + 0.1 * s, task=t, cost_mean=25 * c, normalized_cost_reference=25 * c - 5)
        for m, pair in costs.items()
        for t, c in zip("AB", pair, strict=True)
        for s in range(3)
    ]
    return trials_frame(rows)


def test_comparison_with_each_method_by_hand():
    table = summary.compare_methods(compared_by_hand(), (), 300).set_index("method")
    assert table.index.tolist() == ["ppl", "dwbc", "bc-safe"]
    # By task, paired by seed: 0.5 - 1 and 1 - 4; Student's interval of the two has one degree of freedom.
    assert table.loc["ppl", "cost_difference"] == pytest.approx(-1.75)
    ends = table.loc["ppl", ["cost_difference_low", "cost_difference_high"]].tolist()
    assert ends == pytest.approx([-1.75 - 12.7062 * 1.25, -1.75 + 12.7062 * 1.25], rel=1e-5)
    # Six pairs, all on one side: two of the 64 patterns of signs are as extreme.
    assert table.loc["ppl", "cost_difference_p"] == pytest.approx(2 / 64)
    assert table.loc["ppl", "safer"] == 1.0 and table.loc["bc-safe", "safer"] == 0.0
    assert table.loc["dwbc", ["lower_cost_tasks", "lower_iqm_tasks", "tasks"]].tolist() == [2, 2, 2]
    assert table.loc["dwbc", "better_return"] == 0.5 and table.loc["dwbc", "return_difference"] == 0.0


def test_paired_differences_of_one_task_by_hand():
    """d = -1, -2, -3: mean -2, standard error 1 / sqrt(3), t(2) 4.302653; -d and d alone are as extreme."""
    found = summary.paired_columns("d", [np.array([-1.0, -2.0, -3.0])])
    assert found["d"] == -2.0 and found["d_p"] == 2 / 8
    assert [found["d_low"], found["d_high"]] == pytest.approx([-2 - 4.302653 / 3**0.5, -2 + 4.302653 / 3**0.5])
    many = summary.paired_columns("d", [np.full(10, -1.0)] * 2)  # too many patterns to try them all
    assert 0 < many["d_p"] < 0.001
    assert math.isnan(summary.paired_columns("d", [np.array([]), np.array([1.0])])["d"])


def test_differences_are_paired_by_seed_and_unknown_methods_are_compared_with_none():
    costs = {"safemil": {0: 1.0, 1: 5.0}, "ppl": {1: 6.0, 0: 3.0, 2: 9.0}, "mine": {0: 1.0}}
    trials = trials_frame([trial_values(m, s, c) for m, by_seed in costs.items() for s, c in by_seed.items()])
    (pairs,) = summary.paired_differences(trials, "normalized_cost", "ppl", ["BallCircle"])
    assert pairs.tolist() == [-2.0, -1.0]
    assert summary.compare_methods(trials, (), 50)["method"].tolist() == ["ppl"]


def test_safety_ratio_is_against_the_safest_label_limited_baseline_of_each_task():
    table = summary.safety_ratios(compared_by_hand(), (), 300).set_index("reading")
    assert table["baselines"].tolist() == [2, 2, 2] and table["tasks"].tolist() == [2, 2, 2]
    # PPL is the safest baseline of A, DWBC of B; the oracle BC-Safe is none.
    expected = (1.1 / 0.6 + 2.1 / 1.1) / 2
    assert table.loc["cost over cost limit", "ratio"] == pytest.approx(expected)
    assert table.loc["normalized cost plus 1", "ratio"] == pytest.approx((2.1 / 1.6 + 3.1 / 2.1) / 2)
    assert table.loc["cost above the reference, plus 1", "ratio"] == pytest.approx((21 / 8.5 + 46 / 21) / 2)


def test_a_sweep_is_no_method_to_compare():
    for compare in (summary.compare_methods, summary.safety_ratios):
        assert compare(compared_by_hand(), ("bag_size",), 10).empty
        assert compare(compared_by_hand().query("method != 'safemil'"), (), 10).empty


# --- sweeps ------------------------------------------------------------------------------------------------------


def sweep_of(worst: dict) -> pd.DataFrame:
    return trials_frame(
        [trial_values("safemil", s, 1.0, bag_size=k, auroc=a) for k, a in worst.items() for s, a in ((0, 1.0), (1, a))]
    )


@pytest.mark.parametrize(
    ("worst_seed", "expected"),
    [
        ({1: 0.5, 8: 0.91, 64: 0.95}, 8),
        ({1: 0.95, 8: 0.7, 64: 0.9}, 64),  # once reliable is not enough: every larger one must be
        ({1: 0.95, 8: 0.95, 64: 0.89}, None),
        ({1: 0.95, 8: math.nan, 64: 0.95}, 64),
        ({8: 0.9}, 8),
    ],
)
def test_reliable_from_the_value_where_every_seed_separates_here_and_above(worst_seed, expected):
    assert sweeps.reliable_from(sweep_of(worst_seed), "bag_size") == expected
    assert sweeps.reliable_from(sweep_of(worst_seed), "horizon") is None


def test_every_swept_setting_has_a_column_and_a_name():
    assert tuple(swept.column for swept in SWEPT) == trial_rows.AXES
    for swept in SWEPT:
        assert trial_rows.column_of_setting(swept.setting) == swept.column and swept.short and swept.title
    assert trial_rows.column_of_setting("weights.beta") == "weights.beta"
    assert trial_rows.column_of_setting("evaluation.episodes") == "episodes"


# --- tables ------------------------------------------------------------------------------------------------------


@pytest.fixture
def warned_run(tmp_path):
    """Two tasks, one seed's failure signature, one row with a single seed."""
    folder = small_run(tmp_path, tasks=("BallCircle", "CarRun"))
    edit_row(folder / "trials" / "BallCircle-safemil-s1-default", warnings="memorized D_N; cost collapse")
    for seed in (1, 2):
        shutil.rmtree(folder / "trials" / f"CarRun-bc-all-s{seed}-default")
    run = load_run(folder)
    return run, summary.summarize(run.trials, run.axes)


def test_main_table(warned_run):
    table = tables.main_table(*warned_run)
    assert [(row.group, row.cells[0].text) for row in table.rows] == [
        (task, name) for task in ("BallCircle", "CarRun") for name in ("SafeMIL", "BC-All", "BC-Safe †")
    ]
    _, by_task = warned_run
    assert [row.cells[2].bold for row in table.rows] == list(by_task["safe"])
    stars = [row.cells[table.header.index("Best")].text for row in table.rows]
    assert stars == ["★" if best else "" for best in by_task["best_safe_return"]] and "★" in stars
    assert table.rows[0].cells[-1].text == "a 1/3, b 1/3"
    assert "b: memorized D_N (in so many of the seeds)" in table.notes
    lone = table.rows[4].cells
    assert re.fullmatch(r"\d\.\d\d", lone[1].text), "one seed has no spread"
    assert lone[-2].text == "1 × 50"


def test_a_safe_mean_shows_the_seeds_that_are_not():
    rows = [trial_values("safemil", s, c) for s, c in enumerate((0.5, 0.6, 1.2))] + [trial_values("ppl", 0, 0.5)]
    by_task = summary.summarize(trials_frame(rows), (), 20)
    run = Run(Path("run"), trials_frame(rows), (), (), (), {}, False)
    cells = [
        row.cells[tables.main_table(run, by_task).header.index("Safe")] for row in tables.main_table(run, by_task).rows
    ]
    assert [cell.text for cell in cells] == ["✓ 2/3", "✓"]


def test_methods_by_tasks_marks_safe_costs_and_the_best_safe_method(warned_run):
    run, by_task = warned_run
    table = wide_tables.methods_by_task(run, by_task)
    assert table.header == ("Method", "BallCircle", "CarRun")
    assert [row.cells[0].text for row in table.rows] == ["SafeMIL", "BC-All", "BC-Safe †"] * 3
    blocks = {row.group for row in table.rows}
    assert blocks == {"Normalized return ↑", "Normalized cost ↓", "CVaR 20 % of the cost ↓"}
    safe = [[cell.bold for cell in row.cells[1:]] for row in table.rows[3:6]]
    assert safe == [list(by_task[by_task["method"] == name]["safe"]) for name in ("safemil", "bc-all", "bc-safe")]
    stars = [row.cells[1].text.endswith("★") for row in table.rows]
    assert stars == [True] + [False] * 8, "the return alone, never its cost"


def test_signatures_are_listed_with_their_seeds(warned_run):
    run, _ = warned_run
    table = wide_tables.signatures_table(run)
    assert [(row.group, row.cells[0].text, row.cells[1].text) for row in table.rows] == [
        ("cost collapse", "BallCircle, SafeMIL", "1 of 3"),
        ("memorized D_N", "BallCircle, SafeMIL", "1 of 3"),
    ]
    separated = {"auroc_unlabeled_train": 0.99, "auroc_unlabeled_held_out": 0.99}  # held out as well: not memorized
    found = {name for row in (everything_wrong(), separated) for name in failure_signatures(row)}
    assert set(labels.SIGNATURES) == found


def everything_wrong() -> dict:
    """Numbers that raise every alarm that can be raised at once, and the last with them."""
    return {
        **{"mil_loss_final": math.log(2), "auroc_unlabeled": 0.5, "saturated_share": 1.0, "weight_ess_share": 0.01},
        **{"auroc_unlabeled_train": 0.9, "auroc_unlabeled_held_out": 0.5, "held_out_nonpreferred": 10},
        **{
            "length_correlation": 0.9,
            "normalized_return": 0.0,
            "normalized_cost": 0.0,
            "oracle_return_correlation": 0.9,
        },
    }


def test_settings_without_a_column_come_from_the_configuration(tmp_path):
    folder = small_run(tmp_path, methods=("safemil",), settings=[{"bag_size": k} for k in (8, 64)])
    for path in (folder / "trials").iterdir():
        beta = 0.1 if path.name.endswith("_8") else 0.6
        config = {"split": {"spread": beta}, "method_config": {"weights": {"beta": beta}}}
        (path / "config.json").write_text(json.dumps(config))
        edit_row(path, bag_size=64)
    axes = {"weights.beta": [0.1, 0.6], "split.nothing": []}
    (folder / "run.json").write_text(json.dumps({"axes": axes}))
    run = load_run(folder)
    assert run.axes == ("weights.beta",) and sorted(set(run.trials["weights.beta"])) == [0.1, 0.6]
    write_trials_csv(folder)
    shutil.rmtree(folder / "trials")
    pd.testing.assert_frame_equal(load_run(folder).trials, run.trials)


def test_notes_column_only_where_there_are_notes(tmp_path):
    run = load_run(small_run(tmp_path))
    table = tables.main_table(run, summary.summarize(run.trials, run.axes))
    assert table.header[-1] == "Seeds × episodes"
    assert all(len(row.cells) == len(table.header) for row in table.rows)


def test_numbers_never_read_minus_zero_and_blanks_are_dashes():
    assert tables.decimal(-0.001) == "0.00"
    assert tables.decimal(-0.126) == "-0.13"
    assert tables.decimal(math.nan) == "–"


def test_axis_table_has_a_block_for_each_method_that_varies(tmp_path):
    folder = small_run(tmp_path, settings=[{"bag_size": k} for k in (128, 8, 1)], axes=["cost_model.bag_size"])
    run = load_run(folder)
    assert run.axes == ("bag_size",)
    table = tables.axis_table(run, summary.summarize(run.trials, run.axes), "bag_size")
    assert {row.group for row in table.rows} == {"BallCircle, SafeMIL"}
    assert [row.cells[0].text for row in table.rows] == ["1", "8", "128"]
    names = [row.cells[0].text for row in tables.main_table(run, summary.summarize(run.trials, run.axes)).rows]
    assert names == ["SafeMIL (K=1)", "SafeMIL (K=8)", "SafeMIL (K=128)", "BC-All", "BC-Safe †"]


def test_latex_is_escaped_balanced_and_rectangular(warned_run):
    table = tables.main_table(*warned_run)
    odd = tables.replace(table, title="50 % of |D_N| & #1_{x} ~ ^ \\", rows=table.rows[:3])
    text = table_text.to_latex(odd)
    assert (
        r"50 \% of \textbar{}$D_N$\textbar{} \& \#1\_\{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
        in text
    )
    assert text.isascii()
    unescaped = re.sub(r"\\[\\{}&%$#_]", "", text.replace("\\\\", ""))
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0
    body = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert [re.sub(r"\\&", "", line).count("&") for line in body] == [len(table.header)] * 4, "the task comes first"
    bold = sum(cell.bold for row in odd.rows for cell in row.cells)
    assert text.count(r"\textbf{") == bold and text.count("BallCircle &") == 1
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_latex_compiles(warned_run, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    run, by_task = warned_run
    over_tasks = summary.summarize_over_tasks(run.trials, run.axes, 50)
    compared = summary.compare_methods(run.trials, run.axes, 50)
    ratios = summary.safety_ratios(run.trials, run.axes, 50)
    made = [tables.main_table(run, by_task), tables.overall_table(run, by_task, over_tasks)]
    made += [wide_tables.methods_by_task(run, by_task), wide_tables.comparison_table(compared)]
    made += [wide_tables.ratio_table(ratios), wide_tables.signatures_table(run), wide_tables.diagnostics_table(run)]
    missing = ("Not in this table: of 10 trials, 1 failed.", "CarRun-ppl_1: 50 % & {more} \\ of D_N")
    body = "\n".join(table_text.to_latex(tables.replace(table, missing=missing)) for table in made)
    source = rf"\documentclass{{article}}\usepackage{{booktabs,amssymb}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "table.tex").write_text(source)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("this LaTeX has no booktabs")
    assert done.returncode == 0, done.stdout[-2000:]


def test_markdown_is_rectangular(warned_run):
    lines = [line for line in table_text.to_markdown(tables.main_table(*warned_run)).splitlines() if line[:1] == "|"]
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
    assert "**0." in lines[2] and "★" in lines[2]


def test_console_table_fits_80_columns(warned_run):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table_text.to_console(tables.main_table(*warned_run)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "SafeMIL" in text and "a 1/3" in text
