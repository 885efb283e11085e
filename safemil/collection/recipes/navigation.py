"""Safety-Gymnasium's navigation tasks: steer along the circle, or to the goal, around what costs or into it.

The agent sees lidars alone: 16 bins around it. An object at distance d and angle phi reads 1 - d / range in the bin of
phi, the share of it by which phi leans to the next bin in that one, and the rest of it in the bin before. Positions and
directions are complex numbers in the agent's frame, straight ahead is 1, and Python's own: numpy's arithmetic on
complex arrays gives other last digits on other processors. In: a random generator. Out: a policy.
"""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safemil.collection.recipes.lapse import Spells, lapse_recipes, with_one_changed
from safemil.collection.recipes.recipe import Ranges, Recipe, noisy, uniformly

BINS = 16
DIRECTIONS = [
    cmath.rect(1.0, math.tau * (bin_ + 0.5) / BINS) for bin_ in range(BINS)
]  # middles, in the simulator's frame


@dataclass(frozen=True)
class Agent:
    """What differs between Point and Car."""

    n_sensors: int  # observations before the lidars
    ahead: complex  # straight ahead, in the simulator's frame
    wheels: bool  # actions are the speeds of two wheels, instead of push and turn

    def lidar(self, observation: np.ndarray, index: int) -> list[float]:
        """The 16 readings of the lidar that comes ``index``-th in the observation."""
        return observation[self.n_sensors + BINS * index : self.n_sensors + BINS * (index + 1)].tolist()

    def seen(self, lidar: Sequence[float], lidar_range: float) -> list[complex]:
        """Positions of what makes these readings: one for each bin that reads more than its neighbors."""
        positions = []
        for bin_, reading in enumerate(lidar):
            before, after = lidar[bin_ - 1], lidar[(bin_ + 1) % BINS]
            if reading > 0 and reading >= after and reading > before:
                leaning = (after / reading + 1 - before / reading) / 2
                angle = math.tau * (bin_ + leaning) / BINS
                positions.append(cmath.rect(lidar_range * (1 - reading), angle) / self.ahead)
        return positions

    def velocity(self, observation: np.ndarray) -> complex:
        return complex(observation[3], observation[4]) / self.ahead

    def yaw(self, observation: np.ndarray) -> complex:
        """Its direction in the world; the magnetometer sees the south."""
        return complex(-observation[10], -observation[9]) * self.ahead / 0.5

    def drive(self, wanted: complex, observation: np.ndarray) -> np.ndarray:
        """The action (2,) that brings the velocity to the wanted one: head for it, leaning against the drift."""
        missing = wanted - self.velocity(observation)
        return self.action(2.0 * missing.real, cmath.phase(wanted + 2.0 * missing))

    def glide(self, wanted: complex, observation: np.ndarray) -> np.ndarray:
        """As ``drive``, but linear in both velocities, without an angle that jumps, and hardly ever backwards."""
        velocity = self.velocity(observation)
        push = 2.0 * (max(wanted.real, BACKWARDS) - velocity.real)
        return self.action(push, 1.5 * wanted.imag - velocity.imag)

    def action(self, push: float, turn: float) -> np.ndarray:
        """(2,): forwards, and to the left."""
        return np.array([push + turn, push - turn]) if self.wheels else np.array([push, turn])


POINT = Agent(n_sensors=12, ahead=1, wheels=False)
CAR = Agent(n_sensors=24, ahead=-1j, wheels=True)

CIRCLE_RANGE, GOAL_RANGE = 6.0, 3.0  # distance at which lidars begin to see

# Circle tasks cost 1 for every step beyond a wall. A circle as large as the rewarded one lies beyond for most of it.
# PointCircle2, seed 0, 700 trajectories: 242 with C < 25 (returns 25 to 44), 76 between, 382 with C > 75 (28 to 59).
CIRCLE: Ranges = {
    "radius": (0.7, 1.5),  # of the circle steered along; the rewarded one has 1.5, walls stand at 1.125
    "lead": (0.3, 0.6),  # angle (rad) from the agent to the point steered to
    "speed": (0.9, 1.4),
    "noise": (0.05, 0.2),  # standard deviation of what is added to the action
}
CIRCLE_LAPSE: Ranges = CIRCLE | {"radius": (0.4, 1.0)}
BOLD_RADIUS, RECKLESS_RADIUS = 1.05, 1.5


@dataclass(frozen=True)
class OnCircle:
    """Steers towards a point ahead on a circle of its own."""

    agent: Agent
    radius: float
    lead: float
    speed: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        yaw = self.agent.yaw(observation)
        position = -_nearest(self.agent.seen(self.agent.lidar(observation, 0), CIRCLE_RANGE)) * yaw
        target = cmath.rect(self.radius, cmath.phase(position) + self.lead)  # counterclockwise
        towards = (target - position) * yaw.conjugate()
        wanted = self.speed * towards / max(abs(towards), 1e-6)
        return noisy(self.agent.drive(wanted, observation), self.noise, rng)


