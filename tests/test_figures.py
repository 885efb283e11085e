"""From tables and curves to figures, on invented results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import aggregate_figures, calibration_figures, canvas, figures, floors, labels, looks, summary, sweeps
from analysis.load import load_curves, load_run, load_trial_tables
from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics
from tests.fabricated_run import small_run, trial_values, trials_frame


def test_curves_survive_missing_empty_and_half_written_files(tmp_path):
    folder = small_run(tmp_path)
    paths = [folder / "trials" / f"BallCircle-safemil-s{seed}-default" / "curves.csv" for seed in range(3)]
    paths[0].unlink()
    paths[1].write_text("")
    paths[2].write_text("stage,step,mil_loss\ncost_model,0,0.69\ncost_model,10,0.5\ncost_mo")
    curves = load_curves(load_run(folder))
    mine = curves[curves["method"] == "safemil"]
    assert mine["step"].tolist() == [0, 10]
    assert (mine["seed"] == 2).all()


def test_plane_shows_every_seed_and_the_mean(tmp_path):
    run = load_run(small_run(tmp_path, tasks=("BallCircle", "CarRun")))
    figure = figures.return_cost_plane(run.trials, (), looks.looks(run.trials, ()))
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
    curves = load_curves(run)
    figure = figures.learning_curves(curves, "BallCircle", (), looks.looks(run.trials, ()))
    by_title = {panel.get_title(): panel for panel in figure.axes}
    line = by_title["normalized return"].lines[0]
    assert len(line.get_xdata()) == 3
    points = curves[(curves["stage"] == "evaluation") & (curves["step"] == line.get_xdata()[1])]
    assert line.get_ydata()[1] == pytest.approx(points["normalized_return"].mean())


def test_no_learning_curves_from_single_points(tmp_path):
    run = load_run(small_run(tmp_path, points=1))
    assert figures.learning_curves(load_curves(run), "BallCircle", (), looks.looks(run.trials, ())) is None


def test_looks_tell_methods_and_settings_apart():
    methods = [*labels.METHODS, "mine"]
    shown = looks.looks(pd.DataFrame({"method": methods}), ()).values()
    assert len({(look.marker, str(look.line)) for look in shown}) == len(methods)
    sweep = pd.DataFrame({"method": ["safemil"] * 3 + ["bc-all"], "bag_size": [64, 1, 8, ""]})
    shown = looks.looks(sweep, ["bag_size"])
    assert [look.label for look in shown.values()] == ["SafeMIL (K=1)", "SafeMIL (K=8)", "SafeMIL (K=64)", "BC-All"]
    assert len({look.marker for look in shown.values()}) == 4


def test_floors_follow_the_settings_of_the_trials():
    settings = {"mixture": 0.6, "horizon": 5, "contamination": 0, "aggregator": "mean", "mil_loss_final": 0.3}
    rows = [trial_values("safemil", 0, 1.0, bag_size=k, **settings) for k in (1, 64)]
    found = floors.floors_by_value(trials_frame(rows), "bag_size")
    scale = discounted_length(5)
    assert found["large_bags"] == dict.fromkeys((1, 64), metrics.mil_loss_floor(0.4, scale))
    assert found["this_bag_size"][1] == pytest.approx(metrics.mil_loss_floor(0.4, scale, 1))
    full = floors.floors_by_value(trials_frame([{**rows[0], "horizon": "full"}]), "bag_size")
    assert full["large_bags"] == {1: metrics.mil_loss_floor(0.4, 1.0)}
    for unknown in ({"mixture": ""}, {"aggregator": "attention"}, {"contamination": 0.25}):
        assert floors.floors_by_value(trials_frame([{**rows[0], **unknown}]), "bag_size")["large_bags"] == {}


# --- over tasks, and the learned cost ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    return load_run(small_run(folder, tasks=("BallCircle", "CarRun"), methods=("safemil", "ppl", "bc-all")))


def test_performance_profiles_count_runs(paper_run):
    trials = paper_run.trials
    figure = aggregate_figures.performance_profiles(trials, (), looks.looks(trials, ()))
    returns, costs = figure.axes
    mine = trials[trials["method"] == "safemil"]
    for panel, metric, count in ((returns, "normalized_return", np.greater), (costs, "normalized_cost", np.less_equal)):
        x, y = panel.lines[0].get_xdata(), panel.lines[0].get_ydata()
        assert y[77] == pytest.approx(count(mine[metric].to_numpy(), x[77]).mean())
    assert returns.lines[0].get_ydata()[[0, -1]].tolist() == [1.0, 0.0]
    assert costs.lines[0].get_ydata()[[0, -1]].tolist() == [0.0, 1.0]
    for panel in figure.axes:
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() >= 0 and band.max() <= 1


def test_interquartile_means_show_the_interval_of_each_method(paper_run):
    over_tasks = summary.summarize_over_tasks(paper_run.trials, (), 100)
    figure = aggregate_figures.interquartile_means(over_tasks, (), looks.looks(over_tasks, ()), "all tasks")
    bars = [line.get_xdata() for line in figure.axes[1].lines if len(line.get_xdata()) == 2][:3]
    expected = over_tasks[["normalized_cost_low", "normalized_cost_high"]].to_numpy()
    assert np.array(bars) == pytest.approx(expected)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["SafeMIL", "PPL", "BC-All"]


def test_calibration_figures_show_what_training_never_used(paper_run):
    scores = load_trial_tables(paper_run, "scores.csv", ("set", "part", "band", "true_cost"))
    look_of = looks.looks(paper_run.trials, ())
    figure = calibration_figures.predicted_against_true(scores, "BallCircle", (), look_of)
    assert [panel.get_title() for panel in figure.axes] == ["SafeMIL", "PPL"]
    drawn = sum(len(line.get_xdata()) for line in figure.axes[0].lines[:-1])
    assert drawn == 3 * 3 * 20  # seeds x (held-out D_N, held-out D_U, unused) x 20
    weights = calibration_figures.weights_against_cost(scores, "BallCircle", (), look_of)
    assert sum(len(line.get_xdata()) for line in weights.axes[0].lines[:-1]) == 3 * 20  # D_U's training part alone
    histogram = calibration_figures.score_histograms(scores, "BallCircle", (), look_of)
    assert len(histogram.axes[0].patches) == 3
    assert calibration_figures.score_histograms(scores, "Nowhere", (), look_of) is None


def test_steps_that_cost_are_shaded(paper_run):
    steps = load_trial_tables(
        paper_run, "example_steps.csv", ("trajectory", "band", "step", "predicted_cost", "true_cost")
    )
    shown = steps[steps["trial_id"] == "BallCircle-safemil-s0-default"]
    look = next(iter(looks.looks(paper_run.trials, ()).values()))
    bad, good = calibration_figures.steps_of_examples(shown, "BallCircle", look).axes
    assert [tuple(span.get_extents().intervalx) for span in bad.patches] and len(bad.patches) == 3 and not good.patches
    assert bad.get_ylim() == good.get_ylim()


def test_many_settings_are_thinned_to_a_page(tmp_path):
    run = load_run(
        small_run(tmp_path, methods=("safemil",), seeds=(0,), settings=[{"bag_size": k} for k in range(1, 31)])
    )
    scores = load_trial_tables(run, "scores.csv", ("set", "part", "band", "true_cost"))
    figure = calibration_figures.score_histograms(scores, "BallCircle", run.axes, looks.looks(run.trials, run.axes))
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == calibration_figures.MOST_PANELS
    assert titles[0] == "SafeMIL (K=1)" and titles[-1] == "SafeMIL (K=30)"


def test_the_smallest_reliable_bag_size_is_marked(tmp_path):
    run = load_run(small_run(tmp_path, methods=("safemil",), settings=[{"bag_size": k} for k in (1, 8, 64, 256)]))
    figure = figures.axis_curves(run.trials, "BallCircle", "bag_size", ())
    (panel,) = [panel for panel in figure.axes if "AUROC" in panel.get_title()]
    expected = sweeps.reliable_from(run.trials, "bag_size")
    assert expected is not None
    assert any(f"reliable from K = {expected}" in text.get_text() for text in panel.texts)


def test_names_are_slanted_only_where_they_would_touch():
    assert figures._crowded([0.2, 0.5, 0.8, 0.9, 0.95], ["0.2", "0.5", "0.8", "0.9", "0.95"])
    assert not figures._crowded([0, 3, 4, 5, 6, 7, 8], ["1", "8", "16", "32", "64", "128", "256"])
    assert not figures._crowded([64], ["64"])


def test_small_figures_keep_the_color_of_every_method(tmp_path):
    """Among translucent bands, which bring many more colors than a palette holds."""
    figure, (panel,) = canvas.sheet(1, 1, (8, 4), [])
    colors = sorted({color for color, _, _ in looks.METHOD_STYLES.values()})
    for height, color in enumerate(colors):
        panel.fill_between([0, 1], height - 2, height + 2, color=color, alpha=0.2)
    for height, color in enumerate(colors):
        panel.plot([0, 1], [height, height], color=color, linewidth=3)
    saved = np.asarray(Image.open(canvas.save(figure, tmp_path / "colors", small=True)).convert("RGB")).astype(int)
    for color in colors:
        wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        assert abs(saved - wanted).sum(-1).min() < 20, color


def test_saved_figures_are_the_same_each_time(tmp_path, paper_run):
    def draw(name: str) -> list[bytes]:
        figure = figures.return_cost_plane(paper_run.trials, (), looks.looks(paper_run.trials, ()))
        png = canvas.save(figure, tmp_path / name)
        return [png.read_bytes(), png.with_suffix(".pdf").read_bytes()]

    assert draw("first") == draw("second")
