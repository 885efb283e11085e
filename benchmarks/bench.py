"""What training.py measures: the methods' own loops on random data of a DSRL task's size, and the bare arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from safemil.algorithm.cloning import TransitionSampler, cloning_objective, make_policy
from safemil.algorithm.cost_model import CostModel
from safemil.config.settings import CostModelConfig, PolicyConfig
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.transitions import Transitions

N_TRAJECTORIES, LENGTH, OBSERVATIONS, ACTIONS, HIDDEN = 250, 1000, 17, 6, 256
NONPREFERRED, UNLABELED = (0, 40), (50, 160)  # first trajectory and number of each training set
BATCH = 512
SHAPES: list[tuple[int, int | str]] = [(64, 5), (128, 10), (64, "full")]
Work = Callable[[], float]


def dataset() -> Trajectories:
    """Random steps of the size of a DSRL task's default split."""
    rng = np.random.default_rng(0)
    n = N_TRAJECTORIES * LENGTH
    return Trajectories(
        rng.normal(size=(n, OBSERVATIONS)).astype(np.float32),
        rng.uniform(-1, 1, (n, ACTIONS)).astype(np.float32),
        np.arange(N_TRAJECTORIES + 1) * LENGTH,
    )


def split_of(data: Trajectories) -> Split:
    """D_N and D_U of the default sizes, a fifth of each held out."""
    ids = np.arange(N_TRAJECTORIES)
    return Split(data, ids[:40], ids[50:210], ids[40:50], ids[210:])


class Bench:
    """The data and what is measured on it; each ``Work`` runs some steps and gives their number."""

    def __init__(self, device: str, level: str = "highest") -> None:
        self.device, self.context = device, FitContext(device=device, precision=level)
        self.split = split_of(dataset())
        self.steps = Transitions.from_splits([self.split], device)

    def loop(self, objective, source, n_steps: int) -> Work:
        """The training loop itself."""

        def run() -> float:
            train("benchmark", [objective], source.draw, source.prepare, self.context, steps=n_steps, reports=1)
            return n_steps

        return run

    def cloning(self, n_replicas: int, n_steps: int) -> Work:
        """Behaviour cloning of all of D_U."""
        splits, seeds = [self.split] * n_replicas, range(n_replicas)
        config = PolicyConfig(batch_size=BATCH)
        policy = make_policy(splits, config, replace(self.context, seeds=tuple(seeds)))
        rows = [split.trajectories.rows(split.unlabeled) for split in splits]

        def loss(batch):
            return policy.loss(batch["observations"], batch["actions"]).mean(1), {}

        return self.loop(
            cloning_objective(policy, config, loss), TransitionSampler(rows, self.steps, seeds, BATCH), n_steps
        )

    def cost_model(self, n_replicas: int, bag_size: int, length: int | str, n_steps: int) -> Work:
        """SafeMIL's cost step: one pair of bags."""
        config = CostModelConfig(bag_size=bag_size, segment_length=length, pairs=1)
        model = CostModel([self.split] * n_replicas, config, self.steps, range(n_replicas))
        return self.loop(model.objective(), model, n_steps)

    def bare(self, n_inputs: int, n_outputs: int, activation: type[nn.Module], n_rows: int, n_steps: int) -> Work:
        """Forward and backward of the same layers on ready rows."""
        sizes = [n_inputs, HIDDEN, HIDDEN]
        layers = [part for a, b in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(a, b), activation())]
        network = nn.Sequential(*layers, nn.Linear(HIDDEN, n_outputs)).to(self.device)
        rows = torch.randn(n_rows, n_inputs, device=self.device)

        def run() -> float:
            for _ in range(n_steps):
                network.zero_grad(set_to_none=True)
                network(rows).square().mean().backward()
            self.wait()
            return n_steps

        return run

    def wait(self) -> None:
        """Let the device finish."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def fitted(self, fit, config: Any, n_replicas: int, stage: str) -> float:
        """Steps/s of one stage of a method, from its own reports, the first of which is its warm-up."""
        reports: list[tuple[int, float]] = []

        def log(name: str, step: int, metrics) -> None:
            if name == stage:
                reports.append((step, time.perf_counter()))

        fit([self.split] * n_replicas, config, replace(self.context, seeds=tuple(range(n_replicas)), log=log))
        (first, began), (last, ended) = reports[0], reports[-1]
        return (last - first) / (ended - began)
