"""Diagnostics on scores whose quality is known, and each failure signature on numbers that show it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from safemil.evaluation import diagnostics
from safemil.training.fit_result import FitResult
from tests.conftest import toy_splits


class FirstAction(nn.Module):
    """Scores a step by its first action: in the toy dataset the truth itself; ``sign`` -1 is always wrong."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, observations, actions):
        return torch.sigmoid(10 * self.sign * actions[..., 0])


def learned(sign: float = 1.0, weights=None) -> FitResult:
    return FitResult(None, FirstAction(sign), weights=weights)


def test_a_perfect_score():
    (pair,) = toy_splits()
    split, labels = pair
    found = diagnostics.oracle(learned(), split, labels)
    assert found["auroc"] == 1.0 and found["oracle_step_auroc"] == 1.0
    free = diagnostics.label_free(learned(), split)
    share = labels.preferred[split.unlabeled_held_out].mean()
    # Within the non-preferred class the score is noise, so the ceiling (1 + p) / 2 holds up to sampling.
    assert free["auroc_unlabeled"] == pytest.approx((1 + share) / 2, abs=0.25)
    assert diagnostics.oracle(learned(-1.0), split, labels)["auroc"] == 0.0


def test_weights_of_few_trajectories_have_a_small_effective_sample():
    (pair,) = toy_splits()
    split = pair[0]
    lengths = split.trajectories.lengths[split.unlabeled]
    weights = np.repeat((np.arange(len(lengths)) == 0).astype(float), lengths)
    free = diagnostics.label_free(learned(weights=weights), split)
    assert free["weight_ess"] == pytest.approx(1.0)
    assert "weight collapse" in diagnostics.failure_signatures(free)
    even = diagnostics.label_free(learned(weights=np.ones(lengths.sum())), split)
    assert even["weight_ess_share"] == pytest.approx(1.0)
    assert even["weight_entropy"] == pytest.approx(math.log(len(lengths)))


def test_a_method_without_a_score_has_no_diagnostics():
    (pair,) = toy_splits()
    assert diagnostics.label_free(FitResult(None), pair[0]) == {}
    assert diagnostics.oracle(FitResult(None), *pair) == {}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("cost collapse", {"mil_loss_final": 0.692, "auroc_unlabeled": 0.5}),
        (
            "memorized D_N",
            {"auroc_unlabeled_train": 0.95, "auroc_unlabeled_held_out": 0.6, "held_out_nonpreferred": 10},
        ),
        ("D_N of another kind", {"auroc_unlabeled_train": 0.97, "auroc_unlabeled_held_out": 0.95}),
        ("over-saturation", {"saturated_share": 0.99, "auroc_unlabeled": 0.52}),
        ("weight collapse", {"weight_ess_share": 0.02}),
        ("length shortcut", {"length_correlation": -0.9}),
        ("safe but immobile", {"normalized_return": 0.02, "normalized_cost": 0.0, "oracle_return_correlation": 0.7}),
    ],
)
def test_each_signature_is_found_alone(name, row):
    assert diagnostics.failure_signatures(row) == [name]


def test_a_healthy_trial_raises_no_alarm():
    row = {
        "mil_loss_final": 0.2,
        "auroc_unlabeled": 0.74,
        "auroc_unlabeled_train": 0.75,
        "auroc_unlabeled_held_out": 0.74,
        "saturated_share": 0.6,
        "weight_ess_share": 0.3,
        "length_correlation": 0.1,
        "normalized_return": 0.6,
        "normalized_cost": 0.2,
        "oracle_return_correlation": 0.8,
    }
    assert diagnostics.failure_signatures(row) == []
    assert diagnostics.failure_signatures({}) == []
