"""What a run would do, on screen: the grids, tasks and methods there are; the packs of a grid. Starts nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from baselines.registry import METHODS
from safemil.config.overrides import flatten, to_dict
from safemil.data.tasks import TASKS
from tune.estimates import Estimate, estimate, rates
from tune.grids import GRIDS
from tune.trials import Trial, packs, varying_axes


def print_list() -> None:
    """Grids, tasks and methods."""

    console = Console()
    grids = Table("grid", "what it varies", "tasks", "methods", "seeds", title="Grids", title_justify="left", box=None)
    for name, grid in GRIDS.items():
        axes = ", ".join(f"{axis}: {' '.join(map(str, values))}" for axis, values in grid.axes.items())
        which = grid.tasks[0] if len(grid.tasks) == 1 else f"{len(grid.tasks)} tasks"
        grids.add_row(
            name, grid.summary + (f" ({axes})" if axes else ""), which, " ".join(grid.methods), str(len(grid.seeds))
        )
    methods = Table("method", "what it does", "what it sees", title="\nMethods", title_justify="left", box=None)
    for name, method in METHODS.items():
        methods.add_row(name, method.summary, method.sees + (" (oracle)" if method.oracle else ""))
    tasks = Table("task", "simulator", "steps", "limit", "dataset", title="\nTasks", title_justify="left", box=None)
    for task in TASKS.values():
        tasks.add_row(
            task.name, task.environment_id, str(task.horizon), f"{task.cost_limit:g}", task.file_name or "collected"
        )
    for table in (grids, methods, tasks):
        console.print(table)


def labels_of(trials: Sequence[Trial]) -> dict[str, dict[str, str]]:
    """Pack id -> what tells it from the others: task, method, the settings that vary, seeds."""

    axes = varying_axes(trials)
    last = [axis.rpartition(".")[2] for axis in axes]
    names = {axis: short if last.count(short) == 1 else axis for axis, short in zip(axes, last, strict=True)}
    labels = {}
    for pack in packs(trials):
        values = flatten({"split": to_dict(pack[0].split), **to_dict(pack[0].config)})
        varying = {names[axis]: str(values.get(axis, "")) for axis in axes}
        seeds = "seeds " + " ".join(str(trial.seed) for trial in pack)
        labels[pack[0].pack_id] = {"task": pack[0].task, "method": pack[0].method, **varying, "seeds": seeds}
    return labels


def print_trials(trials: Sequence[Trial], destination: str) -> None:
    """The dry run: one line per pack, and the total."""

    table = Table(box=None)
    labels = labels_of(trials)
    for column in next(iter(labels.values())):
        table.add_column(column)
    table.add_column("cost steps", justify="right")
    table.add_column("policy steps", justify="right")
    table.add_column("episodes", justify="right")
    for pack in packs(trials):
        config, evaluation = pack[0].config, pack[0].evaluation
        cost_steps = f"{config.cost_model.steps:,}" if hasattr(config, "cost_model") else ""
        episodes = evaluation.episodes + (evaluation.checkpoints - 1) * evaluation.checkpoint_episodes
        table.add_row(
            *labels[pack[0].pack_id].values(), cost_steps, f"{config.policy.steps:,}", f"{episodes * len(pack):,}"
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(f"{len(trials)} trials in {len(packs(trials))} packs; results in {destination}", highlight=False)
    console.print(estimates_of(trials))
    console.print(f"Rates: {rates()['measured']}", style="dim", highlight=False)


def estimates_of(trials: Sequence[Trial]) -> Table:
    """What the trials take, task by task, and in all."""

    per_task, on_gpu = estimate(trials), estimate(trials, "cuda")
    table = Table(box=None)
    table.add_column("task")
    for column in ("training, core hours", "or GPU hours", "rollouts, core hours", "memory of a pack", "disk"):
        table.add_column(column, justify="right")
    rows = {**per_task, "all": sum(per_task.values(), Estimate())} if len(per_task) > 1 else per_task
    gpu = {**on_gpu, "all": sum(on_gpu.values(), Estimate())}
    for name, cost in rows.items():
        table.add_row(
            name,
            f"{cost.training_hours:,.2f}",
            "not measured" if math.isnan(gpu[name].training_hours) else f"{gpu[name].training_hours:,.2f}",
            f"{cost.rollout_hours:,.2f}",
            f"{cost.memory / 1e9:.1f} GB",
            f"{cost.disk / 1e6:,.0f} MB",
        )
    return table
