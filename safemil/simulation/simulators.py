"""What every simulator is to the rest of the suite: a ``Task`` and a seed come in, the steps of an episode go out.

An episode is a function of (task, seed, actions) alone, whatever was played before. Each family of tasks has its own
module, imported where it is used: a simulator that is not installed is missed by its own tasks alone.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from safemil.data.tasks import Task

if TYPE_CHECKING:
    from typing_extensions import Self

FRAME_WIDTH, FRAME_HEIGHT = 512, 384  # multiples of 16, as video codecs want

FAMILIES = {  # of tasks: module and class of their simulator
    "bullet": ("dsrl_simulator", "DSRLSimulator"),
    "velocity": ("dsrl_simulator", "DSRLSimulator"),
    "navigation": ("dsrl_simulator", "DSRLSimulator"),
    "manipulation": ("panda_push", "PandaPush"),
    "team": ("simple_spread", "SimpleSpread"),
    "turns": ("simple_spread", "SimpleSpreadInTurns"),
    "pixels": ("ball_circle_pixels", "BallCirclePixels"),
}


class Simulator(abc.ABC):
    """One task's simulator. ``reset`` starts an episode, which ends where ``step`` says terminated or truncated."""

    def __init__(self, task: Task, render: bool = False) -> None:
        """Load what the task needs; only with ``render`` can it draw. Raises ``UserError`` if a package is missing."""
        self.task, self._drawn = task, render

    @abc.abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """Begin the episode of ``seed`` (0 <= seed < 2**32); its first observation.

        A vector (observation_dim,) float32, or an image (height, width, channels) uint8.
        """

    @abc.abstractmethod
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        """Take ``action`` (action_dim,) in [-1, 1]: (observation, reward, cost, terminated, truncated)."""

    def steered_by(self, observation: np.ndarray) -> np.ndarray:
        """What scripted behaviors steer by: the observation, unless it is an image of a state that is known here."""
        return observation

    @abc.abstractmethod
    def render(self) -> np.ndarray:
        """The scene now: (FRAME_HEIGHT, FRAME_WIDTH, 3) uint8. Needs ``render=True`` at construction."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the simulator; ``reset`` makes a new one."""

    def check_drawn(self) -> None:
        """Refuse to draw without ``render=True``."""
        if not self._drawn:
            raise RuntimeError(f"{self.task.name}: this simulator was made without render=True and cannot draw")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def make(task: Task, render: bool = False) -> Simulator:
    """The simulator of ``task``; with ``render=True`` its ``render()`` draws."""
    module, name = FAMILIES[task.family]
    return getattr(importlib.import_module(f"safemil.simulation.{module}"), name)(task, render)


def episode_seed(evaluation_seed: int, index: int) -> int:
    """The simulator seed of episode ``index``, the same for every method and policy; below 2**32 as numpy asks."""
    return int(np.random.SeedSequence(evaluation_seed, spawn_key=(index,)).generate_state(1)[0])


@contextlib.contextmanager
def isolated_random_numbers(seed: int) -> Iterator[None]:
    """Inside, the global generators of numpy and Python start from ``seed``; afterwards they are as before."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
