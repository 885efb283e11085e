"""What a dataset holds: counts, lengths, the bands of the default split, and warnings. In: a file. Out: a ``Card``.

    python -m safemil.datasets card BallCircle               # the cached file of a task
    python -m safemil.datasets card mine.hdf5 --task BallCircle --output cards

writes ``<name>.md`` and, with matplotlib, ``<name>.png``: cost against return, as in DSRL's documentation, with the
split's bands and what the split keeps of them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.balance import better_half, both_sides
from safemil.dataset_file import read_layout
from safemil.datasets import origin_of, sha256
from safemil.settings import SplitConfig
from safemil.splits import MIX50_NONPREFERRED_COST, HiddenLabels, SplitError, make_split
from safemil.tasks import Task
from safemil.trajectories import DatasetError, Outcomes, Trajectories, load

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


def markdown(card: Card, picture: str | None) -> str:
    """The card as a page; ``picture`` is the file name of its figure."""
    task, lengths = card.task, card.trajectories.lengths
    returns, costs = card.outcomes.returns, card.outcomes.costs_total
    lines = [
        f"# {task.name}: {card.name}",
        "",
        f"{len(card.trajectories)} trajectories, {card.trajectories.n_steps} steps, {card.origin}.",
        f"Lengths {lengths.min()} to {lengths.max()} (an episode is cut at {task.horizon}),"
        f" {int(card.outcomes.terminals.sum())} ended by the task itself.",
        f"Returns {returns.min():.1f} to {returns.max():.1f} (DSRL's: {task.return_min:.1f} to {task.return_max:.1f}),"
        f" costs {costs.min():.0f} to {costs.max():.0f} (DSRL's: up to {task.cost_max:.0f}), cost limit"
        f" {task.cost_limit:g}.",
        "",
    ]
    if picture is not None:
        lines += [f"![cost against return]({picture})", ""]
    lines += [
        "| band | trajectories | cost | return | return of the better half | length |",
        "|---|---|---|---|---|---|",
    ]
    for name, band in card.bands().items():
        lines.append(_row(name, costs[band], returns[band], lengths[band]))
    if len(set(card.recipes)) > 1:
        lines += ["", "| recipe | trajectories | cost | return | return of the better half | length |"]
        lines.append("|---|---|---|---|---|---|")
        for name in dict.fromkeys(card.recipes):
            band = card.recipes == name
            lines.append(_row(name, costs[band], returns[band], lengths[band]))
    if card.labels is not None:
        thresholds = ", ".join(f"{name} {value:g}" for name, value in card.labels.record["thresholds"].items())
        pools = ", ".join(f"{name} {count['pool']}" for name, count in card.labels.record["counts"].items())
        lines += ["", f"Default split (mix50): {thresholds}. Kept after dropping lower returns: {pools}."]
    lines += ["", *([f"- Warning: {fault}" for fault in card.warnings] or ["No warnings."])]
    lines += ["", f"SHA-256 `{card.digest}`"]
    return "\n".join(lines) + "\n"


def _row(name: str, costs: np.ndarray, returns: np.ndarray, lengths: np.ndarray) -> str:
    if len(costs) == 0:
        return f"| {name} | 0 | | | | |"
    better = better_half(returns).mean()
    return (
        f"| {name} | {len(costs)} | {costs.min():.0f} to {costs.max():.0f} | {returns.min():.1f} to {returns.max():.1f}"
        f" | {better:.1f} | {lengths.min()} to {lengths.max()} |"
    )


def write_card(path: Path, task: Task, folder: Path) -> Path:
    """Write ``<name>.md`` and ``<name>.png`` into ``folder``; gives the path of the page."""
    from safemil.card_figure import draw

    card = make_card(path, task)
    folder.mkdir(parents=True, exist_ok=True)
    draw(card, folder / f"{card.name}.png")
    page = folder / f"{card.name}.md"
    temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
    temporary.write_text(markdown(card, f"{card.name}.png"))
    os.replace(temporary, page)
    return page
