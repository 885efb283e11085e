"""Safety-Gymnasium's velocity tasks: one linear gait, so weak that it keeps to the speed limit, or stronger and faster.

The gait was found by ``safemil.collection.recipes.gait_search`` and lies in ``gaits/<task>.json``. In one and the same
state the stronger one pushes harder. In: a random generator. Out: a policy.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.collection.recipes.recipe import Ranges, Recipe, noisy
from safemil.config.errors import UserError
from safemil.data.tasks import Task, find_task

FOLDER = Path(__file__).with_name("gaits")

# Several gaits from the same search, cloned together, cancel each other out: plain cloning of all then hardly moves.
# Swimmer, seed 0, 700 trajectories: 321 with C < 25 (returns 16 to 112), 62 between, 317 with C > 75 (96 to 209).
SWIMMER: Ranges = {
    "strength": (0.45, 1.6),  # factor on the gait's actions; the limit is broken from 0.85 or so
    "variety": (0.1, 0.1),  # relative standard deviation of each gain, so that no two gaits are alike
    "noise": (0.02, 0.1),  # standard deviation of what is added to the action
}
# The cheetah stands still below 0.7, breaks the limit from 0.8 or so, and falls over above 1.2.
HALF_CHEETAH: Ranges = {"strength": (0.72, 0.98), "variety": (0.05, 0.05), "noise": (0.02, 0.1)}


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


def draw_gait(task: str, ranges: Ranges, rng: np.random.Generator) -> LinearGait:
    """The task's gait, weaker or stronger, and varied; ``ranges`` of strength, variety, noise in this order."""
    gains, offsets = _gait(task)
    strength, variety, noise = (rng.uniform(*span) for span in ranges.values())
    gains = gains * (1 + variety * rng.standard_normal(gains.shape))
    return LinearGait(strength * gains, strength * offsets, noise)


@functools.lru_cache(maxsize=2)
def _gait(task: str) -> tuple[np.ndarray, np.ndarray]:
    path = gait_path(find_task(task))
    if not path.exists():
        command = f"python -m safemil.collection.recipes.gait_search --task {task}"
        raise UserError(f"no gait of {task} has been searched yet: {command}")
    gait = json.loads(path.read_text())
    return np.array(gait["gains"]), np.array(gait["offsets"])


def _recipe(task: str, ranges: Ranges, minutes: float) -> dict[str, Recipe]:
    description = "a linear gait found by random search, weaker and stronger"
    path = gait_path(find_task(task))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.exists() else ""
    parameters = ranges | {"gait": digest}  # another gait makes other data
    return {"scripted": Recipe(functools.partial(draw_gait, task, ranges), description, minutes, parameters=parameters)}


RECIPES: dict[str, dict[str, Recipe]] = {
    "SwimmerVelocity": _recipe("SwimmerVelocity", SWIMMER, minutes=3),
    "HalfCheetahVelocity": _recipe("HalfCheetahVelocity", HALF_CHEETAH, minutes=4),
}
