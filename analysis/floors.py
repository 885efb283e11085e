"""What a MIL loss can be compared with: the loss of a cost model that separates D_N from the preferred part of D_U.

Both floors assume that the non-preferred part of D_U looks like D_N: a lower loss means that D_N was memorized,
or is of another kind.
"""

from __future__ import annotations

import pandas as pd

from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics

FLOOR_NAMES = {
    "large_bags": "floor of large bags, softplus(−p G_H)",
    "this_bag_size": "perfect separation at this K",
}
SETTINGS = ["mixture", "horizon", "contamination", "bag_size", "aggregator", "scale", "discount"]


def floors_by_value(trials: pd.DataFrame, axis: str) -> dict[str, dict]:
    """For each of FLOOR_NAMES, value of ``axis`` -> loss; ``trials`` are those of one method.

    p = 1 - mixture, H and the discount come from the trials. A value is left out where they are unknown or differ,
    where the aggregator is learned (its scores have no fixed scale) or the loss has a factor of its own, and where D_N
    is contaminated (what it is contaminated with need not look like the preferred part of D_U).
    """
    floors: dict[str, dict] = {name: {} for name in FLOOR_NAMES}
    trials = trials[trials["mil_loss_final"].notna()].assign(discount=trials.get("discount", 0.99))
    for value, group in trials.groupby(axis):
        settings = group[SETTINGS].drop_duplicates()
        mixture, horizon, contamination, bag_size, aggregator, factor, discount = settings.iloc[0]
        plain = aggregator in ("", "mean") and factor in ("", 1)
        known = len(settings) == 1 and "" not in (mixture, horizon, discount) and plain
        if known and contamination in ("", 0):
            # Scores of full trajectories are divided by their discounted length.
            scale = 1.0 if horizon == "full" else discounted_length(horizon, discount)
            floors["large_bags"][value] = metrics.mil_loss_floor(1 - mixture, scale)
            if bag_size != "":
                floors["this_bag_size"][value] = metrics.mil_loss_floor(1 - mixture, scale, bag_size)
    return floors
