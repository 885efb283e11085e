"""Rollouts: trained policies and a task come in; the return, cost and length of every evaluation episode come out.

Episode ``index`` is a function of (policy, task, evaluation seed, index) alone: its simulator is fresh and seeded by
the two numbers, and the policy sees one observation at a time on one thread, because a float32 product may round
differently in a batch. So neither the number of workers nor the order in which they finish changes a result.

A policy is a function from observations to actions, or an object whose method ``act`` is one. Such an object may also
have ``begin_episode(seed)``, called before the first observation (to forget the last episode, to seed its own draws),
and ``observe(reward, cost)``, called after each step with the true reward and cost, which only an oracle's may read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from safemil.config.errors import UserError
from safemil.data.tasks import Task, find_task
from safemil.nn.checkpoints import load_policy, locate
from safemil.simulation.simulators import Simulator, episode_seed, make
from safemil.simulation.worker_pool import Chunk, WorkerDied, run_chunks

Act = Callable[[np.ndarray], np.ndarray]  # observations (n, observation_dim) float32 -> actions (n, action_dim)


class Actor(Protocol):
    """A policy as an object; ``begin_episode`` and ``observe`` are optional, see above."""

    def act(self, observations: np.ndarray) -> np.ndarray: ...


# Few enough that the workers end together and progress is seen, enough that handing over costs nothing.
EPISODES_PER_CHUNK = 4


class RolloutError(RuntimeError):
    """An episode could not be played to its end; the message names the policy, the task and the episode."""


@dataclass(frozen=True)
class Episode:
    """One evaluation episode."""

    index: int
    seed: int  # the simulator's, from the evaluation seed and the index
    return_: float  # undiscounted sum of rewards
    cost: float  # undiscounted sum of costs
    length: int  # steps
    terminated: bool  # ended by the task itself, as by a fall, and not by the time limit

    def row(self) -> dict[str, int | float | bool]:
        """Its columns in episodes.csv."""
        return {name.rstrip("_"): value for name, value in vars(self).items()}


def roll_out(policy: Act | Actor, task: Task, indices: Iterable[int], evaluation_seed: int) -> list[Episode]:
    """Play the episodes ``indices`` in this process, one after the other; gives them in the same order.

    Actions are clipped to [-1, 1]. Raises ``RolloutError``, which names the episode, when the policy gives an action
    that is not finite or has the wrong shape, and when the simulator fails.
    """
    with make(task) as simulator, one_torch_thread():
        return [play(policy, simulator, index, evaluation_seed) for index in indices]


def play(
    policy: Act | Actor,
    simulator: Simulator,
    index: int,
    evaluation_seed: int,
    on_step: Callable[[Episode], None] | None = None,
) -> Episode:
    """Play one episode to its end. ``on_step`` sees, after each step, the episode as far as it has come."""
    task, seed = simulator.task, episode_seed(evaluation_seed, index)
    act = getattr(policy, "act", policy)
    begin_episode, observe = (getattr(policy, name, _nothing) for name in ("begin_episode", "observe"))
    total_return, cost, length = 0.0, 0.0, 0
    terminated = truncated = False
    try:
        observation = simulator.reset(seed)
        begin_episode(seed)
        while not (terminated or truncated):
            action = _checked(act(observation[None]), observation, task)
            observation, reward, step_cost, terminated, truncated = simulator.step(action)
            observe(reward, step_cost)
            total_return, cost, length = total_return + reward, cost + step_cost, length + 1
            if on_step is not None:
                on_step(Episode(index, seed, total_return, cost, length, terminated))
    except Exception as error:
        raise RolloutError(f"{task.name}, episode {index} (seed {seed}), step {length}: {error}") from error
    return Episode(index, seed, total_return, cost, length, terminated)


def evaluate_chunk(
    checkpoint: Path | str, task_name: str, indices: Sequence[int], evaluation_seed: int
) -> list[Episode]:
    """Some episodes of one checkpoint: the unit of work for a pool or a cluster. Loads a checkpoint once a process."""
    file = locate(checkpoint)
    policy = _load_once(file, file.stat().st_mtime_ns)
    try:
        return roll_out(policy, find_task(task_name), indices, evaluation_seed)
    except RolloutError as error:
        raise RolloutError(f"{checkpoint}: {error}") from error.__cause__


def evaluate_policies(
    checkpoints: Sequence[Path | str],
    task: Task,
    *,
    episodes: int | Mapping[Path | str, int],
    evaluation_seed: int,
    workers: int,
    on_episode: Callable[[Path | str, Episode], None] | None = None,
) -> dict[Path | str, list[Episode]]:
    """Play the episodes 0 .. ``episodes`` - 1 of every checkpoint on ``workers`` processes.

    ``episodes`` is one number for all, or a number for each checkpoint. Gives each checkpoint's episodes in the order
    of their index. ``on_episode(checkpoint, episode)`` is called in this process as they come in, in any order. A
    script that calls this needs the usual ``if __name__ == "__main__"``.

    Raises:
        RolloutError: a policy or a simulator failed, or an episode ended its worker twice. The rest is dropped.
        UserError: a simulator is missing, a checkpoint cannot be read, or a number is not positive.
    """
    wanted = episodes if isinstance(episodes, Mapping) else dict.fromkeys(checkpoints, episodes)
    if min([workers, *(episodes.values() if isinstance(episodes, Mapping) else [episodes])]) < 1:
        raise UserError(f"got {episodes} episodes and {workers} workers, expected at least one of each")
    make(task).close()  # what is missing is told here once, and not by every worker
    results: dict[Path | str, dict[int, Episode]] = {checkpoint: {} for checkpoint in checkpoints}
    size = max(1, min(EPISODES_PER_CHUNK, sum(wanted[checkpoint] for checkpoint in results) // workers))
    chunks = [
        Chunk(checkpoint, tuple(range(first, min(first + size, wanted[checkpoint]))))
        for checkpoint in results
        for first in range(0, wanted[checkpoint], size)
    ]
    play_chunk = functools.partial(evaluate_chunk, task_name=task.name, evaluation_seed=evaluation_seed)
    try:
        for chunk, played in run_chunks(play_chunk, chunks, workers):
            for episode in played:
                results[chunk.subject][episode.index] = episode
                if on_episode is not None:
                    on_episode(chunk.subject, episode)
    except WorkerDied as error:
        raise RolloutError(str(error)) from error
    return {checkpoint: [played[index] for index in sorted(played)] for checkpoint, played in results.items()}


@functools.lru_cache(maxsize=8)
def _load_once(file: Path, modified: int) -> Actor:
    """The policy in ``file``, kept for the next chunk; ``modified`` is part of the key, so a new file is read anew."""
    return load_policy(file)


def _nothing(*_: Any) -> None:
    """Stands in for a method that a policy does not have."""


def _checked(actions: np.ndarray, observation: np.ndarray, task: Task) -> np.ndarray:
    """The action (action_dim,) in [-1, 1] out of a policy's answer (1, action_dim) to one observation."""
    actions = np.asarray(actions, dtype=np.float32)
    if actions.shape != (1, task.action_dim):
        raise ValueError(f"the policy gave actions of shape {actions.shape}, expected (1, {task.action_dim})")
    if not np.isfinite(actions).all():
        finite = np.isfinite(observation).all()
        reason = "its training diverged" if finite else "the simulator's observation was not finite either"
        raise ValueError(f"the policy gave the action {actions[0].tolist()}; {reason}")
    return np.minimum(np.maximum(actions[0], -1.0), 1.0)  # a fifth of the time of np.clip


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One observation gives nothing to share among threads, and the sums must not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
