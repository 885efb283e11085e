"""Bullet-Safety-Gym's Circle and Run tasks: proportional-derivative control towards a point or a lane.

Circle tasks cost 1 for every step beyond |x| = 6 and reward speed along a circle of radius 7, clockwise. Run tasks cost
1 for every step that is too fast or beyond |y| = 2, and reward speed along x. Trigonometry is Python's own, one
number at a time, as numpy's gives other last digits on other processors. In: a random generator. Out: a policy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from safemil.collection.recipes.lapse import Spells, lapse_recipes, with_one_changed
from safemil.collection.recipes.recipe import Ranges, Recipe, noisy, uniformly

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
class BallOnCircle:
    """Proportional-derivative control of the ball towards a point ahead of it on the circle, its x cut to +-clip."""

    clip: float
    radius: float
    lead: float
    stiffness: float
    damping: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x, y, velocity_x, velocity_y = _position_and_velocity(observation)
        target_x, target_y = _ahead(x, y, self.lead, self.radius, self.clip)
        push_x = self.stiffness * (target_x - x - self.damping * velocity_x)
        push_y = self.stiffness * (target_y - y - self.damping * velocity_y)
        return noisy(np.array([push_x, push_y]), self.noise, rng)


def _ahead(x: float, y: float, lead: float, radius: float, clip: float) -> tuple[float, float]:
    """The point of the circle that lies ``lead`` (rad) ahead, as the reward is for going round clockwise; x cut."""
    angle = math.atan2(y, x) - lead
    return min(max(radius * math.cos(angle), -clip), clip), radius * math.sin(angle)


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
class BallInLane:
    """Proportional control of the ball's speed along x, proportional-derivative control of its lane."""

    speed: float
    lane: float
    eagerness: float
    stiffness: float
    damping: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _, y, velocity_x, velocity_y = _position_and_velocity(observation)
        push_x = self.eagerness * (self.speed - velocity_x)
        push_y = self.stiffness * (self.lane - y - self.damping * velocity_y)
        return noisy(np.array([push_x, push_y]), self.noise, rng)


def _position_and_velocity(observation: np.ndarray) -> tuple[float, float, float, float]:
    """The ball's x, y and their velocities, which Bullet-Safety-Gym scales in the observation."""
    x, y, velocity_x, velocity_y = observation[:4].tolist()
    return x / 0.1, y / 0.1, velocity_x / 0.2, velocity_y / 0.2


# CarCircle is as BallCircle with a car that cannot turn on the spot (turning radius about 2 m) and goes backwards to
# its own yaw. Seed 0, 700 trajectories: 276 with C < 25 (returns 145 to 373), 74 between, 350 with C > 75 (205 to 493).
CAR_CIRCLE: Ranges = {
    "clip": (3.5, 8.9),  # |x| of the point steered to
    "radius": (6.8, 7.8),  # of the circle steered along
    "lead": (0.4, 0.65),  # angle (rad) from the car to that point
    "throttle": (0.6, 1.0),
    "steering": (1.0, 2.0),  # per rad of heading error
    "noise": (0.05, 0.2),  # standard deviation of what is added to the action
}


@dataclass(frozen=True)
class CarOnCircle:
    """Steers towards a point ahead on the circle, its x cut to +-clip, at constant throttle."""

    clip: float
    radius: float
    lead: float
    throttle: float
    steering: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x, y = (value / 0.1 for value in observation[:2].tolist())
        target_x, target_y = _ahead(x, y, self.lead, self.radius, self.clip)
        bearing = math.atan2(target_y - y, target_x - x)
        return noisy(np.array([-self.throttle, self.steering * _heading_error(observation, bearing)]), self.noise, rng)


