"""From which value of a setting on does the cost model separate? The written rule, in one place.

In: the trials of one task and method over the values of one setting. Out: a value of that setting, or None.
"""

from __future__ import annotations

import pandas as pd

from analysis.trial_rows import value_order

RELIABLE_AUROC = 0.9
ORDERED_AXES = ("bag_size", "n_nonpreferred")  # more of these should help; of other settings no such value is asked for
RULE = (
    f"A value separates reliably when every seed's AUROC, non-preferred against preferred trajectories that training"
    f" never used, is at least {RELIABLE_AUROC}, at this value and at every larger one."
)


def reliable_from(trials: pd.DataFrame, axis: str) -> int | float | None:
    """The smallest value of ``axis`` that separates reliably by RULE; None where there is none, or no AUROC.

    ``trials`` has a row per seed and value: columns ``axis`` and ``auroc``. A seed without an AUROC is not reliable.
    """
    if axis not in ORDERED_AXES:
        return None
    worst = {
        value: group["auroc"].fillna(0.0).min() for value, group in trials[trials[axis] != ""].groupby(axis, sort=False)
    }
    reliable = None
    for value in sorted(worst, key=value_order, reverse=True):
        if worst[value] < RELIABLE_AUROC:
            break
        reliable = value
    return reliable