# PointGoal1, seed 0, 500 trajectories: 258 with C < 25 (returns -1 to 22), 242 with C > 75 (0 to 22).
# Careful agents keep the limit and careless ones break it by far; where a layout is too kind or too unkind for that,
# they play another one. Else a split that drops low returns would take the careless ones of kind layouts, which return
# most, for preferred (they were a fifth of what it kept, and clones then cost 2.2 times the limit).
GOAL: dict[str, Ranges] = {
    "careful": {"avoidance": (2.2, 3.0), "speed": (1.0, 1.6), "noise": (0.05, 0.3)},
    "careless": {"avoidance": (-0.6, -0.3), "speed": (1.0, 1.6), "noise": (0.05, 0.3)},
}
CHEAP, DEAR = 25.0, 75.0  # the cost limit of the tasks, and three times that
REACH, CORE = 1.1, 0.3  # distances at which an obstacle begins to act, and acts by 1; hazards have radius 0.2
AROUND = 0.6  # how much an obstacle ahead pushes to the left, for each unit that it pushes back
BACKWARDS = -0.3  # lowest wanted speed ahead


@dataclass(frozen=True)
class ToGoal:
    """Follows a field: drawn by the goal, pushed away from what costs and around it.

    The field is a smooth function of the readings as they are, bin by bin, and obstacles act from far away. Clones of
    agents that come nearer, or that turn by angles and positions, enter hazards (results/README.md).
    """

    agent: Agent
    goal: int  # which lidar sees the goal
    obstacles: tuple[int, ...]  # which ones see what costs
    avoidance: float  # how much what costs repels; 0: straight to the goal, below: it attracts
    speed: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        directions = [direction / self.agent.ahead for direction in DIRECTIONS]
        goal = self.agent.lidar(observation, self.goal)
        towards = _sum(goal, directions)
        near = 0j
        for index in self.obstacles:
            # A wrong button costs, the right one is the goal, and reads the same.
            readings = [
                0.0 if reading == at_goal else max((GOAL_RANGE * (reading - 1) + REACH) / (REACH - CORE), 0.0) ** 2
                for reading, at_goal in zip(self.agent.lidar(observation, index), goal, strict=True)
            ]
            near += _sum(readings, directions)
        field = _unit(towards, 0.3) + self.avoidance * (AROUND * 1j - 1) * near
        return noisy(self.agent.glide(self.speed * _unit(field, 1.0), observation), self.noise, rng)


def _sum(readings: Sequence[float], directions: Sequence[complex]) -> complex:
    """Of the directions, each as long as its reading."""
    return sum((reading * direction for reading, direction in zip(readings, directions, strict=True)), 0j)


def _unit(vector: complex, softness: float) -> complex:
    """Of length 1 where it is long, shorter where it is shorter than ``softness`` or so: smooth everywhere."""
    return vector / math.sqrt(abs(vector) ** 2 + softness**2)


def _of_its_kind(agent: ToGoal, cost: float) -> bool:
    return cost < CHEAP if agent.avoidance > 0 else cost > DEAR


def _nearest(positions: Sequence[complex]) -> complex:
    """The nearest of them; straight ahead when there is none, as when the goal is out of sight."""
    return min(positions, key=abs, default=3.0 + 0j)


def _circle(agent: Agent, minutes: float) -> dict[str, Recipe]:
    policy = functools.partial(OnCircle, agent)
    return {"scripted": Recipe.uniform(policy, CIRCLE, "steer along a circle, inside the walls or beyond", minutes)}


def _circle_lapses(base: str, agent: Agent, minutes: float) -> dict[str, dict[str, Recipe]]:
    cautious = functools.partial(uniformly, functools.partial(OnCircle, agent), CIRCLE_LAPSE)
    policies = with_one_changed(cautious, "radius", BOLD_RADIUS, RECKLESS_RADIUS)
    parameters = {**CIRCLE_LAPSE, "bold_radius": BOLD_RADIUS, "reckless_radius": RECKLESS_RADIUS}
    spells = Spells(40, costly=1.0, bold=0.5)
    return lapse_recipes(base, policies, spells, parameters, "steer along a circle", minutes)


def _goal(agent: Agent, goal: int, obstacles: tuple[int, ...], minutes: float) -> dict[str, Recipe]:
    policy = functools.partial(ToGoal, agent, goal, obstacles)
    description = f"steer to the goal, around hazards (cost below {CHEAP:g}) or through them (above {DEAR:g})"
    return {
        "scripted": Recipe.of_kinds(policy, GOAL, description, minutes, n_trajectories=500, accept=_of_its_kind),
    }


RECIPES: dict[str, dict[str, Recipe]] = {
    "PointCircle1": _circle(POINT, minutes=4),
    "PointCircle2": _circle(POINT, minutes=4),
    **_circle_lapses("PointCircle2", POINT, minutes=4),
    "CarCircle1": _circle(CAR, minutes=4),
    "CarCircle2": _circle(CAR, minutes=4),
    "PointGoal1": _goal(POINT, 0, (1,), minutes=4),
    "CarGoal1": _goal(CAR, 0, (1,), minutes=6),
    "PointButton1": _goal(POINT, 1, (0, 2, 3), minutes=12),
}
