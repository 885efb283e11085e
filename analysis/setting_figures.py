"""Figures of one task: metrics over the values of a setting, and learning curves. Tables in, a ``Figure`` out.

Nothing is computed here but means over seeds and their 95 % t intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import labels, styles, sweeps
from analysis.summary import t_interval
from analysis.trial_rows import value_order

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
    "policy_loss": ("policy loss, 1 at first, 0 at its lowest", "policy step"),
}
MOST_BANDS = 4  # with more curves than this SafeMIL alone has a band: others would hide what is below them


@matplotlib.rc_context(styles.STYLE)
def learning_curves(curves: pd.DataFrame, task: str, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Evaluations and training losses over steps: mean over seeds, band = 95 % t interval of that mean.

    None where the task has no curve with two points. A mean is taken only at steps that all seeds have. Policy losses
    are squared errors or negative log-likelihoods: each method's is scaled to its own range, to be seen to settle.
    """
    here = curves[curves["task"] == task]
    drawn = [metric for metric in CURVE_PANELS if _has_curve(here, metric)]
    if not drawn:
        return None
    used = [style for style, _ in styles.each_style(here, axes, style_of)]
    handles, legend_title = styles.legend_of(used)
    figure, panels = styles.panel_grid(len(drawn), 2, (4.1, 2.75), handles, task, legend_title)
    for panel, metric in zip(panels, drawn, strict=True):
        highest = 0.0
        for style, mine in styles.each_style(here[here[metric].notna()], axes, style_of):
            wide = mine.pivot_table(index="step", columns="seed", values=metric, aggfunc="mean").dropna()
            if wide.empty:
                continue
            if loss := metric == "policy_loss":
                lowest = wide.mean(axis=1).min()
                wide = (wide - lowest) / max(wide.iloc[0].mean() - lowest, 1e-12)
            mean, highest = wide.mean(axis=1), max(highest, wide.mean(axis=1).max())
            marks = {"markevery": max(1, len(wide) // 7), **style.marker_style(4.5)}
            panel.plot(wide.index, mean, color=style.color, linestyle=style.line, **marks)
            if wide.shape[1] > 1 and (len(used) <= MOST_BANDS or style.method == "safemil" and not axes) and not loss:
                band = np.array([t_interval(values) for values in wide.to_numpy()]).T
                panel.fill_between(wide.index, *band, color=style.color, alpha=0.12, linewidth=0)
        styles.reference_line(panel, metric)
        if metric == "normalized_cost":
            styles.cost_axis(panel, "y", highest)
        panel.set(title=CURVE_PANELS[metric][0], xlabel=CURVE_PANELS[metric][1])
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


@matplotlib.rc_context(styles.STYLE)
def axis_curves(trials: pd.DataFrame, task: str, axis: str, others: Sequence[str]) -> Figure:
    """Metrics over the values of one setting, evenly spaced: small points are seeds, large ones means with intervals.

    Level lines are methods without the setting; the MIL loss has log 2 and ``sweeps.loss_bounds`` beside it.
    """
    here = trials[trials["task"] == task]
    values = sorted((value for value in here[axis].unique() if value != ""), key=value_order)
    place = {value: i for i, value in enumerate(values)}
    # Words (hard, linear, ...) have no order: their points are not joined.
    ordered = all(isinstance(value, (int, float)) or value == "full" for value in values)
    parts = list(styles.each_style(here, others, styles.styles(here, others)))
    varying = [(style, mine[mine[axis] != ""]) for style, mine in parts if mine[axis].nunique() > 1]
    level = [(style, mine) for style, mine in parts if mine[axis].nunique() <= 1]
    drawn = [metric for metric in AXIS_PANELS if here[metric].notna().any()]
    bounds = _bound_curves(varying, axis, place) if "mil_loss_final" in drawn else []
    figure, panels = styles.panel_grid(len(drawn), 2, (4.1, 2.8), *_axis_legend(varying, level, bounds, ordered, task))
    for panel, metric in zip(panels, drawn, strict=True):
        _over_values(panel, varying, axis, metric, place, ordered)
        for style, mine in level:
            if mine[metric].notna().any():
                panel.axhline(mine[metric].mean(), color=style.color, linestyle=style.line, linewidth=1.3, zorder=1)
        styles.reference_line(panel, metric)
        if metric == "normalized_cost":
            styles.cost_axis(panel, "y", here[metric].max())
        if metric == "mil_loss_final":
            for _, line, color, points in bounds:
                panel.plot(*points, color=color, linestyle=line, linewidth=1.2)
            panel.set_ylim(top=max(panel.get_ylim()[1], 0.78))  # room for the name of the line at log 2
        if metric == "auroc":
            low, high = panel.get_ylim()
            panel.set_ylim(max(low, -0.05), min(high, 1.05))  # an interval may reach beyond what there is
            _mark_reliable(panel, here, axis, others, place)
        panel.set(title=AXIS_PANELS[metric], xlabel=labels.mathtext(labels.axis_title(axis)), ylabel="")
        names = [labels.value_text(value) for value in values]
        slanted: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) + 2 * len(names) > 50 else {}
        panel.set_xticks(range(len(values)), names, **slanted)
        panel.set_xlim(-0.5, len(values) - 0.5)
    return figure


def _axis_legend(varying: list, level: list, bounds: list[tuple], ordered: bool, title: str) -> tuple[list, str, str]:
    """(handles, title, title of the legend), as ``panel_grid`` takes them."""
    handles, legend_title = styles.legend_of([style for style, _ in (*varying, *level)])
    for handle, _ in zip(handles, varying if ordered else [], strict=False):
        handle.set_linestyle("-")
    for handle in handles[len(varying) :]:
        handle.set_marker("")
    handles += [
        Line2D([], [], color=styles.INK, linestyle=line, linewidth=1.2, label=labels.mathtext(name))
        for name, line, *_ in bounds
    ]
    return list({handle.get_label(): handle for handle in handles}.values()), title, legend_title


def _over_values(panel: Axes, varying: list, axis: str, metric: str, place: dict, ordered: bool) -> None:
    """Seeds, means and intervals of every method side by side at each value."""
    shown = [(style, mine.assign(label=style.label, place=mine[axis].map(place))) for style, mine in varying]
    shown = [(style, mine) for style, mine in shown if mine[metric].notna().any()]
    if not shown:
        return
    used = [style for style, _ in shown]
    rows = {
        "data": pd.concat([mine for _, mine in shown])[["place", "label", metric]].dropna(),
        "x": "place",
        "y": metric,
    }
    rows |= {"hue": "label", "hue_order": [style.label for style in used], "order": range(len(place)), "legend": False}
    rows |= {"palette": {style.label: style.color for style in used}, "ax": panel}
    seaborn.stripplot(**rows, dodge=len(used) > 1, jitter=False, size=3.6, alpha=0.5)
    # Beside the seeds, which seaborn spreads over 0.8 of the step between two values.
    dodge = 0.8 * (len(used) - 1) / len(used) if len(used) > 1 else False
    marks = {"markers": [style.marker for style in used], "markersize": 6.5, "markeredgewidth": 0.8}
    lines = {"linestyle": "-" if ordered else "none", "linewidth": 1.1}
    bar = {"linewidth": 2.4, "alpha": 0.5, "solid_capstyle": "butt"}
    seaborn.pointplot(**rows, dodge=dodge, errorbar=t_interval, err_kws=bar, **marks, **lines)


def _bound_curves(parts: Iterable[tuple[styles.Style, pd.DataFrame]], axis: str, place: dict) -> list[tuple]:
    """(name, line, color, points) of ``sweeps.loss_bounds``; black where all methods have the same."""
    bounds = [(style, sweeps.loss_bounds(mine, axis)) for style, mine in parts]
    curves = []
    for name, line in (("large_bags", ":"), ("this_bag_size", "-.")):
        style_of_curve = {tuple(of[name].items()): style for style, of in reversed(bounds) if len(of[name]) > 1}
        for curve, style in style_of_curve.items():
            points = sorted((place[value], height) for value, height in curve)
            color = styles.INK if len(style_of_curve) == 1 else style.color
            curves.append((sweeps.LOSS_BOUNDS[name], line, color, list(zip(*points, strict=True))))
    return curves


def _mark_reliable(panel: Axes, here: pd.DataFrame, axis: str, others: Sequence[str], place: dict) -> None:
    """A line at the smallest value from which SafeMIL separates reliably (``analysis.sweeps``), where it has one."""
    value = None if others else sweeps.reliable_from(here[here["method"] == "safemil"], axis)
    panel.axhline(sweeps.RELIABLE_AUROC, color=styles.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    if value is not None:
        panel.axvline(place[value], color=styles.GREY, linewidth=0.9, zorder=1.5)
        note = f" reliable from {labels.axis_short(axis)} = {labels.value_text(value)} "
        right_half = place[value] > (len(place) - 1) / 2
        where: dict[str, Any] = {"ha": "right" if right_half else "left", "transform": panel.get_xaxis_transform()}
        panel.text(place[value], 0.2, note, fontsize=7.5, color=styles.GREY, **where)


def _has_curve(curves: pd.DataFrame, metric: str) -> bool:
    """Whether any trial has this metric at two steps or more."""
    if metric not in curves:
        return False
    steps = curves[curves[metric].notna()].groupby("trial_id")["step"].nunique()
    return bool((steps > 1).any())
