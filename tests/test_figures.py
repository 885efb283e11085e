"""From tables and curves to figures, on invented results."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from analysis import calibration_figures, labels, overview_figures, setting_figures, styles, summary, sweeps
from analysis.load import CURVE_COLUMNS, load_run, load_trial_tables
from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics
from tests.fabricated_run import small_run, trial_values, trials_frame


def test_curves_survive_missing_empty_and_half_written_files(tmp_path):
    folder = small_run(tmp_path)
    paths = [folder / "trials" / f"BallCircle-safemil-s{seed}-default" / "curves.csv" for seed in range(3)]
    paths[0].unlink()
    paths[1].write_text("")
    paths[2].write_text("stage,step,mil_loss\ncost_model,0,0.69\ncost_model,10,0.5\ncost_mo")
    curves = load_trial_tables(load_run(folder), "curves.csv", CURVE_COLUMNS)
    mine = curves[curves["method"] == "safemil"]
    assert mine["step"].tolist() == [0, 10]
    assert (mine["seed"] == 2).all()


def test_plane_shows_every_seed_and_the_mean(tmp_path):
    run = load_run(small_run(tmp_path, tasks=("BallCircle", "CarRun")))
    figure = overview_figures.return_cost_plane(run.trials, (), styles.styles(run.trials, ()))
    assert [panel.get_title() for panel in figure.axes] == ["BallCircle", "CarRun"]
    drawn = [tuple(map(tuple, line.get_xydata())) for line in figure.axes[0].lines]
    mine = run.trials[(run.trials["task"] == "BallCircle") & (run.trials["method"] == "safemil")]
    seeds = tuple(zip(mine["normalized_cost"], mine["normalized_return"], strict=True))
    assert seeds in drawn
    assert (tuple(np.mean(seeds, axis=0)),) in [tuple(tuple(point) for point in line) for line in drawn]


def test_learning_curves_average_only_steps_that_all_seeds_have(tmp_path):
    folder = small_run(tmp_path, methods=("safemil",))
    short = folder / "trials" / "BallCircle-safemil-s2-default" / "curves.csv"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:-3]))
    run = load_run(folder)
    curves = load_trial_tables(run, "curves.csv", CURVE_COLUMNS)
    figure = setting_figures.learning_curves(curves, (), styles.styles(run.trials, ()))
    by_title = {panel.get_title(): panel for panel in figure.axes}
    line = by_title["BallCircle: normalized return"].lines[0]
    assert len(line.get_xdata()) == 3
    points = curves[(curves["stage"] == "evaluation") & (curves["step"] == line.get_xdata()[1])]
    assert line.get_ydata()[1] == pytest.approx(points["normalized_return"].mean())


def test_no_learning_curves_from_single_points(tmp_path):
    run = load_run(small_run(tmp_path, points=1))
    assert (
        setting_figures.learning_curves(
            load_trial_tables(run, "curves.csv", CURVE_COLUMNS), (), styles.styles(run.trials, ())
        )
        is None
    )


def test_styles_tell_methods_and_settings_apart():
    methods = [*labels.METHODS, "mine"]
    shown = styles.styles(pd.DataFrame({"method": methods}), ()).values()
    assert len({(style.marker, str(style.line)) for style in shown}) == len(methods)
    sweep = pd.DataFrame({"method": ["safemil"] * 3 + ["bc-all"], "bag_size": [64, 1, 8, ""]})
    shown = styles.styles(sweep, ["bag_size"])
    assert [style.label for style in shown.values()] == ["SafeMIL (K=1)", "SafeMIL (K=8)", "SafeMIL (K=64)", "BC-All"]
    assert len({style.marker for style in shown.values()}) == 4


def test_loss_bounds_follow_the_settings_of_the_trials():
    settings = {"mixture": 0.6, "horizon": 5, "contamination": 0, "aggregator": "mean", "mil_loss_final": 0.3}
    rows = [trial_values("safemil", 0, 1.0, bag_size=k, **settings) for k in (1, 64)]
    found = sweeps.loss_bounds(trials_frame(rows), "bag_size")
    scale = discounted_length(5)
    assert found["large_bags"] == dict.fromkeys((1, 64), metrics.mil_loss_floor(0.4, scale))
    assert found["this_bag_size"][1] == pytest.approx(metrics.mil_loss_floor(0.4, scale, 1))
    full = sweeps.loss_bounds(trials_frame([{**rows[0], "horizon": "full"}]), "bag_size")
    assert full["large_bags"] == {1: metrics.mil_loss_floor(0.4, 1.0)}
    for unknown in ({"mixture": ""}, {"aggregator": "attention"}, {"contamination": 0.25}):
        assert sweeps.loss_bounds(trials_frame([{**rows[0], **unknown}]), "bag_size")["large_bags"] == {}


# --- over tasks, and the learned cost ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    return load_run(small_run(folder, tasks=("BallCircle", "CarRun"), methods=("safemil", "ppl", "bc-all")))


def test_performance_profiles_count_runs(paper_run):
    trials = paper_run.trials
    figure = overview_figures.performance_profiles(trials, (), styles.styles(trials, ()))
    costs, returns = figure.axes
    mine = trials[trials["method"] == "safemil"]
    for panel, metric, count in ((returns, "normalized_return", np.greater), (costs, "normalized_cost", np.less_equal)):
        x, y = panel.lines[0].get_xdata(), panel.lines[0].get_ydata()
        middle = len(x) // 2
        assert y[middle] == pytest.approx(count(mine[metric].to_numpy(), x[middle]).mean())
    assert returns.lines[0].get_ydata()[[0, -1]].tolist() == [1.0, 0.0]
    assert costs.lines[0].get_ydata()[[0, -1]].tolist() == [0.0, 1.0]
    for panel in figure.axes:
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() >= 0 and band.max() <= 1


def test_calibration_figures_show_what_training_never_used(paper_run):
    scores = load_trial_tables(paper_run, "scores.csv", ("set", "part", "band", "true_cost"))
    style_of = styles.styles(paper_run.trials, ())
    figure = calibration_figures.predicted_against_true(scores, (), style_of)
    titles = [panel.get_title().split(",")[0] for panel in figure.axes]
    assert titles == ["BallCircle\nSafeMIL", "BallCircle\nPPL", "CarRun\nSafeMIL", "CarRun\nPPL"]

    def count(panel) -> int:
        return sum(len(line.get_xdata()) for line in panel.lines if line.get_linestyle() == "None")

    drawn = count(figure.axes[0])
    assert drawn == 3 * 3 * 20  # seeds x (held-out D_N, held-out D_U, unused) x 20
    weights = calibration_figures.weights_against_cost(scores, (), style_of)
    assert count(weights.axes[0]) == 3 * 20  # D_U's training part alone
    ranks = calibration_figures.score_ranks(scores, (), style_of)
    held_out, nonpreferred, preferred = (line.get_xdata()[1:] for line in ranks.axes[0].lines[:3])
    assert len(held_out) and np.median(preferred) < np.median(nonpreferred) <= 1
    assert calibration_figures.score_ranks(scores[:0], (), style_of) is None


def test_steps_that_cost_are_shaded(paper_run):
    steps = load_trial_tables(
        paper_run, "example_steps.csv", ("trajectory", "band", "step", "predicted_cost", "true_cost")
    )
    shown = steps[steps["trial_id"] == "BallCircle-safemil-s0-default"]
    bad, good = calibration_figures.steps_of_examples(shown).axes
    assert [tuple(span.get_extents().intervalx) for span in bad.patches] and len(bad.patches) == 3 and not good.patches
    assert bad.get_ylim() == good.get_ylim()


def test_many_settings_are_thinned_to_a_page(tmp_path):
    run = load_run(
        small_run(tmp_path, methods=("safemil",), seeds=(0,), settings=[{"bag_size": k} for k in range(1, 31)])
    )
    scores = load_trial_tables(run, "scores.csv", ("set", "part", "band", "true_cost"))
    figure = calibration_figures.score_ranks(scores, run.axes, styles.styles(run.trials, run.axes))
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == calibration_figures.MOST_PANELS
    assert titles[0] == "SafeMIL (K=1)" and titles[-1] == "SafeMIL (K=30)"


def test_the_smallest_reliable_bag_size_is_marked(tmp_path):
    run = load_run(small_run(tmp_path, methods=("safemil",), settings=[{"bag_size": k} for k in (1, 8, 64, 256)]))
    figure = setting_figures.axis_curves(run.trials, "bag_size", ())
    (panel,) = [panel for panel in figure.axes if "AUROC" in panel.get_title()]
    expected = sweeps.reliable_from(run.trials, "bag_size")
    assert expected is not None
    assert any(f"reliable from K = {expected}" in text.get_text() for text in panel.texts)


def drawn_points(panel) -> set[tuple[float, float]]:
    """The small points of a panel: seeds."""
    lines = [line for line in panel.lines if line.get_markersize() == 3]
    return {tuple(np.round(point, 3)) for line in lines for point in line.get_xydata()}


def test_forest_shows_every_seed_the_mean_and_a_t_interval(tmp_path):
    run = load_run(small_run(tmp_path, tasks=("BallCircle", "CarRun")))
    figure = overview_figures.forest(run.trials, (), styles.styles(run.trials, ()))
    assert [panel.get_title() for panel in figure.axes] == ["BallCircle", "CarRun", "", ""]
    mine = run.trials[(run.trials["task"] == "BallCircle") & (run.trials["method"] == "safemil")]["normalized_cost"]
    assert {(round(cost, 3), 0.0) for cost in mine} <= drawn_points(figure.axes[0])
    lines = [line.get_xdata() for line in figure.axes[0].lines]
    assert any(len(x) and np.isclose(x, mine.mean()).any() for x in lines)
    assert any(len(x) == 2 and np.allclose(x, summary.t_interval(mine)) for x in lines)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["SafeMIL", "BC-All", "BC-Safe"]


def test_a_task_without_a_method_keeps_its_row(tmp_path):
    run = load_run(small_run(tmp_path, tasks=("BallCircle", "CarRun")))
    trials = run.trials[(run.trials["task"] != "CarRun") | (run.trials["method"] == "bc-safe")]
    figure = overview_figures.forest(trials, (), styles.styles(trials, ()))
    assert {y for _, y in drawn_points(figure.axes[1])} == {2.0}


def test_a_setting_shows_every_seed_beside_means_with_intervals(tmp_path):
    settings = [{"bag_size": k} for k in (1, 8, 64)]
    run = load_run(small_run(tmp_path, methods=("safemil", "bc-all"), settings=settings))
    panel = setting_figures.axis_curves(run.trials, "bag_size", ()).axes[0]
    assert panel.get_title() == "BallCircle: normalized return"
    mine = run.trials[run.trials["method"] == "safemil"]
    drawn = sorted(y for _, y in drawn_points(panel))
    assert drawn == pytest.approx(sorted(mine["normalized_return"]), abs=1e-3)
    means = mine.groupby("bag_size")["normalized_return"].mean().tolist()
    assert any(len(line.get_ydata()) == 3 and np.allclose(line.get_ydata(), means) for line in panel.lines)
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "8", "64"]


def test_cost_axes_are_logarithmic_above_the_limit_only_where_costs_are_large():
    _, (small, large) = styles.panel_grid(2, 2, (3, 3))
    styles.cost_axis(small, "x", 1.5)
    styles.cost_axis(large, "y", 30.0)
    assert small.get_xscale() == "linear" and large.get_yscale() == "symlog"
    assert small.get_xlim()[1] >= 1.5 and large.get_ylim()[1] > 30 and 1 in small.get_xticks()


def test_roles_decide_how_methods_are_drawn():
    shown = {
        key[0]: style for key, style in styles.styles(pd.DataFrame({"method": [*labels.METHODS, "mine"]}), ()).items()
    }
    assert all(style.hollow == (labels.method_role(name) == "oracle") for name, style in shown.items())
    assert [name for name, style in shown.items() if style.color == shown["safemil"].color] == ["safemil"]


def test_an_svg_names_its_colors_and_says_what_they_are_in_the_dark(paper_run):
    figure = overview_figures.forest(paper_run.trials, (), styles.styles(paper_run.trials, ()))
    head, body = styles.to_svg(figure).split("</style>", 1)
    assert not [color for color in styles.DARK if color in body]
    for color, (name, dark) in styles.DARK.items():
        assert f"--{name}:{color};" in head and f"--{name}:{dark};" in head
    assert "var(--ours)" in body and ">SafeMIL<" in body, "text stays text"


def test_an_svg_shortens_places_and_never_what_is_read():
    figure, (panel,) = styles.panel_grid(1, 1, (3, 3))
    panel.plot([0, 1], [0.61234567, 0.7], color=styles.INK)
    panel.set_yticks([0.625, 0.675])
    svg = styles.to_svg(figure)
    assert ">0.625<" in svg and ">0.675<" in svg
    assert not [tag for tag in re.findall(r"<path[^>]+>", svg) if re.search(r"\d\.\d{3}", tag)]


def test_a_narrow_figure_has_the_same_panels_one_above_the_other(paper_run):
    style_of = styles.styles(paper_run.trials, ())
    for draw in (overview_figures.forest, overview_figures.return_cost_plane):
        wide, narrow = draw(paper_run.trials, (), style_of), draw(paper_run.trials, (), style_of, narrow=True)
        assert len(wide.axes) == len(narrow.axes)
        assert narrow.get_figwidth() <= 4 and narrow.get_figheight() >= wide.get_figheight()


def test_saved_figures_are_the_same_each_time(tmp_path, paper_run):
    def draw(name: str) -> list[bytes]:
        figure = overview_figures.return_cost_plane(paper_run.trials, (), styles.styles(paper_run.trials, ()))
        styles.save(figure, tmp_path / name)
        return [(tmp_path / f"{name}.{ending}").read_bytes() for ending in ("svg", "pdf")]

    assert draw("first") == draw("second")
