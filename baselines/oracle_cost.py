"""oracle-cost: SafeMIL's weights and cloning, with the true step costs in place of the learned ones.

The gap between it and SafeMIL is the error of the learned cost; an oracle. True step costs are clipped to 1, the range
of learned ones; `weights.kind=hard` then compares a trajectory's true cost with the cost limit and is bc-safe's choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemil.algorithm.cloning import clone_trajectories
from safemil.algorithm.weights import hard_weights, normalize, step_weights
from safemil.config.overrides import Settings
from safemil.config.settings import PolicyConfig, WeightsConfig
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult
from safemil.training.transitions import Transitions

SCALE_STEPS = 5  # H of the exponential kinds' scale G_H, SafeMIL's default
DISCOUNT = 0.99


@dataclass(frozen=True)
class OracleCostConfig(Settings):
    """SafeMIL's weights and cloning with true costs in place of learned ones."""

    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def true_weights(split: Split, labels: HiddenLabels, config: WeightsConfig) -> np.ndarray:
    """Weight of each step of D_U under the true cost, mean 1."""
    lengths = split.trajectories.lengths[split.unlabeled]
    if config.kind == "hard":
        totals = labels.outcomes.costs_total[split.unlabeled]
        return normalize(np.repeat(hard_weights(totals, labels.cost_limit), lengths))
    costs = labels.outcomes.costs[split.trajectories.rows(split.unlabeled)].clip(0.0, 1.0)
    return step_weights(costs, lengths, config, segment_length=SCALE_STEPS, discount=DISCOUNT)


def fit(
    splits: Sequence[Split], config: OracleCostConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """Weighted cloning of D_U under the true cost."""
    return clone_trajectories(
        splits,
        [split.unlabeled for split in splits],
        config.policy,
        Transitions.from_splits(splits, context.device),
        context,
        weights=[true_weights(split, own, config.weights) for split, own in zip(splits, labels, strict=True)],
    )
