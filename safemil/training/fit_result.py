"""What a method hands on: for each seed a policy, the snapshots taken on the way, and the score it ranks steps by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from safemil.nn.networks import extract_replica, n_replicas
from safemil.nn.policies import Policy
from safemil.training.stopping import Ended
from safemil.training.transitions import Transitions

ROWS_AT_ONCE, BYTES_AT_ONCE = 65_536, 2**26  # of a scoring pass: bounds its memory


@dataclass
class FitResult:
    """One seed's result. Everything is on the CPU and of one replica."""

    policy: Any  # a Policy, or any object with act(observations) -> actions
    scorer: nn.Module | None = None  # (1, n, observation_dim), (1, n, action_dim) -> (1, n); higher is riskier
    snapshots: list[tuple[int, Any]] = field(default_factory=list)  # (step, policy), the last one is the result
    weights: np.ndarray | None = None  # weight of each step of D_U, mean 1, where the method has such
    extra: dict[str, float] = field(default_factory=dict)  # what the method says of itself, label-free

    @torch.inference_mode()
    def score_steps(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Score of each step, ``(n,)`` float32; higher is riskier."""
        if self.scorer is None:
            raise ValueError("this method has no score of steps")
        size = rows_at_once(observations[:1].nbytes)
        parts = [slice(first, first + size) for first in range(0, len(observations), size)]
        chunks = ((torch.tensor(observations[part])[None], torch.tensor(actions[part])[None]) for part in parts)
        return torch.cat([self.scorer(*chunk).squeeze(0) for chunk in chunks]).numpy()


class SnapshotRecorder:
    """Keeps one-replica copies of a stacked policy as it trains: ``count`` evenly spaced ones, the last at the end."""

    def __init__(self, policy: Policy, steps: int, count: int) -> None:
        self.policy, self.steps = policy, snapshot_steps(steps, count)
        self.taken: list[list[tuple[int, Policy]]] = [[] for _ in range(n_replicas(policy))]
        self.ended: Ended | None = None  # how training ended, where that was not by a fixed number of steps

    def __call__(self, step: int) -> None:
        for index, snapshots in enumerate(self.taken):
            snapshots.append((step, extract_replica(self.policy, index)))

    def results(
        self, scorers: Sequence[nn.Module | None] | None = None, weights: Sequence[np.ndarray] | None = None
    ) -> list[FitResult]:
        """One ``FitResult`` per replica, its policy the last snapshot taken."""
        return [
            FitResult(
                snapshots[-1][1],
                None if scorers is None else scorers[index],
                snapshots,
                None if weights is None else weights[index],
                {} if self.ended is None else self.ended.of("policy", index),
            )
            for index, snapshots in enumerate(self.taken)
        ]


@torch.inference_mode()
def score_rows(scorer: nn.Module, steps: Transitions, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Scores of each replica's own rows under its own network: R arrays ``(len(rows[r]),)``."""
    longest = max(map(len, rows))
    padded = np.stack([np.pad(own, (0, longest - len(own)), mode="edge") for own in rows])
    table = torch.as_tensor(padded, device=steps.observations.device)
    size = rows_at_once(steps.observations[:1].nbytes)
    scores = torch.cat([scorer(*steps(chunk)) for chunk in table.split(size, dim=1)], dim=1).cpu().numpy()
    return [scores[index, : len(own)] for index, own in enumerate(rows)]


def rows_at_once(bytes_per_row: int) -> int:
    """How many rows of a replica to score in one pass: fewer where an observation is an image."""
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // bytes_per_row))


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """``count`` evenly spaced steps that end with the last."""
    return tuple(sorted({round(steps * (i + 1) / count) for i in range(count)}))
