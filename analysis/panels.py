"""What figures are drawn on: a grid of panels with one legend below, lines and axes that help to read, png and pdf."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from analysis import labels
from analysis.styles import GREY, INK, Style

# metric -> level, name and color of a line that helps to read it
REFERENCE_LINES = {
    "normalized_cost": (1.0, "limit", INK),
    "auroc": (0.5, "chance", GREY),
    "mil_loss": (math.log(2), "log 2: nothing learned", GREY),
    "mil_loss_final": (math.log(2), "log 2: nothing learned", GREY),
}
PNG_DPI, SMALL_DPI = 160, 120
LEGEND_ENTRIES = 14  # with more styles than this the legend names methods only, and bands are left out
COST_TICKS = (0, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


def panel_grid(
    count: int,
    columns: int,
    size: tuple[float, float],
    handles: Sequence[Line2D | Patch] = (),
    title: str = "",
    legend_title: str = "",
    **sharing: object,
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with ``count`` panels of ``size`` inches, one legend of ``handles`` below them and room for it."""
    columns, rows = min(columns, count), math.ceil(count / columns)
    # About what the longest entry takes: 0.07 inches a letter, and the line before it.
    entry_width = 0.75 + 0.07 * max((len(handle.get_label()) for handle in handles), default=0)
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


def reference_line(panel: Axes, metric: str) -> None:
    """Draw and name the level that a metric is read against, where it has one."""
    if metric in REFERENCE_LINES:
        height, name, color = REFERENCE_LINES[metric]
        panel.axhline(height, color=color, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        place = {"transform": panel.get_yaxis_transform(), "ha": "right", "va": "bottom"}
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
