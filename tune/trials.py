"""Trials, and the expansion of a grid into them. Pure: nothing is read, written, imported late or started.

A trial is one (task, method, seed) at one point of the grid's axes; trials that differ in their seed alone are trained
as one pack. A trial's id is readable and ends in a fingerprint of everything that defines it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baselines.registry import find_method
from safemil.config.checks import checked_seed
from safemil.config.errors import UserError
from safemil.config.overrides import dotted_fields, fingerprint, flatten, override, to_dict, unknown_setting
from safemil.config.settings import EvaluationConfig, SplitConfig
from safemil.data.tasks import find_task
from tune.grids import PRESETS, Grid
from tune.tuning import stored_settings


@dataclass(frozen=True)
class Trial:
    """Everything that defines one result."""

    task: str
    method: str
    seed: int
    split: SplitConfig
    evaluation: EvaluationConfig
    config: Any  # the method's settings

    def to_dict(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {
            "task": self.task,
            "method": self.method,
            "seed": self.seed,
            "split": to_dict(self.split),
            "evaluation": to_dict(self.evaluation),
            "method_config": to_dict(self.config),
        }

    @property
    def id(self) -> str:
        """``BallCircle-safemil-s0-3f9a1c2b``."""
        return f"{self.task}-{self.method}-s{self.seed}-{fingerprint(self.to_dict())}"

    @property
    def pack_id(self) -> str:
        """Shared by the trials that differ in their seed alone."""
        return f"{self.task}-{self.method}-{fingerprint({**self.to_dict(), 'seed': None})}"


def trial_from_dict(values: Mapping[str, Any]) -> Trial:
    """The inverse of ``Trial.to_dict``."""
    method = find_method(values["method"])
    return Trial(
        values["task"],
        values["method"],
        values["seed"],
        override(SplitConfig(), values["split"]),
        override(EvaluationConfig(), values["evaluation"]),
        override(method.config(), flatten(values["method_config"])),
    )


@dataclass(frozen=True)
class _Sections:
    """The settings of one trial side by side, so that dotted names reach all of them."""

    split: SplitConfig
    evaluation: EvaluationConfig
    method: Any

    def names(self) -> dict[str, Any]:
        return {
            **dotted_fields(self.split, "split."),
            **dotted_fields(self.evaluation, "evaluation."),
            **dotted_fields(self.method),
        }

    def override(self, values: Mapping[str, Any]) -> _Sections:
        """Apply those of ``values`` that this method has."""
        known = {name: value for name, value in values.items() if name in self.names()}
        parts: dict[str, dict[str, Any]] = {"split": {}, "evaluation": {}, "method": {}}
        for name, value in known.items():
            head, _, rest = name.partition(".")
            parts[head if head in ("split", "evaluation") else "method"][rest if head in parts else name] = value
        return _Sections(*(override(getattr(self, part), changes) for part, changes in parts.items()))


def expand(
    grid: Grid,
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    preset: str | None = None,
    smoke: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> list[Trial]:
    """Every trial of the grid, packs together, in a stable order, none twice.

    Precedence: default, task, preset, smoke, tuned, point and axis, ``settings`` (the command line).

    Raises:
        UserError: an unknown task, method, preset or setting, a value out of range, or a setting no method has
            or one that the grid's points hold.
    """
    settings = dict(settings or {})
    for name in sorted({name for points in grid.points.values() for point in points for name in point} & set(settings)):
        raise UserError(f"{name} is set by the grid's own points; leave it out of --set")
    presets = [preset or grid.preset] + (["smoke"] if smoke else [])
    for name in presets:
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    used: set[str] = set()
    trials: dict[str, Trial] = {}
    chosen_seeds = list(dict.fromkeys(checked_seed(seed, "--seeds") for seed in (seeds or grid.seeds)))
    for task_name, method_name in itertools.product(tasks or grid.tasks, methods or grid.methods):
        task, method = find_task(task_name), find_method(method_name)
        base = _Sections(SplitConfig(), EvaluationConfig(), method.config())
        base = base.override({"split.cost_limit": task.cost_limit, "cost_model.segment_length": task.segment_length})
        for name in presets:
            base = base.override(PRESETS[name]).override(PRESETS[name].get(method_name, {}))
        if grid.tuned:
            base = base.override(stored_settings(task.name, method_name))
        used.update(base.names())
        axes = {name: values for name, values in grid.axes.items() if name in base.names() and name not in settings}
        for point, *values in itertools.product(grid.points.get(method_name, ({},)), *axes.values()):
            sections = base.override({**point, **dict(zip(axes, values, strict=True))}).override(settings)
            for seed in chosen_seeds:
                trial = Trial(task.name, method_name, seed, sections.split, sections.evaluation, sections.method)
                trials.setdefault(trial.id, trial)
    for name in settings:
        if name not in used:
            raise UserError(unknown_setting(name, used) + f"; methods: {', '.join(methods or grid.methods)}")
    return list(trials.values())


def packs(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that differ in their seed alone, together."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.pack_id, []).append(trial)
    return list(grouped.values())


def varying_axes(trials: Sequence[Trial]) -> list[str]:
    """Dotted names of the settings that differ between trials of the same task and method."""
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for trial in trials:
        values = flatten({"split": to_dict(trial.split), **to_dict(trial.config)})
        seen.setdefault((trial.task, trial.method), []).append(values)
    varying = {
        name
        for group in seen.values()
        for name in group[0]
        if any(values[name] != group[0][name] for values in group[1:])
    }
    return sorted(varying)
