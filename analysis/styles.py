"""How figures look: a color, marker and line for each method and setting, panels with one legend, axes, svg and pdf.

Color and marker are the registry's: SafeMIL has the one strong color, its nearest rivals a hue each, all others are
grey; oracles are hollow. Markers and lines tell methods apart where colors do not.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.colors
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis import labels
from analysis.summary import t_interval
from baselines.registry import METHODS

# Of trajectories, in every figure; told apart in grey too, as one is much darker.
PREFERRED, NONPREFERRED, BETWEEN = "#2a9d8f", "#b3261e", "#9a9a9a"
# Lines that help to read, and the region over the limit.
INK, GREY, FAINT, PAPER, UNSAFE = "#333333", "#7a7a7a", "#e6e6e6", "#ffffff", "#f7f0ee"
STYLE = {
    **{"font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8.5, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": FAINT},
    **{"grid.linewidth": 0.7, "axes.edgecolor": GREY, "legend.frameon": False, "mathtext.default": "regular"},
    **{"lines.solid_capstyle": "butt", "lines.linewidth": 1.6, "figure.facecolor": "none", "axes.facecolor": "none"},
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
    **{"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "safemil", "figure.constrained_layout.w_pad": 0.1},
}
# color -> its name in an svg, what it is in the dark
DARK = {
    **{INK: ("ink", "#e4e5e8"), GREY: ("grey", "#9a9ea6"), FAINT: ("faint", "#303339"), PAPER: ("paper", "#17181b")},
    **{UNSAFE: ("over", "#2b211e"), METHODS["safemil"].color: ("ours", "#5aa5ff"), NONPREFERRED: ("bad", "#f0776c")},
}
MARKERS = "os^DvPX<>hp8*"
DASHES = ("-", (0, (6, 1.5)), (0, (4, 1, 1, 1)), (0, (2, 1)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)))
# metric -> level, name and color of a line that helps to read it
REFERENCE_LINES = {
    "normalized_cost": (1.0, "limit", INK),
    "auroc": (0.5, "chance", GREY),
    "mil_loss": (math.log(2), "log 2: nothing learned", GREY),
    "mil_loss_final": (math.log(2), "log 2: nothing learned", GREY),
}
LEGEND_ENTRIES = 14  # with more styles than this the legend names methods only, and bands are left out
COST_TICKS = (0, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


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
        face = PAPER if self.hollow else self.color
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


def panel_grid(
    count: int,
    columns: int,
    size: tuple[float, float],
    handles: Sequence[Line2D | Patch] = (),
    title: str = "",
    legend_title: str = "",
    **sharing: Any,
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with ``count`` panels of ``size`` inches, one legend of ``handles`` below them and room for it."""
    columns, rows = min(columns, count), math.ceil(count / columns)
    # About what the longest entry takes: 0.07 inches a letter, and the line before it.
    entry_width = 0.75 + 0.07 * max((len(str(handle.get_label())) for handle in handles), default=0)
    legend_columns = min(len(handles), max(1, int(size[0] * columns / entry_width)))
    legend_rows = math.ceil(len(handles) / max(1, legend_columns)) + bool(legend_title)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.2 * legend_rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **sharing).ravel()
    for panel in panels[count:]:
        panel.remove()
    if title:
        figure.suptitle(title, fontsize=11)
    if handles:
        place = {"loc": "outside lower center", "ncols": legend_columns, "handlelength": 2.8}
        figure.legend(handles=handles, title=legend_title, title_fontsize=8.5, **place)
    return figure, panels[:count]


