"""A dataset's card on disk: the page ``<name>.md`` and its picture ``<name>.png``. In: a card. Out: these two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError
from safemil.data.card import Card, markdown
from safemil.data.splits import NONPREFERRED_COST

COLORS = {"preferred": "#2a9d8f", "between": "#9a9a9a", "non-preferred": "#b3261e"}
MARKERS = "o^sDv"  # one for each recipe


def write_card(card: Card, folder: Path) -> Path:
    """Write page and picture into ``folder``; the path of the page.

    Raises:
        UserError: matplotlib is not installed.
    """
    draw(card, folder / f"{card.name}.png")
    page = folder / f"{card.name}.md"
    with atomic_write(page) as temporary:
        temporary.write_text(markdown(card, f"{card.name}.png"))
    return page


def draw(card: Card, path: Path) -> None:
    """Cost against return of every trajectory, colored by band, with histograms of both along the sides.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"a card's picture needs matplotlib ({error}): pip install matplotlib") from error

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplot_mosaic("c.;pr", width_ratios=(4, 1), height_ratios=(1, 4))
    plane, costs, returns = axes["p"], card.outcomes.costs_total, card.outcomes.returns
    recipes = dict.fromkeys(card.recipes)
    for band, members in card.bands().items():
        color = COLORS[band]
        for marker, recipe in zip(MARKERS, recipes, strict=False):
            chosen = members & (card.recipes == recipe)
            label = f"{band}, {recipe}" if len(recipes) > 1 else band
            label += f" ({chosen.sum()})"
            plane.scatter(
                costs[chosen], returns[chosen], s=12, marker=marker, color=color, alpha=0.7, linewidths=0, label=label
            )
        if card.labels is not None and band != "between":  # the part of the band that the split draws from
            pool = card.labels.record["counts"][band.replace("-", "")]["pool"]
            lowest, span = np.sort(returns[members])[-pool], (costs[members].min(), costs[members].max())
            plane.fill_between(span, lowest, returns.max(), color=color, alpha=0.1, linewidth=0)
    for limit, style in ((card.task.cost_limit, "-"), (NONPREFERRED_COST * card.task.cost_limit, "--")):
        plane.axvline(limit, color="black", linewidth=0.8, linestyle=style)
    plane.set(xlabel="cost of the trajectory", ylabel="return of the trajectory")
    plane.legend(fontsize=8, framealpha=0.8)
    axes["c"].hist(costs, bins=40, color="#666666")
    axes["c"].sharex(plane)
    axes["c"].tick_params(labelbottom=False, labelsize=7)
    axes["r"].hist(returns, bins=40, color="#666666", orientation="horizontal")
    axes["r"].sharey(plane)
    axes["r"].tick_params(labelleft=False, labelsize=7)
    figure.suptitle(f"{card.name}: cost limit {card.task.cost_limit:g}; shaded: what the split keeps", fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
