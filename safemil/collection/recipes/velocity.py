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
from typing import Any

import numpy as np

from safemil.collection.recipes.lapse import Spells, lapse_recipes
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
SWIMMER_LAPSE: Ranges = SWIMMER | {"strength": (0.3, 0.85), "bold": (0.8, 0.85), "reckless": (1.5, 1.8)}
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
        # Not a matrix product: linear algebra libraries add up in another order on other processors.
        return noisy((self.gains * observation).sum(axis=1) + self.offsets, self.noise, rng)


def draw_gait(task: str, ranges: Ranges, rng: np.random.Generator) -> LinearGait:
    """The task's gait, weaker or stronger, and varied; ``ranges`` of strength, variety and noise."""
    gains, offsets = _gait(task)
    strength, variety, noise = (rng.uniform(*ranges[name]) for name in ("strength", "variety", "noise"))
    gains = gains * (1 + variety * rng.standard_normal(gains.shape))
    return LinearGait(strength * gains, strength * offsets, noise)


def draw_gaits(task: str, ranges: Ranges, rng: np.random.Generator) -> list[LinearGait]:
    """A weak gait, and the same one at the strengths that the ranges ``bold`` and ``reckless`` say."""
    gait = draw_gait(task, {**ranges, "strength": (1.0, 1.0)}, rng)
    strengths = [rng.uniform(*ranges[name]) for name in ("strength", "bold", "reckless")]
    return [LinearGait(strength * gait.gains, strength * gait.offsets, gait.noise) for strength in strengths]


@functools.lru_cache(maxsize=2)
def _gait(task: str) -> tuple[np.ndarray, np.ndarray]:
    path = gait_path(find_task(task))
    if not path.exists():
        command = f"python -m safemil.collection.recipes.gait_search --task {task}"
        raise UserError(f"no gait of {task} has been searched yet: {command}")
    gait = json.loads(path.read_text())
    return np.array(gait["gains"]), np.array(gait["offsets"])


def _parameters(task: str, ranges: Ranges) -> dict[str, Any]:
    """What is recorded: another gait makes other data."""
    path = gait_path(find_task(task))
    return {**ranges, "gait": hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.exists() else ""}


def _recipe(task: str, ranges: Ranges, minutes: float) -> dict[str, Recipe]:
    description, parameters = "a linear gait found by random search, weaker and stronger", _parameters(task, ranges)
    return {"scripted": Recipe(functools.partial(draw_gait, task, ranges), description, minutes, parameters=parameters)}


def _lapses(task: str, ranges: Ranges, minutes: float) -> dict[str, dict[str, Recipe]]:
    policies, spells = functools.partial(draw_gaits, task, ranges), Spells(60, costly=0.45, bold=0.9)
    return lapse_recipes(task, policies, spells, _parameters(task, ranges), "a linear gait", minutes)


RECIPES: dict[str, dict[str, Recipe]] = {
    "SwimmerVelocity": _recipe("SwimmerVelocity", SWIMMER, minutes=3),
    **_lapses("SwimmerVelocity", SWIMMER_LAPSE, minutes=3),
    "HalfCheetahVelocity": _recipe("HalfCheetahVelocity", HALF_CHEETAH, minutes=4),
}
