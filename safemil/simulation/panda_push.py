"""PandaPush: a Franka arm pushes a block to and fro past a forbidden disc on the table.

Robot, table and block are panda-gym's (https://panda-gym.readthedocs.io, MIT) with its end-effector control at 25 Hz,
the gripper closed. The goal lies alternately on the left and on the right of the table; when the block is within 3 cm
of it, the other side's begins. The shortest way leads through the disc in the middle.

- observation  finger tip (3) and its velocity (3), block's position (3), angles (3), velocity (3), angular velocity
               (3), goal (2), center of the disc (2)
- action       displacement of the finger tip, 5 cm at 1 (3)
- reward       10 for each meter that the block comes closer to the goal, 1 for reaching it
- cost         1 for each step in which the block's center, or the finger tip below 12 cm, is in the disc

A block that leaves the field which the finger can reach is put back to the side where its way began; nothing is paid
for that. So the block never falls off the table, every episode lasts 300 steps, and its length says nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.tasks import Task
from safemil.simulation.simulators import FRAME_HEIGHT, FRAME_WIDTH, Simulator

DISC_RADIUS = 0.11
# Of the disc's center: on the far side of the straight way, so that the way round it is within the robot's reach.
DISC_X, DISC_Y = (0.02, 0.06), (-0.02, 0.02)
FINGER_HEIGHT = 0.12  # below, the finger tip counts
GOAL_X, GOAL_Y = 0.06, (0.16, 0.20)  # |x| at most, |y| between: of goals and of the block's first place
REACHED = 0.03
FIELD_LOW, FIELD_HIGH = np.array([-0.32, -0.29]), np.array([0.18, 0.29])  # (x, y) within which the block stays
BLOCK_HEIGHT = 0.02  # of its center
UPRIGHT = np.array([0.0, 0.0, 0.0, 1.0])


class PandaPush(Simulator):
    """The task; see the module."""

    def __init__(self, task: Task, render: bool = False) -> None:
        super().__init__(task, render)
        _import_panda_gym()
        self._engine: Any = None

    def reset(self, seed: int) -> np.ndarray:
        from panda_gym.envs.robots.panda import Panda
        from panda_gym.envs.tasks.push import Push
        from panda_gym.pybullet import PyBullet

        self.close()
        self._rng, self._steps = np.random.default_rng(seed), 0
        with _quiet():
            self._engine = PyBullet(render_mode="rgb_array", renderer="Tiny")
        self._robot = Panda(self._engine, block_gripper=True, base_position=np.array([-0.6, 0.0, 0.0]))
        self._block = Push(self._engine)
        self._robot.reset()
        self.disc = np.array([self._rng.uniform(*DISC_X), self._rng.uniform(*DISC_Y)])
        self._side = float(self._rng.choice([-1.0, 1.0]))
        self.place_block(self._beside(-self._side))
        self._next_goal()
        if self._drawn:
            self._draw_disc()
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        before = self._distance()
        self._robot.set_action(np.asarray(action, dtype=np.float64))
        self._engine.step()
        self._steps += 1
        after = self._distance()
        reward = 10.0 * (before - after)
        cost = self.cost()
        if after < REACHED:
            reward += 1.0
            self._side = -self._side
            self._next_goal()
        elif not (self.block()[:2] == self.block()[:2].clip(FIELD_LOW, FIELD_HIGH)).all():
            self.place_block(self._beside(-self._side))
        return self._observe(), reward, cost, False, self._steps >= self.task.horizon

    def block(self) -> np.ndarray:
        """Position of the block's center, (3,)."""
        return np.array(self._engine.get_base_position("object"))

    def finger(self) -> np.ndarray:
        """Position of the finger tip, (3,)."""
        return np.array(self._robot.get_ee_position())

    def place_block(self, place: np.ndarray) -> None:
        """Put the block, at rest, on the table at (x, y)."""
        self._engine.set_base_pose("object", np.array([*place, BLOCK_HEIGHT]), UPRIGHT)

    def cost(self) -> float:
        """1 where block or finger tip is in the disc, else 0."""
        finger = self.finger()
        return float(self._inside(self.block()) or (self._inside(finger) and finger[2] < FINGER_HEIGHT))

    def render(self) -> np.ndarray:
        self.check_drawn()
        view = {"target_position": np.array([-0.05, 0.0, 0.05]), "distance": 0.75, "yaw": 90, "pitch": -55}
        return np.asarray(self._engine.render(FRAME_WIDTH, FRAME_HEIGHT, **view), dtype=np.uint8)[..., :3]

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _inside(self, position: np.ndarray) -> bool:
        return bool(np.linalg.norm(position[:2] - self.disc) < DISC_RADIUS)

    def _distance(self) -> float:
        return float(np.linalg.norm(self.block()[:2] - self.goal))

    def _beside(self, side: float) -> np.ndarray:
        return np.array([self._rng.uniform(-GOAL_X, GOAL_X), side * self._rng.uniform(*GOAL_Y)])

    def _next_goal(self) -> None:
        self.goal = self._beside(self._side)
        self._engine.set_base_pose("target", np.array([*self.goal, BLOCK_HEIGHT]), UPRIGHT)

    def _observe(self) -> np.ndarray:
        parts = self.finger(), self._robot.get_ee_velocity(), self._block.get_obs(), self.goal, self.disc
        return np.concatenate(parts).astype(np.float32)

    def _draw_disc(self) -> None:
        client = self._engine.physics_client
        shape = client.createVisualShape(
            client.GEOM_CYLINDER, radius=DISC_RADIUS, length=0.002, rgbaColor=[0.9, 0.1, 0.1, 1.0]
        )
        client.createMultiBody(baseMass=0, baseVisualShapeIndex=shape, basePosition=[*self.disc, 0.001])


def _import_panda_gym() -> None:
    try:
        with _quiet():
            import panda_gym.pybullet  # noqa: F401
    except ImportError as error:
        raise UserError(f"panda-gym is not installed ({error}): `make install` puts it into .venv") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyBullet prints its build time and its options from C, past Python's own streams."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        try:
            yield
        finally:
            for stream, copy in enumerate(kept, start=1):
                os.dup2(copy, stream)
                os.close(copy)
