"""Safety-Gymnasium's velocity tasks: linear gaits, from fast ones to ones that keep to the speed limit.

The gaits were found by ``safemil.recipes.gait_search`` and lie in ``gaits/<task>.npz``. In: a random generator. Out: a
policy: one gait of the ladder, with noise on its actions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.errors import UserError
from safemil.recipes.recipe import Ranges, Recipe, noisy
from safemil.tasks import Task, find_task

FOLDER = Path(__file__).with_name("gaits")
# A gait found by search keeps to the speed limit at strength 1; stronger, it breaks it in the same states.
GAITS: Ranges = {
    "strength": (0.4, 2.0),  # factor on the gait's actions
    "noise": (0.02, 0.15),  # standard deviation of what is added to the action
}


def gaits_path(task: Task) -> Path:
    """Where the gaits of a task lie."""
    return FOLDER / f"{task.name}.npz"


@dataclass(frozen=True, eq=False)
class LinearGait:
    """Actions that are linear in the observation."""

    gains: np.ndarray  # (action_dim, observation_dim)
    offsets: np.ndarray  # (action_dim,)
    strength: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return noisy(self.strength * (self.gains @ observation + self.offsets), self.noise, rng)


def draw_gait(task: str, rng: np.random.Generator) -> LinearGait:
    """One gait of those found, all alike probable, at some strength."""
    gains, offsets = _gaits(task)
    chosen = rng.integers(len(gains))
    return LinearGait(gains[chosen], offsets[chosen], **{name: rng.uniform(*span) for name, span in GAITS.items()})


@functools.lru_cache(maxsize=2)
def _gaits(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Gains and offsets of all gaits of a task."""
    path = gaits_path(find_task(task))
    if not path.exists():
        raise UserError(
            f"the gaits of {task} have not been searched yet: python -m safemil.recipes.gait_search --task {task}"
        )
    with np.load(path) as gaits:
        return gaits["gains"], gaits["offsets"]


def _recipe(task: str, minutes: float) -> dict[str, Recipe]:
    description = "linear gaits found by random search, from fast to within the speed limit"
    return {"scripted": Recipe(functools.partial(draw_gait, task), description, minutes, parameters=GAITS)}


RECIPES: dict[str, dict[str, Recipe]] = {
    "SwimmerVelocity": _recipe("SwimmerVelocity", minutes=5),
    "HalfCheetahVelocity": _recipe("HalfCheetahVelocity", minutes=8),
}
