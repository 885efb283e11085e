"""How methods, settings and metrics are called and ordered in tables and figures. Data and a few look-ups, no state."""

from __future__ import annotations

import re
from collections.abc import Iterable

from analysis.trial_rows import value_order
from baselines.registry import METHODS
from safemil.config.swept import BY_COLUMN

# failure signature -> the test it rests on and the usual cause; the tests are safemil/evaluation/diagnostics.py's
SIGNATURES = {
    "cost collapse": "MIL loss near log 2, AUROC N:U near 0.5; usually K or learning rate too small, or D_N like D_U",
    "memorized D_N": "AUROC N:U far higher in training than held out; usually few trajectories in D_N, long training",
    "D_N of another kind": "AUROC N:U above 0.9 in training and held out, though D_U's bad part should look like D_N;"
    " usually D_N dearer than D_U's bad part, or D_U nearly clean",
    "over-saturation": "over 95 % of step costs at 0 or 1, AUROC N:U below 0.6; usually the score's scale too large",
    "weight collapse": "effective sample size below 5 % of D_U; usually the weights' temperature too small",
    "length shortcut": "score correlated with length above 0.8; usually scores not normalized by length",
    "safe but immobile": "return and cost below 0.1, score follows return; usually the cost learned progress, not risk",
}


def method_label(method: str) -> str:
    """SafeMIL for "safemil"; a method that is not registered keeps its name."""
    return METHODS[method].label if method in METHODS else method


def method_role(method: str) -> str:
    """``ours``, ``label-limited`` or ``oracle``; ``unknown`` where it is not registered: compared with none."""
    return METHODS[method].role if method in METHODS else "unknown"


def method_order(method: str) -> tuple[int, int, str]:
    """Sort key: SafeMIL, label-limited methods as registered, oracles, unknown ones by name."""
    place = list(METHODS).index(method) if method in METHODS else len(METHODS)
    return (("ours", "label-limited", "oracle", "unknown").index(method_role(method)), place, method)


def axis_short(axis: str) -> str:
    """ "K" for "bag_size"."""
    return BY_COLUMN[axis].short if axis in BY_COLUMN else axis.replace("_", " ")


def axis_title(axis: str) -> str:
    """ "bag size K" for "bag_size"."""
    return BY_COLUMN[axis].title if axis in BY_COLUMN else axis.replace("_", " ")


def mathtext(text: str) -> str:
    """The text with D_N, D_U and G_H as matplotlib writes symbols."""
    return re.sub(r"([DG])_([NUH])\b", r"$\1_\2$", text)


def value_text(value: int | float | str) -> str:
    """A setting's value: 0.25, 64 and full; 0 also where a table made 0.0 of it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def setting_label(axes: Iterable[str], values: Iterable) -> str:
    """ "K=64, H=full"; settings a method does not have ("") are left out."""
    pairs = [(axis, value) for axis, value in zip(axes, values, strict=True) if value != ""]
    return ", ".join(f"{axis_short(axis)}={value_text(value)}" for axis, value in pairs)


def variant_label(method: str, axes: Iterable[str], values: Iterable) -> str:
    """ "SafeMIL (K=64)", or "SafeMIL" where nothing varies."""
    setting = setting_label(axes, values)
    return f"{method_label(method)} ({setting})" if setting else method_label(method)


def anchor(task: str, method: str, values: Iterable = ()) -> str:
    """Where the page lists the trials of a task, method and setting: "trials-BallCircle-safemil-64"."""
    parts = [task, method, *[value_text(value) for value in values if value != ""]]
    return "trials-" + "-".join(re.sub(r"[^A-Za-z0-9.-]+", "_", str(part)) for part in parts)


def group_order(method: str, values: Iterable) -> tuple:
    """Sort key of a method at given settings."""
    return (*method_order(method), *[value_order(value) for value in values])
