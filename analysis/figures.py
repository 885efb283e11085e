"""From tables to figures: one function per figure, each takes the table and returns a matplotlib ``Figure``.

Nothing is computed here but means over seeds and their bootstrap bands.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import labels, sweeps
from analysis.canvas import LEGEND_ENTRIES, each_look, legend_of, reference_line, sheet
from analysis.floors import FLOOR_NAMES, floors_by_value
from analysis.looks import GREY, STYLE, VERMILION, Look, looks
from analysis.trial_rows import value_order
from baselines.registry import BLACK

# column of trials.csv -> title of its panel
AXIS_PANELS = {
    "normalized_return": "normalized return",
    "normalized_cost": "normalized cost (1 = limit)",
    "auroc": "AUROC of trajectory scores",
    "mil_loss_final": "MIL loss",
}
# column of curves.csv -> title of its panel, what is counted below it
CURVE_PANELS = {
    "normalized_return": ("normalized return", "policy step"),
    "normalized_cost": ("normalized cost (1 = limit)", "policy step"),
    "mil_loss": ("MIL loss", "cost-model step"),
    "policy_loss": ("policy loss", "policy step"),
}


@matplotlib.rc_context(STYLE)
def return_cost_plane(trials: pd.DataFrame, axes: Sequence[str], look_of: dict[tuple, Look]) -> Figure:
    """Normalized return over normalized cost, a panel per task: small points are seeds, large ones their mean."""
    tasks = sorted(trials["task"].unique())
    size = (6.0, 3.9) if len(tasks) == 1 else (3.3, 3.0)
    points_only = [replace(look, line="none") for look in look_of.values()]
    handles, legend_title = legend_of(points_only)
    figure, panels = sheet(len(tasks), 3, size, handles, legend_title=legend_title)
    for panel, task in zip(panels, tasks, strict=True):
        here = trials[trials["task"] == task]
        right = max(1.3, 1.08 * here["normalized_cost"].max())
        panel.axvspan(1, 100 * right, color="#f5ece8", linewidth=0)
        panel.axvline(1, color=VERMILION, linewidth=1.1)
        for place, (look, mine) in enumerate(each_look(here, axes, look_of)):
            points = mine["normalized_cost"], mine["normalized_return"]
            panel.plot(*points, linestyle="none", alpha=0.55, **look.marker_style(3.5))
            means, front = [[values.mean()] for values in points], 4 - 0.01 * place  # SafeMIL before the others
            panel.plot(*means, linestyle="none", zorder=front, **look.marker_style(8.5))
        # At least 0.2 high: a panel that zooms in on the spread of one method makes noise look like an effect.
        middle, half = np.mean(panel.get_ylim()), max(0.1, np.ptp(panel.get_ylim()) / 2)
        panel.set(title=task, xlim=(-0.03 * right, right), ylim=(middle - half, middle + half))
        panel.set(xlabel="normalized cost (1 = limit)", ylabel="normalized return")
        top = {"transform": panel.get_xaxis_transform(), "va": "top"}
        panel.text(1, 1.0, "  over the limit", color="#8a3d12", fontsize=7.5, **top)
    return figure


@matplotlib.rc_context(STYLE)
def learning_curves(curves: pd.DataFrame, task: str, axes: Sequence[str], look_of: dict[tuple, Look]) -> Figure | None:
    """Evaluations and training losses over steps: mean over seeds, band = 95 % bootstrap interval of that mean.

    None where the task has no curve with two points. A mean is taken only at steps that all seeds have.
    """
    here = curves[curves["task"] == task]
    drawn = [metric for metric in CURVE_PANELS if _has_curve(here, metric)]
    if not drawn:
        return None
    used = [look for look, _ in each_look(here, axes, look_of)]
    handles, legend_title = legend_of(used)
    figure, panels = sheet(len(drawn), 2, (4.1, 2.75), handles, task, legend_title)
    for panel, metric in zip(panels, drawn, strict=True):
        for look, mine in each_look(here[here[metric].notna()], axes, look_of):
            wide = mine.pivot_table(index="step", columns="seed", values=metric, aggfunc="mean").dropna()
            if len(wide):
                marks = {"markevery": max(1, len(wide) // 7), **look.marker_style(5)}
                panel.plot(wide.index, wide.mean(axis=1), color=look.color, linestyle=look.line, **marks)
                if wide.shape[1] > 1 and len(used) <= LEGEND_ENTRIES:
                    panel.fill_between(wide.index, *_band(wide.to_numpy()), color=look.color, alpha=0.15, linewidth=0)
        reference_line(panel, metric)
        panel.set(title=CURVE_PANELS[metric][0], xlabel=CURVE_PANELS[metric][1])
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


@matplotlib.rc_context(STYLE)
def axis_curves(trials: pd.DataFrame, task: str, axis: str, others: Sequence[str]) -> Figure:
    """Metrics over the values of one setting: points are seeds, lines their mean, level lines methods without it.

    The MIL loss is shown with log 2 and with its floors, see ``analysis.floors``.
    """
    here = trials[trials["task"] == task]
    values = sorted((value for value in here[axis].unique() if value != ""), key=value_order)
    place = _places(values)
    sizes = all(isinstance(value, (int, float)) or value == "full" for value in values)
    varies = here.groupby(["method", *others], dropna=False)[axis].nunique() > 1
    look_of = {}
    for key, look in looks(here, others).items():
        # Words (hard, linear, ...) have no order: their points are not joined. Level lines have no points.
        key_varies = varies[key if others else key[0]]
        look_of[key] = replace(look, line=look.line if sizes else "none") if key_varies else replace(look, marker="")
    drawn = [metric for metric in AXIS_PANELS if here[metric].notna().any()]
    handles, legend_title = legend_of(look_of.values())
    floors = _floor_curves(each_look(here[here[axis] != ""], others, look_of), axis, place)
    handles += [Line2D([], [], color=BLACK, linestyle=line, linewidth=1.2, label=name) for name, line, *_ in floors]
    figure, panels = sheet(
        len(drawn), 2, (4.1, 2.8), list({h.get_label(): h for h in handles}.values()), task, legend_title
    )
    for panel, metric in zip(panels, drawn, strict=True):
        for look, mine in each_look(here, others, look_of):
            if look.marker:
                _over_values(panel, mine[mine[axis] != ""], axis, metric, place, look)
            elif mine[metric].notna().any():
                panel.axhline(mine[metric].mean(), color=look.color, linestyle=look.line, linewidth=1.3)
        reference_line(panel, metric)
        if metric == "mil_loss_final":
            for _, line, color, points in floors:
                panel.plot(*points, color=color, linestyle=line, linewidth=1.2)
            panel.set_ylim(top=max(panel.get_ylim()[1], 0.78))  # room for the name of the line at log 2
        if metric == "auroc":
            _mark_reliable(panel, here, axis, others, place)
        panel.set(title=AXIS_PANELS[metric], xlabel=labels.axis_title(axis))
        names = [labels.value_text(value) for value in values]
        slanted = {"rotation": 45, "ha": "right"} if _crowded([place[value] for value in values], names) else {}
        panel.set_xticks([place[value] for value in values], names, **slanted)
        panel.margins(x=0.05 if sizes else 0.2)
    return figure


def _over_values(panel: Axes, mine: pd.DataFrame, axis: str, metric: str, place: dict, look: Look) -> None:
    mean = mine.groupby(axis)[metric].mean().dropna()
    at = sorted(mean.index, key=value_order)
    line = {"color": look.color, "linestyle": look.line}
    panel.plot([place[value] for value in at], mean[at], zorder=3, **line, **look.marker_style(7))
    # Seeds on top and hollow: under the marker of their mean they would not be seen.
    seeds = {**look.marker_style(3), "marker": "o", "markerfacecolor": "white", "markeredgewidth": 0.8}
    panel.plot(mine[axis].map(place), mine[metric], linestyle="none", zorder=4, **seeds)


def _places(values: Sequence) -> dict:
    """value -> position: logarithmic for counts over several octaves, linear for other numbers, else one step each."""
    if not all(isinstance(value, (int, float)) for value in values):
        return {value: i for i, value in enumerate(values)}
    if min(values) >= 1 and max(values) / min(values) >= 8:
        return {value: math.log2(value) for value in values}
    return {value: value for value in values}


def _crowded(places: Sequence[float], names: Sequence[str]) -> bool:
    """Whether neighbors' names would touch if written side by side; a panel is about 50 characters wide."""
    character = (max(places) - min(places)) / 50
    ends = list(zip(places, names, strict=True))
    return any(
        right - left < character * ((len(before) + len(after)) / 2 + 1)
        for (left, before), (right, after) in itertools.pairwise(ends)
    )


