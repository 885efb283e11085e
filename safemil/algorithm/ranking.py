"""Trajectories ordered by their mean step score."""

from __future__ import annotations

import dataclasses

import numpy as np

from safemil.algorithm.weights import trajectory_means


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Trajectories from safest to riskiest."""

    indices: np.ndarray  # (n,) positions among those that were given
    costs: np.ndarray  # (n,) mean step cost of each, rising
    weights: np.ndarray  # (n,) weight that cloning would give each, mean 1 over steps; nan where a method has none


def ranked(scores: np.ndarray, lengths: np.ndarray, weights: np.ndarray) -> Ranking:
    """From the score of each step ``(sum(lengths),)`` and the weight of each trajectory ``(n,)``."""
    means = trajectory_means(scores, lengths)
    order = np.argsort(means, kind="stable")
    return Ranking(order, means[order], weights[order])
