"""Every setting that a study varies, one line each: where it is set, its column in trials.csv, how tables call it.

A new one is a line here: it then has its column, names rows and gets a table and figures of its own. Imports nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Swept:
    """A setting that a study varies."""

    setting: str  # dotted name, as --set takes it
    column: str  # of trials.csv
    short: str  # "K" in "K=64"
    title: str  # of an axis or a table


# In the order in which they name a row.
SWEPT = (
    Swept("cost_model.bag_size", "bag_size", "K", "bag size K"),
    Swept("cost_model.segment_length", "horizon", "H", "segment length H"),
    Swept("split.contamination", "contamination", "contam.", "contamination of D_N"),
    Swept("weights.kind", "weighting", "weights", "weighting"),
    Swept("cost_model.aggregator", "aggregator", "aggregator", "aggregator"),
    Swept("split.n_nonpreferred", "n_nonpreferred", "|D_N|", "non-preferred trajectories |D_N|"),
    Swept("split.n_unlabeled", "n_unlabeled", "|D_U|", "unlabeled trajectories |D_U|"),
    Swept("split.mixture", "mixture", "mixture", "non-preferred share of D_U"),
    Swept("split.cost_levels", "cost_levels", "levels", "cost levels of D_N"),
    Swept("cost_model.modes", "modes", "modes", "modes"),
    Swept("cost_model.heads", "heads", "heads", "heads"),
    Swept("cost_model.scale", "scale", "scale", "scale"),
    Swept("policy.head", "head", "head", "policy head"),
    Swept("osrl_faithful", "osrl_faithful", "faithful", "OSRL's own defaults"),
)
BY_SETTING = {swept.setting: swept for swept in SWEPT}
BY_COLUMN = {swept.column: swept for swept in SWEPT}


def value_of(config: Mapping[str, Any], setting: str) -> Any:
    """The value of a dotted setting in a trial's config.json; None where the trial has no such setting."""
    # The data and the evaluation are shared by all methods; everything else is the method's own.
    shared = setting.split(".")[0] in ("split", "evaluation")
    value: Any = config if shared else config.get("method_config")
    for part in setting.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
