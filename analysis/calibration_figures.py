"""What the learned score says beside the truth: ranks, calibration, weights, and a trajectory step by step.

In: scores.csv and example_steps.csv of the trials (safemil/evaluation/calibration.py), as one long table each. Out: a
``Figure`` each, a panel per method and setting, all seeds together. A score is the predicted cost where a method learns
one, and a discriminator's output elsewhere.
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
from matplotlib.patches import Patch

from analysis import labels, styles
from safemil.evaluation import metrics

MOST_PANELS = 12  # more settings than this are thinned out evenly
# name -> color, line; of trajectories that were never trained on
GROUPS = {
    "D_N, held out": (styles.NONPREFERRED, (0, (1, 1))),
    "non-preferred": (styles.NONPREFERRED, "-"),
    "preferred": (styles.PREFERRED, "-"),
}
# band -> name, color, marker
BANDS = {
    "nonpreferred": ("non-preferred", styles.NONPREFERRED, "X"),
    "preferred": ("preferred", styles.PREFERRED, "o"),
    "between": ("between the bands", styles.BETWEEN, "s"),
}


@matplotlib.rc_context(styles.STYLE)
def score_ranks(scores: pd.DataFrame, task: str, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Where trajectories that training never used rank by score: a cumulative share of each kind.

    Ranks are taken within a trial, since scores of two seeds have two scales; the farther apart the curves, the better.
    """
    here = _held_out(scores, task)
    parts = _thinned(here, axes, style_of)
    if not parts:
        return None
    handles = [
        Line2D([], [], color=color, linestyle=line, label=labels.mathtext(name))
        for name, (color, line) in GROUPS.items()
    ]
    figure, panels = styles.panel_grid(len(parts), _columns(parts), _panel_size(parts), handles, task)
    for panel, (style, mine) in zip(panels, parts, strict=True):
        groups = [mine["set"] == "D_N", mine["band"] == "nonpreferred", mine["band"] == "preferred"]
        kind = np.select(groups, list(GROUPS), default="")
        ranks = mine.assign(rank=mine.groupby("trial_id")["predicted_cost"].rank(pct=True), kind=kind)
        for name, (color, line) in GROUPS.items():
            if (kind == name).any():
                own = ranks[ranks["kind"] == name]
                seaborn.ecdfplot(own, x="rank", color=color, linestyle=line, linewidth=1.8, ax=panel)
        panel.plot([0, 1], [0, 1], color=styles.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        panel.set(title=style.label, xlabel="rank of the score", ylabel="share of trajectories", xlim=(0, 1))
    return figure


@matplotlib.rc_context(styles.STYLE)
def predicted_against_true(scores: pd.DataFrame, task: str, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Mean score over true cost of each trajectory that training never used, with Spearman's correlation."""
    return _scatter(_held_out(scores, task), "predicted_cost", "score, mean over steps", task, axes, style_of)


@matplotlib.rc_context(styles.STYLE)
def weights_against_cost(scores: pd.DataFrame, task: str, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Weight of each trajectory of D_U (mean 1) over its true cost."""
    here = scores[(scores["task"] == task) & scores["weight"].notna()]
    return _scatter(here, "weight", "weight (mean 1)", task, axes, style_of)


@matplotlib.rc_context(styles.STYLE)
def steps_of_examples(steps: pd.DataFrame, task: str, style: styles.Style) -> Figure:
    """Predicted cost along one non-preferred and one preferred trajectory, the steps that truly cost shaded.

    ``steps`` are those of one trial. The AUROC is inside the trajectory: pooled over trajectories it may be high
    because kinds of agents are told apart, not costly steps.
    """
    examples = list(steps.groupby("trajectory", sort=False))
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=style.color, linewidth=1.2, label="predicted cost"),
        Patch(facecolor=styles.NONPREFERRED, alpha=0.22, label="true cost > 0"),
    ]
    figure, panels = styles.panel_grid(len(examples), 1, (8.2, 1.9), handles, f"{task}, {style.label}")
    low, high = steps["predicted_cost"].min(), steps["predicted_cost"].max()
    margin = 0.08 * max(high - low, 1e-6)
    for panel, (_, mine) in zip(panels, examples, strict=True):
        costs = mine["true_cost"].to_numpy() > 0
        panel.plot(mine["step"], mine["predicted_cost"], color=style.color, linewidth=1.2)
        _shade_cost(panel, mine["step"].to_numpy(), costs)
        title = f"{BANDS[mine['band'].iloc[0]][0]} trajectory, true cost {mine['true_cost'].sum():g}"
        if 0 < costs.sum() < len(costs):
            predicted = mine["predicted_cost"].to_numpy()
            title += f"; AUROC of its steps {metrics.auroc(predicted[costs], predicted[~costs]):.2f}"
        panel.set_title(title, fontsize=9, loc="left")
        panel.set(xlim=(0, len(mine)), ylim=(low - margin, high + margin), ylabel="predicted cost")
    panels[-1].set_xlabel("step")
    return figure


def _held_out(scores: pd.DataFrame, task: str) -> pd.DataFrame:
    return scores[(scores["task"] == task) & scores["predicted_cost"].notna() & (scores["part"] != "train")]


def _scatter(
    here: pd.DataFrame, column: str, ylabel: str, task: str, axes: Sequence[str], style_of: dict
) -> Figure | None:
    """``column`` over the true cost of each trajectory, a panel per method and setting, bands told apart."""
    parts = _thinned(here, axes, style_of)
    if not parts:
        return None
    used = {band: BANDS[band] for band in BANDS if (here["band"] == band).any()}
    handles = [Line2D([], [], linestyle="none", label=name, color=c, marker=m) for name, c, m in used.values()]
    handles.append(Line2D([], [], color=styles.INK, linestyle=(0, (4, 2)), linewidth=1.0, label="cost limit"))
    figure, panels = styles.panel_grid(len(parts), _columns(parts), _panel_size(parts), handles, task)
    for panel, (style, mine) in zip(panels, parts, strict=True):
        look = {"palette": {band: color for band, (_, color, _) in used.items()}, "hue_order": list(used)}
        look |= {"markers": {band: marker for band, (*_, marker) in used.items()}, "style_order": list(used)}
        x = {"data": mine, "x": "true_cost", "y": column, "hue": "band", "style": "band"}
        seaborn.scatterplot(**x, **look, s=14, alpha=0.5, linewidth=0, legend=False, ax=panel)
        panel.axvline(mine["cost_limit"].iloc[0], color=styles.INK, linestyle=(0, (4, 2)), linewidth=1.0)
        # Within each trial: two seeds have two scales.
        found = [metrics.spearman(own[column], own["true_cost"]) for _, own in mine.groupby("trial_id") if len(own) > 2]
        note = f", Spearman {np.mean(found):.2f}" if found and np.isfinite(found).all() else ""
        panel.set(title=style.label + note, xlabel="true cost", ylabel=ylabel)
    return figure


def _shade_cost(panel: Axes, steps: np.ndarray, costs: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], costs, [False]]).astype(int)))
    for first, after in edges.reshape(-1, 2):
        panel.axvspan(steps[first], steps[after - 1] + 1, color=styles.NONPREFERRED, alpha=0.22, linewidth=0)


def _columns(parts: list) -> int:
    return 2 if len(parts) == 4 else 3


def _panel_size(parts: list) -> tuple[float, float]:
    return (3.3, 2.4) if len(parts) > 1 else (5.6, 2.8)


def _thinned(table: pd.DataFrame, axes: Sequence[str], style_of: dict) -> list[tuple[styles.Style, pd.DataFrame]]:
    parts = list(styles.each_style(table, axes, style_of))
    if len(parts) <= MOST_PANELS:
        return parts
    return [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, MOST_PANELS).round().astype(int))]
