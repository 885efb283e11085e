"""Random streams of R replicas trained as one, and draws from index sets.

A replica's random numbers are a function of (its seed, their purpose, their position in the stream) alone: neither the
companions in a pack, nor the number of steps asked for, nor the device changes what a replica draws. They are drawn on
the device itself, in blocks of ``BLOCK`` steps.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # steps whose random numbers are drawn at once: amortizes the call, bounds the memory


def seed_words(seeds: Sequence[int], purpose: str) -> list[int]:
    """One number below 2^64 per replica, a function of (seed, purpose) alone."""
    salt = zlib.crc32(purpose.encode())
    return [int(np.random.SeedSequence([seed, salt]).generate_state(1, np.uint64)[0]) for seed in seeds]


def make_generators(seeds: Sequence[int], purpose: str) -> list[torch.Generator]:
    """One CPU generator per replica, for what is drawn once: initial weights."""
    return [torch.Generator().manual_seed(word % 2**63) for word in seed_words(seeds, purpose)]


class Streams:
    """Uniform random numbers of R replicas, by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), 2^53 different ones.

    Number i of a stream is a mixture of its key and i, so that a device computes a block of them at once.
    """

    GAMMA, FACTORS = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device | str) -> None:
        self.keys = torch.tensor([signed(word) for word in seed_words(seeds, purpose)], device=device)
        self.position = 1  # of the next number

    def uniform(self, *shape: int) -> Tensor:
        """The next U[0, 1), shape ``(shape[0], R, *shape[1:])``, in float64: fine enough to pick one of millions."""
        count = math.prod(shape)
        numbers = torch.arange(self.position, self.position + count, device=self.keys.device)
        self.position += count
        mixed = numbers.view(shape[0], 1, -1) * signed(self.GAMMA) + self.keys.view(-1, 1)
        for shift, factor in self.FACTORS:
            mixed.bitwise_xor_(shifted_right(mixed, shift)).mul_(signed(factor))
        mixed.bitwise_xor_(shifted_right(mixed, 31))
        return shifted_right(mixed, 11).double().mul_(2.0**-53).view(shape[0], -1, *shape[1:])


def signed(word: int) -> int:
    """The number below 2^63 with the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word


def shifted_right(words: Tensor, bits: int) -> Tensor:
    """Words of 64 bits without their lowest ones, zeros coming in from above."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """From the CPU to the device; a GPU goes on with what it has to do meanwhile."""
    if torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


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

    def sample(self, uniform: Tensor) -> Tensor:
        """``(n, R, ...)`` uniform numbers -> as many entries of each replica's set, with replacement."""
        extra = (1,) * (uniform.dim() - 2)
        index = (uniform * self.counts.view(1, -1, *extra)).long()
        rows = torch.arange(len(self.counts), device=index.device).view(1, -1, *extra)
        return self.values[rows, index]
