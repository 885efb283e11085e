"""Split -> bags of trajectory segments: which rows, how many of them are real, how they are discounted.

A bag is K segments drawn with replacement from D_N (non-preferred) or D_U (unlabeled); a segment is H consecutive steps
of one trajectory. A trajectory shorter than H is used whole, its sum rescaled by G_H / G_T:

    rows    [ t  t+1  t+2 | .   . ]      H = 5, three steps left: the last two are padding
    mask    [ 1   1    1  | 0   0 ]
    factor  [ 1   g   g^2 | 0   0 ] * G_5 / G_3,     G_n = (1 - g^n) / (1 - g)

so that the score of a segment is ``(factor * cost).sum()``. Discounting restarts at the segment's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from safemil.algorithm.discounting import discounted_length
from safemil.algorithm.failure_modes import BalancedTable
from safemil.nn.streams import IndexTable

SegmentLength = int | Literal["full"]


class SegmentSampler:
    """Draws segments of one set of trajectories per replica.

    Args:
        offsets: ``(n_trajectories + 1,)`` trajectory i is rows ``offsets[i]:offsets[i + 1]``.
        sets: for each replica the trajectories to draw from.
        segment_length: H, or ``full`` for whole trajectories.
        discount: g.
        by: ``trajectory`` draws a trajectory, then a start (keeps Lemma 1 exact); ``transition`` draws uniformly over
            all valid starts, which favours long trajectories.
        length_normalized: divide each score by G_T, which a whole trajectory needs lest its length be its score.
        modes: for each replica the mode of each of its trajectories; modes are then drawn equally often.
        longest: steps that ``full`` is padded to (default: those of the longest trajectory drawn from).
    """

    def __init__(
        self,
        offsets: np.ndarray,
        sets: Sequence[np.ndarray],
        segment_length: SegmentLength,
        *,
        discount: float,
        by: Literal["trajectory", "transition"] = "trajectory",
        length_normalized: bool = False,
        modes: Sequence[np.ndarray] | None = None,
        longest: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        lengths = np.diff(offsets)
        full = segment_length == "full"
        self.length = int(longest or lengths[np.concatenate(sets)].max()) if full else int(segment_length)
        taken = np.minimum(lengths, self.length)
        target = np.ones_like(taken) if length_normalized else np.full_like(taken, self.length)
        if full and not length_normalized:
            target = taken  # a plain discounted sum over the whole trajectory
        scale = discounted_length(target, discount) / discounted_length(np.maximum(taken, 1), discount)
        self.by = by
        n_starts = lengths - taken + 1
        if by == "transition":
            modes = modes and [np.repeat(own, n_starts[chosen]) for own, chosen in zip(modes, sets, strict=True)]
            sets = [np.concatenate([offsets[i] + np.arange(n_starts[i]) for i in chosen]) for chosen in sets]
        self.table = BalancedTable(sets, modes, device) if modes else IndexTable(sets, device)
        self.offsets = torch.tensor(offsets, dtype=torch.int64, device=device)
        self.starts_per_trajectory = torch.as_tensor(n_starts, device=device)
        self.taken = torch.as_tensor(taken, device=device)
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=device)
        self.uniform = bool((taken == self.length).all() and (scale == 1).all())  # no segment is padded or rescaled
        self.ages = torch.arange(self.length, device=device)
        self.powers = torch.as_tensor(discount ** np.arange(self.length), dtype=torch.float32, device=device)

    def sample(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers ``(n, R, items, 2)`` -> start rows and trajectories, both ``(n, R, items)``."""
        first, second = uniform.unbind(-1)
        chosen = self.table.sample(first)
        if self.by == "transition":
            return chosen, torch.searchsorted(self.offsets, chosen, right=True) - 1
        return self.offsets[chosen] + (second * self.starts_per_trajectory[chosen]).long(), chosen

    def expand(self, starts: Tensor, trajectories: Tensor) -> tuple[Tensor, Tensor]:
        """Start rows and trajectories ``(R, items)`` -> rows and factors ``(R, items, H)``; padding has factor 0."""
        if self.uniform:
            return starts.unsqueeze(-1) + self.ages, self.powers.expand(*starts.shape, -1)
        taken = self.taken[trajectories].unsqueeze(-1)
        real = self.ages < taken
        rows = starts.unsqueeze(-1) + torch.minimum(self.ages, taken - 1)
        return rows, self.powers * real * self.scale[trajectories].unsqueeze(-1)


def segment_scores(costs: Tensor, factors: Tensor) -> Tensor:
    """z = sum_t g^t c(s_t, a_t): ``(..., H)`` step costs and factors -> ``(...)``."""
    return (costs * factors).sum(-1)


def bag_scores(scores: Tensor, bag_size: int) -> Tensor:
    """S(B) = mean over a bag's K segments: ``(..., n_bags * K)`` -> ``(..., n_bags)``."""
    return scores.unflatten(-1, (-1, bag_size)).mean(-1)
