"""Predicted step costs of D_U -> one weight per step of D_U: pure functions, mean weight 1.

| kind                  | weight                                              | id   |
|-----------------------|-----------------------------------------------------|------|
| exponential           | exp(-G_H * mean cost of the trajectory / beta)      | W1-full |
| exponential-segment   | exp(-z / beta), z of the segment that holds the step | W1   |
| exponential-step      | exp(-G_H * c(s, a) / beta)                          | W2   |
| linear-step           | 1 - c(s, a)                                         | W2   |
| linear                | 1 - (mean cost - low) / (high - low), 1st and 99th percentile over D_U | W3 |
| hard                  | 1[mean cost <= b], b = mean - 0.1 std over held-out D_N | W4 |
| quantile              | the share q of D_U's trajectories of lowest mean cost | W5 |

Trajectory kinds give every step of a trajectory the same weight. G_H = (1 - g^H) / (1 - g) keeps the scale of the
exponential kinds that of a segment, whatever the length of the trajectories. `hard` keeps nearly half of D_U's
non-preferred trajectories where these resemble D_N, since its threshold lies just below the mean of D_N.
"""

from __future__ import annotations

import numpy as np

from safemil.algorithm.discounting import discounted_length
from safemil.config.errors import UserError
from safemil.config.settings import WeightsConfig

HARD_MARGIN = 0.1  # standard deviations below the mean of held-out D_N


def trajectory_means(step_costs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Mean predicted cost of each trajectory: ``(sum(lengths),)`` -> ``(n_trajectories,)``, float64."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.add.reduceat(step_costs.astype(np.float64), starts) / lengths


def segment_sums(step_costs: np.ndarray, lengths: np.ndarray, segment_length: int, discount: float) -> np.ndarray:
    """z of the segment of H steps that begins at each step, or at the last valid start where fewer than H are left.

    Trajectories shorter than H are used whole and rescaled by G_H / G_T. ``(n_steps,)`` -> ``(n_steps,)``.
    """
    sums = np.empty(len(step_costs))
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        costs = step_costs[start : start + length].astype(np.float64)
        taken = min(length, segment_length)
        windows = np.lib.stride_tricks.sliding_window_view(costs, taken) @ discount ** np.arange(taken)
        windows *= discounted_length(segment_length, discount) / discounted_length(taken, discount)
        sums[start : start + length] = windows[np.minimum(np.arange(length), length - taken)]
    return sums


def step_weights(
    step_costs: np.ndarray,
    lengths: np.ndarray,
    config: WeightsConfig,
    *,
    segment_length: int,
    discount: float,
    reference: np.ndarray | None = None,
) -> np.ndarray:
    """Weights of D_U's steps.

    Args:
        step_costs: ``(n_steps,)`` predicted cost of each step, trajectories one after the other.
        lengths: ``(n_trajectories,)`` of those trajectories.
        segment_length: H of the exponential kinds' scale.
        discount: g.
        reference: for ``hard``, the mean predicted costs of held-out D_N trajectories.

    Returns:
        ``(n_steps,)`` float64, mean 1.
    """
    horizon = discounted_length(segment_length, discount)
    means = trajectory_means(step_costs, lengths)
    if config.kind == "exponential-segment":
        weights = np.exp(-segment_sums(step_costs, lengths, segment_length, discount) / config.beta)
    elif config.kind == "exponential-step":
        weights = np.exp(-horizon * step_costs.astype(np.float64) / config.beta)
    elif config.kind == "linear-step":
        weights = 1.0 - step_costs.astype(np.float64)
    else:
        weights = np.repeat(_trajectory_weights(means, horizon, config, reference), lengths)
    return normalize(weights)


def _trajectory_weights(
    means: np.ndarray, horizon: float, config: WeightsConfig, reference: np.ndarray | None
) -> np.ndarray:
    if config.kind == "exponential":
        return np.exp(-horizon * means / config.beta)
    if config.kind == "linear":
        low, high = np.percentile(means, [1, 99])
        return np.clip(1.0 - (means - low) / (high - low + 1e-8), 0.0, 1.0)
    if config.kind == "quantile":
        keep = max(1, round(config.quantile * len(means)))
        return (np.argsort(np.argsort(means, kind="stable"), kind="stable") < keep).astype(np.float64)
    if reference is None or len(reference) == 0:
        raise UserError("weights.kind=hard needs held-out non-preferred trajectories; set split.held_out above 0")
    return hard_weights(means, float(reference.mean() - HARD_MARGIN * reference.std()))


def hard_weights(scores: np.ndarray, threshold: float) -> np.ndarray:
    """1 where the score is at most the threshold; with true costs and the cost limit, OSRL's ``safe`` set."""
    return (scores <= threshold).astype(np.float64)


def normalize(weights: np.ndarray) -> np.ndarray:
    """Weights scaled to mean 1.

    Raises:
        UserError: no step has any weight.
    """
    mean = weights.mean()
    if not mean > 0:
        raise UserError(
            "no unlabeled trajectory has any weight: the learned cost does not set any apart from D_N;"
            " use weights.kind=quantile, or look at the cost model's warnings"
        )
    return weights / mean


def effective_sample_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2."""
    return float(weights.sum() ** 2 / np.square(weights).sum())
