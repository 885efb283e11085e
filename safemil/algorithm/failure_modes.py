"""D_N that fails in several ways: draw its modes equally often, or give the cost model several heads.

    D_N --mean step of each trajectory, k-means--> a mode for each --> bags in which all modes are equally likely
    c = max_m c_m(s, a),   z = max_m sum_t g^t c_m(s_t, a_t)                             M heads on one trunk

Why: as K grows the cost model marks whatever is likelier in D_N than in D_U. A way of failing with share q of D_N and
q' of D_U's non-preferred part is marked only where q > (1 - p) q'; one rarer than that gets cost 0 and is imitated.
Drawing M modes equally often makes q = 1 / M. More heads change nothing here: the largest of M costs of a step is one
more function of the step, with the same optimum. tests/test_failure_modes.py holds both to the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safemil.data.splits import Split
from safemil.nn.encoders import Size
from safemil.nn.networks import COST_INITIALIZATIONS, StepScorer
from safemil.nn.streams import IndexTable, make_generators

RESTARTS = 10  # of k-means; the tightest clustering is taken
MOST_ITERATIONS = 100


def find_modes(splits: Sequence[Split], n_modes: int, seeds: Sequence[int]) -> list[np.ndarray] | None:
    """For each split the mode of each trajectory of its D_N, ``(len(split.nonpreferred),)``; None for one mode."""
    if n_modes == 1:
        return None
    generators = make_generators(seeds, "modes")
    return [
        k_means(mean_steps(split), n_modes, generator).numpy()
        for split, generator in zip(splits, generators, strict=True)
    ]


def mean_steps(split: Split) -> Tensor:
    """Mean observation and action of each trajectory of D_N, in units of the spread over its steps."""
    own = split.trajectories.select(split.nonpreferred)
    steps = np.concatenate([own.vectors(np.arange(own.n_steps)), own.actions], axis=1, dtype=np.float64)
    means = np.add.reduceat(steps, own.offsets[:-1]) / own.lengths[:, None]
    return torch.tensor(means / (steps.std(0) + 1e-3))


def k_means(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Labels ``(n,)`` from 0 of the tightest of ten clusterings of ``(n, features)``; none of them is empty.

    Lloyd's iterations from k-means++ starts. Fewer clusters come out where there are fewer distinct points.
    """
    runs = [lloyd(points, spread_out_centers(points, n_clusters, generator)) for _ in range(RESTARTS)]
    labels, _ = min(runs, key=lambda run: run[1])
    return torch.unique(labels, return_inverse=True)[1]


def spread_out_centers(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii, 2007): each center a point, likelier the farther from those before it."""
    first = torch.randint(len(points), (1,), generator=generator)
    centers = points[first]
    for _ in range(n_clusters - 1):
        distances = torch.cdist(points, centers).amin(1).square()
        if not distances.any():
            break
        centers = torch.cat([centers, points[torch.multinomial(distances, 1, generator=generator)]])
    return centers


def lloyd(points: Tensor, centers: Tensor) -> tuple[Tensor, float]:
    """Labels after convergence, and the sum of squared distances to the centers."""
    for _ in range(MOST_ITERATIONS):
        labels = torch.cdist(points, centers).argmin(1)
        members = torch.nn.functional.one_hot(labels, len(centers)).to(points)
        counts = members.sum(0).unsqueeze(1)
        moved = torch.where(counts > 0, members.T @ points / counts.clamp(min=1), centers)
        if torch.equal(moved, centers):
            break
        centers = moved
    return labels, torch.cdist(points, centers).amin(1).square().sum().item()


class BalancedTable:
    """An ``IndexTable`` whose draws take a mode first, all equally likely, then an entry of that mode.

    Args:
        sets: entries of each replica.
        modes: mode of each of these entries, 0 to M_r - 1.
    """

    def __init__(self, sets: Sequence[np.ndarray], modes: Sequence[np.ndarray], device: torch.device | str) -> None:
        groups = [
            [entries[own == mode] for mode in range(own.max() + 1)] for entries, own in zip(sets, modes, strict=True)
        ]
        self.groups = IndexTable([group for own in groups for group in own], device)  # one row per replica and mode
        sizes = torch.tensor([len(own) for own in groups], device=device)
        self.n_modes, self.first = sizes, torch.cumsum(sizes, 0) - sizes

    def sample(self, uniform: Tensor) -> Tensor:
        """``(n, R, items)`` uniform numbers -> as many entries of each replica's set, with replacement."""
        scaled = uniform * self.n_modes.view(1, -1, 1)
        mode = scaled.long()
        rows = self.first.view(1, -1, 1) + mode
        return self.groups.values[rows, ((scaled - mode) * self.groups.counts[rows]).long()]


class MultiHeadCostNetwork(StepScorer):
    """M costs of a step in (0, 1), of which the largest counts. One head is ``CostNetwork``, bit for bit.

    Several start unequal, for equal heads would stay equal; the first loss is then only near log 2.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        heads: int,
        initialization: str = "zero-last",
    ) -> None:
        options = {**COST_INITIALIZATIONS[initialization], "activation": "elu", "outputs": heads}
        if heads > 1:
            options["last"] = "torch"
        super().__init__(generators, observation_dim, action_dim, hidden, **options)
        self.shape["heads"] = heads

    def read(self, outputs: Tensor) -> Tensor:
        """Costs under each head, ``(M, R, n)``."""
        return torch.sigmoid(outputs).movedim(-1, 0)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return super().forward(observations, actions).amax(0)
