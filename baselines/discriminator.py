"""What DWBC, SafeDICE and UNIQ share: the settings of a classifier of steps, and its logistic loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from safemil.algorithm.cloning import evenly_spaced
from safemil.config.overrides import Settings, setting
from safemil.data.splits import Split
from safemil.nn.networks import StepScorer, extract_replica
from safemil.training.fit_result import snapshot_steps
from safemil.training.transitions import Transitions

LOOKS, LOOKED_AT = 10, 2_000  # times at which a held-out loss is taken, on so many steps of each set


@dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """A classifier of steps of D_N (or of preferred trajectories) against D_U."""

    steps: int = setting(20_000, "gradient steps before the policy's begin", low=0)
    batch_size: int = setting(256, "steps of each class in an update", low=1)
    learning_rate: float = setting(1e-4, "AdamW's (DWBC's own; the paper's runs used 1e-5)", low=0.0)
    weight_decay: float = setting(0.0, "decoupled", low=0.0)


def logistic_loss(nonpreferred: Tensor, unlabeled: Tensor) -> Tensor:
    """Of logits, mean over the last axis: D_N is the positive class; 2 log 2 where nothing is told apart."""
    return nn.functional.softplus(-nonpreferred).mean(-1) + nn.functional.softplus(unlabeled).mean(-1)


class BestHeldOut:
    """Looks at the held-out loss of R networks now and then, and keeps each as it was when its own was lowest."""

    def __init__(
        self,
        network: StepScorer,
        logits: Callable[[Tensor, Tensor], Tensor],
        splits: Sequence[Split],
        transitions: Transitions,
        steps: int,
    ) -> None:
        data = splits[0].trajectories
        held_out = ("nonpreferred_held_out", "unlabeled_held_out")
        self.sets = [
            evenly_spaced([data.rows(getattr(split, name)) for split in splits], transitions, LOOKED_AT)
            for name in held_out
        ]
        self.network, self.logits, self.steps = network, logits, snapshot_steps(steps, LOOKS)
        self.losses = np.full(len(splits), np.inf)
        self.kept = [extract_replica(network, index) for index in range(len(splits))]

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        found = logistic_loss(*(self.logits(*own) for own in self.sets)).cpu().numpy()
        for index in np.flatnonzero(~(found >= self.losses)):  # without held-out steps it is nan: the last one is kept
            self.kept[index], self.losses[index] = extract_replica(self.network, index), found[index]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the networks the ones that were kept."""
        for index, kept in enumerate(self.kept):
            for parameter, value in zip(self.network.parameters(), kept.parameters(), strict=True):
                parameter[index : index + 1].copy_(value)
