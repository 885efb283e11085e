"""Does a dataset hold high returns on both sides of the cost limit? In: its outcomes. Out: None, or what is lacking.

The method assumes that safe trajectories are worth imitating and that unsafe ones are tempting. A side's level is the
mean return of its better half, measured from the lowest return in DSRL's dataset of the task.
"""

from __future__ import annotations

import numpy as np

from safemil.data.splits import MIX50_NONPREFERRED_COST
from safemil.data.tasks import Task
from safemil.data.trajectories import Outcomes

LEAST_SHARE = 1 / 3  # of the other side's level


def both_sides(outcomes: Outcomes, task: Task) -> str | None:
    """What is lacking, in words; None when both sides have high returns."""
    costs, returns = outcomes.costs_total, outcomes.returns
    sides = {
        f"below a cost of {task.cost_limit:g}": returns[costs < task.cost_limit],
        f"above a cost of {MIX50_NONPREFERRED_COST:g}": returns[costs > MIX50_NONPREFERRED_COST],
    }
    for side, found in sides.items():
        if len(found) == 0:
            return f"no trajectory {side}"
    levels = {side: better_half(found).mean() - task.return_min for side, found in sides.items()}
    weaker, stronger = sorted(levels, key=levels.get)
    if levels[weaker] < LEAST_SHARE * levels[stronger]:
        means = {side: level + task.return_min for side, level in levels.items()}
        return (
            f"no high returns {weaker}: the better half has {means[weaker]:.1f} on average,"
            f" {means[stronger]:.1f} {stronger}"
        )
    return None


def better_half(returns: np.ndarray) -> np.ndarray:
    """The upper half of some returns, as the split keeps it."""
    return np.sort(returns)[len(returns) // 2 :]
