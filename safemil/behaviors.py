"""Behavior policies to collect data with when nothing can be downloaded. In: a random generator. Out: a policy.

A recipe draws one policy per trajectory, so that the trajectories of a dataset range from cautious to reckless and no
two behave alike. ``RECIPES`` is the table of all recipes; a new one (another task, or policies that were learned) is a
``draw`` function and one more entry. Numpy alone: simulators are ``safemil.collect``'s affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from safemil.errors import UserError
from safemil.tasks import Task

Ranges = dict[str, tuple[float, float]]


class Behavior(Protocol):
    """A behavior policy, drawn once per trajectory."""

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(observation_dim,) float32 -> (action_dim,) float32 in [-1, 1]."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How the data of one task are collected."""

    draw: Callable[[np.random.Generator], Behavior]
    description: str
    n_trajectories: int  # unless the command says otherwise
    parameters: Ranges = field(default_factory=dict)  # recorded in the file


# BallCircle costs 1 for every step beyond |x| = 6, while its reward asks for speed along a circle of radius 7. `clip`
# decides whether a ball crosses: at 3 it stays far inside, at 5 just inside, at 9 it takes the whole circle. Cautious
# and reckless balls meet in the same states on this side of the line and push in different directions there: that is
# what a cost on (state, action) has to tell apart. The ranges are chosen so that 700 trajectories fill both bands of
# the default split (C < 25 and C > 75) twice over, as the lower-return half is dropped, with high returns in both.
# Seed 0: 229 with C < 25 (returns 201 to 735, better half 486 on average), 166 between, 305 with C > 75 (350 to 790).
# Plain cloning of the 100 preferred ones in D_U gives return 442, cost 0; of all 200: 609, cost 53 (one run).
BALL_CIRCLE: Ranges = {
    "clip": (3.1, 8.9),  # |x| of the point steered to; correlation with an episode's cost .87, of no other above .25
    "radius": (7.0, 8.5),  # of the circle steered along: the ball lags behind and cuts inside, so at least 7
    "lead": (0.6, 1.0),  # angle (rad) from the ball to that point; smaller ones make slow balls that earn little
    "stiffness": (0.2, 0.5),  # push per unit of distance; with 0.5 to 1.5 two thirds of all actions stand at -1 or 1
    "damping": (0.35, 0.7),  # brake per unit of speed, in shares of the stiffness; below, cautious balls overshoot
    "noise": (0.05, 0.3),  # standard deviation of what is added to the action
}


@dataclass(frozen=True)
class CircleDriver:
    """Proportional-derivative control of the ball towards a point ahead of it on the circle, its x cut to +-clip."""

    clip: float
    radius: float
    lead: float
    stiffness: float
    damping: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> CircleDriver:
        return cls(**{name: rng.uniform(low, high) for name, (low, high) in BALL_CIRCLE.items()})

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        position, velocity = _position_and_velocity(observation)
        angle = np.arctan2(position[1], position[0]) - self.lead  # the reward is for going round clockwise
        x = np.clip(self.radius * np.cos(angle), -self.clip, self.clip)
        target = np.array([x, self.radius * np.sin(angle)])
        push = self.stiffness * (target - position - self.damping * velocity)
        return _noisy(push, self.noise, rng)


# BallRun costs 1 for every step faster than 2.5 or beyond |y| = 2, and rewards speed along x. So there are two kinds of
# failure: `speed` above 2.5, and lanes beyond 2, which a slow ball may take as well. Seed 0, 700 trajectories: 270 with
# C < 25 (returns 214 to 454), 92 between, 338 with C > 75 (219 to 617).
BALL_RUN: Ranges = {
    "speed": (1.4, 3.5),  # along x
    "lane": (-2.6, 2.6),  # y of the line the ball runs along
    "eagerness": (0.3, 1.5),  # push per unit of missing speed
    "stiffness": (0.3, 1.0),  # push per unit of distance from the lane
    "damping": (0.4, 0.8),  # brake per unit of sideways speed, in shares of the stiffness
    "noise": (0.05, 0.3),  # standard deviation of what is added to the action
}


@dataclass(frozen=True)
class RunDriver:
    """Proportional control of the ball's speed along x, proportional-derivative control of its lane."""

    speed: float
    lane: float
    eagerness: float
    stiffness: float
    damping: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> RunDriver:
        return cls(**{name: rng.uniform(low, high) for name, (low, high) in BALL_RUN.items()})

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (_, y), (velocity_x, velocity_y) = _position_and_velocity(observation)
        push_x = self.eagerness * (self.speed - velocity_x)
        push_y = self.stiffness * (self.lane - y - self.damping * velocity_y)
        return _noisy(np.array([push_x, push_y]), self.noise, rng)


def _position_and_velocity(observation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ball's (x, y) and its velocity, which Bullet-Safety-Gym scales in the observation."""
    return observation[:2] / 0.1, observation[2:4] / 0.2


def _noisy(push: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(push + noise * rng.standard_normal(len(push)), -1.0, 1.0).astype(np.float32)


# task name -> recipe name -> recipe
RECIPES: dict[str, dict[str, Recipe]] = {
    "BallCircle": {
        "scripted": Recipe(CircleDriver.draw, "steer ahead on the circle, x cut to +-clip", 700, BALL_CIRCLE),
    },
    "BallRun": {
        "scripted": Recipe(RunDriver.draw, "hold a speed and a lane", 700, BALL_RUN),
    },
}


def find_recipe(task: Task, name: str) -> Recipe:
    """The recipe called ``name`` of a task. Raises ``UserError`` naming the ones that exist."""
    recipes = RECIPES.get(task.name, {})
    if name in recipes:
        return recipes[name]
    if recipes:
        raise UserError(f"unknown recipe {name!r} for {task.name}: there is {' '.join(recipes)}")
    raise UserError(f"no recipe to collect {task.name} with yet; there are recipes for: {' '.join(RECIPES)}")
