"""How a method is drawn in every figure: a color, a marker and a line for each method and setting. Data, no drawing.

Color and marker are the registry's: SafeMIL has the one strong color, its nearest rivals a hue each, all others are
grey; oracles are hollow. Markers and lines tell methods apart where colors do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib.colors
import pandas as pd
import seaborn

from analysis import labels
from baselines.registry import METHODS

STYLE = {
    **{"font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8.5, "pdf.fonttype": 42},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6"},
    **{"grid.linewidth": 0.7, "axes.edgecolor": "#555555", "axes.axisbelow": True, "legend.frameon": False},
    **{"lines.solid_capstyle": "butt", "lines.linewidth": 1.6, "mathtext.default": "regular"},
}
# Of trajectories, in every figure; told apart in grey too, as one is much darker.
PREFERRED, NONPREFERRED, BETWEEN = "#2a9d8f", "#b3261e", "#9a9a9a"
INK, GREY, UNSAFE = "#333333", "#7a7a7a", "#f7f0ee"  # lines that help to read; the region over the limit
MARKERS = "os^DvPX<>hp8*"
DASHES = ("-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Style:
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

    @property
    def hollow(self) -> bool:
        """Oracles are."""
        return labels.method_role(self.method) == "oracle"

    def marker_style(self, size: float) -> dict:
        """Keywords of a marker ``size`` points wide; a star is drawn larger, as its arms are thin."""
        size *= 1.4 if self.marker == "*" else 1.0
        face = "white" if self.hollow else self.color
        return {"marker": self.marker, "markersize": size, "markerfacecolor": face, "markeredgecolor": self.color}


def styles(summary: pd.DataFrame, axes: Sequence[str]) -> dict[tuple, Style]:
    """(method, *settings) -> Style, in order; the settings of one method run from dark to light.

    Where one method alone has several settings, each has a marker of its own; otherwise markers tell methods apart.
    """
    keys = {tuple(key) for key in summary[["method", *axes]].itertuples(index=False, name=None)}
    variants: dict[str, list[tuple]] = {}
    for key in sorted(keys, key=lambda key: labels.group_order(key[0], key[1:])):
        variants.setdefault(key[0], []).append(key)
    alone = sum(len(of_method) > 1 for of_method in variants.values()) == 1
    taken = {METHODS[name].marker for name, of in variants.items() if name in METHODS and len(of) == 1}
    free = [marker for marker in MARKERS if marker not in taken]
    found = {}
    for method, of_method in variants.items():
        color, marker = (METHODS[method].color, METHODS[method].marker) if method in METHODS else (GREY, "d")
        first_line = list(METHODS).index(method) if method in METHODS else len(METHODS)
        several = len(of_method) > 1
        for i, (key, shade) in enumerate(zip(of_method, _shades(color, len(of_method)), strict=True)):
            setting = labels.setting_label(axes, key[1:]) if several else ""
            own_marker = free[i % len(free)] if several and alone else marker
            line = DASHES[(i if several else first_line) % len(DASHES)]
            found[key] = Style(method, setting, shade, own_marker, line)
    return found


def each_style(table: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Iterator[tuple[Style, pd.DataFrame]]:
    """The rows of each method and setting that has any, in the order of the legend."""
    groups = dict(iter(table.groupby(["method", *axes], sort=False, dropna=False)))
    return ((style, groups[key]) for key, style in style_of.items() if key in groups)


def _shades(color: str, count: int) -> list:
    """``count`` shades of a color, dark to light; the color itself where there is one."""
    if count == 1:
        return [color]
    rgb = matplotlib.colors.to_rgb(color)
    dark, light = [0.35 * part for part in rgb], [part + 0.65 * (1 - part) for part in rgb]
    return [matplotlib.colors.to_hex(shade) for shade in seaborn.blend_palette([dark, color, light], count)]
