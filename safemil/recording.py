"""Record behavior policies in the simulator. In: a recipe, a seed and a number of trajectories. Out: their arrays.

Trajectory i is a function of (task, recipe, seed, i) alone: one generator, made from (seed, i), draws the simulator's
seed, the policy and its noise. So neither the number of workers nor their order matters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemil.behaviors import Behavior, find_recipe
from safemil.errors import UserError
from safemil.tasks import Task
from safemil.trajectories import Outcomes, Trajectories
from safemil.worker_pool import Chunk, WorkerDied, run_chunks

TRAJECTORIES_PER_CHUNK = 4  # few enough that workers end together, and that the progress bar moves


@dataclass(frozen=True, eq=False)
class Recording:
    """One episode as it was recorded."""

    observations: np.ndarray  # (length + 1, observation_dim) float32, the one after the last step included
    actions: np.ndarray  # (length, action_dim) float32
    rewards: np.ndarray  # (length,) float32
    costs: np.ndarray  # (length,) float32
    terminated: bool


def record_all(
    task: Task, recipe: str, n_trajectories: int, seed: int, workers: int, progress: bool | None = None
) -> list[Recording]:
    """Trajectories 0 .. n_trajectories - 1 of a recipe, in that order."""
    from tqdm import tqdm

    hidden = None if progress is None else not progress  # None: hidden unless stderr is a terminal
    starts = range(0, n_trajectories, TRAJECTORIES_PER_CHUNK)
    chunks = [
        Chunk(recipe, tuple(range(start, min(start + TRAJECTORIES_PER_CHUNK, n_trajectories)))) for start in starts
    ]
    record_chunk = functools.partial(record, task, seed)
    recordings: dict[int, Recording] = {}
    with tqdm(total=n_trajectories, desc=f"collect {task.name}", unit="traj", disable=hidden) as bar:
        try:
            if workers == 1:
                recorded = ((chunk, record_chunk(recipe, indices=chunk.indices)) for chunk in chunks)
            else:
                recorded = run_chunks(record_chunk, chunks, workers)
            for chunk, episodes in recorded:
                recordings.update(zip(chunk.indices, episodes, strict=True))
                bar.update(len(episodes))
        except WorkerDied as error:
            raise UserError(str(error)) from error
    return [recordings[index] for index in range(n_trajectories)]


def record(task: Task, seed: int, recipe: str, indices: Sequence[int]) -> list[Recording]:
    """Trajectories ``indices``, one after the other; each is a function of task, recipe, seed and its index alone."""
    from safemil import simulators

    draw = find_recipe(task, recipe).draw
    with simulators.make(task) as simulator:
        return [_record_one(simulator, draw, np.random.default_rng([seed, index])) for index in indices]


def _record_one(simulator: Any, draw: Callable[[np.random.Generator], Behavior], rng: np.random.Generator) -> Recording:
    # Not the seeds of evaluation episodes: data collected with seed 0 would share its starts with evaluation seed 0.
    observations = [simulator.reset(int(rng.integers(2**32)))]
    behavior = draw(rng)
    steps = []
    ended = False
    while not ended:
        action = behavior.act(observations[-1], rng)
        observation, reward, cost, terminated, truncated = simulator.step(action)
        observations.append(observation)
        steps.append((action, reward, cost))
        ended = terminated or truncated
    actions, rewards, costs = (np.asarray(column, dtype=np.float32) for column in zip(*steps, strict=True))
    return Recording(np.stack(observations), actions, rewards, costs, terminated)


def assemble(recordings: list[Recording]) -> tuple[Trajectories, Outcomes, np.ndarray]:
    """Recordings one after the other: trajectories, outcomes, and next observations (n_steps, observation_dim)."""
    lengths = [len(recording.actions) for recording in recordings]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    terminals = np.zeros(offsets[-1], dtype=bool)
    terminals[offsets[1:] - 1] = [recording.terminated for recording in recordings]
    observations = np.concatenate([recording.observations[:-1] for recording in recordings])
    next_observations = np.concatenate([recording.observations[1:] for recording in recordings])
    actions, rewards, costs = (
        np.concatenate([getattr(recording, name) for recording in recordings])
        for name in ("actions", "rewards", "costs")
    )
    return Trajectories(observations, actions, offsets), Outcomes(rewards, costs, terminals, offsets), next_observations