def legend_of(shown: Collection[Style]) -> tuple[list[Line2D], str]:
    """An entry for each style; where these would be too many, one for each method and a line on its shades."""
    entries, title = [(style.label, style) for style in shown], ""
    if len(entries) > LEGEND_ENTRIES:
        by_method: dict[str, list[Style]] = {}
        for style in shown:
            by_method.setdefault(style.method, []).append(style)
        entries = [(labels.method_label(method), of[len(of) // 2]) for method, of in by_method.items()]
        longest = max(by_method.values(), key=len)
        title = f"dark to light: {longest[0].setting} to {longest[-1].setting}"
    return [
        Line2D([], [], label=label, color=style.color, linestyle=style.line, **style.marker_style(7))
        for label, style in entries
    ], title


def seeds_and_mean(panel: Axes, style: Style, values: pd.Series, place: float, along: str) -> None:
    """Every value small, their mean large with its 95 % t interval, at ``place`` on the axis across ``along``."""

    def line(points: Sequence[float], **look: Any) -> None:
        across = [place] * len(points)
        panel.plot(*(points, across) if along == "x" else (across, points), **look)

    if len(values):
        line(
            values.tolist(), linestyle="none", color=style.color, marker="o", markersize=3, markeredgewidth=0, alpha=0.5
        )
        line(t_interval(values), color=style.color, linewidth=2.6, alpha=0.5)
        line([values.mean()], linestyle="none", zorder=3, **style.marker_style(6))


def reference_line(panel: Axes, metric: str) -> None:
    """Draw and name the level that a metric is read against, where it has one."""
    if metric in REFERENCE_LINES:
        height, name, color = REFERENCE_LINES[metric]
        panel.axhline(height, color=color, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        place: dict[str, Any] = {"transform": panel.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        panel.text(1.0, height, name, fontsize=7.5, color=color, **place)


def cost_axis(panel: Axes, which: str, highest: float) -> None:
    """Show normalized costs from 0; where one is above four limits, linear up to the limit and logarithmic above.

    To be called after drawing: seaborn averages on the scale it finds.
    """
    set_scale, set_limits, axis = (
        getattr(panel, name.format(which)) for name in ("set_{}scale", "set_{}lim", "{}axis")
    )
    if highest > 4:
        set_scale("symlog", linthresh=1, linscale=0.7)
        axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator([tick for tick in COST_TICKS if tick <= max(1, 1.1 * highest)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    top = max(1.25, highest * (1.25 if highest > 4 else 1.06))
    set_limits(-0.04 * min(top, 3), top)


def save(figure: Figure, stem: Path) -> str:
    """Write <stem>.svg and <stem>.pdf, without dates: a table gives the same files. Returns the svg's text."""
    made = to_svg(figure)
    stem.with_name(f"{stem.name}.svg").write_text(made, encoding="utf-8")
    dateless = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    with matplotlib.rc_context(STYLE):
        FigureCanvasPdf(figure).print_pdf(stem.with_name(f"{stem.name}.pdf"), metadata=dateless)
    return made


def to_svg(figure: Figure) -> str:
    """The figure as svg: no background, in light and dark as the reader has it, short numbers, common fonts."""
    # Found once here, and drawn once a file: printing would lay out and draw everything twice.
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    with matplotlib.rc_context(STYLE):
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = file.getvalue()
    for color, (name, _) in DARK.items():
        svg = svg.replace(color, f"var(--{name})")
    light = "".join(f"--{name}:{color};" for color, (name, _) in DARK.items())
    dark = "".join(f"--{name}:{color};" for name, color in DARK.values())
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    # Empty lines, names of groups, line breaks go; numbers are shortened in tags alone, not where they are read.
    svg = re.sub(r'<path clip-path="[^"]*" style="[^"]*"/>|<!--.*?-->|(?<=<g) id="[^"]*"', "", svg, flags=re.S)
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><")
    while (shorter := re.sub(r"<(g|defs)[^>]*></\1>", "", svg)) != svg:
        svg = shorter
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"\d+\.\d{3,}", _shorter, tag[0]), svg)
    svg = re.sub(r"'DejaVu Sans', [^;\"]+", "DejaVu Sans, Verdana, sans-serif", svg)
    return re.sub(r"(<svg[^>]*>)", rf"\1{style}", svg, count=1)


def _shorter(number: re.Match) -> str:
    return f"{float(number[0]):.{1 if float(number[0]) > 10 else 2}f}"


def _shades(color: str, count: int) -> list:
    """``count`` shades of a color, dark to light; the color itself where there is one."""
    if count == 1:
        return [color]
    rgb = matplotlib.colors.to_rgb(color)
    dark, light = [0.6 * part for part in rgb], [part + 0.6 * (1 - part) for part in rgb]
    return [matplotlib.colors.to_hex(shade) for shade in seaborn.blend_palette([dark, color, light], count)]
