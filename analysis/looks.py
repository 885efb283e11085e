"""How everything is drawn in every figure: one style, and a color, a marker and a line for each method and setting.

Colors are Okabe and Ito's; with the markers and lines they can be told apart in grey and by color-blind people.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib
import matplotlib.colors
import pandas as pd

from analysis import labels
from baselines.registry import METHODS

STYLE = {
    **{"font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8.5, "pdf.fonttype": 42},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6"},
    **{"grid.linewidth": 0.7, "axes.edgecolor": "#555555", "axes.axisbelow": True, "legend.frameon": False},
    **{"figure.dpi": 100, "lines.linewidth": 1.7},
}
BLUE, GREEN, VERMILION, GREY = "#0072B2", "#009E73", "#D55E00", "#7a7a7a"
# Lines of the methods in the order they are registered; color and marker are the registry's. Oracles are drawn hollow.
LINES = ("-", *((0, dashes) for dashes in (
    *((5, 1.5), (2, 1, 4, 1), (1, 1), (3, 1, 1, 1), (3, 1, 1, 1, 1, 1), (6, 2), (4, 1, 1, 1), (6, 1, 1, 1, 1, 1)),
    *((1, 2), (5, 2), (1, 1.5), (3, 2, 1, 2), (7, 2), (2, 1)),
)))  # fmt: skip
METHOD_STYLES = {
    name: (method.color, method.marker, line)
    for (name, method), line in zip(METHODS.items(), itertools.cycle(LINES), strict=False)
}
MARKERS = "os^DvPX<>hp8*"
DASHES = ("-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Look:
    """How one method at one setting is drawn everywhere in a report."""

    method: str
    setting: str
    color: object
    marker: str
    line: object

    @property
    def label(self) -> str:
        """ "SafeMIL (K=64)", or "SafeMIL" where nothing varies."""
        name = labels.method_label(self.method)
        return f"{name} ({self.setting})" if self.setting else name

    def marker_style(self, size: float) -> dict:
        """Keywords of a marker ``size`` points wide; a star is drawn larger, as its arms are thin."""
        size *= 1.4 if self.marker == "*" else 1.0
        face = "white" if labels.method_role(self.method) == "oracle" else self.color
        return {"marker": self.marker, "markersize": size, "markerfacecolor": face, "markeredgecolor": self.color}


def looks(summary: pd.DataFrame, axes: Sequence[str]) -> dict[tuple, Look]:
    """(method, *settings) -> Look, in order; the settings of one method run from dark to light.

    Where one method alone has several settings, each has a marker of its own; otherwise markers tell methods apart.
    """
    keys = {tuple(key) for key in summary[["method", *axes]].itertuples(index=False, name=None)}
    variants: dict[str, list[tuple]] = {}
    for key in sorted(keys, key=lambda key: labels.group_order(key[0], key[1:])):
        variants.setdefault(key[0], []).append(key)
    alone = sum(len(of_method) > 1 for of_method in variants.values()) == 1
    taken = {METHOD_STYLES[method][1] for method in variants if method in METHOD_STYLES and len(variants[method]) == 1}
    free = [marker for marker in MARKERS if marker not in taken]
    found = {}
    for method, of_method in variants.items():
        color, marker, line = METHOD_STYLES.get(method, (GREY, "d", (0, (2, 2))))
        for i, key in enumerate(of_method):
            look = Look(method, labels.setting_label(axes, key[1:]) if len(of_method) > 1 else "", color, marker, line)
            if len(of_method) > 1:
                share = i / (len(of_method) - 1)
                look = replace(
                    look, color=matplotlib.colormaps["plasma"](0.86 * share) if alone else _shade(color, share)
                )
                look = replace(look, line=DASHES[i % len(DASHES)], marker=free[i % len(free)] if alone else marker)
            found[key] = look
    return found


def _shade(color: str, share: float) -> tuple[float, ...]:
    """A method's color from darker (share 0) to paler (share 1)."""
    red_green_blue = matplotlib.colors.to_rgb(color)
    if share < 0.5:
        return tuple(part * (0.45 + 1.1 * share) for part in red_green_blue)
    return tuple(part + (1 - part) * 1.2 * (share - 0.5) for part in red_green_blue)
