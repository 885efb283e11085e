"""Figures of a whole run: cost and return by task, their plane, and what all tasks say together.

In: trials, and numbers computed of them. Out: a matplotlib ``Figure`` each.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import labels
from analysis.panels import LEGEND_ENTRIES, cost_axis, legend_of, panel_grid
from analysis.styles import GREY, INK, STYLE, UNSAFE, Style, each_style
from analysis.summary import run_matrix, t_interval
from safemil.evaluation import aggregates

BAND_REPETITIONS = 1000  # of a band that is only looked at; numbers in tables have summary.REPETITIONS
METRICS = {"normalized_cost": "normalized cost", "normalized_return": "normalized return"}
TASKS_ABREAST = 6


@matplotlib.rc_context(STYLE)
def forest(trials: pd.DataFrame, axes: Sequence[str], style_of: dict[tuple, Style]) -> Figure:
    """Cost, and below it return, of each method by task: mean over seeds, 95 % t interval, and every seed."""
    tasks = sorted(trials["task"].unique())
    used = [style for style, _ in each_style(trials, axes, style_of)]
    abreast = min(len(tasks), TASKS_ABREAST)
    blocks = -(-len(tasks) // abreast)
    size = (1.95 if abreast > 2 else 3.6, 0.75 + 0.185 * len(used))
    figure, panels = panel_grid(2 * abreast * blocks, max(2, abreast), size, sharey=True)
    for place, panel in enumerate(panels):
        block, metric = divmod(place // abreast, 2)
        metric, number = list(METRICS)[metric], block * abreast + place % abreast
        if number >= len(tasks):
            panel.remove()
            continue
        here = trials[trials["task"] == tasks[number]]
        _forest_panel(panel, list(each_style(here, axes, style_of)), used, metric)
        panel.set(xlabel=METRICS[metric], ylabel="", title=tasks[number] if metric == "normalized_cost" else "")
    return figure


def _forest_panel(panel: Axes, parts: list[tuple[Style, pd.DataFrame]], used: list[Style], metric: str) -> None:
    order = [style.label for style in used]
    colors = {style.label: style.color for style in used}
    for hollow in (False, True):
        shown = [part.assign(label=style.label) for style, part in parts if style.hollow == hollow]
        if not shown:
            continue
        rows = {"data": pd.concat(shown), "x": metric, "y": "label", "hue": "label", "order": order, "ax": panel}
        rows |= {"hue_order": order, "palette": colors, "legend": False}
        seaborn.stripplot(**rows, jitter=False, size=3.2, alpha=0.45)
        face = {"markerfacecolor": "white"} if hollow else {}
        marks = {"markers": [style.marker for style in used], "markersize": 5.5, "markeredgewidth": 1.2, **face}
        bar = {"linewidth": 2.6, "alpha": 0.55, "solid_capstyle": "butt"}
        seaborn.pointplot(**rows, errorbar=t_interval, linestyle="none", err_kws=bar, **marks)
    values = pd.concat([part[metric] for _, part in parts])
    if metric == "normalized_cost":
        cost_axis(panel, "x", values.max())
        panel.axvline(1, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        panel.axvspan(1, panel.get_xlim()[1], color=UNSAFE, linewidth=0, zorder=0)
    else:
        _at_least_wide(panel, "x", values, 0.3)
    panel.set_ylim(len(order) - 0.5, -0.5)


@matplotlib.rc_context(STYLE)
def return_cost_plane(trials: pd.DataFrame, axes: Sequence[str], style_of: dict[tuple, Style]) -> Figure:
    """Normalized return over normalized cost, a panel per task: small points are seeds, large ones their mean."""
    tasks = sorted(trials["task"].unique())
    size = (6.0, 3.9) if len(tasks) == 1 else (3.3, 3.0)
    handles, legend_title = legend_of(style_of.values())
    for handle in handles:
        handle.set_linestyle("none")
    figure, panels = panel_grid(len(tasks), 3, size, handles, legend_title=legend_title)
    for panel, task in zip(panels, tasks, strict=True):
        here = trials[trials["task"] == task]
        for place, (style, mine) in enumerate(each_style(here, axes, style_of)):
            points = mine["normalized_cost"], mine["normalized_return"]
            panel.plot(*points, linestyle="none", alpha=0.55, **style.marker_style(3.5))
            means, front = [[values.mean()] for values in points], 4 - 0.01 * place  # SafeMIL before the others
            panel.plot(*means, linestyle="none", zorder=front, **style.marker_style(8))
        # At least 0.2 high: a panel that zooms in on the spread of one method makes noise look like an effect.
        _at_least_wide(panel, "y", here["normalized_return"], 0.2)
        cost_axis(panel, "x", here["normalized_cost"].max())
        panel.axvspan(1, panel.get_xlim()[1], color=UNSAFE, linewidth=0, zorder=0)
        panel.axvline(1, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
        panel.set(title=task, xlabel="normalized cost (1 = limit)", ylabel="normalized return")
    return figure


@matplotlib.rc_context(STYLE)
def interquartile_means(summary: pd.DataFrame, axes: Sequence[str], style_of: dict[tuple, Style], title: str) -> Figure:
    """IQM of cost and return with 95 % intervals, a line per method and setting; ``summary`` has a row for each."""
    rows = [(style, part.iloc[0]) for style, part in each_style(summary, axes, style_of)]
    figure, panels = panel_grid(2, 2, (3.9, 0.75 + 0.27 * len(rows)), title=title)
    for panel, (metric, name) in zip(panels, METRICS.items(), strict=True):
        for height, (style, row) in enumerate(rows):
            low, middle, high = (row[f"{metric}_{end}"] for end in ("low", "iqm", "high"))
            _bar(panel, height, low, high, style.color)
            panel.plot([middle], [height], linestyle="none", **style.marker_style(7))
        _rows_of(panel, [style.label for style, _ in rows] if metric == "normalized_cost" else [], len(rows))
        panel.set_xlabel(f"{name}, interquartile mean")
    panels[0].axvline(1, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    cost_axis(panels[0], "x", np.nanmax([row["normalized_cost_high"] for _, row in rows] + [1.0]))
    return figure


@matplotlib.rc_context(STYLE)
def performance_profiles(trials: pd.DataFrame, axes: Sequence[str], style_of: dict[tuple, Style]) -> Figure:
    """Share of runs, over all tasks, that return more (cost at most) so much, with 95 % bootstrap bands.

    Methods that lack a task are left out: their profile would be of easier or harder tasks than the others'.
    """
    tasks = sorted(trials["task"].unique())
    shown = [
        (style, part) for style, part in each_style(trials, axes, style_of) if part["task"].nunique() == len(tasks)
    ]
    handles, legend_title = legend_of([style for style, _ in shown])
    for handle in handles:
        handle.set_marker("")
    figure, panels = panel_grid(2, 2, (4.1, 3.0), handles, legend_title=legend_title)
    for panel, metric in zip(panels, METRICS, strict=True):
        # Thresholds lie densely where costs do: a few costly runs would leave the others one point.
        thresholds = np.unique(np.quantile(trials[metric], np.linspace(0, 1, 101)))
        margin = 0.05 * max(np.ptp(thresholds), 1e-6)
        thresholds = np.concatenate([[thresholds[0] - margin], thresholds, [thresholds[-1] + margin]])

        def profile(matrix: np.ndarray, metric: str = metric, thresholds: np.ndarray = thresholds) -> np.ndarray:
            above = aggregates.performance_profile(matrix, thresholds)
            return above if metric == "normalized_return" else 1.0 - above

        for style, part in shown:
            matrix = run_matrix(part, metric, tasks)
            line = {"color": style.color, "linestyle": style.line}
            panel.step(thresholds, profile(matrix), where="post", **line)
            if len(matrix) > 1 and len(shown) <= LEGEND_ENTRIES:
                band = aggregates.stratified_bootstrap(profile, matrix, repetitions=BAND_REPETITIONS)
                panel.fill_between(thresholds, *band, step="post", color=style.color, alpha=0.1, linewidth=0)
        sign, level = (">", "r") if metric == "normalized_return" else ("≤", "c")
        panel.set(ylim=(-0.03, 1.03), xlabel=f"{METRICS[metric]} {level}", ylabel=f"share of runs {sign} {level}")
    panels[0].axvline(1, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    cost_axis(panels[0], "x", trials["normalized_cost"].max())
    return figure


@matplotlib.rc_context(STYLE)
def improvement(compared: pd.DataFrame) -> Figure:
    """Probability that a run of SafeMIL costs less, and returns more, than a run of each other method."""
    figure, panels = panel_grid(2, 2, (3.9, 0.75 + 0.27 * len(compared)))
    names = [labels.method_label(method) for method in compared["method"]]
    titles = {"safer": "P(SafeMIL costs less)", "better_return": "P(SafeMIL returns more)"}
    for panel, (column, title) in zip(panels, titles.items(), strict=True):
        for height, row in enumerate(compared.to_dict("records")):
            face = "white" if row["role"] == "oracle" else INK
            _bar(panel, height, row[f"{column}_low"], row[f"{column}_high"], GREY)
            panel.plot([row[column]], [height], "o", color=INK, markerfacecolor=face, markersize=6)
        panel.axvline(0.5, color=GREY, linewidth=1.0)
        panel.set(xlim=(-0.03, 1.03), xlabel=title)
        _rows_of(panel, names if column == "safer" else [], len(names))
    return figure


def _bar(panel: Axes, height: int, low: float, high: float, color: object) -> Line2D:
    """An interval; its ends are where it ends (a round cap would lengthen it)."""
    return panel.plot([low, high], [height, height], color=color, linewidth=3.2, alpha=0.4, solid_capstyle="butt")[0]


def _rows_of(panel: Axes, names: Sequence[str], count: int) -> None:
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_yticks(range(count), names or [""] * count)
    panel.grid(False, axis="y")


def _at_least_wide(panel: Axes, which: str, values: pd.Series, width: float) -> None:
    """Limits around the values, with a margin, and not narrower than ``width``."""
    middle = (values.min() + values.max()) / 2
    half = max(width, 1.15 * (values.max() - values.min())) / 2
    getattr(panel, f"set_{which}lim")(middle - half, middle + half)
