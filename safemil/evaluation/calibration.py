"""What a trained score says of every trajectory, beside the truth: the tables behind the calibration figures.

In: one seed's ``FitResult``, its split and the hidden labels. Out: columns for scores.csv (a row per trajectory) and
example_steps.csv (a row per step of a few trajectories). Reported only; nothing is ever chosen by these numbers.
"""

from __future__ import annotations

import numpy as np

from safemil.algorithm.weights import trajectory_means
from safemil.data.splits import HiddenLabels, Split
from safemil.evaluation.diagnostics import trajectory_scores
from safemil.training.fit_result import FitResult

Columns = dict[str, np.ndarray]  # name -> (n_rows,)
BANDS = ("between", "preferred", "nonpreferred")  # of the true cost; `between` is outside both


def trajectory_table(learned: FitResult, split: Split, labels: HiddenLabels) -> Columns:
    """A row for each trajectory of D_N, of D_U and, where its band is known, outside both.

    ``part``: train, held_out or unused; ``set``: D_N, D_U or none; ``band``: one of BANDS; ``predicted_cost``: mean
    step score, nan for a method without a score; ``weight``: mean over its steps, nan outside D_U's training part.
    """
    outside = np.setdiff1d(np.concatenate(labels.evaluation_sets(split)), _members(split))
    places = [
        ("D_N", "train", split.nonpreferred),
        ("D_N", "held_out", split.nonpreferred_held_out),
        ("D_U", "train", split.unlabeled),
        ("D_U", "held_out", split.unlabeled_held_out),
        ("none", "unused", outside),
    ]
    indices = np.concatenate([own for *_, own in places]).astype(np.int64)
    weights = np.full(len(indices), np.nan)
    if learned.weights is not None:
        lengths = split.trajectories.lengths[split.unlabeled]
        first = len(split.nonpreferred) + len(split.nonpreferred_held_out)
        weights[first : first + len(lengths)] = trajectory_means(learned.weights, lengths)
    scored = learned.scorer is not None
    return {
        "trajectory": indices,
        "set": np.repeat([name for name, *_ in places], [len(own) for *_, own in places]),
        "part": np.repeat([part for _, part, _ in places], [len(own) for *_, own in places]),
        "band": np.array(BANDS)[labels.preferred[indices] + 2 * labels.nonpreferred[indices]],
        "predicted_cost": trajectory_scores(learned, split, indices)[0] if scored else np.full(len(indices), np.nan),
        "true_cost": labels.outcomes.costs_total[indices],
        "return": labels.outcomes.returns[indices],
        "length": split.trajectories.lengths[indices],
        "weight": weights,
    }


def example_steps(learned: FitResult, split: Split, labels: HiddenLabels) -> Columns:
    """Predicted and true cost at each step of one non-preferred and one preferred trajectory, neither trained on.

    Each is the one of median true cost in its band, so that the score has no part in the choice.
    """
    chosen = [_median_cost(own, labels) for own in labels.evaluation_sets(split) if len(own)]
    indices = np.array(chosen, dtype=np.int64)
    lengths, rows = split.trajectories.lengths[indices], split.trajectories.rows(indices)
    return {
        "trajectory": np.repeat(indices, lengths),
        "band": np.repeat(np.array(BANDS)[labels.preferred[indices] + 2 * labels.nonpreferred[indices]], lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]) if len(indices) else np.zeros(0, int),
        "predicted_cost": trajectory_scores(learned, split, indices)[1] if len(indices) else np.zeros(0),
        "true_cost": labels.outcomes.costs[rows],
    }


def _members(split: Split) -> np.ndarray:
    return np.concatenate([split.nonpreferred, split.nonpreferred_held_out, split.unlabeled, split.unlabeled_held_out])


def _median_cost(indices: np.ndarray, labels: HiddenLabels) -> int:
    by_cost = indices[np.argsort(labels.outcomes.costs_total[indices], kind="stable")]
    return int(by_cost[len(by_cost) // 2])
