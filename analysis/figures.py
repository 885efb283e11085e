"""Which figures a run gets, in which order, with what is said below each. Driven by what the run holds.

In: a ``Run`` and its summaries. Out: ``Drawing``s. Figures that need files of the trials (curves.csv, scores.csv,
example_steps.csv) are left out where these are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis import calibration_figures, labels, overview_figures, setting_figures, sweeps, tables
from analysis.load import CURVE_COLUMNS, Run, load_trial_tables
from analysis.styles import each_style, styles

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

    @property
    def pixels(self) -> int:
        """How wide the page shows it at most, so that letters are of one size in all figures."""
        return round(100 * self.figure.get_figwidth())


def draw_all(run: Run, by_task: pd.DataFrame, over_tasks: pd.DataFrame, compared: pd.DataFrame) -> Iterator[Drawing]:
    """Every figure of the run, in the order of the page; the first is shown above the tables."""
    yield from _overviews(run, by_task, over_tasks, compared)
    yield from _by_setting(run, by_task)
    yield from _learning_curves(run, by_task)
    yield from _calibration(run, by_task)


def _overviews(run: Run, by_task: pd.DataFrame, over_tasks: pd.DataFrame, compared: pd.DataFrame) -> Iterator[Drawing]:
    section, style_of = "Overview", styles(by_task, run.axes)
    caption = (
        "Large marks: means over seeds, with 95 % t intervals; small ones: seeds. Dashed: the cost limit; hollow:"
        " oracles. An interval at the edge goes on beyond it. Costs above four limits are on a logarithmic scale."
    )
    figure = overview_figures.forest(run.trials, run.axes, style_of)
    yield Drawing("forest", "First", "Cost and return by task", caption, figure)
    caption = "Small points are seeds, large ones their mean; hollow ones are oracles. Better is up and to the left."
    figure = overview_figures.return_cost_plane(run.trials, run.axes, style_of)
    yield Drawing("return_cost", section, "Return against cost", caption, figure)
    if len(over_tasks):
        caption = "Points: mean of the middle half of all seeds and tasks; bars: 95 % stratified bootstrap intervals."
        known = over_tasks[over_tasks["normalized_cost_iqm"].notna()]
        figure = overview_figures.interquartile_means(known, run.axes, style_of, "all tasks")
        yield Drawing("interquartile_means", section, "Interquartile means over all tasks", caption, figure)
        caption = "Share of runs (seeds of all tasks) beyond each level, with 95 % bootstrap bands: higher is better."
        figure = overview_figures.performance_profiles(run.trials, run.axes, style_of)
        yield Drawing("performance_profiles", section, "Performance profiles", caption, figure)
    if len(compared) > 1:
        caption = "Mann-Whitney over runs, averaged over tasks; bars: 95 % bootstrap intervals; hollow: oracles."
        figure = overview_figures.improvement(compared)
        yield Drawing("improvement", section, "SafeMIL against each method", caption, figure)


def _by_setting(run: Run, by_task: pd.DataFrame) -> Iterator[Drawing]:
    for axis in run.axes:
        others = [other for other in run.axes if other != axis]
        caption = (
            "Values evenly spaced. Small points are seeds, large ones their mean with its 95 % t interval; level lines"
            " are methods without this setting."
        )
        if run.trials["mil_loss_final"].notna().any():
            caption += " A MIL loss below its bound means that D_N was memorized, or is unlike D_U."
        title = labels.axis_title(axis)
        for task in sorted({key[0] for key, _ in tables.varying_blocks(by_task, axis, others)}):
            figure = setting_figures.axis_curves(run.trials, task, axis, others)
            said = f"{caption} {reliable_text(run, task, axis)}".strip()
            name = f"by_{axis.replace('.', '_')}_{task}"
            yield Drawing(name, f"By {title}", f"{task}: by {title}", said, figure)


def reliable_text(run: Run, task: str, axis: str) -> str:
    """From which value on SafeMIL separates reliably on a task, with the rule; "" where that is not asked."""
    mine = run.trials[(run.trials["task"] == task) & (run.trials["method"] == "safemil")]
    if axis not in sweeps.ORDERED_AXES or mine["auroc"].isna().all() or len(run.axes) > 1:
        return ""
    value = sweeps.reliable_from(mine, axis)
    name = labels.axis_short(axis)
    found = f"{name} = {labels.value_text(value)}" if value is not None else f"no {name} of this run"
    return f"Smallest that separates reliably: {found}. {sweeps.RULE}"


def _learning_curves(run: Run, by_task: pd.DataFrame) -> Iterator[Drawing]:
    curves, style_of = load_trial_tables(run, "curves.csv", CURVE_COLUMNS), styles(by_task, run.axes)
    caption = (
        "Mean over seeds at the steps that all seeds have; bands are 95 % t intervals of that mean, SafeMIL's alone"
        " where there are many curves."
    )
    for task in sorted(run.trials["task"].unique()):
        figure = setting_figures.learning_curves(curves, task, run.axes, style_of)
        if figure is not None:
            yield Drawing(f"curves_{task}", "Learning curves", f"{task}: learning curves", caption, figure)


def _calibration(run: Run, by_task: pd.DataFrame) -> Iterator[Drawing]:
    section, style_of = "The learned score against the truth", styles(by_task, run.axes)
    scores = load_trial_tables(run, "scores.csv", SCORE_COLUMNS)
    for column in ("predicted_cost", "weight"):
        scores[column] = pd.to_numeric(scores.get(column), errors="coerce")
    steps = load_trial_tables(run, "example_steps.csv", STEP_COLUMNS)
    unused = "Trajectories that training never used, all seeds together."
    ranks = f"{unused} Ranks are within a trial; a good score keeps preferred trajectories left of non-preferred ones."
    kinds = [
        ("scores", "ranks of the scores", calibration_figures.score_ranks, ranks),
        ("predicted_true", "score against true cost", calibration_figures.predicted_against_true, unused),
        ("weights", "weights against true cost", calibration_figures.weights_against_cost, "D_U, all seeds together."),
    ]
    for task in sorted(scores["task"].unique()):
        for name, title, draw, caption in kinds:
            figure = draw(scores, task, run.axes, style_of)
            if figure is not None:
                yield Drawing(f"{name}_{task}", section, f"{task}: {title}", caption, figure)
        mine = steps[(steps["task"] == task) & (steps["method"] == "safemil")]
        if len(mine):
            shown = mine[mine["trial_id"] == mine["trial_id"].iloc[-1]]
            ((style, _),) = each_style(shown, run.axes, style_of)
            figure = calibration_figures.steps_of_examples(shown, task, style)
            said = f"Trial {shown['trial_id'].iloc[0]}: the trajectories of median cost in their bands, not trained on."
            yield Drawing(f"steps_{task}", section, f"{task}: predicted cost step by step", said, figure)
