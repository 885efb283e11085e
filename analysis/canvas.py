"""The sheet figures are drawn on: panels with one legend below them, reference lines, png and pdf files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from analysis import labels
from analysis.looks import GREY, VERMILION, Look

# metric -> level, name and color of a line that helps to read it
REFERENCE_LINES = {
    "normalized_cost": (1.0, "limit", VERMILION),
    "auroc": (0.5, "chance", GREY),
    "mil_loss": (math.log(2), "log 2: nothing learned", GREY),
    "mil_loss_final": (math.log(2), "log 2: nothing learned", GREY),
}
PNG_DPI, SMALL_DPI = 160, 100
LEGEND_ENTRIES = 14  # with more looks than this the legend names methods only, and bands are left out


def save(figure: Figure, stem: Path, small: bool = False) -> Path:
    """Write <stem>.png and <stem>.pdf, without dates: a table gives the same files. Returns the png.

    ``small``: the png alone, at a lower resolution.
    """
    # Found once here, and drawn once a file: savefig would lay out and draw everything twice.
    figure.set_dpi(SMALL_DPI if small else PNG_DPI)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    canvas, path = FigureCanvasAgg(figure), stem.with_name(f"{stem.name}.png")
    canvas.draw()
    # A palette is a third of the size. An octree's keeps every method's color; the median cut's default merges some.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(128 if small else 256, Image.Quantize.FASTOCTREE).save(path, optimize=True)
    if not small:
        dateless = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(figure).print_pdf(stem.with_name(f"{stem.name}.pdf"), metadata=dateless)
    return path


def reference_line(panel: Axes, metric: str) -> None:
    """The level that a metric is read against, with its name, where it has one."""
    if metric in REFERENCE_LINES:
        height, name, color = REFERENCE_LINES[metric]
        panel.axhline(height, color=color, linewidth=1.0, zorder=1.5)
        place = {"transform": panel.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        panel.text(1.0, height, name, fontsize=7.5, color=color, **place)


def each_look(table: pd.DataFrame, axes: Sequence[str], look_of: dict) -> Iterator[tuple[Look, pd.DataFrame]]:
    """The rows of each method and setting that has any, in the order of the legend."""
    groups = dict(iter(table.groupby(["method", *axes], sort=False, dropna=False)))
    return ((look, groups[key]) for key, look in look_of.items() if key in groups)


def sheet(
    count: int,
    columns: int,
    size: tuple[float, float],
    handles: Sequence[Line2D | Patch],
    title: str = "",
    legend_title: str = "",
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with ``count`` panels of ``size`` inches, one legend of ``handles`` below them and room for it."""
    columns, rows = min(columns, count), math.ceil(count / columns)
    # About what the longest entry takes: 0.07 inches a letter, and the line before it.
    entry_width = 0.75 + 0.07 * max((len(handle.get_label()) for handle in handles), default=0)
    legend_columns = min(len(handles), max(1, int(size[0] * columns / entry_width)))
    legend_rows = math.ceil(len(handles) / max(1, legend_columns)) + bool(legend_title)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.2 * legend_rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.remove()
    if title:
        figure.suptitle(title, fontsize=11)
    if handles:
        place = {"loc": "outside lower center", "ncols": legend_columns, "handlelength": 2.8}
        figure.legend(handles=handles, title=legend_title, title_fontsize=8.5, **place)
    return figure, panels[:count]


def legend_of(shown: Collection[Look]) -> tuple[list[Line2D], str]:
    """An entry for each look; where these would be too many, one for each method and a line on its shades."""
    entries, title = [(look.label, look) for look in shown], ""
    if len(entries) > LEGEND_ENTRIES:
        by_method: dict[str, list[Look]] = {}
        for look in shown:
            by_method.setdefault(look.method, []).append(look)
        entries = [(labels.method_label(method), of[len(of) // 2]) for method, of in by_method.items()]
        longest = max(by_method.values(), key=len)
        title = f"dark to light: {longest[0].setting} to {longest[-1].setting}"
    handles = []
    for label, look in entries:
        handles.append(Line2D([], [], label=label, color=look.color, linestyle=look.line, **look.marker_style(7)))
    return handles, title
