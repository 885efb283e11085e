"""Every method, one line each: where it is, what it may see, how it is called and drawn. Imports none of them.

A new method is a file with its settings and a ``fit(splits, config, ...)``, and a line here: it then appears in grids,
tables and figures, and under the contract test. An oracle's ``fit`` also takes ``labels``; only a method whose role is
``oracle`` is ever given them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from safemil.config.errors import unknown

Role = Literal["ours", "label-limited", "oracle"]


@dataclass(frozen=True)
class Method:
    """What others ask of a method."""

    fit: str  # "module:function"
    settings: str  # a class of that module
    role: Role
    sees: str
    label: str  # in tables and figures
    color: str
    marker: str
    summary: str

    @property
    def oracle(self) -> bool:
        """Whether it is shown what a label-limited method must not see."""
        return self.role == "oracle"

    @property
    def packed(self) -> bool:
        """Whether all seeds train as one; OSRL's own trainers take one seed after the other."""
        return ".osrl_" not in self.fit

    def load(self, name: str = "") -> Any:
        """Import the method's ``fit``, or another name of its module."""
        module, fit = self.fit.split(":")
        return getattr(importlib.import_module(module), name or fit)

    def config(self) -> Any:
        """The method's settings at their defaults."""
        return self.load(self.settings)()


LIMITED: Role = "label-limited"
ORACLE: Role = "oracle"
BOTH, ALL = "D_N, D_U", "D_N, D_U, rewards, costs"
# SafeMIL has the one strong color, its nearest rivals a hue each, all others are grey (oracles are drawn hollow).
BLUE, ORANGE, SKY, PURPLE = "#0057b8", "#e69f00", "#56b4e9", "#cc79a7"
BLACK, GREY, PALE = "#333333", "#7a7a7a", "#a6a6a6"

# fmt: off
METHODS: dict[str, Method] = {
    "safemil": Method("safemil.algorithm.safemil:fit", "SafeMILConfig", "ours", BOTH, "SafeMIL", BLUE, "o", "cost from bags, weighted cloning"),
    "ppl": Method("baselines.ppl:fit", "PPLConfig", LIMITED, BOTH, "PPL", ORANGE, "^", "cost from pairs of segments"),
    "ppl-trex": Method("baselines.ppl:fit_trex", "TREXConfig", LIMITED, BOTH, "T-REX", PALE, "d", "the same in T-REX's form"),
    "dwbc": Method("baselines.dwbc:fit", "DWBCConfig", LIMITED, BOTH, "DWBC-NU", SKY, "v", "discriminator-weighted cloning"),
    "safedice": Method("baselines.safedice:fit", "SafeDICEConfig", LIMITED, BOTH, "SafeDICE", PURPLE, "P", "density-ratio cloning"),
    "uniq": Method("baselines.uniq:fit", "UNIQConfig", LIMITED, BOTH, "UNIQ", GREY, "*", "soft Q-learning away from D_N"),
    "osil": Method("baselines.osil:fit", "OSILConfig", LIMITED, BOTH, "OSIL", PALE, "p", "cloning with a penalty on future cost"),
    "dexperts": Method("baselines.dexperts:fit", "DExpertsConfig", LIMITED, BOTH, "DExperts", GREY, "X", "product of experts"),
    "bc-all": Method("baselines.bc:fit", "BCConfig", LIMITED, "D_U", "BC-All", BLACK, "s", "clone all of D_U"),
    "bc-safe": Method("baselines.bc:fit_safe", "BCConfig", ORACLE, "D_U, true costs", "BC-Safe", BLACK, "D", "clone D_U within the limit"),
    "dwbc-oracle": Method("baselines.dwbc:fit_original", "DWBCConfig", ORACLE, "D_U, preferred ids", "DWBC", GREY, "H", "the original"),
    "oracle-cost": Method("baselines.oracle_cost:fit", "OracleCostConfig", ORACLE, "D_U, true costs", "Oracle cost", BLACK, "8", "true weights"),
    "osrl-bcql": Method("baselines.osrl_bcql:fit", "BCQLConfig", ORACLE, ALL, "BCQ-Lag", GREY, "<", "OSRL's BCQ-Lagrangian"),
    "osrl-bearl": Method("baselines.osrl_bearl:fit", "BEARLConfig", ORACLE, ALL, "BEAR-Lag", GREY, ">", "OSRL's BEAR-Lagrangian"),
    "osrl-cpq": Method("baselines.osrl_cpq:fit", "CPQConfig", ORACLE, ALL, "CPQ", GREY, "h", "OSRL's constrained Q-learning"),
    "osrl-coptidice": Method("baselines.osrl_coptidice:fit", "COptiDICEConfig", ORACLE, ALL, "COptiDICE", GREY, "p", "OSRL's"),
    "osrl-cdt": Method("baselines.osrl_cdt:fit", "CDTConfig", ORACLE, ALL, "CDT", GREY, "s", "OSRL's decision transformer"),
}
# fmt: on
LABEL_LIMITED = tuple(name for name, method in METHODS.items() if not method.oracle)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]
