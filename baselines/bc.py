"""Behaviour cloning: of all of D_U (bc-all), or of its trajectories within the cost limit (bc-safe, an oracle).

    min over pi  E_{(s, a) ~ D}[ loss(pi(s), a) ]

bc-safe keeps {trajectory in D_U : C <= cost limit}, inclusive, undiscounted: OSRL's `safe` mode
(`osrl.common.dataset.process_bc_dataset`). Differences from OSRL's BC: the loss sums over action dimensions instead of
averaging; cosine schedule and batch of the suite; observations normalized; an unfinished tail of the file, which OSRL
gives cost 0 and therefore always keeps as safe, is dropped on loading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemil.algorithm.cloning import clone_trajectories
from safemil.algorithm.weights import hard_weights
from safemil.config.errors import UserError
from safemil.config.overrides import Settings
from safemil.config.settings import PolicyConfig
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult
from safemil.training.transitions import Transitions


@dataclass(frozen=True)
class BCConfig(Settings):
    """Behaviour cloning has a policy's settings and no others."""

    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def fit(splits: Sequence[Split], config: BCConfig, context: FitContext) -> list[FitResult]:
    """bc-all: clone the whole of D_U."""
    steps = Transitions.from_splits(splits, context.device)
    chosen = [split.unlabeled for split in splits]
    return clone_trajectories(splits, chosen, config.policy, steps, context)


def fit_safe(
    splits: Sequence[Split], config: BCConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """bc-safe: clone D_U's trajectories whose true cost is within the limit."""
    chosen = [safe_trajectories(split.unlabeled, own) for split, own in zip(splits, labels, strict=True)]
    steps = Transitions.from_splits(splits, context.device)
    return clone_trajectories(splits, chosen, config.policy, steps, context)


def safe_trajectories(trajectories: np.ndarray, labels: HiddenLabels) -> np.ndarray:
    """Those of ``trajectories`` with true cost at most the cost limit.

    Raises:
        UserError: there are none.
    """
    safe = trajectories[hard_weights(labels.outcomes.costs_total[trajectories], labels.cost_limit) > 0]
    if len(safe) == 0:
        raise UserError(f"bc-safe: no unlabeled trajectory has a true cost of at most {labels.cost_limit}")
    return safe
