"""What a training on one's own data came to, in figures and in plain words. No label is needed but D_N and D_U.

How well the learned score tells known-bad trajectories from unlabeled ones is measured on trajectories held out, with
their number and a confidence interval; a claim is made where the interval supports it. Beside it: whether the unlabeled
trajectories' scores fall into two groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safemil.algorithm.weights import trajectory_means
from safemil.config.errors import UserError
from safemil.data.splits import Split
from safemil.evaluation.diagnostics import failure_signatures, label_free, trajectory_scores
from safemil.evaluation.metrics import auroc_interval
from safemil.training.fit_result import FitResult

TWO_GROUPS = 0.85  # share of the scores' variance between the groups; even spread has 0.75, a bell 0.64
SMALLEST_GROUP = 0.05  # of the trajectories

EXPLAINED = {  # failure signatures (safemil/evaluation/diagnostics.py) as a newcomer needs them
    "cost collapse": "the score learned nothing: both sets look the same to it",
    "memorized D_N": "the known-bad trajectories were learned by heart: those held out score far lower",
    "D_N of another kind": "nearly every unlabeled trajectory is told from the known-bad ones: are both files of one"
    " task and recording, and are there bad trajectories among the unlabeled ones?",
    "over-saturation": "nearly all step costs are 0 or 1 and do not tell the sets apart; try fewer updates",
    "weight collapse": "a few trajectories carry nearly all of the weight; a larger weights.beta spreads it",
    "length shortcut": "the score follows the length of trajectories; if length means nothing, cut them to one length",
}


@dataclass(frozen=True, eq=False)
class Findings:
    """One seed's. Trajectories of D_U are in their own order, as they were given."""

    figures: dict[str, float]  # of ``diagnostics.label_free``, with ``auroc_unlabeled_low`` and ``_high``
    nonpreferred_scores: np.ndarray  # (n_N,) mean predicted cost of each trajectory of D_N
    scores: np.ndarray  # (n_U,) and of D_U
    weights: np.ndarray  # (n_U,) weight in cloning, mean 1 over what was cloned; nan where held out
    checked: np.ndarray  # scores of the trajectories of D_N that training did not see
    held_out: tuple[int, int]  # how many of D_N and of D_U those were
    border: float | None  # between the two groups of D_U's scores, where there are two

    @property
    def warnings(self) -> list[str]:
        """In words."""
        return [EXPLAINED[name] for name in failure_signatures(self.figures) if name in EXPLAINED]


def find(learned: FitResult, split: Split) -> Findings:
    """Measure a fit on the split it was fitted to.

    Raises:
        UserError: the method has no score (plain cloning).
    """
    if learned.scorer is None:
        raise UserError("this method clones without a score of steps: there is nothing to tell bad from good by")
    figures = label_free(learned, split)
    held_out = len(split.nonpreferred_held_out), len(split.unlabeled_held_out)
    interval = auroc_interval(figures["auroc_unlabeled"], *held_out)
    figures["auroc_unlabeled_low"], figures["auroc_unlabeled_high"] = interval
    sets = [
        np.sort(np.concatenate(parts))
        for parts in ((split.nonpreferred, split.nonpreferred_held_out), (split.unlabeled, split.unlabeled_held_out))
    ]
    nonpreferred_scores, scores = (trajectory_scores(learned, split, indices)[0] for indices in sets)
    weights = np.full(len(scores), np.nan)
    if learned.weights is not None:
        cloned = np.searchsorted(sets[1], split.unlabeled)
        weights[cloned] = trajectory_means(learned.weights, split.trajectories.lengths[split.unlabeled])
    checked = trajectory_scores(learned, split, split.nonpreferred_held_out)[0]
    return Findings(figures, nonpreferred_scores, scores, weights, checked, held_out, border_of(scores))


def border_of(scores: np.ndarray) -> float | None:
    """The score between two groups, or None where scores spread without a gap.

    The border is Otsu's (1979): the cut with the largest share of the variance between the groups it makes.
    """
    ordered = np.sort(scores)
    n, total = len(ordered), ordered.var() * len(ordered)
    smallest = max(1, int(np.ceil(SMALLEST_GROUP * n)))
    if n < max(4, 2 * smallest) or np.ptp(ordered) <= 1e-6 * max(1.0, abs(ordered[0])):  # equal but for rounding
        return None
    low = np.arange(smallest, n - smallest + 1)  # trajectories below the cut
    sums = np.cumsum(ordered)[low - 1]
    between = n * (sums - low * ordered.mean()) ** 2 / (low * (n - low))
    cut = int(low[np.argmax(between)])
    if between.max() < TWO_GROUPS * total:
        return None
    return float((ordered[cut - 1] + ordered[cut]) / 2)


def in_words(findings: Findings) -> list[str]:
    """What a newcomer should know of the result, a sentence or two at a time."""
    area, low, high = (findings.figures[f"auroc_unlabeled{end}"] for end in ("", "_low", "_high"))
    bad, unlabeled = findings.held_out
    n, most = len(findings.scores), ""
    if findings.border is None:
        said = [f"The scores of the {n} unlabeled trajectories spread without a gap between safe and risky ones."]
    else:
        safe, alike = int((findings.scores < findings.border).sum()), int((findings.checked > findings.border).sum())
        most = f" and {(1 + safe / n) / 2:.2f} the most there can be, if those {safe} are safe"
        said = [
            f"The score sorts the {n} unlabeled trajectories into two groups: {safe} look safe (mean cost below"
            f" {findings.border:.2f}) and {n - safe} look like the known-bad ones. Of {bad} known-bad trajectories that"
            f" were held out of training, {alike} lie among the latter"
            + (", as they should." if alike == bad else ": the score has not learned what makes the others bad.")
        ]
    said.append(
        f"A check on those {bad} and {unlabeled} unlabeled trajectories held out: a known-bad one scores higher in"
        f" {area:.0%} of the pairs (AUROC {area:.2f}, 95 % interval {low:.2f} to {high:.2f}); 0.50 is guessing{most}."
    )
    if high < 0.5:
        said.append("That is worse than guessing: are the two files swapped, or of different recordings?")
    elif low > 0.5:
        said.append("That is better than guessing.")
    else:
        said.append("The interval is too wide to tell that from guessing; it narrows with more known-bad trajectories.")
    return said
