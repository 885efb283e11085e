"""Behavior for the variants called ``lapse``: a cautious policy that turns bold, or reckless, in spells.

    step    0 ......................................................................... horizon
    policy  cautious | bold | cautious | reckless | cautious ........ | reckless | bold | cautious

All three are the same controller with one parameter changed. Bold ones keep within what costs nothing, and are there so
that a change of behavior alone, or a feature's mean over a trajectory, does not give the reckless ones away. How many
steps are reckless is drawn from a continuum that crosses the cost limit. In: three policies. Out: one that plays a
single episode, as it counts its steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from safemil.collection.recipes.recipe import Recipe
from safemil.collection.recording import Behavior
from safemil.data.tasks import TASKS, UNSAFE_COST, Task

DrawPolicies = Callable[[np.random.Generator], Sequence[Behavior]]  # the cautious one, the bold one, the reckless one

# A trajectory's cost is aimed at DEAREST * UNSAFE_COST limits times u ** SKEW, u uniform: a quarter of the trajectories
# keep the limit, a third break it three times over, and these cost UNSAFE_COST limits on average.
DEAREST, SKEW = 1.25, 1.2


@dataclass(eq=False)
class Lapsing:
    """One of several policies at each step."""

    policies: Sequence[Behavior]
    schedule: np.ndarray  # (horizon,) int, which policy acts
    step: int = 0

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        policy = self.policies[self.schedule[self.step]]
        self.step += 1
        return policy.act(observation, rng)


@dataclass(frozen=True)
class Spells:
    """How long policies other than the cautious one act."""

    length: int  # steps of a spell, roughly
    costly: float  # what a reckless step costs on average; above 1 where costs outlast the spell
    bold: float  # up to this share of an episode is bold


def draw_lapsing(policies: DrawPolicies, task: Task, spells: Spells, rng: np.random.Generator) -> Lapsing:
    """Policies, and when each of them acts."""
    drawn = policies(rng)
    cost = DEAREST * UNSAFE_COST * task.cost_limit * rng.random() ** SKEW
    reckless = min(task.horizon, round(cost / spells.costly))
    bold = min(task.horizon - reckless, round(spells.bold * task.horizon * rng.random()))
    return Lapsing(drawn, schedule([bold, reckless], spells.length, task.horizon, rng))


def schedule(n_steps: Sequence[int], length: int, horizon: int, rng: np.random.Generator) -> np.ndarray:
    """(horizon,) int: k + 1 at ``n_steps[k]`` steps, in spells of about ``length`` steps anywhere, and 0 between."""
    spells = []
    for policy, n in enumerate(n_steps, start=1):
        n_spells = -(-n // length)
        spells += [(policy, size) for size in np.diff(np.arange(n_spells + 1) * n // max(1, n_spells))]
    starts = np.sort(rng.integers(horizon - sum(n_steps) + 1, size=len(spells)))  # in the steps outside of spells
    acting, before = np.zeros(horizon, dtype=int), 0
    for start, index in zip(starts, rng.permutation(len(spells)), strict=True):
        policy, size = spells[index]
        acting[start + before : start + before + size] = policy
        before += size
    return acting


def lapse_recipes(
    base: str,
    policies: DrawPolicies,
    spells: Spells,
    parameters: dict,
    description: str,
    minutes: float,
    name: str = "scripted",
    **named: Any,
) -> dict[str, dict[str, Recipe]]:
    """Variant -> its recipe's name -> the recipe, for each ``lapse`` variant of a task.

    Args:
        parameters: what ``policies`` draws from; recorded in the file.
        minutes: of each variant's collection.
        name: of the recipes.
        named: further fields of a ``Recipe``.
    """
    fixed = {**parameters, "spells": asdict(spells), "dearest": DEAREST, "skew": SKEW}
    description = f"{description}, with spells of recklessness"
    recipes = {}
    for task in (task for task in TASKS.values() if task.variant.startswith("lapse") and task.base == base):
        draw = functools.partial(draw_lapsing, policies, task, spells)
        recorded = {**fixed, "cost_limit": task.cost_limit}
        recipes[task.name] = {name: Recipe(draw, description, minutes, parameters=recorded, **named)}
    return recipes


def with_one_changed(
    draw: Callable[[np.random.Generator], Any], name: str, bold: float, reckless: float
) -> DrawPolicies:
    """Policies from the cautious one: ``name`` is the parameter that makes it bold or reckless."""
    return functools.partial(_changed, draw, name, (bold, reckless))


def _changed(draw, name: str, values: Sequence[float], rng: np.random.Generator) -> list[Behavior]:
    cautious = draw(rng)
    return [cautious, *(replace(cautious, **{name: value}) for value in values)]
