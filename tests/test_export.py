"""A run for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis import export
from analysis.load import CURVE_COLUMNS, load_run, load_trial_tables
from tests.fabricated_run import small_run


@pytest.mark.slow
def test_tensorboard_reads_every_curve_and_result(tmp_path, capsys):
    folder, to = small_run(tmp_path / "run", seeds=(0, 1)), tmp_path / "events"
    assert export.main([str(folder), "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"export: 6 trials in {to}\n"
    run = load_run(folder)
    curves = load_trial_tables(run, "curves.csv", CURVE_COLUMNS)
    assert {path.name for path in to.iterdir()} == set(run.trials["trial_id"])
    for trial in run.trials.to_dict("records"):
        read = EventAccumulator(str(to / trial["trial_id"]))
        read.Reload()
        mine = curves[(curves["trial_id"] == trial["trial_id"]) & (curves["stage"] == "evaluation")]
        events = read.Scalars("evaluation/normalized_cost")
        assert [event.step for event in events] == mine["step"].tolist()
        assert [event.value for event in events] == pytest.approx(mine["normalized_cost"].tolist(), rel=1e-6)
        (result,) = read.Scalars("result/normalized_cost")
        assert result.value == pytest.approx(trial["normalized_cost"], rel=1e-6)
        assert ("cost_model/mil_loss" in read.Tags()["scalars"]) == (not math.isnan(trial["mil_loss_final"]))


def test_an_export_is_not_mixed_with_another(tmp_path, capsys):
    folder = small_run(tmp_path / "run", methods=("bc-all",), seeds=(0,), points=1)
    assert export.main([str(folder), "--to", str(folder)]) == 2
    assert "is not empty" in capsys.readouterr().err
