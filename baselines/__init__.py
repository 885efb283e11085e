"""The methods that SafeMIL is compared with, a file each; ``from baselines import DWBC`` and the like are objects.

Every label-limited method can be had as SafeMIL can (safemil/api.py): BC, PPL, TREX, DWBC, SafeDICE,
UNIQ, OSIL, DExperts.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from baselines.registry import LABEL_LIMITED, METHODS

    for method in LABEL_LIMITED:
        if METHODS[method].settings == f"{name}Config":
            from baselines.learners import learner

            return learner(method, name)
    raise AttributeError(f"module 'baselines' has no attribute {name!r}")
