"""How the cost of a step grows: seconds of SafeMIL's cost step and of a cloning step against |D_U|, T, K, H and R.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --rounds 5 --json scaling.json

A slope is the exponent b of seconds ~ size^b: 0 where size costs nothing (the data are gathered by index), 1 where
arithmetic is all there is; below 1 in R where packing pays. Needs torch, numpy and h5py alone.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import torch
from measuring import arguments, finish, machine, show, slope

from safemil.algorithm.cloning import TransitionSampler, cloning_objective, make_policy
from safemil.algorithm.cost_model import CostModel
from safemil.config.settings import CostModelConfig, PolicyConfig
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.transitions import Transitions

BASE = {"n_unlabeled": 200, "length": 200, "bag_size": 32, "segment_length": 5, "replicas": 1}
AXES = {
    "n_unlabeled": [50, 200, 800],
    "length": [50, 200, 800],
    "bag_size": [8, 32, 128],
    "segment_length": [5, 20, 80],
    "replicas": [1, 5, 20],
}
OF_CLONING = ("n_unlabeled", "length", "replicas")


def split_of(n_unlabeled: int, length: int) -> Split:
    """Random trajectories: 50 in D_N, the rest in D_U."""
    rng, n = np.random.default_rng(0), (n_unlabeled + 50) * length
    observations = rng.normal(size=(n, 17)).astype(np.float32)
    actions = rng.uniform(-1, 1, (n, 6)).astype(np.float32)
    data, ids = Trajectories(observations, actions, np.arange(n_unlabeled + 51) * length), np.arange(n_unlabeled + 50)
    return Split(data, ids[:40], ids[50:], ids[40:50], ids[50:60])


def step_seconds(what: str, rounds: int, size: dict[str, int]) -> float:
    """Least seconds of one step over the rounds, each of which takes about 64 steps of the smallest size."""
    split = split_of(size["n_unlabeled"], size["length"])
    splits, seeds = [split] * size["replicas"], range(size["replicas"])
    steps = Transitions.from_splits(splits, "cpu")
    if what == "cost model":
        config = CostModelConfig(bag_size=size["bag_size"], segment_length=size["segment_length"], pairs=1)
        source = CostModel(splits, config, steps, seeds)
        objective = source.objective()
    else:
        policy_config = PolicyConfig()
        policy = make_policy(splits, policy_config, FitContext(tuple(seeds)))
        source = TransitionSampler([split.trajectories.rows(split.unlabeled)] * len(splits), steps, seeds, 256)
        objective = cloning_objective(
            policy, policy_config, lambda batch: (policy.loss(batch["observations"], batch["actions"]).mean(1), {})
        )
    n_steps, times = 32, []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        train("benchmark", [objective], source.draw, source.prepare, FitContext(), steps=n_steps, reports=1)
        times.append((time.perf_counter() - started) / n_steps)
    return min(times[1:])


def main() -> int:
    """Vary one size at a time."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch (default: all cores)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {"machine": machine(options.threads), "seconds": {}, "slopes": {}}
    rows = []
    for what in ("cost model", "cloning"):
        for axis, values in AXES.items():
            if what == "cloning" and axis not in OF_CLONING:
                continue
            measured = [step_seconds(what, options.rounds, {**BASE, axis: value}) for value in values]
            results["seconds"][f"{what}, {axis}"] = dict(zip(map(str, values), measured, strict=True))
            results["slopes"][f"{what}, {axis}"] = slope(values, measured)
            texts = "  ".join(f"{value}: {1e3 * own:.2f}" for value, own in zip(values, measured, strict=True))
            rows.append([what, axis, texts, results["slopes"][f"{what}, {axis}"]])
    show("Milliseconds of a step", ["", "varied", "size: ms", "slope"], rows)
    finish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
