"""A dataset's card as a page and a picture. In: a file. Out: ``<name>.md`` and ``<name>.png``.

    python -m safemil.datasets card BallCircle               # the cached file of a task
    python -m safemil.datasets card mine.hdf5 --task BallCircle --output cards

The picture, which needs matplotlib, shows cost against return, as in DSRL's documentation, with the split's bands and
what the split keeps of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.data.balance import better_half
from safemil.data.card import Card, make_card
from safemil.data.card_figure import draw
from safemil.data.tasks import Task


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
    card = make_card(path, task)
    draw(card, folder / f"{card.name}.png")
    page = folder / f"{card.name}.md"
    with atomic_write(page) as temporary:
        temporary.write_text(markdown(card, f"{card.name}.png"))
    return page
