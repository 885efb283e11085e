"""A dataset's card: what a file holds and what its user should be warned of. In: an HDF5 file. Out: a ``Card``, and
the same as a page (``safemil.data.card_figure`` draws its picture and writes both).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from safemil.config.settings import SplitConfig
from safemil.data.hdf5 import load, read_layout
from safemil.data.provenance import origin_of, plain, sha256
from safemil.data.splits import NONPREFERRED_COST, HiddenLabels, SplitError, make_split
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories

LENGTH_CORRELATION = 0.5  # of length and cost: above, the length alone tells who is non-preferred
CONSTANT = 1e-6  # a trajectory is constant when its actions, or its observations, never vary by more
DSRL_MEDIAN_COST = {"PointGoal1": 24, "PointCircle1": 130, "CarRun": 12, "AntRun": 66}  # of DSRL's files, where known
SPARE = 1.5  # a band is thin when it holds less than this many times what the split takes from it
RETURN_SHARE = 1 / 3  # return coverage: the weaker side reaches at least this share of the stronger one's level


@dataclass(frozen=True, eq=False)
class Card:
    """A dataset and what is to be known of it."""

    name: str
    task: Task
    trajectories: Trajectories
    outcomes: Outcomes
    recipes: np.ndarray  # (n_trajectories,) str, the recipe of each; one and the same name where none is known
    origin: str  # downloaded, collected or converted, in words
    digest: str  # SHA-256 of the file
    labels: HiddenLabels | None  # of the default split with seed 0; None when it cannot be made, then:
    split_error: str  # why not
    warnings: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)  # what else was measured of it: a row of a table each

    def bands(self) -> dict[str, np.ndarray]:
        """(n_trajectories,) bool for each band: the split's two, where there is a split, and what lies between."""
        costs = self.outcomes.costs_total
        limit = self.task.cost_limit
        preferred, nonpreferred = costs < limit, costs > NONPREFERRED_COST * limit
        if self.labels is not None:
            preferred, nonpreferred = self.labels.preferred, self.labels.nonpreferred
        return {"preferred": preferred, "between": ~preferred & ~nonpreferred, "non-preferred": nonpreferred}


def make_card(path: Path, task: Task) -> Card:
    """Read a file and describe it. Raises ``DatasetError`` when it cannot be read or has no rewards and costs."""
    trajectories, outcomes = load(path, task)
    if outcomes is None:
        raise DatasetError(f"{path}: a card needs 'rewards' and 'costs', which are not in the file")
    attributes = read_layout(path).attributes
    labels, split_error = None, ""
    try:
        _, labels = make_split(trajectories, outcomes, SplitConfig(cost_limit=task.cost_limit), seed=0)
    except SplitError as error:
        split_error = str(error)
    recipes, warnings = recipes_of(attributes, len(trajectories)), split_faults(labels, split_error)
    warnings += data_faults(trajectories, outcomes, task)
    origin, digest = origin_of(path, attributes), sha256(path)
    return Card(path.stem, task, trajectories, outcomes, recipes, origin, digest, labels, split_error, tuple(warnings))


def recipes_of(attributes: dict, n_trajectories: int) -> np.ndarray:
    """(n_trajectories,) the recipe each trajectory of a collected file came from; they lie one after the other."""
    try:
        sizes = {plain(name): int(size) for name, size in json.loads(attributes.get("recipes", "{}")).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):  # of another program, or damaged
        sizes = {}
    if sum(sizes.values()) != n_trajectories or min(sizes.values(), default=0) < 0:
        sizes = {plain(attributes.get("recipe", "unknown")): n_trajectories}
    return np.repeat(list(sizes), list(sizes.values()))


def split_faults(labels: HiddenLabels | None, split_error: str) -> list[str]:
    """What is wrong with the default split, in words."""
    if labels is None:
        return [f"the default split cannot be made: {split_error}"]
    if labels.record["fallback"]:
        return [f"the default split falls back on {labels.record['fallback']}"]
    config = SplitConfig()
    n_unsafe = round(config.mixture * config.n_unlabeled)
    wanted = {"preferred": config.n_unlabeled - n_unsafe, "nonpreferred": config.n_nonpreferred + n_unsafe}
    sizes = {name: count["band"] for name, count in labels.record["counts"].items()}
    return [
        f"thin band: {sizes[name]} {name}, of which the split takes {wanted[name]}"
        for name in sizes
        if sizes[name] < SPARE * wanted[name]
    ]


def data_faults(trajectories: Trajectories, outcomes: Outcomes, task: Task) -> list[str]:
    """What is wrong with the data themselves, in words: returns, lengths, duplicates, constant trajectories."""
    faults = [] if (coverage := return_coverage(outcomes, task)) is None else [coverage]
    lengths, costs = trajectories.lengths, outcomes.costs_total
    if np.ptp(lengths) > 0 and np.ptp(costs) > 0:
        correlation = np.corrcoef(lengths, costs)[0, 1]
        if abs(correlation) > LENGTH_CORRELATION:
            faults.append(f"length shortcut: length and cost correlate by {correlation:.2f}")
    episodes = [
        np.split(part, trajectories.offsets[1:-1]) for part in (trajectories.observations, trajectories.actions)
    ]
    distinct = {
        (hashlib.sha256(observations.tobytes()).digest(), actions.tobytes())
        for observations, actions in zip(*episodes, strict=True)
    }
    if n_duplicates := len(trajectories) - len(distinct):
        faults.append(f"{n_duplicates} duplicate trajectories")
    still = [
        len(actions) > 1 and min(np.ptp(observations, axis=0).max(), np.ptp(actions, axis=0).max()) <= CONSTANT
        for observations, actions in zip(*episodes, strict=True)
    ]
    if n_constant := sum(still):
        faults.append(f"{n_constant} trajectories with constant actions or observations")
    return faults


