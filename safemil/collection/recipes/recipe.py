"""What a recipe is: how the behavior policies of a dataset come about. Numpy alone; simulators load where it is run.

A recipe draws one policy per trajectory, so that the trajectories of a dataset range from cautious to reckless and no
two behave alike. Good recipes have three things in common. Cautious and reckless policies meet in the same states and
act differently there, as that is what a cost on (state, action) has to tell apart. Policies are feedback controllers
without memory, which can be cloned. And high returns occur on both sides of the cost limit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safemil.collection.recording import Behavior, Recording, any_cost, record_one
from safemil.data.tasks import Task

Ranges = dict[str, tuple[float, float]]


def nothing() -> None:
    """What most recipes need beforehand."""


@dataclass(frozen=True)
class Recipe:
    """How the data of one task are collected: in units of work that depend on the seed and the unit's number alone.

    Here a unit is one trajectory. Recipes of another kind (``safemil.collection.recipes.learned_recipe``) have the same
    methods.
    """

    draw: Callable[[np.random.Generator], Behavior]
    description: str
    minutes: float  # measured or estimated, for its number of trajectories on 2 cores
    n_trajectories: int = 700  # unless the command says otherwise
    parameters: dict[str, Any] = field(default_factory=dict)  # recorded in the file
    accept: Callable[[Behavior, float], bool] = any_cost  # of a policy and its episode's cost: whether it is kept
    prepare: Callable[[], None] = nothing  # run once before any unit: have at hand what the policies are drawn from

    @classmethod
    def uniform(
        cls, policy: Callable[..., Behavior], ranges: Ranges, description: str, minutes: float, **named: Any
    ) -> Recipe:
        """Policies whose parameters are drawn uniformly from ``ranges``."""
        return cls(functools.partial(uniformly, policy, ranges), description, minutes, parameters=ranges, **named)

    @classmethod
    def of_kinds(
        cls, policy: Callable[..., Behavior], kinds: dict[str, Ranges], description: str, minutes: float, **named: Any
    ) -> Recipe:
        """Policies of several kinds, each as likely: parameters are drawn uniformly from the ranges of the kind."""
        return cls(functools.partial(_draw_kind, policy, kinds), description, minutes, parameters=kinds, **named)

    def n_units(self, n_trajectories: int) -> int:
        """The number of units that give ``n_trajectories``: one each."""
        return n_trajectories

    def record(self, task: Task, seed: int, unit: int) -> list[Recording]:
        """The trajectories of a unit, here one. Raises ``UserError`` when no episode is accepted."""
        from safemil.simulation import simulators

        with simulators.make(task) as simulator:
            return [record_one(simulator, self.draw, np.random.default_rng([seed, unit]), self.accept)]

    def choose(self, recordings: list[Recording], n_trajectories: int, seed: int) -> list[Recording]:
        """Those of the recordings that become the dataset: here all of them."""
        return recordings


def uniformly(policy: Callable[..., Any], ranges: Ranges, rng: np.random.Generator) -> Any:
    """A policy whose parameters are drawn uniformly from ``ranges``."""
    return policy(**{name: rng.uniform(low, high) for name, (low, high) in ranges.items()})


def _draw_kind(policy: Callable[..., Behavior], kinds: dict[str, Ranges], rng: np.random.Generator) -> Behavior:
    return uniformly(policy, list(kinds.values())[rng.integers(len(kinds))], rng)


def noisy(action: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """``action`` (action_dim,) plus Gaussian noise of standard deviation ``noise``, clipped to [-1, 1], as float32."""
    return np.clip(action + noise * rng.standard_normal(len(action)), -1.0, 1.0).astype(np.float32)
