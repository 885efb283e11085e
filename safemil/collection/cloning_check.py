"""Is there anything to learn from a dataset? Clone all of D_U, and its trajectories within the cost limit, and look.

Cloning all must break the cost limit, and cloning the safe ones must keep it. In: a dataset and its default split. Out:
return and cost of both clones in the simulator.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.algorithm.cloning import clone_trajectories
from safemil.config.settings import PolicyConfig, SplitConfig
from safemil.data.splits import make_split
from safemil.data.tasks import Task
from safemil.data.trajectories import Outcomes, Trajectories
from safemil.nn.checkpoints import save
from safemil.simulation.rollouts import evaluate_policies
from safemil.training.context import FitContext
from safemil.training.transitions import Transitions

SEEDS, EPISODES = (0, 1, 2), 20
CLONING = PolicyConfig(steps=5_000, batch_size=128)


@dataclass(frozen=True)
class Clones:
    """What cloning makes of a dataset, in cost limits; one number for each seed."""

    all_costs: tuple[float, ...]
    all_returns: tuple[float, ...]
    safe_costs: tuple[float, ...]
    safe_returns: tuple[float, ...]

    @property
    def faults(self) -> list[str]:
        """What a user should be warned of, in words."""
        faults = []
        if (cost := float(np.mean(self.all_costs))) <= 1:
            faults.append(f"cloning all of D_U keeps the limit (cost {cost:.2f}): there is nothing to learn")
        if (cost := float(np.mean(self.safe_costs))) > 1:
            faults.append(f"cloning the safe trajectories of D_U breaks the limit (cost {cost:.2f})")
        return faults


def clone_both(
    trajectories: Trajectories,
    outcomes: Outcomes,
    task: Task,
    *,
    workers: int,
    policy: PolicyConfig = CLONING,
    seeds: tuple[int, ...] = SEEDS,
    episodes: int = EPISODES,
) -> Clones:
    """Train and roll out both clones, packed over seeds."""
    config = SplitConfig(cost_limit=task.cost_limit)
    drawn = [make_split(trajectories, outcomes, config, seed) for seed in seeds]
    splits = [split for split, _ in drawn]
    costs = outcomes.costs_total
    choices = {
        "all": [split.unlabeled for split in splits],
        "safe": [split.unlabeled[costs[split.unlabeled] <= task.cost_limit] for split in splits],
    }
    steps, results = Transitions.from_splits(splits, "cpu"), {}
    for name, chosen in choices.items():
        fitted = clone_trajectories(splits, chosen, policy, steps, FitContext(seeds=seeds))
        with tempfile.TemporaryDirectory() as folder:
            paths: list[Path | str] = [Path(folder) / str(seed) for seed in seeds]
            for path, result in zip(paths, fitted, strict=True):
                save(path, result.policy)
            played = evaluate_policies(paths, task, episodes=episodes, evaluation_seed=0, workers=workers)
        results[f"{name}_costs"] = tuple(
            float(np.mean([e.cost for e in played[path]])) / task.cost_limit for path in paths
        )
        results[f"{name}_returns"] = tuple(float(np.mean([e.return_ for e in played[path]])) for path in paths)
    return Clones(**results)