def return_coverage(outcomes: Outcomes, task: Task) -> str | None:
    """Whether there are high returns on both sides of the cost limit: None when there are, else what is lacking.

    The method assumes that safe trajectories are worth imitating and that unsafe ones are tempting. A side's level is
    the mean return of its better half, measured from the lowest return in DSRL's dataset of the task.
    """
    costs, limit = outcomes.costs_total, task.cost_limit
    dear = NONPREFERRED_COST * limit
    sides = {
        f"below a cost of {limit:g}": outcomes.returns[costs < limit],
        f"above a cost of {dear:g}": outcomes.returns[costs > dear],
    }
    for side, returns in sides.items():
        if len(returns) == 0:
            return f"no trajectory {side}"
    means = {side: better_half(returns).mean() for side, returns in sides.items()}
    weaker, stronger = sorted(means, key=means.__getitem__)
    if means[weaker] - task.return_min >= RETURN_SHARE * (means[stronger] - task.return_min):
        return None
    average = f"the better half has {means[weaker]:.1f} on average, {means[stronger]:.1f} {stronger}"
    return f"no high returns {weaker}: {average}"


def better_half(returns: np.ndarray) -> np.ndarray:
    """The upper half of some returns (n,), as the split keeps it."""
    return np.sort(returns)[len(returns) // 2 :]


def markdown(card: Card, picture: str | None) -> str:
    """The card as a page; ``picture`` is the file name of its figure."""
    task, labels, lengths = card.task, card.labels, card.trajectories.lengths
    returns, costs = card.outcomes.returns, card.outcomes.costs_total
    recipes = {name: card.recipes == name for name in dict.fromkeys(card.recipes)}
    head = f"""\
# {task.name}: {card.name}

{len(card.trajectories)} trajectories, {card.trajectories.n_steps} steps, {card.origin}.
Lengths {lengths.min()} to {lengths.max()} (an episode is cut at {task.horizon}), \
{card.outcomes.terminals.sum()} ended by the task itself.
Returns {returns.min():.1f} to {returns.max():.1f} (DSRL's: {task.return_min:.1f} to {task.return_max:.1f}), \
costs {costs.min():.0f} to {costs.max():.0f} (DSRL's: up to {task.cost_max:.0f}), cost limit {task.cost_limit:g}.
Cost quantiles 10, 25, 50, 75, 90 %: {_quantiles(costs)}{_median_of_dsrl(task)}."""
    sections = [head, f"![cost against return]({picture})" if picture else "", _table(card, "band", card.bands())]
    sections.append(_table(card, "recipe", recipes) if len(recipes) > 1 else "")
    if labels is not None:
        thresholds = ", ".join(f"{name} {value:g}" for name, value in labels.record["thresholds"].items())
        pools = ", ".join(f"{name} {count['pool']}" for name, count in labels.record["counts"].items())
        sections.append(f"Default split (mix50): {thresholds}. Kept after dropping lower returns: {pools}.")
    if card.facts:
        rows = [f"| {name} | {value} |" for name, value in card.facts.items()]
        sections.append("\n".join(["| how hard is it? | |", "|---|---|", *rows]))
    sections.append("\n".join(f"- Warning: {fault}" for fault in card.warnings) or "No warnings.")
    return "\n\n".join(filter(None, [*sections, f"SHA-256 `{card.digest}`"])) + "\n"


def _quantiles(costs: np.ndarray) -> str:
    return ", ".join(f"{quantile:.0f}" for quantile in np.quantile(costs, [0.1, 0.25, 0.5, 0.75, 0.9]))


def _median_of_dsrl(task: Task) -> str:
    median = DSRL_MEDIAN_COST.get(task.name)
    return "" if median is None else f" (DSRL's median {median}, largest {task.cost_max:.0f})"


def _table(card: Card, kind: str, groups: dict[str, np.ndarray]) -> str:
    """A row for each group of trajectories, given as (n_trajectories,) bool."""
    columns = card.outcomes.costs_total, card.outcomes.returns, card.trajectories.lengths
    rows = [
        f"| {kind} | trajectories | cost | return | return of the better half | length |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        costs, returns, lengths = (column[group] for column in columns)
        if not group.any():
            rows.append(f"| {name} | 0 | | | | |")
            continue
        spans = f"{costs.min():.0f} to {costs.max():.0f} | {returns.min():.1f} to {returns.max():.1f}"
        better = better_half(returns).mean()
        rows.append(f"| {name} | {len(costs)} | {spans} | {better:.1f} | {lengths.min()} to {lengths.max()} |")
    return "\n".join(rows)
