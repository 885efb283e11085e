"""The one training loop: draw a batch, let each objective take its step, keep metrics on the device, report in blocks.

An objective is a loss over R replicas, the parameters it moves and how. Several objectives in one loop take their steps
in order on the same batch (SafeMIL's joint mode: cost, then policy; DWBC: discriminator, then policy).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safemil.replicas import BLOCK
from safemil.resuming import Stage

Batch = dict[str, Tensor]
Info = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, Info]]
Log = Callable[[str, int, dict[str, np.ndarray]], None]  # stage, step, metric -> (R,)


class TrainingError(RuntimeError):
    """Training diverged. Names the stage, the step and the replicas.

    A method that packs several networks for each seed lays those of one seed side by side, so that the seed of replica
    i of n is i * (number of seeds) // n.
    """

    def __init__(self, message: str, replicas: Sequence[int] = (), n_replicas: int = 1) -> None:
        super().__init__(message)
        self.replicas, self.n_replicas = tuple(replicas), n_replicas

    def seeds(self, n_seeds: int) -> list[int]:
        """Which of ``n_seeds`` seeds trained together diverged, by their position."""
        return sorted({replica * n_seeds // self.n_replicas for replica in self.replicas})


def no_log(stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
    """Discards what it is told."""


def schedule_factor(schedule: str, step: int, steps: int) -> float:
    """Multiplier of the learning rate at ``step`` of ``steps``: constant, linear to 0, or cosine to 0."""
    if schedule == "linear":
        return 1.0 - step / steps
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return 1.0


@dataclass
class Objective:
    """One loss and its optimizer.

    The losses of the replicas are summed, not averaged: each replica's gradient is then what it would be alone.
    Decay is decoupled (AdamW); gradients are clipped by the norm of each replica's own parameters.
    """

    name: str
    parameters: Sequence[Tensor]
    loss: Loss
    learning_rate: float
    schedule: str = "constant"
    weight_decay: float = 0.0
    gradient_clip: float = 10.0
    period: int = 1  # takes a step every `period` steps of the loop
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def step(self, batch: Batch, step: int, steps: int) -> Info:
        """One update; returns metrics, each ``(R,)`` and still on the device."""
        loss, info = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        norm = clip_gradients(self.parameters, self.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * schedule_factor(self.schedule, step, steps)
        self.optimizer.step()
        return {**info, f"{self.name}_loss": loss.detach(), f"{self.name}_gradient_norm": norm}


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], limit: float) -> Tensor:
    """Scale each replica's gradient to at most ``limit``; returns the norms before, ``(R,)``."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
    factor = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.dim() - 1)))
    return norms


def train(
    stage: str,
    objectives: Sequence[Objective],
    draw: Callable[[int], Batch],
    prepare: Callable[[Batch], Batch],
    *,
    steps: int,
    log: Log = no_log,
    reports: int = 100,
    snapshot_steps: Sequence[int] = (),
    on_snapshot: Callable[[int], Any] | None = None,
) -> None:
    """Run ``steps`` steps; inside ``safemil.resuming.resuming`` go on from where an interrupted training stood.

    Args:
        stage: name under which metrics are reported.
        objectives: take their steps in this order on each batch.
        draw: block length -> random numbers or indices with a leading axis of that length.
        prepare: one step's slice of a block -> batch (the gathers, on the device).
        reports: how often metrics (means since the last report) are read back and passed to ``log``.
        snapshot_steps: after these many steps ``on_snapshot`` is called.

    Raises:
        TrainingError: a loss stopped being finite.
    """
    every = max(1, steps // reports)
    sums: Info = {}
    counts: dict[str, int] = {}
    state = Stage(objectives, on_snapshot)
    first = state.restore()
    for _ in range(0, first, BLOCK):
        block = draw(BLOCK)
    for step in range(first, steps):
        if step % BLOCK == 0:
            block = draw(BLOCK)
        batch = prepare({name: values[step % BLOCK] for name, values in block.items()})
        for objective in objectives:
            if step % objective.period == 0:
                for name, value in objective.step(batch, step, steps).items():
                    sums[name] = sums[name] + value if name in sums else value
                    counts[name] = counts.get(name, 0) + 1
        done = step + 1
        reported = done % every == 0 or done == steps
        if reported:
            log(stage, done, read_back(stage, done, sums, counts))
            sums, counts = {}, {}
        if done in snapshot_steps and on_snapshot is not None:
            on_snapshot(done)
            state.snapshot(done)
        if reported:
            state.keep(done, steps)


def read_back(stage: str, step: int, sums: Info, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Means of the metrics since the last report, one transfer for all; a loss that is not finite stops the run."""
    if not sums:
        return {}
    values = torch.stack([sums[name] / counts[name] for name in sums]).cpu().numpy()
    metrics = dict(zip(sums, values, strict=True))
    for name, per_replica in metrics.items():
        if name.endswith("_loss") and not np.isfinite(per_replica).all():
            bad = np.flatnonzero(~np.isfinite(per_replica)).tolist()
            raise TrainingError(
                f"{stage}: {name} is not finite at step {step} in replica(s) {bad}; lower the learning rate"
                " or look for extreme values in the dataset",
                bad,
                len(per_replica),
            )
    return metrics
