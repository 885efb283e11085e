"""Figures over all tasks: interquartile means with their intervals, and performance profiles. Computes nothing itself
but the profiles' bands; returns a matplotlib ``Figure`` each.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import labels
from analysis.canvas import LEGEND_ENTRIES, each_look, legend_of, sheet
from analysis.looks import GREY, STYLE, VERMILION, Look
from analysis.summary import run_matrix
from safemil.evaluation import aggregates

BAND_REPETITIONS = 2000  # of a band that is only looked at; numbers in tables have summary.REPETITIONS


@matplotlib.rc_context(STYLE)
def interquartile_means(summary: pd.DataFrame, axes: Sequence[str], look_of: dict[tuple, Look], title: str) -> Figure:
    """IQM of return and of cost with 95 % intervals, a line per method and setting; ``summary`` has a row for each."""
    rows = [(look, part.iloc[0]) for look, part in each_look(summary, axes, look_of)]
    figure, panels = sheet(2, 2, (3.9, 0.75 + 0.27 * len(rows)), [], title)
    metrics = ("normalized_return", "normalized_cost")
    for panel, metric in zip(panels, metrics, strict=True):
        for height, (look, row) in enumerate(rows):
            low, middle, high = (row[f"{metric}_{end}"] for end in ("low", "iqm", "high"))
            panel.plot([low, high], [height, height], color=look.color, linewidth=3.2, alpha=0.35)
            panel.plot([middle], [height], linestyle="none", **look.marker_style(7))
        panel.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{metric.replace('_', ' ')}, IQM")
        panel.set_yticks(range(len(rows)), [look.label for look, _ in rows])
        panel.grid(False, axis="y")
    panels[0].set_xlim(min(0.0, panels[0].get_xlim()[0]))
    panels[1].axvline(1, color=VERMILION, linewidth=1.1, zorder=1)
    panels[1].set_xlim(min(0.0, panels[1].get_xlim()[0]), max(1.2, panels[1].get_xlim()[1]))
    panels[1].set_yticklabels([])
    return figure


@matplotlib.rc_context(STYLE)
def performance_profiles(trials: pd.DataFrame, axes: Sequence[str], look_of: dict[tuple, Look]) -> Figure:
    """Share of runs, over all tasks, that return more (cost at most) so much, with 95 % bootstrap bands.

    Methods that lack a task are left out: their profile would be of easier or harder tasks than the others'.
    """
    tasks = sorted(trials["task"].unique())
    shown = [(look, part) for look, part in each_look(trials, axes, look_of) if part["task"].nunique() == len(tasks)]
    handles, legend_title = legend_of([look for look, _ in shown])
    for handle in handles:
        handle.set_marker("")
    figure, panels = sheet(2, 2, (4.1, 3.0), handles, legend_title=legend_title)
    for panel, metric in zip(panels, ("normalized_return", "normalized_cost"), strict=True):
        low, high = trials[metric].min(), trials[metric].max()
        margin = 0.05 * max(high - low, 1e-6)
        thresholds = np.linspace(low - margin, high + margin, 201)
        for look, part in shown:
            matrix = run_matrix(part, metric, tasks)
            panel.plot(thresholds, _profile(matrix, thresholds, metric), color=look.color, linestyle=look.line)
            if len(matrix) > 1 and len(shown) <= LEGEND_ENTRIES:
                band = _band(matrix, thresholds, metric)
                panel.fill_between(thresholds, *band, color=look.color, alpha=0.12, linewidth=0)
        panel.set(xlim=(thresholds[0], thresholds[-1]), ylim=(-0.02, 1.02), ylabel="share of runs")
    panels[0].set(xlabel="normalized return > x")
    panels[1].set(xlabel="normalized cost ≤ x")
    panels[1].axvline(1, color=VERMILION, linewidth=1.1)
    return figure


@matplotlib.rc_context(STYLE)
def improvement(compared: pd.DataFrame) -> Figure:
    """Probability that a run of SafeMIL costs less, and returns more, than a run of each other method."""
    figure, panels = sheet(2, 2, (3.9, 0.75 + 0.27 * len(compared)), [])
    names = [labels.method_label(method) for method in compared["method"]]
    titles = {"safer": "P(SafeMIL costs less)", "better_return": "P(SafeMIL returns more)"}
    for panel, (column, title) in zip(panels, titles.items(), strict=True):
        for height, row in enumerate(compared.to_dict("records")):
            face = "white" if row["role"] == "oracle" else "black"
            panel.plot(
                [row[f"{column}_low"], row[f"{column}_high"]], [height] * 2, color=GREY, linewidth=3.2, alpha=0.45
            )
            panel.plot([row[column]], [height], "o", color="black", markerfacecolor=face, markersize=6)
        panel.axvline(0.5, color=GREY, linewidth=1.0)
        panel.set(xlim=(-0.03, 1.03), ylim=(len(names) - 0.5, -0.5), xlabel=title)
        panel.set_yticks(range(len(names)), names if column == "safer" else [])
        panel.grid(False, axis="y")
    return figure


def _profile(matrix: np.ndarray, thresholds: np.ndarray, metric: str) -> np.ndarray:
    above = aggregates.performance_profile(matrix, thresholds)
    return above if metric == "normalized_return" else 1.0 - above


def _band(matrix: np.ndarray, thresholds: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether a run is above a threshold is a column of its own, so that its share is a mean of redrawn runs."""
    runs, tasks = matrix.shape
    rng = np.random.default_rng(0)
    times_drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=(BAND_REPETITIONS, tasks))
    above = (matrix[..., None] > thresholds).astype(float)
    shares = np.einsum("btr,rts->bs", times_drawn, above) / matrix.size
    return np.quantile(shares if metric == "normalized_return" else 1.0 - shares, [0.025, 0.975], axis=0)
