"""BallCirclePixels: DSRL's BallCircle, seen from above. The learner is given frames and no state.

An observation is two grey frames of 64 x 64 pixels as the channels of one image, of three steps ago and of now: one
frame shows no velocity, and a ball at full speed rolls about four pixels in three steps. Actions, rewards, costs and
ends are BallCircle's own. PyBullet's software renderer draws the frames: they are the same with and without a GPU.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from safemil.data.tasks import Task, find_task
from safemil.simulation.dsrl_simulator import DSRLSimulator
from safemil.simulation.simulators import Simulator

PIXELS = 64
STEPS_BETWEEN = 3  # the frames of an observation
CAMERA_HEIGHT, FIELD_OF_VIEW = 20.0, 52.0  # shows |x| and |y| up to 9.7: the circle has radius 7
SPHERE = [0.9, 0.1, 0.1, 1.0]  # color of the ball
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma of red, green and blue (ITU-R BT.601)


class BallCirclePixels(Simulator):
    """The task; see the module."""

    def __init__(self, task: Task, render: bool = False) -> None:
        super().__init__(task, render)
        self._ball = DSRLSimulator(find_task("BallCircle"), render=True)

    def reset(self, seed: int) -> np.ndarray:
        self._state = self._ball.reset(seed)
        self._frames = deque([self.frame()] * (STEPS_BETWEEN + 1), maxlen=STEPS_BETWEEN + 1)
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        self._state, reward, cost, terminated, truncated = self._ball.step(action)
        self._frames.append(self.frame())
        return self._observe(), reward, cost, terminated, truncated

    def steered_by(self, observation: np.ndarray) -> np.ndarray:
        return self._state

    def frame(self) -> np.ndarray:
        """The scene from above now, (64, 64) uint8."""
        world = self._ball._running().unwrapped
        client = world.bc
        # The sphere around the ball, without mass or collisions, shows it larger. Left to itself it turns red where it
        # costs, which would tell the cost; here it has one color.
        sphere, place = world.agent.violation_body_id, world.agent.get_position()
        client.resetBasePositionAndOrientation(sphere, place, [0, 0, 0, 1])
        client.changeVisualShape(sphere, -1, rgbaColor=SPHERE)
        view = client.computeViewMatrix([0, 0, CAMERA_HEIGHT], [0, 0, 0], [0, 1, 0])
        lens = client.computeProjectionMatrixFOV(FIELD_OF_VIEW, 1.0, 0.1, 100.0)
        options = {"shadow": 0, "renderer": client.ER_TINY_RENDERER, "flags": client.ER_NO_SEGMENTATION_MASK}
        pixels = client.getCameraImage(PIXELS, PIXELS, view, lens, **options)[2]
        return np.rint(np.asarray(pixels, dtype=np.float32).reshape(PIXELS, PIXELS, 4)[..., :3] @ GREY).astype(np.uint8)

    def render(self) -> np.ndarray:
        self.check_drawn()
        return self._ball.render()

    def close(self) -> None:
        self._ball.close()

    def _observe(self) -> np.ndarray:
        return np.stack([self._frames[0], self._frames[-1]], axis=-1)
