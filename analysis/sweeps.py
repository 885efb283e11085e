"""What is asked of the values of one setting: from which on the cost model separates, and what its loss can reach.

In: the trials of one task and method over the values of one setting. Out: a value of it, or a loss for each value.
"""

from __future__ import annotations

import pandas as pd

from analysis.trial_rows import AXES, value_order
from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics

RELIABLE_AUROC = 0.9
ORDERED_AXES = ("bag_size", "n_nonpreferred")  # more of these should help; of other settings no such value is asked for
RULE = (
    f"A value separates reliably when every seed's AUROC, non-preferred against preferred trajectories that training"
    f" never used, is at least {RELIABLE_AUROC}, at this value and at every larger one."
)
LOSS_BOUNDS = {
    "large_bags": "bound of large bags, softplus(−p G_H)",
    "this_bag_size": "perfect separation at this K",
}


def reliable_from(trials: pd.DataFrame, axis: str) -> int | float | None:
    """The smallest value of ``axis`` that separates reliably by RULE; None where there is none, or no AUROC.

    ``trials`` has a row per seed and value: columns ``axis`` and ``auroc``. A seed without an AUROC is not reliable.
    """
    if axis not in ORDERED_AXES:
        return None
    worst = (
        trials[trials[axis] != ""].assign(auroc=trials["auroc"].fillna(0.0)).groupby(axis, sort=False)["auroc"].min()
    )
    reliable = None
    for value in sorted(worst.index, key=value_order, reverse=True):
        if worst[value] < RELIABLE_AUROC:
            break
        reliable = value
    return reliable


def loss_bounds(trials: pd.DataFrame, axis: str) -> dict[str, dict]:
    """For each of LOSS_BOUNDS, value of ``axis`` -> MIL loss of a cost model that separates; of one method's trials.

    Both bounds assume that the non-preferred part of D_U looks like D_N: a lower loss means that D_N was memorized, or
    is of another kind. p = 1 - mixture, H and the discount come from the trials. A value is left out where settings are
    unknown or differ, where the aggregator is learned (its scores have no fixed scale) or the loss has a factor of its
    own, and where D_N is contaminated (what it is contaminated with need not look like the preferred part of D_U).
    """
    bounds: dict[str, dict] = {name: {} for name in LOSS_BOUNDS}
    trials = trials[trials["mil_loss_final"].notna()].assign(discount=trials.get("discount", 0.99))
    for value, group in trials.groupby(axis):
        settings = group[[*AXES, "discount"]].drop_duplicates()
        found = settings.iloc[0]
        plain = found["aggregator"] in ("", "mean") and found["scale"] in ("", 1) and found["contamination"] in ("", 0)
        if len(settings) > 1 or not plain or "" in (found["mixture"], found["horizon"], found["discount"]):
            continue
        # Scores of full trajectories are divided by their discounted length.
        full = found["horizon"] == "full"
        scale = 1.0 if full else discounted_length(found["horizon"], found["discount"])
        bounds["large_bags"][value] = metrics.mil_loss_floor(1 - found["mixture"], scale)
        if found["bag_size"] != "":
            bounds["this_bag_size"][value] = metrics.mil_loss_floor(1 - found["mixture"], scale, found["bag_size"])
    return bounds
