"""Today's tool: OSRL's BC trainer, fed as OSRL's scripts feed it, by its own dataset and torch's loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from osrl.algorithms import BC, BCTrainer
from osrl.common import TransitionDataset
from torch.utils.data import DataLoader

from safemil.trajectories import Trajectories


def cloning_steps(data: Trajectories, hidden: int, batch: int, workers: int, n_steps: int) -> Callable[[], float]:
    """``n_steps`` steps of behaviour cloning with two hidden layers; the loader outlives the call."""
    n = len(data.observations)
    ends = np.zeros(n, dtype=np.float32)
    ends[data.offsets[1:] - 1] = 1.0
    zeros = np.zeros(n, dtype=np.float32)
    columns = {"observations": data.observations, "next_observations": data.observations, "actions": data.actions}
    flags = {"rewards": zeros, "costs": zeros, "terminals": zeros, "timeouts": ends}
    loader = iter(DataLoader(TransitionDataset({**columns, **flags}), batch_size=batch, num_workers=workers))
    model = BC(data.observation_dim, data.action_dim, 1.0, [hidden, hidden], int(data.lengths.max()))

    class Silent:
        def store(self, **_: Any) -> None: ...

    trainer = BCTrainer(model, None, Silent(), actor_lr=1e-3)

    def run() -> float:
        for _ in range(n_steps):
            observations, _, actions, *_ = next(loader)
            trainer.train_one_step(observations, actions)
        return n_steps

    return run
