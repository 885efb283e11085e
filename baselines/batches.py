"""Batches that the baselines learn from: steps of several sets, drawn independently, and the steps that follow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from safemil.data.trajectories import Trajectories
from safemil.nn.streams import IndexTable, Streams
from safemil.training.objectives import Batch
from safemil.training.transitions import Shifts, Transitions


class StepSampler:
    """As many steps of each set, and uniform random numbers for whatever else an update draws.

    Args:
        sets: name -> for each replica the rows to draw from.
        followed: the set whose steps come with the observations that follow them (see ``rows_with_successors``).
        uniform: name -> shape of further random numbers of an update.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[np.ndarray]],
        steps: Transitions,
        seeds: Sequence[int],
        batch_size: int,
        *,
        followed: str = "",
        uniform: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        device = steps.observations.device
        self.steps, self.batch_size, self.followed = steps, batch_size, followed
        self.uniform = dict(uniform or {})
        self.tables = {name: IndexTable(rows, device) for name, rows in sets.items()}
        self.streams = {name: Streams(seeds, f"{name} transitions", device) for name in (*sets, *self.uniform)}
        self.shifts = {name: Shifts(steps, seeds, f"{name} transitions") for name in sets}

    def draw(self, n_steps: int) -> Batch:
        """Rows of each set ``(n_steps, R, batch_size)``; further numbers ``(n_steps, R, *shape)``."""
        drawn = {
            name: table.sample(self.streams[name].uniform(n_steps, self.batch_size))
            for name, table in self.tables.items()
        }
        further = {name: self.streams[name].uniform(n_steps, *shape).float() for name, shape in self.uniform.items()}
        for own in self.shifts.values():
            further |= own.draw(n_steps, self.batch_size)
        return {**drawn, **further}

    def prepare(self, drawn: Batch) -> Batch:
        """Rows -> observations and actions of each set, ``(R, batch_size, .)``."""
        batch: Batch = {name: drawn[name] for name in self.uniform}
        for name in self.tables:
            shifts = drawn.get(self.shifts[name].name)
            batch[f"{name}_observations"], batch[f"{name}_actions"] = self.steps(drawn[name], shifts)
        if self.followed:
            batch["rows"] = drawn[self.followed]
            shifts = drawn.get(self.shifts[self.followed].name)
            batch["next_observations"], _ = self.steps(drawn[self.followed] + 1, shifts)
        return batch


def rows_with_successors(data: Trajectories, indices: np.ndarray) -> np.ndarray:
    """Rows of those trajectories but the last of each.

    What follows a trajectory's last step is not known to a learner, nor whether the simulator or a time limit ended it:
    so no value ever ends, and a learned offset of the reward cannot make an early end look good or bad.
    """
    last = np.zeros(data.n_steps, dtype=bool)
    last[data.offsets[1:] - 1] = True
    rows = data.rows(indices)
    return rows[~last[rows]]
