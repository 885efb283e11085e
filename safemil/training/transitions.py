"""The dataset on the device: observations and actions of all trajectories, gathered by row; observation statistics.

Vectors and actions lie side by side as float32. Images stay what they are in the file, uint8, and become numbers where
a batch of them is encoded (safemil/nn/encoders.py). While a network trains, each image of a batch is shifted by up to a
sixteenth of its size either way, its edge repeated (arXiv 2004.13649), the steps of a segment alike; by how much is
drawn from recorded streams.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safemil.data.splits import Split
from safemil.nn.encoders import Encoder, Normalizer
from safemil.nn.streams import Streams
from safemil.training.objectives import Batch

SHIFT = 1 / 16  # of an image's height and width


class Transitions:
    """Observations and actions of the trajectories, on the device; ``rows`` of any shape index into them."""

    def __init__(self, observations: np.ndarray, actions: np.ndarray, device: torch.device | str) -> None:
        self.images = observations.ndim > 2
        if self.images:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the array may not be written to: nobody does
                self.observations = torch.from_numpy(observations).to(device)
            self.actions = torch.tensor(actions, device=device)
        else:  # a step's observation and action lie side by side, so that a gather fetches both at once
            joined = np.concatenate([observations, actions], axis=1)
            self.joined = torch.tensor(joined, dtype=torch.float32, device=device)
            self.widths = [observations.shape[1], actions.shape[1]]
            self.observations, self.actions = self.joined.split(self.widths, dim=1)

    @classmethod
    def from_splits(cls, splits: Sequence[Split], device: torch.device | str) -> Transitions:
        """The steps of the trajectories that all these splits are of."""
        return cls(splits[0].trajectories.observations, splits[0].trajectories.actions, device)

    def __call__(self, rows: Tensor, shifts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows ``(R, n)`` -> observations ``(R, n, *observation)``, actions ``(R, n, action_dim)``.

        Images are shifted by ``shifts``, ``(R, n, 2)`` or one for each of the first axes of rows (see ``Shifts``).
        """
        if not self.images:
            joined = self.joined.index_select(0, rows.reshape(-1)).unflatten(0, rows.shape)
            observations, actions = joined.split(self.widths, dim=-1)
            return observations, actions
        actions = self.actions[rows]
        if shifts is None:
            return self.observations[rows], actions
        shifts = shifts.view(*shifts.shape[:-1], *(1,) * (rows.dim() - shifts.dim() + 1), 2).expand(*rows.shape, 2)
        return shifted(self.observations, rows, shifts), actions


def shifted(images: Tensor, rows: Tensor, shifts: Tensor) -> Tensor:
    """``images[rows]``, each moved down and right by its own whole numbers ``(*rows.shape, 2)``, edges repeated."""
    height, width = images.shape[1:3]
    down, right = shifts.unsqueeze(-1).unbind(-2)
    y = (torch.arange(height, device=rows.device) - down).clamp(0, height - 1)
    x = (torch.arange(width, device=rows.device) - right).clamp(0, width - 1)
    return images[rows[..., None, None], y[..., :, None], x[..., None, :]]


class Shifts:
    """What images are shifted by, for each replica from its own stream; of vectors nothing is drawn."""

    def __init__(self, steps: Transitions, seeds: Sequence[int], purpose: str) -> None:
        self.name = f"{purpose} shifts"
        self.streams = Streams(seeds, self.name, steps.observations.device) if steps.images else None
        self.most = [max(1, round(SHIFT * size)) for size in steps.observations.shape[1:3]]

    def draw(self, n_steps: int, n: int) -> Batch:
        """``{}``, or under ``name`` whole numbers ``(n_steps, R, n, 2)``."""
        if self.streams is None:
            return {}
        most = torch.tensor(self.most, device=self.streams.keys.device)
        return {self.name: (self.streams.uniform(n_steps, n, 2) * (2 * most + 1)).long() - most}


def set_normalizers(encoders: Sequence[Encoder], splits: Sequence[Split]) -> None:
    """Give each replica's networks the observation statistics of its own D_N and D_U; images need none."""
    normalizers = [encoder for encoder in encoders if isinstance(encoder, Normalizer)]
    if not normalizers:
        return
    observations = [split.trajectories.observations[split.training_rows()].astype(np.float64) for split in splits]
    mean = torch.tensor(np.stack([values.mean(0) for values in observations]), dtype=torch.float32)
    std = torch.tensor(np.stack([values.std(0) for values in observations]), dtype=torch.float32)
    for normalizer in normalizers:
        normalizer.set_statistics(mean.to(normalizer.mean.device), std.to(normalizer.mean.device))
