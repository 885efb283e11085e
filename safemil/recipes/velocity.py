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
from safemil.recipes.recipe import Recipe, noisy
from safemil.tasks import Task, find_task

FOLDER = Path(__file__).with_name("gaits")
NOISE = (0.02, 0.15)  # standard deviation of what is added to the action


def gaits_path(task: Task) -> Path:
    """Where the gaits of a task lie."""
    return FOLDER / f"{task.name}.npz"


@dataclass(frozen=True, eq=False)
class LinearGait:
    """Actions that are linear in the observation, cut to [-1, 1]."""

    gains: np.ndarray  # (action_dim, observation_dim)
    offsets: np.ndarray  # (action_dim,)
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return noisy(np.clip(self.gains @ observation + self.offsets, -1.0, 1.0), self.noise, rng)


def draw_gait(task: str, rng: np.random.Generator) -> LinearGait:
    """One gait of the ladder, all alike probable."""
    gains, offsets = _ladder(task)
    rung = rng.integers(len(gains))
    return LinearGait(gains[rung], offsets[rung], rng.uniform(*NOISE))


@functools.lru_cache(maxsize=2)
def _ladder(task: str) -> tuple[np.ndarray, np.ndarray]:
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
    return {"scripted": Recipe(functools.partial(draw_gait, task), description, minutes, parameters={"noise": NOISE})}


RECIPES: dict[str, dict[str, Recipe]] = {
    "SwimmerVelocity": _recipe("SwimmerVelocity", minutes=5),
    "HalfCheetahVelocity": _recipe("HalfCheetahVelocity", minutes=8),
}
