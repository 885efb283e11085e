"""Recordings of episodes. In: a simulator and a behavior policy. Out: one ``Recording`` an episode, or flat arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from safemil.config.errors import UserError
from safemil.data.trajectories import Outcomes, Trajectories


class Behavior(Protocol):
    """A behavior policy, drawn once per trajectory."""

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the simulator's ``steered_by`` gives, (observation_dim,) float32 -> (action_dim,) float32 in [-1, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Recording:
    """One episode as it was recorded."""

    observations: np.ndarray  # (length + 1, observation_dim) float32 or images, the one after the last step included
    actions: np.ndarray  # (length, action_dim) float32
    rewards: np.ndarray  # (length,) float32
    costs: np.ndarray  # (length,) float32
    terminated: bool


MOST_EPISODES = 50  # played for one recording


def any_cost(behavior: Behavior, cost: float) -> bool:
    """Accept an episode whatever it costs."""
    return True


def record_one(
    simulator: Any,
    draw: Callable[[np.random.Generator], Behavior],
    rng: np.random.Generator,
    accept: Callable[[Behavior, float], bool] = any_cost,
) -> Recording:
    """The episode that ``rng`` decides: the simulator's seed, the policy and its noise are drawn from it.

    An episode whose cost ``accept`` does not take is played again by the same policy under another seed.

    Raises:
        UserError: none of ``MOST_EPISODES`` was taken.
    """
    # Not the seeds of evaluation episodes: data collected with seed 0 would share its starts with evaluation seed 0.
    seed, behavior = int(rng.integers(2**32)), draw(rng)
    for _ in range(MOST_EPISODES):
        recording = _play(simulator, seed, behavior, rng)
        if accept(behavior, float(recording.costs.sum())):
            return recording
        seed = int(rng.integers(2**32))
    raise UserError(f"none of {MOST_EPISODES} episodes of {behavior} costs what its recipe asks for")


def _play(simulator: Any, seed: int, behavior: Behavior, rng: np.random.Generator) -> Recording:
    observations = [simulator.reset(seed)]
    steps = []
    ended = False
    while not ended:
        action = behavior.act(simulator.steered_by(observations[-1]), rng)
        observation, reward, cost, terminated, truncated = simulator.step(action)
        observations.append(observation)
        steps.append((action, reward, cost))
        ended = terminated or truncated
    return finished(observations, steps, terminated)


def finished(
    observations: list[np.ndarray], steps: list[tuple[np.ndarray, float, float]], terminated: bool
) -> Recording:
    """The recording of an episode that is over.

    Args:
        observations: (observation_dim,) each, one more than there are steps.
        steps: (action, reward, cost) of each step.
        terminated: the task itself ended the episode, not the time limit.
    """
    actions, rewards, costs = (np.asarray(column, dtype=np.float32) for column in zip(*steps, strict=True))
    return Recording(np.stack(observations), actions, rewards, costs, terminated)


def assemble(recordings: list[Recording]) -> tuple[Trajectories, Outcomes, np.ndarray]:
    """Recordings one after the other: trajectories, outcomes, and the observation after the last step of each."""
    lengths = [len(recording.actions) for recording in recordings]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    terminals = np.zeros(offsets[-1], dtype=bool)
    terminals[offsets[1:] - 1] = [recording.terminated for recording in recordings]
    observations = np.concatenate([recording.observations[:-1] for recording in recordings])
    last_observations = np.stack([recording.observations[-1] for recording in recordings])
    actions, rewards, costs = (
        np.concatenate([getattr(recording, name) for recording in recordings])
        for name in ("actions", "rewards", "costs")
    )
    return Trajectories(observations, actions, offsets), Outcomes(rewards, costs, terminals, offsets), last_observations


def disassemble(trajectories: Trajectories, outcomes: Outcomes, last_observations: np.ndarray) -> list[Recording]:
    """The recordings that ``assemble`` was given; the arguments are what it returned."""
    recordings = []
    spans = zip(trajectories.offsets[:-1], trajectories.offsets[1:], last_observations, strict=True)
    for start, end, last in spans:
        observations = np.concatenate([trajectories.observations[start:end], last[None]])
        actions, rewards, costs = (
            trajectories.actions[start:end],
            outcomes.rewards[start:end],
            outcomes.costs[start:end],
        )
        recordings.append(Recording(observations, actions, rewards, costs, bool(outcomes.terminals[end - 1])))
    return recordings
