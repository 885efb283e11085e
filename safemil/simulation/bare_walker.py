"""Walker2dVelocity without the wrappers around it: the same numbers, four to eight times faster.

For searches, which play thousands of episodes of which nothing is kept. Datasets and evaluations are played in
``safemil.simulation.simulators``, and a test holds this to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safemil.data.tasks import find_task
from safemil.simulation.dsrl_simulator import DSRLSimulator

HEIGHTS, ANGLES, FASTEST = (0.8, 2.0), (-1.0, 1.0), 10.0  # it has fallen outside of these; a velocity's bound
START_NOISE, CONTROL_COST = 5e-3, 1e-3


class BareWalker:
    """One Walker2d; ``reset`` and ``step`` are those of ``safemil.simulation.simulators.Simulator``."""

    def __init__(self) -> None:
        import mujoco

        task = find_task("Walker2dVelocity")
        with DSRLSimulator(task) as simulator:
            simulator.reset(0)
            world = simulator._running().unwrapped
            self._model, self._threshold, self._frames, self._dt = (
                world.model, world._velocity_threshold, world.frame_skip, world.dt,
            )  # fmt: skip
            self._positions, self._velocities = world.init_qpos.copy(), world.init_qvel.copy()
        self._horizon, self._mujoco, self._data = task.horizon, mujoco, mujoco.MjData(self._model)

    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of ``seed``; its first observation, (17,) float32."""
        rng = np.random.default_rng(seed)  # gymnasium's generator
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._positions + rng.uniform(-START_NOISE, START_NOISE, self._model.nq)
        self._data.qvel[:] = self._velocities + rng.uniform(-START_NOISE, START_NOISE, self._model.nv)
        self._mujoco.mj_forward(self._model, self._data)
        self._steps = 0
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        """Take ``action`` (6,) in [-1, 1]: (observation float32, reward, cost, terminated, truncated)."""
        before: Any = self._data.qpos[0]
        self._data.ctrl[:] = action
        self._mujoco.mj_step(self._model, self._data, nstep=self._frames)
        speed = (self._data.qpos[0] - before) / self._dt
        height, angle = self._data.qpos[1:3]
        fallen = not (HEIGHTS[0] < height < HEIGHTS[1] and ANGLES[0] < angle < ANGLES[1])
        reward = speed + 1.0 - CONTROL_COST * np.sum(np.square(action))
        self._steps += 1
        return self._observe(), float(reward), float(speed > self._threshold), fallen, self._steps == self._horizon

    def _observe(self) -> np.ndarray:
        velocities = np.clip(self._data.qvel, -FASTEST, FASTEST)
        return np.concatenate([self._data.qpos[1:], velocities]).astype(np.float32)
