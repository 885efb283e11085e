"""Rollout speed: steps/s of the worker pool against one simulator in a bare loop times the number of workers.

    python benchmarks/rollouts.py
    python benchmarks/rollouts.py --tasks SwimmerVelocity --workers 2 --episodes 24 --json rollouts.json

The bare loop resets the simulator and steps it with the actions that the policy took in these episodes: no policy, no
checks. The pool plays the policy's episodes, its inference included; its clock starts once every worker has delivered,
so the start of the processes (benchmarks/startup.py) is left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import arguments, finish, machine, ratio, show

from safemil.data.tasks import Task, find_task
from safemil.nn import checkpoints
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from safemil.simulation.rollouts import EPISODES_PER_CHUNK, evaluate_policies, roll_out
from safemil.simulation.simulators import episode_seed, make

TASKS = ["BallCircle", "SwimmerVelocity", "PointGoal1"]


def actions_of(task: Task, policy: Policy, episodes: int) -> list[list[np.ndarray]]:
    """What the policy does in each episode: other actions would make other physics, cheaper or dearer ones."""
    taken: list[list[np.ndarray]] = []

    class Recorder:
        def begin_episode(self, seed: int) -> None:
            taken.append([])

        def act(self, observations: np.ndarray) -> np.ndarray:
            actions = policy.act(observations)
            taken[-1].append(actions[0])
            return actions

    roll_out(Recorder(), task, range(episodes), 0)
    return taken


def bare_rate(task: Task, episodes: list[list[np.ndarray]]) -> float:
    """Steps/s of one simulator that is given the actions of each episode, resets included."""
    with make(task) as simulator:
        simulator.reset(0)
        started = time.perf_counter()
        for index, actions in enumerate(episodes):
            simulator.reset(episode_seed(0, index))
            for action in actions:
                simulator.step(action)
    return sum(map(len, episodes)) / (time.perf_counter() - started)


def policy_rate(task: Task, policy: Policy, episodes: int) -> float:
    """Steps/s of one process that plays the policy's episodes."""
    started = time.perf_counter()
    return sum(episode.length for episode in roll_out(policy, task, range(episodes), 0)) / (
        time.perf_counter() - started
    )


def pool_rate(task: Task, checkpoint: Path, episodes: int, workers: int) -> float:
    """Steps/s of the pool once all its workers are at work."""
    arrivals: list[tuple[float, int]] = []
    evaluate_policies(
        [checkpoint],
        task,
        episodes=episodes,
        evaluation_seed=0,
        workers=workers,
        on_episode=lambda _, episode: arrivals.append((time.perf_counter(), episode.length)),
    )
    first = workers * EPISODES_PER_CHUNK
    return sum(length for _, length in arrivals[first:]) / (arrivals[-1][0] - arrivals[first - 1][0])


def main() -> int:
    """Measure the tasks asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="T", help=f"default: {' '.join(TASKS)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--episodes", type=int, default=24, help="of the pool, each round (default 24)")
    options = parser.parse_args()
    if options.episodes < 2 * options.workers * EPISODES_PER_CHUNK:
        parser.error(f"--episodes: at least {2 * options.workers * EPISODES_PER_CHUNK} for {options.workers} workers")
    torch.set_num_threads(1)
    lines, results = [], {"machine": machine(), "workers": options.workers, "steps_per_second": {}}
    efficiencies = []
    for name in options.tasks:
        task = find_task(name)
        policy = Policy(make_generators([0], "benchmark"), task.observation_dim, task.action_dim, (256, 256))
        policy.requires_grad_(False)
        episodes = max(2, options.episodes // 4)
        actions = actions_of(task, policy, episodes)
        bare, alone, pool = [], [], []
        with tempfile.TemporaryDirectory() as folder:
            checkpoints.save(Path(folder), policy, task=task.name)
            for _ in range(options.rounds):
                bare.append(bare_rate(task, actions))
                alone.append(policy_rate(task, policy, episodes))
                pool.append(pool_rate(task, Path(folder), options.episodes, options.workers))
        efficiencies.append(ratio(pool, bare) / options.workers)
        middles = [float(np.median(rates)) for rates in (bare, alone, pool)]
        lines.append([name, *middles, efficiencies[-1]])
        results["steps_per_second"][name] = {"bare": bare, "one process with policy": alone, "pool": pool}
    columns = ["", "bare loop", "one process, policy", f"pool of {options.workers}", "pool / (bare x workers)"]
    show("Environment steps per second", columns, lines)
    results["rollout_efficiency"] = dict(zip(options.tasks, efficiencies, strict=True))
    results["rollout_efficiency_ratio"] = float(np.median(efficiencies))
    finish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
