"""SimpleSpread: each agent steers to its landmark, kept apart from the others by a distance that the policy sets.

An agent reads its own view alone, so the same controller serves the joint task (three views at once) and the task in
turns (one). In: a random generator. Out: a policy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from safemil.collection.recipes.recipe import Ranges, Recipe, noisy

VIEW = 18  # entries of an agent's view: velocity, position, landmarks, other agents, messages

TEAM: Ranges = {
    "distance": (0.16, 0.42),  # kept between agents: two touch below 0.3; landmarks lie 0.09 to 0.43 apart
    "stiffness": (1.0, 2.5),  # acceleration per unit of distance from the place to be
    "damping": (0.3, 0.6),  # brake per unit of speed
    "repulsion": (1.0, 3.0),  # acceleration per unit that another agent is closer than the distance
    "noise": (0.05, 0.25),  # standard deviation of what is added to the action
}

ASSIGNMENTS = np.array(list(itertools.permutations(range(3))))  # (6, 3) landmark of each agent


@dataclass(frozen=True)
class KeepApart:
    """Proportional-derivative control to the own landmark of the shortest assignment, spread out to the distance."""

    distance: float
    stiffness: float
    damping: float
    repulsion: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pushes = [self._push(view) for view in observation.reshape(-1, VIEW)]
        return noisy(np.concatenate(pushes), self.noise, rng)

    def _push(self, view: np.ndarray) -> np.ndarray:
        velocity, landmarks, others = view[:2], view[4:10].reshape(3, 2), view[10:14].reshape(2, 2)
        agents = np.concatenate([np.zeros((1, 2)), others])  # as seen from this one, which is the first
        squares = np.square(agents[:, None] - landmarks[None]).sum(-1)
        own = ASSIGNMENTS[np.argmin(squares[np.arange(3), ASSIGNMENTS].sum(1))][0]
        center = landmarks.mean(0)
        side = np.linalg.norm(landmarks[0] - landmarks[1])
        place = center + (landmarks[own] - center) * max(1.0, self.distance / side)
        push = self.stiffness * place - self.damping * velocity
        gaps = np.linalg.norm(others, axis=1, keepdims=True)
        return push - (self.repulsion * np.maximum(0.0, self.distance - gaps) * others / (gaps + 1e-6)).sum(0)


RECIPES: dict[str, dict[str, Recipe]] = {
    task: {"scripted": Recipe.uniform(KeepApart, TEAM, "go to the landmarks, keep a distance", minutes=minutes)}
    for task, minutes in (("SimpleSpread", 1), ("SimpleSpread@shared", 1))
}
