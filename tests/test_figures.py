"""From tables and curves to figures, on invented results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis import figures, floors, labels, looks
from analysis.load import load_curves, load_run
from safemil import metrics
from safemil.discounting import discounted_length
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
