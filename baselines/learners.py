"""Baselines as objects, with SafeMIL's interface."""

from __future__ import annotations

import functools

from baselines.registry import METHODS
from safemil.api import LAPTOP_STEPS, Learner
from safemil.config.overrides import dotted_fields, override


@functools.cache
def learner(method: str, name: str) -> type[Learner]:
    """The class ``name`` of a label-limited method."""
    registered = METHODS[method]

    def defaults(cls) -> object:
        config = registered.config()
        known = dotted_fields(config)
        steps = {key: value for key, value in LAPTOP_STEPS.items() if key in known}
        if "discriminator.steps" in known:
            steps["discriminator.steps"] = min(config.discriminator.steps, LAPTOP_STEPS["policy.steps"])
        return override(config, steps)

    body = {"method": method, "__doc__": f"{registered.label}: {registered.summary}.", "__module__": __name__}
    functions = {"defaults": classmethod(defaults), "fitting": classmethod(lambda cls: registered.load())}
    return type(name, (Learner,), {**body, **functions})
