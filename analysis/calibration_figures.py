"""What the learned score says beside the truth: ranks, calibration, weights, and a trajectory step by step.

In: scores.csv and example_steps.csv of the trials (safemil/evaluation/calibration.py), as one long table each. Out: a
``Figure`` each, a panel per method and setting, all seeds together. A score is the predicted cost where a method learns
one, and a discriminator's output elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import labels, styles
from baselines.registry import METHODS
from safemil.evaluation import metrics

MOST_PANELS = 12  # of one task; more settings than this are thinned out evenly
MOST_POINTS = 3000  # with more in a figure they are an image inside it
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
def score_ranks(scores: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Where trajectories that training never used rank by score: a cumulative share of each kind.

    Ranks are taken within a trial, since scores of two seeds have two scales; the farther apart the curves, the better.
    """
    handles = [
        Line2D([], [], color=color, linestyle=line, label=labels.mathtext(name))
        for name, (color, line) in GROUPS.items()
    ]
    figure, parts = _panels(_held_out(scores), axes, style_of, handles)
    for panel, title, mine in parts:
        groups = [mine["set"] == "D_N", mine["band"] == "nonpreferred", mine["band"] == "preferred"]
        kind = np.select(groups, list(GROUPS), default="")
        ranks = mine.assign(rank=mine.groupby("trial_id")["predicted_cost"].rank(pct=True), kind=kind)
        for name, (color, line) in GROUPS.items():
            if (kind == name).any():
                own = ranks[ranks["kind"] == name]
                seaborn.ecdfplot(own, x="rank", color=color, linestyle=line, linewidth=1.8, ax=panel)
        panel.plot([0, 1], [0, 1], color=styles.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        panel.set(title=title, xlabel="rank of the score", ylabel="share of trajectories", xlim=(0, 1))
    return figure


@matplotlib.rc_context(styles.STYLE)
def predicted_against_true(scores: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Mean score over true cost of each trajectory that training never used, with Spearman's correlation."""
    return _scatter(_held_out(scores), "predicted_cost", "score, mean over steps", axes, style_of)


@matplotlib.rc_context(styles.STYLE)
def weights_against_cost(scores: pd.DataFrame, axes: Sequence[str], style_of: dict) -> Figure | None:
    """Weight of each trajectory of D_U (mean 1) over its true cost."""
    return _scatter(scores[scores["weight"].notna()], "weight", "weight (mean 1)", axes, style_of)


@matplotlib.rc_context(styles.STYLE)
def steps_of_examples(steps: pd.DataFrame) -> Figure:
    """Predicted cost along one non-preferred and one preferred trajectory, the steps that truly cost shaded.

    ``steps`` are those of one trial of each task. The AUROC is inside the trajectory: pooled over trajectories it may
    be high because kinds of agents are told apart, not costly steps.
    """
    examples = list(steps.groupby(["task", "trajectory"], sort=False))
    color = METHODS["safemil"].color
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=color, linewidth=1.2, label="SafeMIL's predicted cost"),
        Patch(facecolor=styles.NONPREFERRED, alpha=0.22, label="true cost > 0"),
    ]
    figure, panels = styles.panel_grid(len(examples), 2, (4.6, 1.75), handles)
    for panel, ((task, _), mine) in zip(panels, examples, strict=True):
        here = steps.loc[steps["task"] == task, "predicted_cost"]
        margin = 0.08 * max(here.max() - here.min(), 1e-6)
        costs = mine["true_cost"].to_numpy() > 0
        panel.plot(mine["step"], mine["predicted_cost"], color=color, linewidth=1.2)
        _shade_cost(panel, mine["step"].to_numpy(), costs)
        title = f"{task}, {BANDS[mine['band'].iloc[0]][0]}, true cost {mine['true_cost'].sum():g}"
        if 0 < costs.sum() < len(costs):
            predicted = mine["predicted_cost"].to_numpy()
            title += f"; AUROC {metrics.auroc(predicted[costs], predicted[~costs]):.2f}"
        panel.set_title(title, fontsize=9, loc="left")
        panel.set(xlim=(0, len(mine)), ylim=(here.min() - margin, here.max() + margin), xlabel="step")
    return figure


def _held_out(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[scores["predicted_cost"].notna() & (scores["part"] != "train")]


def _scatter(here: pd.DataFrame, column: str, ylabel: str, axes: Sequence[str], style_of: dict) -> Figure | None:
    """``column`` over the true cost of each trajectory, a panel per task, method and setting, bands told apart."""
    used = {band: BANDS[band] for band in BANDS if (here["band"] == band).any()}
    handles = [Line2D([], [], linestyle="none", label=name, color=c, marker=m) for name, c, m in used.values()]
    handles.append(Line2D([], [], color=styles.INK, linestyle=(0, (4, 2)), linewidth=1.0, label="cost limit"))
    figure, parts = _panels(here, axes, style_of, handles)
    for panel, title, mine in parts:
        for band, (_, color, marker) in used.items():
            own = mine[mine["band"] == band]
            mark: dict[str, Any] = {
                "marker": marker,
                "markersize": 3.6,
                "markeredgewidth": 0,
                "color": color,
                "alpha": 0.5,
            }
            panel.plot(own["true_cost"], own[column], linestyle="none", rasterized=len(here) > MOST_POINTS, **mark)
        panel.axvline(mine["cost_limit"].iloc[0], color=styles.INK, linestyle=(0, (4, 2)), linewidth=1.0)
        # Within each trial: two seeds have two scales.
        found = [metrics.spearman(own[column], own["true_cost"]) for _, own in mine.groupby("trial_id") if len(own) > 2]
        note = f", ρ {np.mean(found):.2f}" if found and np.isfinite(found).all() else ""
        panel.set(title=title + note, xlabel="true cost", ylabel=ylabel)
    return figure


def _panels(
    table: pd.DataFrame, axes: Sequence[str], style_of: dict, handles: list
) -> tuple[Figure | None, list[tuple[Axes, str, pd.DataFrame]]]:
    """(panel, title, rows) for each task, method and setting; one task's panels are thinned out to MOST_PANELS."""
    parts: list[tuple[str, pd.DataFrame]] = []
    several = table["task"].nunique() > 1
    for task, here in table.groupby("task", sort=True):
        own = list(styles.each_style(here, axes, style_of))
        kept = np.unique(np.linspace(0, len(own) - 1, min(len(own), MOST_PANELS)).round().astype(int))
        parts += [(f"{task}\n" * several + own[i][0].label, own[i][1]) for i in kept]
    if not parts:
        return None, []
    # A row for each task where all have as many panels.
    abreast, rest = divmod(len(parts), table["task"].nunique())
    columns = abreast if several and not rest and abreast <= 6 else 2 if len(parts) == 4 else 3
    size = (2.2, 2.1) if columns > 3 else (3.3, 2.4) if len(parts) > 1 else (5.6, 2.8)
    figure, panels = styles.panel_grid(len(parts), columns, size, handles)
    return figure, [(panel, *part) for panel, part in zip(panels, parts, strict=True)]


def _shade_cost(panel: Axes, steps: np.ndarray, costs: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], costs, [False]]).astype(int)))
    for first, after in edges.reshape(-1, 2):
        panel.axvspan(steps[first], steps[after - 1] + 1, color=styles.NONPREFERRED, alpha=0.22, linewidth=0)
