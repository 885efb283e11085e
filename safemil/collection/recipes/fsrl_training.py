"""One training run of FSRL's PPO-Lagrangian. In: a task, a cost limit and a random generator. Out: all its episodes."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
from fsrl.agent import PPOLagAgent
from fsrl.utils import BaseLogger
from tianshou.env import DummyVectorEnv

from safemil.collection.recording import Recording, finished
from safemil.data.tasks import Task
from safemil.simulation import simulators
from safemil.simulation.simulators import isolated_random_numbers


class Logged(gymnasium.Env):
    """A task's simulator as a gymnasium environment that keeps every finished episode."""

    def __init__(self, task: Task, rng: np.random.Generator) -> None:
        self.simulator, self.rng = simulators.make(task), rng
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (task.observation_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (task.action_dim,), np.float32)
        self.recordings: list[Recording] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """A new episode under the generator's next seed, whatever ``seed`` says."""
        self._observations = [self.simulator.reset(int(self.rng.integers(2**32)))]
        self._steps: list[tuple[np.ndarray, float, float]] = []
        return self._observations[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        observation, reward, cost, terminated, truncated = self.simulator.step(action)
        self._observations.append(observation)
        self._steps.append((action, reward, cost))
        if terminated or truncated:
            self.recordings.append(finished(self._observations, self._steps, terminated))
        return observation, reward, terminated, truncated, {"cost": cost}

    def close(self) -> None:
        self.simulator.close()


def train(
    task: Task,
    rng: np.random.Generator,
    *,
    cost_limit: float,
    steps: int,
    learning_rate: float,
    hidden_sizes: tuple[int, ...],
    episodes_per_update: int,
) -> list[Recording]:
    """Train for ``steps`` steps of the simulator; every episode that ended on the way, in order."""
    environment = Logged(task, rng)
    seed = int(rng.integers(2**31))
    with isolated_random_numbers(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tianshou 0.5.1 on newer libraries
        agent = PPOLagAgent(
            environment,
            BaseLogger(),
            cost_limit=cost_limit,
            thread=1,
            seed=seed,
            lr=learning_rate,
            hidden_sizes=hidden_sizes,
        )
        agent.learn(
            DummyVectorEnv([lambda: environment]),
            epoch=1,
            step_per_epoch=steps,
            episode_per_collect=episodes_per_update,
            reward_threshold=np.inf,
            save_ckpt=False,
            verbose=False,
            show_progress=False,
        )
    environment.close()
    return environment.recordings
