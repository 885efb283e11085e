"""The methods table: one line per method. Importing it needs no torch; a method's module is imported when it is fitted.

A new method is a file with ``fit(splits, config, *, seeds, device, log, snapshots)``, a settings dataclass, and a line
here. An oracle's ``fit`` also takes ``labels``; only a method declared an oracle is ever given them.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from baselines.osrl_settings import BCQLConfig, BEARLConfig, CDTConfig, COptiDICEConfig, CPQConfig
from baselines.settings import (
    BCConfig,
    DExpertsConfig,
    DWBCConfig,
    OracleCostConfig,
    PPLConfig,
    SafeDICEConfig,
    TREXConfig,
)
from safemil.config.errors import UserError
from safemil.config.settings import SafeMILConfig


@dataclass(frozen=True)
class Method:
    """How to find a method, what it may see, and one line about it."""

    fit: str  # "module:function"
    config: type
    sees: str
    summary: str
    oracle: bool = False

    def load(self) -> Callable[..., Any]:
        """Import the method's ``fit``."""
        module, function = self.fit.split(":")
        return getattr(importlib.import_module(module), function)


EVERYTHING = "D_N, D_U, rewards, costs"

METHODS: dict[str, Method] = {
    "safemil": Method("safemil.algorithm.safemil:fit", SafeMILConfig, "D_N, D_U", "cost from bags, weighted cloning"),
    "ppl": Method("baselines.ppl:fit", PPLConfig, "D_N, D_U", "cost from single-segment preferences, weighted cloning"),
    "ppl-trex": Method("baselines.ppl:fit_trex", TREXConfig, "D_N, D_U", "the same in T-REX's own form"),
    "dwbc": Method("baselines.dwbc:fit", DWBCConfig, "D_N, D_U", "discriminator-weighted cloning (DWBC-NU)"),
    "safedice": Method("baselines.safedice:fit", SafeDICEConfig, "D_N, D_U", "density-ratio corrected cloning"),
    "dexperts": Method("baselines.dexperts:fit", DExpertsConfig, "D_N, D_U", "product of cloned experts"),
    "bc-all": Method("baselines.bc:fit", BCConfig, "D_U", "clone all of D_U"),
    "bc-safe": Method("baselines.bc:fit_safe", BCConfig, "D_U, true costs", "clone D_U within the cost limit", True),
    "dwbc-oracle": Method(
        "baselines.dwbc:fit_original", DWBCConfig, "D_U, preferred ids", "the original DWBC, with a preferred set", True
    ),
    "oracle-cost": Method(
        "baselines.oracle_cost:fit", OracleCostConfig, "D_U, true costs", "SafeMIL's weights from true costs", True
    ),
    "osrl-bcql": Method("baselines.osrl_bcql:fit", BCQLConfig, EVERYTHING, "OSRL's BCQ-Lagrangian", True),
    "osrl-bearl": Method("baselines.osrl_bearl:fit", BEARLConfig, EVERYTHING, "OSRL's BEAR-Lagrangian", True),
    "osrl-cpq": Method("baselines.osrl_cpq:fit", CPQConfig, EVERYTHING, "OSRL's constrained Q-learning", True),
    "osrl-coptidice": Method("baselines.osrl_coptidice:fit", COptiDICEConfig, EVERYTHING, "OSRL's COptiDICE", True),
    "osrl-cdt": Method("baselines.osrl_cdt:fit", CDTConfig, EVERYTHING, "OSRL's decision transformer", True),
}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.4)
        raise UserError(f"unknown method {name!r}; {'nearest' if near else 'known'}: {', '.join(near or METHODS)}")
    return METHODS[name]
