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

from baselines.settings import BCConfig
from safemil.errors import UserError
from safemil.settings import SafeMILConfig


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


METHODS: dict[str, Method] = {
    "safemil": Method("safemil.method:fit", SafeMILConfig, "D_N, D_U", "cost from bags, weighted cloning"),
    "bc-all": Method("baselines.bc:fit", BCConfig, "D_U", "clone all of D_U"),
    "bc-safe": Method("baselines.bc:fit_safe", BCConfig, "D_U, true costs", "clone D_U within the cost limit", True),
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
