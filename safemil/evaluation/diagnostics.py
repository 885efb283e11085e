"""What a trained score and its weights look like, and which failure they resemble.

Label-free numbers may be used to choose hyper-parameters; those that start with ``oracle_`` (and ``auroc``) use hidden
labels, are reported, and never choose anything.
"""

from __future__ import annotations

import math

import numpy as np

from safemil.algorithm.weights import effective_sample_size, trajectory_means
from safemil.data.splits import HiddenLabels, Split
from safemil.evaluation.metrics import auroc, spearman
from safemil.training.fit_result import FitResult

FEWEST_HELD_OUT = 5  # below this many trajectories of held-out D_N an AUROC on them says nothing of memorizing


def trajectory_scores(learned: FitResult, split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean step score of each trajectory ``(len(indices),)`` and the step scores themselves."""
    data = split.trajectories
    rows = data.rows(indices)
    step_scores = learned.score_steps(data.observations[rows], data.actions[rows])
    return trajectory_means(step_scores, data.lengths[indices]), step_scores


def label_free(learned: FitResult, split: Split) -> dict[str, float]:
    """Diagnostics that need no label beyond D_N and D_U. ``auroc_unlabeled`` is AUROC_NU on held-out sets.

    Perfect separation gives AUROC_NU = (1 + p) / 2 only, since D_U holds non-preferred trajectories too.
    """
    if learned.scorer is None:
        return dict(learned.extra)
    parts = {
        "train": (split.nonpreferred, split.unlabeled),
        "held_out": (split.nonpreferred_held_out, split.unlabeled_held_out),
    }
    scores = {part: [trajectory_scores(learned, split, indices) for indices in sets] for part, sets in parts.items()}
    result = {f"auroc_unlabeled_{part}": auroc(*(means for means, _ in pair)) for part, pair in scores.items()}
    result["auroc_unlabeled"] = result["auroc_unlabeled_held_out"]
    result["held_out_nonpreferred"] = len(split.nonpreferred_held_out)
    for name, (_, steps) in zip(("nonpreferred", "unlabeled"), scores["held_out"], strict=True):
        result[f"cost_mean_{name}"], result[f"cost_std_{name}"] = float(steps.mean()), float(steps.std())
        for quantile in (0.05, 0.5, 0.95):
            result[f"cost_q{quantile * 100:02.0f}_{name}"] = float(np.quantile(steps, quantile))
    every = np.concatenate([steps for pair in scores.values() for _, steps in pair])
    result["saturated_share"] = float(np.mean((every < 0.01) | (every > 0.99)))
    lengths = split.trajectories.lengths[np.concatenate([split.nonpreferred, split.unlabeled])]
    result["length_correlation"] = correlation(np.concatenate([means for means, _ in scores["train"]]), lengths)
    if learned.weights is not None:
        per_trajectory = trajectory_means(learned.weights, split.trajectories.lengths[split.unlabeled])
        share = per_trajectory / per_trajectory.sum()
        result["weight_ess"] = effective_sample_size(per_trajectory)
        result["weight_ess_share"] = result["weight_ess"] / len(per_trajectory)
        result["weight_entropy"] = float(-(share * np.log(share + 1e-300)).sum())
    return {**result, **learned.extra}


def oracle(learned: FitResult, split: Split, labels: HiddenLabels) -> dict[str, float]:
    """Diagnostics against the truth, on trajectories that training never used."""
    if learned.scorer is None:
        return {}
    nonpreferred, preferred = labels.evaluation_sets(split)
    if len(nonpreferred) + len(preferred) == 0:
        return {}
    indices = np.concatenate([nonpreferred, preferred])
    means, step_scores = trajectory_scores(learned, split, indices)
    rows = split.trajectories.rows(indices)
    step_costs = labels.outcomes.costs[rows]
    return {
        "auroc": auroc(means[: len(nonpreferred)], means[len(nonpreferred) :]),
        "oracle_cost_spearman": spearman(means, labels.outcomes.costs_total[indices]),
        "oracle_return_correlation": correlation(means, labels.outcomes.returns[indices]),
        "oracle_step_auroc": auroc(step_scores[step_costs > 0], step_scores[step_costs <= 0]),
    }


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, 0 where either side is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def failure_signatures(row: dict[str, float]) -> list[str]:
    """Names of the known failures that a trial's numbers resemble; a number that is absent raises no alarm.

    Where the row has a confidence interval of ``auroc_unlabeled`` (its ``_low`` and ``_high``), the end that speaks
    against the alarm counts: a few held-out trajectories raise none.
    """

    def value(name: str) -> float:
        number = row.get(name)
        return math.nan if number is None else float(number)

    low, high = value("auroc_unlabeled_low"), value("auroc_unlabeled_high")  # absent: neither comparison below is false
    tests = {
        "cost collapse": abs(value("mil_loss_final") - math.log(2)) < 0.01 and 0.45 <= value("auroc_unlabeled") <= 0.55,
        "memorized D_N": value("auroc_unlabeled_train") - value("auroc_unlabeled_held_out") > 0.2
        and not value("auroc_unlabeled_train") - high <= 0.2
        and value("held_out_nonpreferred") >= FEWEST_HELD_OUT,
        "D_N of another kind": value("auroc_unlabeled_train") > 0.9
        and value("auroc_unlabeled_held_out") > 0.9
        and not low <= 0.9,
        "over-saturation": value("saturated_share") > 0.95 and value("auroc_unlabeled") < 0.6 and not high >= 0.6,
        "weight collapse": value("weight_ess_share") < 0.05,
        "length shortcut": abs(value("length_correlation")) > 0.8,
        "safe but immobile": value("normalized_return") < 0.1
        and value("normalized_cost") < 0.1
        and value("oracle_return_correlation") > 0.5,
    }
    return [name for name, found in tests.items() if found]
