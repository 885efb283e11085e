"""Safety-Gymnasium's velocity tasks: one linear gait that keeps to the speed limit, weaker and stronger.

The gait was found by ``safemil.recipes.gait_search`` and lies in ``gaits/<task>.json``. A stronger one is faster and
breaks the limit; in one and the same state it pushes harder. In: a random generator. Out: a policy.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.errors import UserError
from safemil.recipes.recipe import Ranges, Recipe, noisy
from safemil.tasks import Task, find_task

FOLDER = Path(__file__).with_name("gaits")

# Several gaits from the same search, cloned together, cancel each other out: plain cloning of all then hardly moves.
# Seed 0 of Swimmer, gait as found: costs 0 to 25 below a strength of 0.85, beyond 75 above 1.05.
GAITS: Ranges = {
    "strength": (0.45, 1.6),  # factor on the gait's actions
    "variety": (0.1, 0.1),  # relative standard deviation of each gain, so that no two gaits are alike
    "noise": (0.02, 0.1),  # standard deviation of what is added to the action
}


def gait_path(task: Task) -> Path:
    """Where the gait of a task lies."""
    return FOLDER / f"{task.name}.json"


@dataclass(frozen=True, eq=False)
class LinearGait:
    """Actions that are linear in the observation."""

    gains: np.ndarray  # (action_dim, observation_dim)
    offsets: np.ndarray  # (action_dim,)
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return noisy(self.gains @ observation + self.offsets, self.noise, rng)


def draw_gait(task: str, rng: np.random.Generator) -> LinearGait:
    """The task's gait at some strength, a little varied."""
    gains, offsets = _gait(task)
    strength, variety, noise = (rng.uniform(*span) for span in GAITS.values())
    gains = gains * (1 + variety * rng.standard_normal(gains.shape))
    return LinearGait(strength * gains, strength * offsets, noise)


@functools.lru_cache(maxsize=2)
def _gait(task: str) -> tuple[np.ndarray, np.ndarray]:
    path = gait_path(find_task(task))
    if not path.exists():
        command = f"python -m safemil.recipes.gait_search --task {task}"
        raise UserError(f"no gait of {task} has been searched yet: {command}")
    gait = json.loads(path.read_text())
    return np.array(gait["gains"]), np.array(gait["offsets"])


def _recipe(task: str, minutes: float) -> dict[str, Recipe]:
    description = "a linear gait found by random search, weaker and stronger"
    path = gait_path(find_task(task))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.exists() else ""
    parameters = GAITS | {"gait": digest}  # another gait makes other data
    return {"scripted": Recipe(functools.partial(draw_gait, task), description, minutes, parameters=parameters)}


RECIPES: dict[str, dict[str, Recipe]] = {
    "SwimmerVelocity": _recipe("SwimmerVelocity", minutes=3),
}
