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
from torch import Tensor, nn

from safemil.capture import CapturedUpdates
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


class Meter:
    """Metrics of one objective, each ``(R,)``, summed on the device until they are read back in one transfer."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums: Tensor | None = None
        self.count = 0

    def add(self, info: Info) -> None:
        values = torch.stack(list(info.values()))
        if self.sums is None:
            self.names, self.sums = tuple(info), torch.zeros_like(values)
        self.sums += values

    def read(self) -> dict[str, np.ndarray]:
        """Means since the last reading."""
        if not self.count:
            return {}
        means = (self.sums / self.count).cpu().numpy()
        self.sums.zero_()  # in place: a captured step adds to this very tensor
        self.count = 0
        return dict(zip(self.names, means, strict=True))


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
    values: nn.Parameter = field(init=False)  # (R, P) all parameters, of which `parameters` are views
    optimizer: torch.optim.Optimizer = field(init=False)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.parameters)
        self.values, self.meter = lay_out(self.parameters), Meter()
        rate = torch.tensor(self.learning_rate, device=self.values.device)  # a tensor: a captured step reads it
        self.optimizer = torch.optim.AdamW(
            [self.values], lr=rate, weight_decay=self.weight_decay, fused=True, capturable=rate.is_cuda
        )

    @property
    def rate(self) -> Tensor:
        """The learning rate of the next update, a scalar on the device; the loop sets it."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, batch: Batch) -> None:
        """One update; its metrics stay on the device, in ``meter``."""
        loss, info = self.loss(batch)
        gradients = torch.autograd.grad(loss.sum(), self.parameters, materialize_grads=True)
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self.values.grad)
        norm = clip_gradients(self.values.grad, self.gradient_clip)
        self.optimizer.step()
        self.meter.add({**info, f"{self.name}_loss": loss.detach(), f"{self.name}_gradient_norm": norm})


@torch.no_grad()
def lay_out(parameters: Sequence[Tensor]) -> nn.Parameter:
    """Move stacked parameters into one tensor ``(R, P)``, with room for its gradient, and make them views of it.

    Clipping and the optimizer then take one operation each, whatever the number of layers.
    """
    values = nn.Parameter(torch.cat([parameter.flatten(1) for parameter in parameters], dim=1))
    values.grad = torch.zeros_like(values)
    parts = values.split([parameter[0].numel() for parameter in parameters], dim=1)
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.unflatten(1, parameter.shape[1:])
    return values


@torch.no_grad()
def clip_gradients(gradients: Tensor, limit: float) -> Tensor:
    """Scale each replica's gradient ``(R, P)`` to at most ``limit``, in place; returns the norms before, ``(R,)``."""
    norms = torch.linalg.vector_norm(gradients, dim=1)
    gradients.mul_((limit / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
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
    state = Stage(objectives, on_snapshot)
    first = state.restore()

    def update(inputs: Batch, active: Sequence[int]) -> None:
        batch = prepare(inputs)
        for number in active:
            objectives[number].rate.copy_(inputs["rates"][number])
            objectives[number].step(batch)

    device = objectives[0].values.device
    updates = CapturedUpdates(update) if device.type == "cuda" else EagerUpdates(update)
    for _ in range(0, first, BLOCK):
        block = draw(BLOCK)
    for step in range(first, steps):
        if step % BLOCK == 0:
            block = draw(BLOCK)
        if step % BLOCK == 0 or step == first:
            updates.load({**block, "rates": learning_rates(objectives, step, steps, device)}, step % BLOCK)
        active = tuple(number for number, objective in enumerate(objectives) if step % objective.period == 0)
        updates.run(active)
        for number in active:
            objectives[number].meter.count += 1
        done = step + 1
        reported = done % every == 0 or done == steps
        if reported:
            metrics = {name: values for objective in objectives for name, values in objective.meter.read().items()}
            log(stage, done, check_finite(stage, done, metrics))
        if done in snapshot_steps and on_snapshot is not None:
            on_snapshot(done)
            state.snapshot(done)
        if reported:
            state.keep(done, steps)


class EagerUpdates:
    """Runs the updates of a block one after the other; ``safemil.capture.CapturedUpdates`` is its double on CUDA."""

    def __init__(self, update: Callable[[Batch, Sequence[int]], None]) -> None:
        self.update = update

    def load(self, block: Batch, first: int) -> None:
        """Take a block, of which update ``first`` is the next."""
        self.block, self.next = block, first

    def run(self, active: tuple[int, ...]) -> None:
        """The next update, with those objectives that take part in it."""
        self.update({name: values[self.next] for name, values in self.block.items()}, active)
        self.next += 1


def learning_rates(objectives: Sequence[Objective], step: int, steps: int, device: torch.device) -> Tensor:
    """Of each update of the block that ``step`` lies in, ``(BLOCK, n_objectives)``."""
    block = range(step // BLOCK * BLOCK, (step // BLOCK + 1) * BLOCK)
    rates = [[o.learning_rate * schedule_factor(o.schedule, min(n, steps), steps) for o in objectives] for n in block]
    return torch.tensor(rates, device=device)


def check_finite(stage: str, step: int, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics as they are, unless a loss stopped being finite.

    Raises:
        TrainingError: one did; names the replicas.
    """
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
