"""The picture on a dataset's card. In: a ``Card``. Out: a PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.data.card import Card
from safemil.data.splits import MIX50_NONPREFERRED_COST

COLORS = {"preferred": "#1b7f5c", "between": "#9a9a9a", "non-preferred": "#c0392b"}
MARKERS = "o^sDv"  # one for each recipe


def draw(card: Card, path: Path) -> None:
    """Cost against return of every trajectory, colored by band, with histograms of both along the sides."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    parts = figure.subplot_mosaic(
        [["costs", "."], ["plane", "returns"]], width_ratios=(4, 1), height_ratios=(1, 4), empty_sentinel="."
    )
    plane, costs, returns = parts["plane"], card.outcomes.costs_total, card.outcomes.returns
    bands = card.bands()
    for band, members in bands.items():
        for marker, recipe in zip(MARKERS, dict.fromkeys(card.recipes), strict=False):
            chosen = members & (card.recipes == recipe)
            several = len(set(card.recipes)) > 1
            label = f"{band}, {recipe}" if several else band
            plane.scatter(
                costs[chosen],
                returns[chosen],
                s=12,
                marker=marker,
                color=COLORS[band],
                alpha=0.7,
                linewidths=0,
                label=f"{label} ({chosen.sum()})",
            )
    for band, lower, upper in _kept(card, bands):
        plane.fill_between(lower[:2], lower[2], upper, color=COLORS[band], alpha=0.1, linewidth=0)
    for limit, style in ((card.task.cost_limit, "-"), (MIX50_NONPREFERRED_COST, "--")):
        plane.axvline(limit, color="black", linewidth=0.8, linestyle=style)
    plane.set(xlabel="cost of the trajectory", ylabel="return of the trajectory")
    plane.legend(fontsize=8, framealpha=0.8)
    parts["costs"].hist(costs, bins=40, color="#666666")
    parts["returns"].hist(returns, bins=40, color="#666666", orientation="horizontal")
    for name, axis in (("costs", "x"), ("returns", "y")):
        parts[name].sharex(plane) if axis == "x" else parts[name].sharey(plane)
        parts[name].tick_params(labelbottom=axis != "x", labelleft=axis != "y", labelsize=7)
    figure.suptitle(f"{card.name}: cost limit {card.task.cost_limit:g}; shaded: what the split keeps", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _kept(card: Card, bands: dict[str, np.ndarray]) -> list[tuple[str, tuple[float, float, float], float]]:
    """Rectangles of the cost-return plane the split draws from: (band, (cost from, to, lowest return), highest)."""
    if card.labels is None:
        return []
    costs, returns, rectangles = card.outcomes.costs_total, card.outcomes.returns, []
    for band, counts in zip(("preferred", "non-preferred"), card.labels.record["counts"].values(), strict=True):
        members = bands[band]
        lowest = np.sort(returns[members])[-counts["pool"]]
        span = (float(costs[members].min()), float(costs[members].max()), float(lowest))
        rectangles.append((band, span, float(returns.max())))
    return rectangles
