"""What a trained score says of every trajectory: the tables behind the calibration figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from safemil.data.splits import HiddenLabels, Split
from safemil.data.trajectories import Outcomes, Trajectories
from safemil.evaluation import calibration
from safemil.training.fit_result import FitResult

LENGTHS = (2, 3, 2, 4, 2, 3, 2)  # trajectories 0 and 1 in D_N, 2 to 5 in D_U, 6 outside


class FirstCoordinate(nn.Module):
    """The score of a step is the first coordinate of its observation."""

    def forward(self, observations, actions):
        return observations[..., 0]


@pytest.fixture
def scored() -> tuple[FitResult, Split, HiddenLabels]:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    owner = np.repeat(np.arange(7), LENGTHS)
    data = Trajectories(np.stack([owner / 10, owner], 1).astype(np.float32), np.zeros((len(owner), 1)), offsets)
    bad = np.isin(np.arange(7), [0, 1, 3, 5])
    outcomes = Outcomes(np.ones(len(owner)), bad[owner].astype(np.float32), np.zeros(len(owner), bool), offsets)
    labels = HiddenLabels(outcomes, ~bad, bad, 1.0, {})
    split = Split(data, np.array([0]), np.array([2, 3]), np.array([1]), np.array([4, 5]))
    weights = np.repeat([1.5, 0.5], [2, 4])
    return FitResult(nn.Identity(), FirstCoordinate(), weights=weights), split, labels


def test_every_trajectory_has_its_place_score_truth_and_weight(scored):
    table = calibration.trajectory_table(*scored)
    assert table["trajectory"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert table["set"].tolist() == ["D_N"] * 2 + ["D_U"] * 4 + ["none"]
    assert table["part"].tolist() == ["train", "held_out", "train", "train", "held_out", "held_out", "unused"]
    bad, good = "nonpreferred", "preferred"
    assert table["band"].tolist() == [bad, bad, good, bad, good, bad, good]
    assert table["predicted_cost"] == pytest.approx(np.arange(7) / 10)
    assert table["true_cost"].tolist() == [2, 3, 0, 4, 0, 3, 0]
    assert table["return"].tolist() == table["length"].tolist() == list(LENGTHS)
    assert table["weight"] == pytest.approx([np.nan, np.nan, 1.5, 0.5, np.nan, np.nan, np.nan], nan_ok=True)


def test_a_method_with_weights_alone_has_no_score(scored):
    learned, split, labels = scored
    table = calibration.trajectory_table(FitResult(nn.Identity(), weights=learned.weights), split, labels)
    assert np.isnan(table["predicted_cost"]).all() and np.isfinite(table["weight"]).sum() == 2


def test_examples_are_of_median_cost_and_never_trained_on(scored):
    steps = calibration.example_steps(*scored)
    # Never trained on: 1 and 5 (non-preferred, both of cost 3), 4 and 6 (preferred, both of cost 0).
    assert list(dict.fromkeys(steps["trajectory"].tolist())) == [5, 6]
    assert steps["step"].tolist() == [0, 1, 2, 0, 1]
    assert steps["true_cost"].tolist() == [1, 1, 1, 0, 0]
    assert steps["predicted_cost"] == pytest.approx([0.5] * 3 + [0.6] * 2)
    assert torch.is_inference_mode_enabled() is False


def test_no_examples_where_everything_was_trained_on(scored):
    learned, split, labels = scored
    none = np.zeros(0, dtype=np.int64)
    everything = Split(split.trajectories, np.array([0, 1]), np.arange(2, 7), none, none)
    assert {len(column) for column in calibration.example_steps(learned, everything, labels).values()} == {0}
