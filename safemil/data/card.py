"""What a dataset holds: counts, lengths, the bands of the default split, and warnings. In: a file. Out: a ``Card``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.config.settings import SplitConfig
from safemil.data.balance import both_sides
from safemil.data.hdf5 import load, read_layout
from safemil.data.provenance import origin_of, sha256
from safemil.data.splits import MIX50_NONPREFERRED_COST, HiddenLabels, SplitError, make_split
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories

LENGTH_CORRELATION = 0.5  # of length and cost: above, the length alone tells who is non-preferred
CONSTANT = 1e-6  # a trajectory is constant when its actions, or its observations, never vary by more
SPARE = 1.5  # a band is thin when it holds less than this many times what the split takes from it


@dataclass(frozen=True, eq=False)
class Card:
    """A dataset and what is to be known of it."""

    name: str
    task: Task
    trajectories: Trajectories
    outcomes: Outcomes
    recipes: np.ndarray  # (n_trajectories,) str, the recipe of each; one and the same name where none is known
    origin: str
    digest: str  # SHA-256 of the file
    labels: HiddenLabels | None  # of the default split with seed 0; None when it cannot be made, then:
    refusal: str  # why not
    warnings: tuple[str, ...]

    def bands(self) -> dict[str, np.ndarray]:
        """Trajectories (bool) of each band: the split's, where there is one, and what lies between."""
        costs = self.outcomes.costs_total
        if self.labels is not None:
            preferred, nonpreferred = self.labels.preferred, self.labels.nonpreferred
        else:
            preferred, nonpreferred = costs < self.task.cost_limit, costs > MIX50_NONPREFERRED_COST
        return {"preferred": preferred, "between": ~preferred & ~nonpreferred, "non-preferred": nonpreferred}


def make_card(path: Path, task: Task) -> Card:
    """Read a file and look at it. Raises ``DatasetError`` when it cannot be read or has no rewards and costs."""
    trajectories, outcomes = load(path, task)
    if outcomes is None:
        raise DatasetError(f"{path}: a card needs 'rewards' and 'costs', which are not in the file")
    attributes = read_layout(path).attributes
    labels, refusal = None, ""
    try:
        _, labels = make_split(trajectories, outcomes, SplitConfig(), seed=0)
    except SplitError as error:
        refusal = str(error)
    return Card(
        name=path.stem,
        task=task,
        trajectories=trajectories,
        outcomes=outcomes,
        recipes=recipes_of(attributes, len(trajectories)),
        origin=origin_of(path, attributes),
        digest=sha256(path),
        labels=labels,
        refusal=refusal,
        warnings=tuple(find_faults(trajectories, outcomes, task, labels, refusal)),
    )


def recipes_of(attributes: dict, n_trajectories: int) -> np.ndarray:
    """(n_trajectories,) the recipe each trajectory of a collected file came from; they lie one after the other."""
    sizes = json.loads(attributes.get("recipes", "{}"))
    if sum(sizes.values()) != n_trajectories:
        sizes = {str(attributes.get("recipe", "unknown")): n_trajectories}
    return np.repeat(list(sizes), list(sizes.values()))


def find_faults(
    trajectories: Trajectories, outcomes: Outcomes, task: Task, labels: HiddenLabels | None, refusal: str
) -> list[str]:
    """What a user of the dataset should be warned of, in words."""
    faults = []
    if labels is None:
        faults.append(f"the default split cannot be made: {refusal}")
    elif labels.record["fallback"]:
        faults.append(f"the default split falls back on {labels.record['fallback']}")
    else:
        config = SplitConfig()
        n_unsafe = round(config.mixture * config.n_unlabeled)
        wanted = {"preferred": config.n_unlabeled - n_unsafe, "nonpreferred": config.n_nonpreferred + n_unsafe}
        for name, counts in labels.record["counts"].items():
            if counts["band"] < SPARE * wanted[name]:
                faults.append(f"thin band: {counts['band']} {name}, of which the split takes {wanted[name]}")
    if (lacking := both_sides(outcomes, task)) is not None:
        faults.append(lacking)
    lengths = trajectories.lengths
    if np.ptp(lengths) > 0 and np.ptp(outcomes.costs_total) > 0:
        correlation = np.corrcoef(lengths, outcomes.costs_total)[0, 1]
        if abs(correlation) > LENGTH_CORRELATION:
            faults.append(f"length shortcut: length and cost correlate by {correlation:.2f}")
    if duplicates := count_duplicates(trajectories):
        faults.append(f"{duplicates} duplicate trajectories")
    if constant := len(constant_trajectories(trajectories)):
        faults.append(f"{constant} trajectories with constant actions or observations")
    return faults


def count_duplicates(trajectories: Trajectories) -> int:
    """Trajectories whose observations and actions are those of an earlier one."""
    starts, ends = trajectories.offsets[:-1], trajectories.offsets[1:]
    seen = {
        (trajectories.observations[start:end].tobytes(), trajectories.actions[start:end].tobytes())
        for start, end in zip(starts, ends, strict=True)
    }
    return len(trajectories) - len(seen)


def constant_trajectories(trajectories: Trajectories) -> np.ndarray:
    """Indices of trajectories of more than one step whose actions, or whose observations, never change."""
    starts = trajectories.offsets[:-1]

    def still(values: np.ndarray) -> np.ndarray:
        spread = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
        return spread.max(axis=1) <= CONSTANT

    flat = still(trajectories.actions) | still(trajectories.observations)
    return np.flatnonzero(flat & (trajectories.lengths > 1))
