"""The one rule on actions: vectors of real numbers in [-1, 1], or a refusal.

What lies outside is refused, as nobody but the owner knows whether to scale or to clip it; ``bounds`` says it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safemil.config.errors import UserError

ROUNDING = 1e-4  # beyond [-1, 1] by less than this: float rounding, clipped without a word


def in_range(actions: np.ndarray, bounds: Sequence[float] = ()) -> np.ndarray:
    """(n_steps, action_dim) in [-1, 1].

    Args:
        actions: (n_steps, action_dim) as they were stored.
        bounds: what to divide them by: one number, or one a column; nothing leaves them as they are.

    Raises:
        UserError: they are discrete, lie outside, or the bounds do not fit.
    """
    values = actions if actions.dtype == np.float32 and not bounds else actions.astype(np.float64)
    if values.shape[1] == 1 and (actions.dtype.kind in "iub" or (np.isin(values, (0, 1)).all() and values.any())):
        found = f"whole numbers from {values.min():g} to {values.max():g} in one column"
        raise UserError(f"actions: {found} are discrete choices; vectors of real numbers in [-1, 1] are expected")
    if bounds:
        values = values / _divisors(bounds, values.shape[1])
    outside = np.abs(values).max(axis=1, initial=0) > 1 + ROUNDING
    if outside.any():
        reach = f"reach outside [-1, 1], from {values.min():g} to {values.max():g}"
        ways_out = "divide them by their bounds (--action-bounds), or clip them if the simulator did"
        advice = "give wider bounds" if bounds else ways_out
        raise UserError(f"actions: {outside.sum()} of {len(values)} rows {reach}; {advice}")
    return np.clip(values, -1, 1)  # what float rounding added


def _divisors(bounds: Sequence[float], action_dim: int) -> np.ndarray:
    divisors = np.asarray(bounds, dtype=np.float64)
    if not (np.isfinite(divisors) & (divisors > 0)).all():
        raise UserError(f"action bounds {', '.join(f'{bound:g}' for bound in bounds)}: expected numbers above 0")
    if len(divisors) not in (1, action_dim):
        raise UserError(f"{len(divisors)} action bounds for {action_dim} actions; expected one, or one for each action")
    return divisors
