"""Rollouts: the same episodes whatever the workers and the order, honest ends of episodes, errors that name them."""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from safemil.config.errors import UserError
from safemil.data.tasks import TASKS, Task
from safemil.nn.checkpoints import load_policy, save
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from safemil.simulation import rollouts
from safemil.simulation.rollouts import Episode, RolloutError, evaluate_chunk, evaluate_policies, roll_out
from safemil.simulation.simulators import episode_seed
from safemil.simulation.worker_pool import Chunk, WorkerDied, run_chunks

BALL = TASKS["BallCircle"]


class Countdown:
    """A simulator of a few lines: as many steps as the seed's last digit, reward = action, cost 1 at each step."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self, seed: int) -> np.ndarray:
        self.left, self.steps = seed % 10 or 10, 0
        return np.zeros(self.task.observation_dim, np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        self.steps += 1
        observation = np.full(self.task.observation_dim, self.steps, np.float32)
        return observation, float(action[0]), 1.0, self.steps == self.left, self.steps == self.task.horizon

    def __enter__(self) -> Countdown:
        return self

    def __exit__(self, *_) -> None:
        pass


@pytest.fixture
def countdown(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(rollouts, "make", Countdown)
    return replace(BALL, horizon=6)


def constant(value: float):
    return lambda observations: np.full((len(observations), BALL.action_dim), value, np.float32)


def make_checkpoint(folder: Path, seed: int = 0, task: Task = BALL) -> Path:
    generators = make_generators([seed], "policy")
    return save(folder, Policy(generators, task.observation_dim, task.action_dim, (16,)), task=task.name)


def test_episodes_end_when_terminated_or_truncated_and_sum_up(countdown: Task) -> None:
    episodes = roll_out(constant(0.5), countdown, range(20), evaluation_seed=3)

    for index, episode in enumerate(episodes):
        seed = episode_seed(3, index)
        fall = seed % 10 or 10
        length = min(fall, 6)
        assert episode == Episode(index, seed, 0.5 * length, float(length), length, terminated=fall <= 6)
    assert {episode.terminated for episode in episodes} == {True, False}


def test_actions_are_clipped(countdown: Task) -> None:
    (episode,) = roll_out(constant(-7.0), countdown, [0], evaluation_seed=0)

    assert episode.return_ == -episode.length


def test_a_row_has_the_columns_of_episodes_csv() -> None:
    assert list(Episode(0, 1, 2.0, 3.0, 4, False).row()) == ["index", "seed", "return", "cost", "length", "terminated"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (constant(np.nan), r"BallCircle, episode 2 \(seed \d+\), step 0: the policy gave the action \[nan, nan\]"),
        (lambda observations: np.zeros((1, 3)), r"episode 2 .* actions of shape \(1, 3\), expected \(1, 2\)"),
        (lambda observations: 1 / 0, "episode 2 .* division by zero"),
    ],
)
def test_an_episode_that_fails_is_named(countdown: Task, act, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        roll_out(act, countdown, [2], evaluation_seed=0)


def test_a_policy_sees_one_observation_on_one_thread(countdown: Task) -> None:
    threads = torch.get_num_threads()
    seen = []

    def act(observations: np.ndarray) -> np.ndarray:
        seen.append((observations.shape, observations.dtype, torch.get_num_threads()))
        return np.zeros((1, 2))

    roll_out(act, countdown, [0], evaluation_seed=0)

    assert set(seen) == {((1, BALL.observation_dim), np.dtype(np.float32), 1)}
    assert torch.get_num_threads() == threads


def test_a_policy_may_keep_state_over_an_episode(countdown: Task) -> None:
    heard = []

    class Stateful:
        def begin_episode(self, seed: int) -> None:
            heard.append(("begin", seed))

        def observe(self, reward: float, cost: float) -> None:
            heard.append(("observe", reward, cost))

        def act(self, observations: np.ndarray) -> np.ndarray:
            heard.append(("act", float(observations[0, 0])))
            return np.full((1, 2), 0.5)

    for episode in roll_out(Stateful(), countdown, [0, 1], evaluation_seed=3):
        steps = [[("act", step), ("observe", 0.5, 1.0)] for step in range(episode.length)]
        expected = [("begin", episode.seed), *(event for step in steps for event in step)]
        assert heard[: len(expected)] == expected
        del heard[: len(expected)]
    assert not heard


def test_the_suites_own_policies_see_no_reward_and_no_cost() -> None:
    assert not hasattr(Policy, "observe")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), [("BallCircle", 1), ("BallCircle", 2), ("CarCircle", 2)])
def test_workers_and_order_change_nothing(name: str, workers: int, tmp_path: Path) -> None:
    task = TASKS[name]
    checkpoints = [make_checkpoint(tmp_path / str(seed), seed, task) for seed in range(2)]
    heard = []

    here = {path: roll_out(load_policy(path).act, task, [1, 0], evaluation_seed=1) for path in checkpoints}
    pooled = evaluate_policies(
        checkpoints[::-1],
        task,
        episodes=2,
        evaluation_seed=1,
        workers=workers,
        on_episode=lambda *heard_of: heard.append(heard_of),
    )

    assert pooled == {path: episodes[::-1] for path, episodes in here.items()}
    assert set(heard) == {(path, episode) for path, episodes in here.items() for episode in episodes}
    assert len({episode.return_ for episodes in here.values() for episode in episodes}) == 4


def test_the_policy_of_a_checkpoint_that_was_written_anew_is_read_anew(countdown: Task, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path, seed=0)
    first = evaluate_chunk(tmp_path, "BallCircle", [0], 0)
    make_checkpoint(tmp_path, seed=1)
    os.utime(path, ns=(1, 1))

    second = evaluate_chunk(tmp_path, "BallCircle", [0], 0)

    assert first != second
    assert evaluate_chunk(path, "BallCircle", [0], 0) == second


@pytest.mark.slow
def test_a_failure_in_a_worker_names_checkpoint_and_episode(tmp_path: Path) -> None:
    policy = Policy(make_generators([0], "policy"), BALL.observation_dim, BALL.action_dim, (16,))
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    path = save(tmp_path, policy, task="BallCircle")

    with pytest.raises(RolloutError, match=r"policy\.safetensors: BallCircle, episode 0 .*nan.*training diverged"):
        evaluate_policies([path], BALL, episodes=1, evaluation_seed=0, workers=1)


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="0 episodes and 2 workers"):
        evaluate_policies([], BALL, episodes=0, evaluation_seed=0, workers=2)


def double(checkpoint: str, indices: tuple[int, ...], deadly: int, always: bool, folder: Path) -> list[int]:
    """Work that kills its own process at the index ``deadly``: always, or only the first time."""
    for index in indices:
        marker = folder / "has died"
        if index == deadly and (always or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [2 * index for index in indices]


@pytest.mark.slow
def test_a_worker_that_dies_once_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = functools.partial(double, deadly=4, always=False, folder=tmp_path)
    chunks = [Chunk("a", (0, 1, 2)), Chunk("a", (3, 4, 5)), Chunk("b", (6,))]

    results = {
        index: value
        for chunk, values in run_chunks(work, chunks, 2)
        for index, value in zip(chunk.indices, values, strict=True)
    }

    assert results == {index: 2 * index for index in range(7)}
    assert "a worker died in episodes (3, 4, 5) of a" in caplog.text


@pytest.mark.slow
def test_an_episode_that_kills_its_worker_again_is_named(tmp_path: Path) -> None:
    work = functools.partial(double, deadly=4, always=True, folder=tmp_path)

    with pytest.raises(WorkerDied, match="^a, episode 4: its worker process died twice"):
        list(run_chunks(work, [Chunk("a", (3, 4, 5))], 2))
