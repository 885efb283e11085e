"""What the learned cost says beside the truth: score histograms, weights, and a trajectory step by step.

In: scores.csv and example_steps.csv of the trials (safemil/evaluation/calibration.py), as one long table each. Out: a
``Figure`` each, a panel per method and setting, all seeds together.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.canvas import each_look, sheet
from analysis.looks import BLUE, GREY, STYLE, VERMILION, Look
from baselines.registry import ORANGE

MOST_PANELS = 12  # more settings than this are thinned out evenly
# name -> color, hatch or line; what was never trained on
GROUPS = {
    "D_N, held out": (VERMILION, "", "-"),
    "non-preferred": (ORANGE, "////", (0, (4, 1.5))),
    "preferred": (BLUE, "", (0, (1, 1))),
}
BAND_LOOKS = {
    "nonpreferred": {"marker": "x", "color": VERMILION},
    "preferred": {"marker": "o", "color": BLUE, "markerfacecolor": "none"},
    "between": {"marker": "s", "color": GREY},
}


@matplotlib.rc_context(STYLE)
def score_histograms(scores: pd.DataFrame, task: str, axes: Sequence[str], look_of: dict[tuple, Look]) -> Figure | None:
    """Mean predicted cost of trajectories that training never used: D_N, non-preferred and preferred ones."""
    here = scores[(scores["task"] == task) & scores["predicted_cost"].notna() & (scores["part"] != "train")]
    parts = _thinned(here, axes, look_of)
    if not parts:
        return None
    handles = [
        Patch(facecolor=(*matplotlib.colors.to_rgb(color), 0.35), edgecolor=color, hatch=hatch, label=name)
        for name, (color, hatch, _) in GROUPS.items()
    ]
    figure, panels = sheet(len(parts), _columns(parts), _panel_size(parts), handles, task)
    for panel, (look, mine) in zip(panels, parts, strict=True):
        bins = np.linspace(mine["predicted_cost"].min(), mine["predicted_cost"].max() + 1e-9, 31)
        nonpreferred = mine["band"] == "nonpreferred"
        groups = [
            mine[mine["set"] == "D_N"],
            mine[nonpreferred & (mine["set"] != "D_N")],
            mine[mine["band"] == "preferred"],
        ]
        for group, (color, hatch, line) in zip(groups, GROUPS.values(), strict=True):
            if len(group):
                share = np.full(len(group), 1 / len(group))
                style = {"facecolor": (*matplotlib.colors.to_rgb(color), 0.3), "edgecolor": color, "hatch": hatch}
                panel.hist(group["predicted_cost"], bins, weights=share, histtype="stepfilled", linestyle=line, **style)
        panel.set(title=look.label, xlabel="mean predicted cost", ylabel="share of trajectories")
    return figure


@matplotlib.rc_context(STYLE)
def predicted_against_true(scores: pd.DataFrame, task: str, axes: Sequence[str], look_of: dict) -> Figure | None:
    """Mean predicted cost over true cost of each trajectory that training never used."""
    here = scores[(scores["task"] == task) & scores["predicted_cost"].notna() & (scores["part"] != "train")]
    return _scatter(here, "predicted_cost", "mean predicted cost", task, axes, look_of)


@matplotlib.rc_context(STYLE)
def weights_against_cost(scores: pd.DataFrame, task: str, axes: Sequence[str], look_of: dict) -> Figure | None:
    """Weight of each trajectory of D_U (mean 1) over its true cost."""
    here = scores[(scores["task"] == task) & scores["weight"].notna()]
    return _scatter(here, "weight", "weight (mean 1)", task, axes, look_of)


@matplotlib.rc_context(STYLE)
def steps_of_examples(steps: pd.DataFrame, task: str, look: Look) -> Figure:
    """Predicted cost along one non-preferred and one preferred trajectory, the steps that truly cost shaded.

    ``steps`` are those of one trial.
    """
    examples = list(steps.groupby("trajectory", sort=False))
    handles = [
        Line2D([], [], color=look.color, linewidth=1.2, label="predicted cost"),
        Patch(facecolor=VERMILION, alpha=0.25, label="true cost > 0"),
    ]
    figure, panels = sheet(len(examples), 1, (8.2, 1.9), handles, f"{task}, {look.label}")
    low, high = steps["predicted_cost"].min(), steps["predicted_cost"].max()
    margin = 0.08 * max(high - low, 1e-6)
    for panel, (_, mine) in zip(panels, examples, strict=True):
        true = mine["true_cost"].to_numpy()
        panel.plot(mine["step"], mine["predicted_cost"], color=look.color, linewidth=1.2)
        _shade_cost(panel, mine["step"].to_numpy(), true > 0)
        kind = {"nonpreferred": "non-preferred", "preferred": "preferred"}.get(mine["band"].iloc[0], "other")
        panel.set_title(f"{kind} trajectory, true cost {true.sum():g}", fontsize=9, loc="left")
        panel.set(xlim=(0, len(mine)), ylim=(low - margin, high + margin), ylabel="predicted cost")
    panels[-1].set_xlabel("step")
    return figure


def _scatter(
    here: pd.DataFrame, column: str, ylabel: str, task: str, axes: Sequence[str], look_of: dict
) -> Figure | None:
    """``column`` over the true cost of each trajectory, a panel per method and setting, bands told apart."""
    parts = _thinned(here, axes, look_of)
    if not parts:
        return None
    names = {"nonpreferred": "non-preferred", "preferred": "preferred", "between": "between the bands"}
    used = [band for band in names if (here["band"] == band).any()]
    handles = [Line2D([], [], linestyle="none", label=names[band], **BAND_LOOKS[band]) for band in used]
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="cost limit"))
    figure, panels = sheet(len(parts), _columns(parts), _panel_size(parts), handles, task)
    for panel, (look, mine) in zip(panels, parts, strict=True):
        for band in used:
            group = mine[mine["band"] == band]
            style = {**BAND_LOOKS[band], "markersize": 3.2, "alpha": 0.6}
            panel.plot(group["true_cost"], group[column], linestyle="none", **style)
        panel.axvline(mine["cost_limit"].iloc[0], color=GREY, linestyle="--", linewidth=1.0)
        panel.set(title=look.label, xlabel="true cost", ylabel=ylabel)
    return figure


def _shade_cost(panel: Axes, steps: np.ndarray, costs: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], costs, [False]]).astype(int)))
    for first, after in edges.reshape(-1, 2):
        panel.axvspan(steps[first], steps[after - 1] + 1, color=VERMILION, alpha=0.25, linewidth=0)


def _columns(parts: list) -> int:
    return 2 if len(parts) == 4 else 3


def _panel_size(parts: list) -> tuple[float, float]:
    return (3.3, 2.4) if len(parts) > 1 else (5.6, 2.8)


def _thinned(table: pd.DataFrame, axes: Sequence[str], look_of: dict) -> list[tuple[Look, pd.DataFrame]]:
    parts = list(each_look(table, axes, look_of))
    if len(parts) <= MOST_PANELS:
        return parts
    return [parts[i] for i in np.unique(np.linspace(0, len(parts) - 1, MOST_PANELS).round().astype(int))]
