"""Learn a safe policy from a few trajectories known to be bad and many unlabeled ones; see ``SafeMIL``.

Names are imported when they are used, so that ``import safemil`` itself loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safemil.api import SafeMIL, Trajectories
    from safemil.nn.checkpoints import load_policy

__version__ = "0.1.0"
__all__ = ["SafeMIL", "Trajectories", "load_policy"]
_HOMES = {"SafeMIL": "safemil.api", "Trajectories": "safemil.api", "load_policy": "safemil.nn.checkpoints"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'safemil' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
