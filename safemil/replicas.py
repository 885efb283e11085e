"""Random streams and device-resident data for R replicas trained as one.

Each replica has its own generator for each purpose, seeded from (its seed, the purpose) alone, and draws its random
numbers in blocks of ``BLOCK`` steps: neither the companions in a pack nor the number of steps asked for changes what a
replica draws. Numbers are drawn on the CPU so that a seed means the same on every device.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safemil.networks import Normalizer
from safemil.splits import Split

BLOCK = 64  # steps whose random numbers are drawn at once: amortizes the call, bounds the memory


def make_generators(seeds: Sequence[int], purpose: str) -> list[torch.Generator]:
    """One CPU generator per replica, a function of (seed, purpose) alone."""
    salt = zlib.crc32(purpose.encode())
    words = [np.random.SeedSequence([seed, salt]).generate_state(1, np.uint64)[0] for seed in seeds]
    return [torch.Generator().manual_seed(int(word) % 2**63) for word in words]


class Streams:
    """Uniform and normal random numbers of R replicas, one generator each."""

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str) -> None:
        self.generators = make_generators(seeds, purpose)
        self.device = device

    def uniform(self, *shape: int) -> Tensor:
        """U[0, 1) of shape ``(shape[0], R, *shape[1:])``, in float64: fine enough to pick one of millions of rows."""
        drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) for generator in self.generators]
        return torch.stack(drawn, dim=1).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1) of shape ``(shape[0], R, *shape[1:])``, float32."""
        drawn = [torch.randn(shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn, dim=1).to(self.device)


class IndexTable:
    """A set of integers per replica, of differing sizes, from which uniform draws need no data-dependent shapes.

    values  (R, longest), padded with zeros     counts  (R,)
    """

    def __init__(self, sets: Sequence[np.ndarray], device: torch.device | str) -> None:
        if any(len(values) == 0 for values in sets):
            raise ValueError("an index set is empty; every replica needs at least one entry to draw from")
        self.values = torch.zeros(len(sets), max(map(len, sets)), dtype=torch.int64)
        for row, values in zip(self.values, sets, strict=True):
            row[: len(values)] = torch.as_tensor(values)
        self.values = self.values.to(device)
        self.counts = torch.tensor([len(values) for values in sets], dtype=torch.float64, device=device)

    def pick(self, uniform: Tensor) -> Tensor:
        """``(n, R, ...)`` uniform numbers -> as many entries of each replica's set, with replacement."""
        extra = (1,) * (uniform.dim() - 2)
        index = (uniform * self.counts.view(1, -1, *extra)).long()
        rows = torch.arange(len(self.counts), device=index.device).view(1, -1, *extra)
        return self.values[rows, index]


class Steps:
    """Observations and actions of the trajectories, on the device; ``rows`` of any shape index into them.

    A step's observation and action lie side by side, so that a gather fetches both at once.
    """

    def __init__(self, observations: np.ndarray, actions: np.ndarray, device: torch.device | str) -> None:
        joined = np.concatenate([observations, actions], axis=1)
        self.joined = torch.tensor(joined, dtype=torch.float32, device=device)
        self.widths = [observations.shape[1], actions.shape[1]]
        self.observations, self.actions = self.joined.split(self.widths, dim=1)

    @classmethod
    def of(cls, splits: Sequence[Split], device: torch.device | str) -> Steps:
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