def _floor_curves(parts: Iterable[tuple[Look, pd.DataFrame]], axis: str, place: dict) -> list[tuple]:
    """(name, line, color, points) of the floors of ``analysis.floors``; black where all methods have the same."""
    floors = [(look, floors_by_value(mine, axis)) for look, mine in parts]
    curves = []
    for name, line in (("large_bags", ":"), ("this_bag_size", "-.")):
        look_of_curve = {tuple(found[name].items()): look for look, found in reversed(floors) if len(found[name]) > 1}
        for curve, look in look_of_curve.items():
            points = sorted((place[value], height) for value, height in curve)
            color = BLACK if len(look_of_curve) == 1 else look.color
            curves.append((FLOOR_NAMES[name], line, color, list(zip(*points, strict=True))))
    return curves


def _mark_reliable(panel: Axes, here: pd.DataFrame, axis: str, others: Sequence[str], place: dict) -> None:
    """A line at the smallest value from which SafeMIL separates reliably (``analysis.sweeps``), where it has one."""
    value = None if others else sweeps.reliable_from(here[here["method"] == "safemil"], axis)
    panel.axhline(sweeps.RELIABLE_AUROC, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    if value is not None:
        panel.axvline(place[value], color=GREY, linewidth=0.9, zorder=1.5)
        right_half = place[value] > np.mean([min(place.values()), max(place.values())])
        note = f" reliable from {labels.axis_short(axis)} = {labels.value_text(value)} "
        where = {"ha": "right" if right_half else "left", "transform": panel.get_xaxis_transform()}
        panel.text(place[value], 0.2, note, fontsize=7.5, color=GREY, **where)


def _has_curve(curves: pd.DataFrame, metric: str) -> bool:
    """Whether any trial has this metric at two steps or more."""
    if metric not in curves:
        return False
    steps = curves[curves[metric].notna()].groupby("trial_id")["step"].nunique()
    return bool((steps > 1).any())


def _band(values: np.ndarray, repetitions: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap of the mean over seeds, values (n_steps, n_seeds) -> two arrays (n_steps,)."""
    seeds = values.shape[1]
    times_drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=repetitions)
    low, high = np.quantile(times_drawn @ values.T / seeds, [0.025, 0.975], axis=0)
    return low, high
