"""The dataset on the device: observations and actions of all trajectories, gathered by row; observation statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safemil.data.splits import Split
from safemil.nn.networks import Normalizer


class Transitions:
    """Observations and actions of the trajectories, on the device; ``rows`` of any shape index into them.

    A step's observation and action lie side by side, so that a gather fetches both at once.
    """

    def __init__(self, observations: np.ndarray, actions: np.ndarray, device: torch.device | str) -> None:
        joined = np.concatenate([observations, actions], axis=1)
        self.joined = torch.tensor(joined, dtype=torch.float32, device=device)
        self.widths = [observations.shape[1], actions.shape[1]]
        self.observations, self.actions = self.joined.split(self.widths, dim=1)

    @classmethod
    def from_splits(cls, splits: Sequence[Split], device: torch.device | str) -> Transitions:
        """The steps of the trajectories that all these splits are of."""
        return cls(splits[0].trajectories.observations, splits[0].trajectories.actions, device)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``(R, n)`` -> observations ``(R, n, observation_dim)``, actions ``(R, n, action_dim)``."""
        joined = self.joined.index_select(0, rows.reshape(-1)).unflatten(0, rows.shape)
        return joined.split(self.widths, dim=-1)


def set_normalizers(normalizers: Sequence[Normalizer], splits: Sequence[Split]) -> None:
    """Give each replica's networks the observation statistics of its own D_N and D_U."""
    observations = [split.trajectories.observations[split.training_rows()].astype(np.float64) for split in splits]
    mean = torch.tensor(np.stack([values.mean(0) for values in observations]), dtype=torch.float32)
    std = torch.tensor(np.stack([values.std(0) for values in observations]), dtype=torch.float32)
    for normalizer in normalizers:
        normalizer.set_statistics(mean.to(normalizer.mean.device), std.to(normalizer.mean.device))
