"""Which figures a run gets, in which order, with what is said below each: one a question. Driven by what the run holds.

In: a ``Run`` and its summaries. Out: ``Drawing``s. Figures that need files of the trials (curves.csv, scores.csv,
example_steps.csv) are left out where these are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis import calibration_figures, labels, overview_figures, setting_figures, sweeps
from analysis.load import CURVE_COLUMNS, Run, load_trial_tables
from analysis.styles import styles

SCORE_COLUMNS = ("set", "part", "band", "true_cost")
STEP_COLUMNS = ("trajectory", "band", "step", "predicted_cost", "true_cost")


@dataclass(frozen=True)
class Drawing:
    """A figure on its way to the page: the stem of its file names, its section and heading, and what it shows."""

    name: str
    section: str
    title: str
    caption: str
    figure: Figure
    narrow: Figure | None = None  # the same for a phone: one panel above the other

    @property
    def pixels(self) -> int:
        """How wide the page shows it at most, so that letters are of one size in all figures."""
        return round(100 * self.figure.get_figwidth())


def draw_all(run: Run, by_task: pd.DataFrame, over_tasks: pd.DataFrame) -> Iterator[Drawing]:
    """Every figure of the run, in the order of the page; the first is shown above the tables."""
    style_of = styles(by_task, run.axes)

    def both(draw: Callable[..., Figure | None], *inputs: object) -> tuple:
        return draw(*inputs), draw(*inputs, narrow=True)

    caption = (
        "Large marks: means over seeds, with 95 % t intervals; small ones: seeds. Dashed: the cost limit; hollow:"
        " oracles. An interval at the edge goes on beyond it. Costs above four limits are on a logarithmic scale."
    )
    figures = both(overview_figures.forest, run.trials, run.axes, style_of)
    yield Drawing("forest", "First", "Cost and return by task", caption, *figures)
    caption = (
        "Small points are seeds, large ones their mean; hollow ones are oracles. Better is up and to the left. Shaded:"
        " over the limit."
    )
    figures = both(overview_figures.return_cost_plane, run.trials, run.axes, style_of)
    yield Drawing("return_cost", "Return against cost", "Return against cost", caption, *figures)
    for axis in run.axes:
        title = f"By {labels.axis_title(axis)}"
        figures = both(setting_figures.axis_curves, *_varying(run, axis))
        yield Drawing(f"by_{axis.replace('.', '_')}", title, title, _axis_caption(run, axis), *figures)
    if len(over_tasks):
        caption = "Share of runs (seeds of all tasks) beyond each level, with 95 % bootstrap bands: higher is better."
        figure = overview_figures.performance_profiles(run.trials, run.axes, style_of)
        yield Drawing("performance_profiles", "Performance profiles", "Performance profiles", caption, figure)
    caption = (
        "Mean over seeds at the steps that all seeds have; bands are 95 % t intervals of that mean, SafeMIL's alone"
        " where there are many curves."
    )
    curves = load_trial_tables(run, "curves.csv", CURVE_COLUMNS)
    drawn = setting_figures.learning_curves(curves, run.axes, style_of)
    if drawn is not None:
        yield Drawing("curves", "Learning curves", "Learning curves", caption, drawn)
    yield from _calibration(run, style_of)


def _varying(run: Run, axis: str) -> tuple:
    """Trials of the tasks in which the setting varies, the setting, and the other ones."""
    counted = run.trials[run.trials[axis] != ""].groupby("task")[axis].nunique()
    tasks = counted[counted > 1].index
    return run.trials[run.trials["task"].isin(tasks)], axis, [other for other in run.axes if other != axis]


def _axis_caption(run: Run, axis: str) -> str:
    caption = (
        "Values evenly spaced. Small points are seeds, large ones their mean with its 95 % t interval; level lines are"
        " methods without this setting. Costs above four limits are on a logarithmic scale."
    )
    if run.trials["mil_loss_final"].notna().any():
        caption += " A MIL loss below its bound means that D_N was memorized, or is unlike D_U."
    mine = run.trials[run.trials["method"] == "safemil"]
    if axis not in sweeps.ORDERED_AXES or mine["auroc"].isna().all() or len(run.axes) > 1:
        return caption
    name, found = labels.axis_short(axis), []
    for task, here in mine.groupby("task", sort=True):
        value = sweeps.reliable_from(here, axis)
        found.append(f"{f'{name} = {labels.value_text(value)}' if value is not None else f'no {name}'} on {task}")
    return f"{caption} Smallest that separates reliably: {', '.join(found)}. {sweeps.RULE}"


def _calibration(run: Run, style_of: dict) -> Iterator[Drawing]:
    section = "The learned score against the truth"
    scores = load_trial_tables(run, "scores.csv", SCORE_COLUMNS)
    for column in ("predicted_cost", "weight"):
        scores[column] = pd.to_numeric(scores.get(column), errors="coerce")
    unused = "Trajectories that training never used, all seeds together."
    ranks = f"{unused} Ranks are within a trial; a good score keeps preferred trajectories left of non-preferred ones."
    spearman = "ρ: Spearman's correlation within a trial, mean over seeds."
    for name, title, draw, caption in (
        ("scores", "Ranks of the scores", calibration_figures.score_ranks, ranks),
        (
            "predicted_true",
            "Score against true cost",
            calibration_figures.predicted_against_true,
            f"{unused} {spearman}",
        ),
        (
            "weights",
            "Weights against true cost",
            calibration_figures.weights_against_cost,
            f"D_U, all seeds. {spearman}",
        ),
    ):
        figure = draw(scores, run.axes, style_of)
        if figure is not None:
            yield Drawing(name, section, title, caption, figure)
    steps = load_trial_tables(run, "example_steps.csv", STEP_COLUMNS)
    mine = steps[steps["method"] == "safemil"]
    shown = mine[mine["trial_id"].isin(mine.groupby("task")["trial_id"].last())].sort_values("task", kind="stable")
    if len(shown):
        caption = (
            "Trajectories of median cost in their bands, not trained on, as SafeMIL's last seed sees them; AUROC: of"
            " the steps inside the trajectory."
        )
        figure = calibration_figures.steps_of_examples(shown)
        yield Drawing("steps", section, "Predicted cost step by step", caption, figure)
