"""Figures of a whole run: cost and return by task, their plane, and what all tasks say together.

In: trials, and numbers computed of them. Out: a matplotlib ``Figure`` each.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import styles
from analysis.summary import run_matrix
from safemil.evaluation import aggregates

BAND_REPETITIONS = 1000  # of a band that is only looked at; numbers in tables have summary.REPETITIONS
METRICS = {"normalized_cost": "normalized cost", "normalized_return": "normalized return"}
TASKS_ABREAST = 6


@matplotlib.rc_context(styles.STYLE)
def forest(trials: pd.DataFrame, axes: Sequence[str], style_of: dict, narrow: bool = False) -> Figure:
    """Cost, and below it return, of each method by task: mean over seeds, 95 % t interval, and every seed."""
    tasks = sorted(trials["task"].unique())
    used = [style for style, _ in styles.each_style(trials, axes, style_of)]
    abreast = 1 if narrow else min(len(tasks), TASKS_ABREAST)
    blocks = -(-len(tasks) // abreast)
    size = (1.95 if narrow or abreast > 2 else 3.6, 0.75 + 0.185 * len(used))
    figure, panels = styles.panel_grid(2 * abreast * blocks, max(2, abreast), size, sharey=True)
    for place, panel in enumerate(panels):
        block, which = divmod(place // abreast, 2)
        metric, number = list(METRICS)[which], block * abreast + place % abreast
        if number >= len(tasks):
            panel.remove()
            continue
        here = trials[trials["task"] == tasks[number]]
        _forest_panel(panel, list(styles.each_style(here, axes, style_of)), used, metric)
        panel.set(xlabel=METRICS[metric], ylabel="", title=tasks[number] if metric == "normalized_cost" else "")
    return figure


def _forest_panel(panel: Axes, parts: list[tuple], used: list[styles.Style], metric: str) -> None:
    """``parts``: (style, trials) of each method and setting that the task has; ``used``: every row of the figure."""
    for style, part in parts:
        styles.seeds_and_mean(panel, style, part[metric], used.index(style), "x")
    values = pd.concat([part[metric] for _, part in parts])
    if metric == "normalized_cost":
        styles.cost_axis(panel, "x", values.max())
        panel.axvline(1, color=styles.INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        panel.axvspan(1, panel.get_xlim()[1], color=styles.UNSAFE, linewidth=0, zorder=0)
    else:
        _at_least_wide(panel, "x", values, 0.3)
    panel.set_yticks(range(len(used)), [style.label for style in used])
    panel.set_ylim(len(used) - 0.5, -0.5)
    panel.grid(False, axis="y")


@matplotlib.rc_context(styles.STYLE)
def return_cost_plane(trials: pd.DataFrame, axes: Sequence[str], style_of: dict, narrow: bool = False) -> Figure:
    """Normalized return over normalized cost, a panel per task: small points are seeds, large ones their mean."""
    tasks = sorted(trials["task"].unique())
    size = (3.9, 3.2) if narrow else (6.0, 3.9) if len(tasks) == 1 else (3.3, 3.0)
    handles, legend_title = styles.legend_of(style_of.values())
    for handle in handles:
        handle.set_linestyle("none")
    figure, panels = styles.panel_grid(len(tasks), 1 if narrow else 3, size, handles, legend_title=legend_title)
    for panel, task in zip(panels, tasks, strict=True):
        here = trials[trials["task"] == task]
        for place, (style, mine) in enumerate(styles.each_style(here, axes, style_of)):
            points = mine["normalized_cost"], mine["normalized_return"]
            panel.plot(*points, linestyle="none", alpha=0.55, **style.marker_style(3.5))
            means, front = [[values.mean()] for values in points], 4 - 0.01 * place  # SafeMIL before the others
            panel.plot(*means, linestyle="none", zorder=front, **style.marker_style(8))
        # At least 0.2 high: a panel that zooms in on the spread of one method makes noise look like an effect.
        _at_least_wide(panel, "y", here["normalized_return"], 0.2)
        styles.cost_axis(panel, "x", here["normalized_cost"].max())
        panel.axvspan(1, panel.get_xlim()[1], color=styles.UNSAFE, linewidth=0, zorder=0)
        panel.axvline(1, color=styles.INK, linewidth=1.1, linestyle=(0, (4, 2)))
        panel.set(title=task, xlabel="normalized cost (1 = limit)", ylabel="normalized return")
    return figure


@matplotlib.rc_context(styles.STYLE)
def performance_profiles(trials: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Figure:
    """Share of runs, over all tasks, that return more (cost at most) so much, with 95 % bootstrap bands.

    Methods that lack a task are left out: their profile would be of easier or harder tasks than the others'.
    """
    tasks = sorted(trials["task"].unique())
    parts = styles.each_style(trials, axes, style_of)
    shown = [(style, part) for style, part in parts if part["task"].nunique() == len(tasks)]
    handles, legend_title = styles.legend_of([style for style, _ in shown])
    for handle in handles:
        handle.set_marker("")
    figure, panels = styles.panel_grid(2, 2, (4.1, 3.0), handles, legend_title=legend_title)
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
            if len(matrix) > 1 and len(shown) <= styles.LEGEND_ENTRIES:
                band = aggregates.stratified_bootstrap(profile, matrix, repetitions=BAND_REPETITIONS)
                panel.fill_between(thresholds, *band, step="post", color=style.color, alpha=0.1, linewidth=0)
        sign, level = (">", "r") if metric == "normalized_return" else ("≤", "c")
        panel.set(ylim=(-0.03, 1.03), xlabel=f"{METRICS[metric]} {level}", ylabel=f"share of runs {sign} {level}")
    panels[0].axvline(1, color=styles.INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    styles.cost_axis(panels[0], "x", trials["normalized_cost"].max())
    return figure


def _at_least_wide(panel: Axes, which: str, values: pd.Series, width: float) -> None:
    """Limits around the values, with a margin, and not narrower than ``width``."""
    middle = (values.min() + values.max()) / 2
    half = max(width, 1.15 * (values.max() - values.min())) / 2
    getattr(panel, f"set_{which}lim")(middle - half, middle + half)