# CarRun costs 1 for every step faster than 1.5 or beyond |y| = 2. Seed 0, 700 trajectories: 161 with C < 25 (returns
# 360 to 545), 67 between, 472 with C > 75 (356 to 819).
CAR_RUN: Ranges = {
    "speed": (1.0, 2.1),  # along x
    "lane": (-2.7, 2.7),  # y of the line the car runs along
    "eagerness": (0.2, 0.6),  # throttle per unit of missing speed
    "approach": (0.3, 0.6),  # slope at which the lane is approached, per unit of distance
    "steering": (1.0, 2.0),  # per rad of heading error
    "noise": (0.05, 0.2),  # standard deviation of what is added to the action
}
CAR_TOP_SPEED = 3.5


@dataclass(frozen=True)
class CarInLane:
    """Proportional control of the car's speed, and of its heading towards its lane."""

    speed: float
    lane: float
    eagerness: float
    approach: float
    steering: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        y, velocity_x = float(observation[1]) / 0.1, float(observation[2])
        bearing = math.atan(self.approach * (self.lane - y))
        throttle = self.speed / CAR_TOP_SPEED + self.eagerness * (self.speed - velocity_x)
        return noisy(np.array([-throttle, self.steering * _heading_error(observation, bearing)]), self.noise, rng)


def _heading_error(observation: np.ndarray, bearing: float) -> float:
    """Angle (rad) from the bearing to where the car goes, in (-pi, pi]: positive where it has to turn right."""
    sine, cosine = observation[4:6].tolist()
    forward = math.atan2(-sine, -cosine)  # the car drives backwards to its yaw
    return math.remainder(forward - bearing, math.tau)


# Lapses: the clip alone makes a policy bold, and reckless. A ball is the farther away from the middle the longer it is
# reckless; circles of many sizes, which cost nothing as x is cut, hide that in the mean over a trajectory.
BALL_LAPSE: Ranges = BALL_CIRCLE | {"clip": (3.9, 4.7), "radius": (7.0, 13.0), "lead": (0.6, 1.3)}
CAR_LAPSE: Ranges = CAR_CIRCLE | {"clip": (2.8, 4.6), "radius": (6.0, 10.0)}
BOLD_CLIP, RECKLESS_CLIP = 4.7, 8.9


def _lapses(base: str, policy: type, ranges: Ranges, minutes: float, spells: Spells) -> dict[str, dict[str, Recipe]]:
    cautious = functools.partial(uniformly, policy, ranges)
    policies = with_one_changed(cautious, "clip", BOLD_CLIP, RECKLESS_CLIP)
    parameters = {**ranges, "bold_clip": BOLD_CLIP, "reckless_clip": RECKLESS_CLIP}
    return lapse_recipes(base, policies, spells, parameters, "steer ahead on the circle", minutes)


RECIPES: dict[str, dict[str, Recipe]] = {
    "BallCircle": {
        "scripted": Recipe.uniform(BallOnCircle, BALL_CIRCLE, "steer ahead on the circle, x cut to +-clip", minutes=2)
    },
    "BallCirclePixels": {  # trajectory i is BallCircle's own, seen from above
        "scripted": Recipe.uniform(
            BallOnCircle, BALL_CIRCLE, "steer ahead on the circle, x cut to +-clip", minutes=6, n_trajectories=520
        )
    },
    "BallRun": {"scripted": Recipe.uniform(BallInLane, BALL_RUN, "hold a speed and a lane", minutes=1)},
    "CarCircle": {
        "scripted": Recipe.uniform(CarOnCircle, CAR_CIRCLE, "steer ahead on the circle, x cut to +-clip", minutes=4)
    },
    "CarRun": {"scripted": Recipe.uniform(CarInLane, CAR_RUN, "hold a speed and a lane", minutes=3)},
    **_lapses("BallCircle", BallOnCircle, BALL_LAPSE, minutes=2, spells=Spells(12, costly=0.85, bold=0.2)),
    **_lapses("CarCircle", CarOnCircle, CAR_LAPSE, minutes=4, spells=Spells(25, costly=0.32, bold=0.5)),
}
