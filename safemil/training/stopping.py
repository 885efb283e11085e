"""When a training ends before its last update: the held-out loss has stopped falling.

The loss on trajectories that training does not see, which needs no label beyond D_N and D_U, is looked at every
``every`` updates. A look counts as a fall where the loss lies below that of the last fall by more than ``least`` of all
that has been gained since the untrained network: neither the loss's scale nor its offset matters. After ``looks`` looks
without a fall, and no less than ``growth`` times the updates it took to get there, training is over, and the networks
are those of the look at which the held-out loss was lowest (early stopping by patience: Prechelt, "Early stopping - but
when?", 1998).

Replicas of a pack end each by its own losses alone: one that is over keeps a copy of its best parameters while the pack
trains on for the others, so that its result does not depend on them. What that costs is the time of the pack's slowest
replica, as if all were. Studies train a fixed number of updates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HeldOutLoss = Callable[[], np.ndarray]  # -> (R,)


@dataclass(frozen=True)
class Patience:
    """How long a held-out loss may fail to fall."""

    every: int = 50  # updates from one look to the next
    looks: int = 20  # without a fall
    growth: float = 0.5  # times the updates until the last fall
    least: float = 0.005  # of all that was gained so far: less is no fall


@dataclass(frozen=True, eq=False)
class Ended:
    """How each replica's training ended."""

    kept: np.ndarray  # (R,) updates behind the parameters that were kept
    trained: np.ndarray  # (R,) updates after which it was over
    first: np.ndarray  # (R,) held-out loss of the untrained network
    lowest: np.ndarray  # (R,) and of the one that was kept

    def of(self, stage: str, replica: int) -> dict[str, float]:
        """One replica's as numbers by name."""
        return {
            f"{stage}_updates_kept": float(self.kept[replica]),
            f"{stage}_updates": float(self.trained[replica]),
            f"{stage}_held_out_first": float(self.first[replica]),
            f"{stage}_held_out_lowest": float(self.lowest[replica]),
        }


class EarlyStopping:
    """Watches one training loop.

    Args:
        values: parameters of each objective, ``(R, P)``, which training changes in place.
        loss: held-out loss of each replica as the parameters now are.
    """

    def __init__(self, patience: Patience, values: Sequence[Tensor], loss: HeldOutLoss) -> None:
        self.patience, self.values, self.loss = patience, list(values), loss
        self.best = [own.detach().clone() for own in values]
        # One row each: untrained loss, loss at the last fall, its update, lowest loss, its update, update of the end.
        self.record = torch.zeros(6, len(self.best[0]), dtype=torch.float64)
        self.first, self.fallen_to, self.fell_at, self.lowest, self.kept, self.ended = self.record
        self.lowest.fill_(torch.inf)

    def state(self) -> list[Tensor]:
        """All that changes from look to look."""
        return [self.record, *self.best]

    def begin(self) -> None:
        """The look at the untrained network; for a training that starts from zero."""
        self.first.copy_(torch.as_tensor(self.loss()))
        self.fallen_to.copy_(self.first)

    def due(self, done: int, steps: int) -> bool:
        """Whether to look after ``done`` updates."""
        return done % self.patience.every == 0 or done == steps

    @torch.no_grad()
    def look(self, done: int) -> np.ndarray:
        """Measure, keep what is best so far, end what no longer falls; returns the losses ``(R,)``."""
        loss, patience = torch.as_tensor(self.loss()).double(), self.patience
        going = self.ended == 0
        better = going & (loss < self.lowest)
        for kept, own in zip(self.best, self.values, strict=True):
            kept.copy_(torch.where(better.to(own.device).unsqueeze(1), own, kept))
        self.lowest[better], self.kept[better] = loss[better], float(done)
        fell = going & (self.fallen_to - loss > patience.least * (self.first - loss).abs())
        self.fallen_to[fell], self.fell_at[fell] = loss[fell], float(done)
        waits = torch.clamp(patience.growth * self.fell_at, min=patience.every * patience.looks)
        self.ended[going & (done - self.fell_at >= waits)] = float(done)
        return loss.numpy()

    @property
    def over(self) -> bool:
        """Whether no replica has anything left to gain."""
        return bool((self.ended > 0).all())

    @torch.no_grad()
    def finish(self, done: int) -> Ended:
        """Give each replica its best parameters."""
        for own, kept in zip(self.values, self.best, strict=True):
            own.copy_(kept)
        trained = torch.where(self.ended > 0, self.ended, float(done))
        return Ended(self.kept.numpy(), trained.numpy(), self.first.numpy(), self.lowest.numpy())
