"""An objective: a loss over R replicas, the parameters it moves and how; safemil/training/loop.py runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

PIECES = 36  # tensors that CUDA's fused AdamW takes in one launch

Batch = dict[str, Tensor]
Info = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, Info]]


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
        if self.sums is None or not self.count:
            return {}
        means = (self.sums / self.count).cpu().numpy()
        self.sums.zero_()  # in place: a captured step adds to this very tensor
        self.count = 0
        return dict(zip(self.names, means, strict=True))


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101) on one tensor, whose gradient is ``values.grad``.

    The same fused kernel as ``torch.optim.AdamW(fused=True)``, bit for bit. That class spends more time around the
    kernel than in it when networks are small, and importing what it needs takes seconds of every process.
    """

    def __init__(self, values: Tensor, learning_rate: float, weight_decay: float) -> None:
        if values.grad is None:
            raise ValueError("a tensor without a gradient: its gradient's memory is read in every step")
        self.values, self.gradients, self.weight_decay = values, values.grad, weight_decay
        self.rate = torch.tensor(learning_rate, device=values.device)  # a tensor, so that a captured step can read it
        self.steps = torch.zeros((), device=values.device)
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        self.parts = pieces(values), pieces(self.gradients), pieces(self.mean), pieces(self.square)

    @torch.no_grad()
    def step(self) -> None:
        """One update in place."""
        self.steps += 1
        torch._fused_adamw_(
            *self.parts,
            [],
            [self.steps] * len(self.parts[0]),
            lr=self.rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> list[Tensor]:
        """All that changes from step to step, besides the values."""
        return [self.steps, self.mean, self.square]


def pieces(values: Tensor) -> list[Tensor]:
    """The tensor as views for a fused kernel, which on CUDA gives 65,536 numbers of a view to one multiprocessor."""
    flat = values.detach().view(-1)
    return list(flat.chunk(PIECES)) if values.is_cuda else [flat]


@dataclass(frozen=True)
class Follower:
    """A network that slowly follows another, parameter by parameter: followed += rate (leader - followed)."""

    leader: Sequence[Tensor]
    parameters: Sequence[Tensor]
    rate: float

    @torch.no_grad()
    def step(self) -> None:
        """One step in place."""
        for own, other in zip(self.parameters, self.leader, strict=True):
            own.lerp_(other, self.rate)


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
    followers: Sequence[Follower] = ()  # take a step after each of this objective's
    values: nn.Parameter = field(init=False)  # (R, P) all parameters, of which `parameters` are views
    optimizer: AdamW = field(init=False)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.parameters)
        self.values, self.meter = lay_out(self.parameters), Meter()
        self.optimizer = AdamW(self.values, self.learning_rate, self.weight_decay)

    def state(self) -> list[Tensor]:
        """All that changes from step to step."""
        followed = [tensor for follower in self.followers for tensor in follower.parameters]
        return [self.values, *self.optimizer.state(), *followed]

    def compile(self) -> None:
        """Let torch fuse the small operations of the loss and of its gradient; the first update then takes seconds."""
        self.loss = torch.compile(self.loss, dynamic=False)

    def step(self, batch: Batch) -> None:
        """One update; its metrics stay on the device, in ``meter``."""
        loss, info = self.loss(batch)
        gradients = torch.autograd.grad(loss.sum(), self.parameters, materialize_grads=True)
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self.optimizer.gradients)
        norm = clip_gradients(self.optimizer.gradients, self.gradient_clip)
        self.optimizer.step()
        for follower in self.followers:
            follower.step()
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
