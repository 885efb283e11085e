"""The grids as data, and their expansion into trials. Pure: nothing is read, written, imported late or started.

A trial is one (task, method, seed) at one point of the grid's axes; trials that differ in their seed alone are trained
as one pack. A trial's id is readable and ends in a fingerprint of everything that defines it.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safemil.config import dotted_fields, fingerprint, override, to_dict, unknown_setting
from safemil.errors import UserError
from safemil.settings import EvaluationConfig, SplitConfig
from safemil.tasks import PAPER_TASKS, find_task
from tune.methods import METHODS, find_method

PRESETS: dict[str, dict[str, Any]] = {
    "bench": {},  # the defaults of safemil/settings.py
    "paper": {
        "mode": "joint",
        "cost_model.pairs": 1,
        "cost_model.steps": 1_000_000,
        "cost_model.learning_rate": 1e-5,
        "cost_model.schedule": "constant",
        "weights.kind": "exponential-segment",
        "policy.steps": 1_000_000,
        "policy.learning_rate": 1e-5,
        "policy.schedule": "linear",
        "policy.weight_decay": 0.01,
    },
    "demo": {
        "cost_model.steps": 3_000,
        "discriminator.steps": 3_000,
        "cost_model.bag_size": 64,
        "cost_model.pairs": 1,
        "policy.steps": 5_000,
        "evaluation.episodes": 20,
        "evaluation.checkpoints": 4,
        "evaluation.checkpoint_episodes": 5,
    },
    "smoke": {
        "cost_model.steps": 100,
        "discriminator.steps": 100,
        "cost_model.pairs": 1,
        "policy.steps": 100,
        "policy.batch_size": 64,
        "evaluation.episodes": 2,
        "evaluation.checkpoints": 2,
        "evaluation.checkpoint_episodes": 1,
        "split.n_nonpreferred": 10,
        "split.n_unlabeled": 40,
    },
}


@dataclass(frozen=True)
class Grid:
    """Tasks x methods x seeds x axes. An axis applies to the methods that have its setting."""

    summary: str
    tasks: tuple[str, ...] = PAPER_TASKS
    methods: tuple[str, ...] = ("safemil",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    preset: str = "bench"
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


LABEL_LIMITED = tuple(name for name, method in METHODS.items() if not method.oracle)

GRIDS: dict[str, Grid] = {
    "demo": Grid(
        "SafeMIL against cloning everything and against the oracle, in minutes on a laptop",
        tasks=("BallCircle",),
        methods=("safemil", "bc-all", "bc-safe"),
        seeds=(0, 1, 2),
        preset="demo",
    ),
    "paper": Grid("the paper's main table: six tasks, every imitation method", methods=(*LABEL_LIMITED, "bc-safe")),
    "ablation": Grid("cloning D_U alone beside SafeMIL: is D_U contaminated?", methods=("bc-all", "safemil")),
    "bagsize": Grid("bag size K", axes={"cost_model.bag_size": (1, 8, 16, 32, 64, 128, 256)}),
    "horizon": Grid("segment length H", axes={"cost_model.segment_length": (5, 10, 25, 50, 100, "full")}),
    "contamination": Grid(
        "share of D_N replaced by high-return preferred trajectories",
        axes={"split.contamination": (0.0, 0.25, 0.5, 0.75)},
    ),
    "oracle": Grid("learned against true cost", methods=("safemil", "oracle-cost", "bc-safe", "bc-all")),
    "weighting": Grid("cost to weight", axes={"weights.kind": ("hard", "linear", "exponential")}),
    "size": Grid("|D_N|", axes={"split.n_nonpreferred": (5, 10, 25, 50, 100)}),
    "mixture": Grid("share of D_U that is non-preferred", axes={"split.mixture": (0.2, 0.5, 0.8, 0.9, 0.95)}),
}


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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def find_grid(name: str) -> Grid:
    """The grid of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in GRIDS:
        near = difflib.get_close_matches(name, GRIDS, n=3, cutoff=0.4)
        raise UserError(f"unknown grid {name!r}; {'nearest' if near else 'known'}: {', '.join(near or GRIDS)}")
    return GRIDS[name]


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

    Precedence: default, task, preset, smoke, axis, ``settings`` (the command line).

    Raises:
        UserError: an unknown task, method, preset or setting, a value out of range, or a setting no method has.
    """
    settings = dict(settings or {})
    presets = [preset or grid.preset] + (["smoke"] if smoke else [])
    for name in presets:
        if name not in PRESETS:
            raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    used: set[str] = set()
    trials: dict[str, Trial] = {}
    chosen_seeds = list(dict.fromkeys(seeds if seeds else grid.seeds))
    for task_name, method_name in itertools.product(tasks or grid.tasks, methods or grid.methods):
        task, method = find_task(task_name), find_method(method_name)
        base = _Sections(SplitConfig(), EvaluationConfig(), method.config())
        base = base.override({"split.cost_limit": task.cost_limit, "cost_model.segment_length": task.segment_length})
        for name in presets:
            base = base.override(PRESETS[name])
        used.update(base.names())
        axes = {name: values for name, values in grid.axes.items() if name in base.names() and name not in settings}
        for point in itertools.product(*axes.values()):
            sections = base.override(dict(zip(axes, point, strict=True))).override(settings)
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
