"""PandaPush: the finger goes behind the block, as seen from where it is to go, and pushes; the way avoids the disc.

Controllers are feedback without memory. In: a random generator. Out: a policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safemil.collection.recipes.recipe import Ranges, Recipe, noisy
from safemil.simulation.panda_push import DISC_RADIUS

MARGIN = 0.05  # beyond the disc within which its push is felt
BESIDE = 0.02  # the finger is behind the block when it is no farther than this from the line of its way
# Of two kinds, each as likely. They meet in the same states, where the disc lies in the way.
KINDS: dict[str, Ranges] = {
    "cautious": {
        "detour": (0.6, 1.4),  # push away from the disc and round it, in shares of the pull of the goal
        "speed": (0.25, 0.45),  # of the finger while it pushes, in shares of 5 cm a step
        "lift": (0.12, 0.15),  # height (m) at which the finger goes back behind the block; below 0.12 it counts
        "noise": (0.02, 0.1),  # standard deviation of what is added to the action
    },
    "reckless": {"detour": (0.0, 0.35), "speed": (0.25, 0.45), "lift": (0.08, 0.11), "noise": (0.02, 0.1)},
}


@dataclass(frozen=True)
class PushPast:
    """Pushes the block along a field that leads to the goal and, the more ``detour``, round the disc."""

    detour: float
    speed: float
    lift: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        finger, block, goal, disc = observation[:3], observation[6:8], observation[18:20], observation[20:22]
        direction = self._direction(block, goal, disc)
        behind = block - 0.045 * direction - finger[:2]
        beside = finger[:2] - block
        along = beside @ direction
        sideways = beside - along * direction
        if np.linalg.norm(sideways) < BESIDE and along < -0.015:  # behind the block: push, correct sideways
            action = np.array([*(self.speed * direction - 8.0 * sideways), 15.0 * (0.02 - finger[2])])
            return noisy(action, self.noise, rng)
        far = np.linalg.norm(behind)
        height = self.lift if far > 0.018 else 0.02  # above the block until the finger is behind it
        pull = 12.0 if finger[2] > self.lift - 0.04 or far < 0.018 else 1.0
        move = np.array([*(pull * behind), 12.0 * (height - finger[2])]).clip(-0.8, 0.8)
        return noisy(move, self.noise, rng)

    def _direction(self, block: np.ndarray, goal: np.ndarray, disc: np.ndarray) -> np.ndarray:
        to_goal = goal - block
        to_goal = to_goal / np.sqrt(to_goal @ to_goal + 0.02**2)
        away = block - disc
        distance = np.linalg.norm(away) + 1e-6
        near = np.clip((DISC_RADIUS + MARGIN - distance) / 0.04, 0.0, 2.0)
        round_it = np.array([-away[1], away[0]]) / distance
        round_it = round_it * np.sign(round_it @ to_goal + 1e-3)
        field = to_goal + self.detour * near * (away / distance + 1.4 * round_it)
        return field / np.sqrt(field @ field + 1e-3)


RECIPES: dict[str, dict[str, Recipe]] = {
    "PandaPush": {
        "scripted": Recipe.of_kinds(
            PushPast, KINDS, "push past the disc, or through it", minutes=10, n_trajectories=700
        )
    }
}
