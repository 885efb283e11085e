"""Metrics over the values of a setting, and learning curves, a panel for each task. Tables in, a ``Figure`` out.

Nothing is computed here but means over seeds and their 95 % t intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
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
def learning_curves(curves: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Evaluations and training losses over steps, a panel for each metric and task: means and 95 % t intervals.

    None where no task has a curve with two points. A mean is taken only at steps that all seeds have. Policy losses
    are squared errors or negative log-likelihoods: each method's is scaled to its own range, to be seen to settle.
    """
    drawn = {task: _metrics_of(curves, task) for task in sorted(curves["task"].unique())}
    keys = [(metric, task) for metric in CURVE_PANELS for task, of in drawn.items() if metric in of]
    if not keys:
        return None
    used = [style for style, _ in styles.each_style(curves, axes, style_of)]
    bands = len(used) <= MOST_BANDS
    figure, panels = _panels(keys, *styles.legend_of(used))
    for (metric, task), panel in panels.items():
        here, highest = curves[(curves["task"] == task) & curves[metric].notna()], 0.0
        for style, mine in styles.each_style(here, axes, style_of):
            wide = mine.pivot_table(index="step", columns="seed", values=metric, aggfunc="mean").dropna()
            if wide.empty:
                continue
            if loss := metric == "policy_loss":
                lowest = wide.mean(axis=1).min()
                wide = (wide - lowest) / max(wide.iloc[0].mean() - lowest, 1e-12)
            mean, highest = wide.mean(axis=1), max(highest, wide.mean(axis=1).max())
            marks = {"markevery": max(1, len(wide) // 7), **style.marker_style(4.5)}
            panel.plot(wide.index, mean, color=style.color, linestyle=style.line, **marks)
            if wide.shape[1] > 1 and (bands or style.method == "safemil" and not axes) and not loss:
                band = np.array([t_interval(values) for values in wide.to_numpy()]).T
                panel.fill_between(wide.index, *band, color=style.color, alpha=0.12, linewidth=0)
        styles.reference_line(panel, metric)
        if metric == "normalized_cost":
            styles.cost_axis(panel, "y", highest)
        title, counted = CURVE_PANELS[metric]
        panel.set(title=f"{task}: {title}", xlabel=counted)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


@matplotlib.rc_context(styles.STYLE)
def axis_curves(trials: pd.DataFrame, axis: str, others: Sequence[str], narrow: bool = False) -> Figure:
    """Metrics over the values of one setting, evenly spaced: small points are seeds, large ones means with intervals.

    A panel for each metric and task. Level lines are methods without the setting; the MIL loss has log 2 and
    ``sweeps.loss_bounds`` beside it.
    """
    values = sorted((value for value in trials[axis].unique() if value != ""), key=value_order)
    place = {value: i for i, value in enumerate(values)}
    # Words (hard, linear, ...) have no order: their points are not joined.
    ordered = all(isinstance(value, (int, float)) or value == "full" for value in values)
    style_of = styles.styles(trials, others)
    varies = {style: mine[axis].nunique() > 1 for style, mine in styles.each_style(trials, others, style_of)}
    wanted = [metric for metric in AXIS_PANELS if trials[metric].notna().any()]
    bounds = {
        task: _bound_curves(
            [part for part in styles.each_style(here, others, style_of) if varies[part[0]]], axis, place
        )
        for task, here in trials.groupby("task", sort=True)
        if "mil_loss_final" in wanted
    }
    legend = _axis_legend(varies, [bound for found in bounds.values() for bound in found], ordered)
    wide = [(metric, task) for metric in wanted for task in sorted(trials["task"].unique())]
    figure, panels = _panels(wide, *legend, narrow)
    for (metric, task), panel in panels.items():
        here = trials[trials["task"] == task]
        parts = list(styles.each_style(here, others, style_of))
        varying = [(style, mine[mine[axis] != ""]) for style, mine in parts if varies[style]]
        _over_values(panel, varying, axis, metric, place, ordered)
        for style, mine in parts:
            if not varies[style] and mine[metric].notna().any():
                panel.axhline(mine[metric].mean(), color=style.color, linestyle=style.line, linewidth=1.3, zorder=1)
        styles.reference_line(panel, metric)
        if metric == "normalized_cost":
            styles.cost_axis(panel, "y", here[metric].max())
        if metric == "mil_loss_final":
            for _, line, color, points in bounds[task]:
                panel.plot(*points, color=color, linestyle=line, linewidth=1.2)
            panel.set_ylim(top=max(panel.get_ylim()[1], 0.78))  # room for the name of the line at log 2
        if metric == "auroc":
            low, high = panel.get_ylim()
            panel.set_ylim(max(low, -0.05), min(high, 1.05))  # an interval may reach beyond what there is
            _mark_reliable(panel, here, axis, others, place)
        panel.set(title=f"{task}: {AXIS_PANELS[metric]}", xlabel=labels.mathtext(labels.axis_title(axis)), ylabel="")
        names = [labels.value_text(value) for value in values]
        slanted: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) + 2 * len(names) > 40 else {}
        panel.set_xticks(range(len(values)), names, **slanted)
        panel.set_xlim(-0.5, len(values) - 0.5)
    return figure


def _panels(
    keys: list[tuple], handles: list, legend_title: str, narrow: bool = False
) -> tuple[Figure, dict[tuple, Axes]]:
    """A panel for each (metric, task): tasks abreast, or with a single one its metrics by two; one column if narrow."""
    tasks = len({task for _, task in keys})
    columns, size = (1, (4.0, 2.7)) if narrow else (2, (4.1, 2.75)) if tasks == 1 else (min(tasks, 4), (2.7, 2.3))
    figure, panels = styles.panel_grid(len(keys), columns, size, handles, legend_title=legend_title)
    return figure, dict(zip(keys, panels, strict=True))


def _axis_legend(varies: dict[styles.Style, bool], bounds: list[tuple], ordered: bool) -> tuple[list, str]:
    """(handles, title of the legend), as ``panel_grid`` takes them."""
    shown = sorted(varies, key=lambda style: not varies[style])
    handles, legend_title = styles.legend_of(shown)
    for handle, style in zip(handles, shown, strict=False):
        if not varies[style]:
            handle.set_marker("")
        elif ordered:
            handle.set_linestyle("-")
    handles += [
        Line2D([], [], color=styles.INK, linestyle=line, linewidth=1.2, label=labels.mathtext(name))
        for name, line, *_ in bounds
    ]
    return list({handle.get_label(): handle for handle in handles}.values()), legend_title


def _over_values(panel: Axes, varying: list, axis: str, metric: str, place: dict, ordered: bool) -> None:
    """Seeds, means and intervals of every method side by side at each value, means joined where values are ordered."""
    for number, (style, mine) in enumerate(varying):
        aside = 0.8 * ((number + 0.5) / len(varying) - 0.5)
        groups = {place[value]: part[metric].dropna() for value, part in mine.groupby(axis, sort=False)}
        means = sorted((at + aside, values.mean()) for at, values in groups.items() if len(values))
        for at, values in groups.items():
            styles.seeds_and_mean(panel, style, values, at + aside, "y")
        if ordered and means:
            panel.plot(*zip(*means, strict=True), color=style.color, linewidth=1.1)


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


def _metrics_of(curves: pd.DataFrame, task: str) -> list[str]:
    """The metrics of which a trial of the task has two points or more."""
    here = curves[curves["task"] == task]
    counted = {m: here[here[m].notna()].groupby("trial_id")["step"].nunique() for m in CURVE_PANELS if m in here}
    return [metric for metric, steps in counted.items() if (steps > 1).any()]
