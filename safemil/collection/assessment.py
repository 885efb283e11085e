"""Everything a dataset's card says, measured and written: page, picture and a record for the tables that use the data.

    <name>.md    the page        <name>.png    its picture        <name>.json    {task, sha256, warnings, ...}

In: a dataset file and its task. Out: these three. What cloning makes of it takes minutes and is measured when asked
for; it is kept from an earlier record of the same file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safemil.collection.cloning_check import EPISODES, Clones
from safemil.collection.recipes.table import RECIPES
from safemil.config.atomic import atomic_write
from safemil.data.card import Card, better_half, make_card
from safemil.data.card_figure import write_card
from safemil.data.tasks import Task
from safemil.evaluation.difficulty import Difficulty, measure


def assess(
    path: Path, task: Task, folder: Path, cloning: Callable[..., Clones] | None = None, workers: int = 1
) -> Path:
    """Write a dataset's card into ``folder``; the path of its page.

    Args:
        cloning: ``clone_both``, to measure what cloning makes of the data; None takes what is recorded, if anything is.

    Raises:
        UserError: the file cannot be read or has no rewards and costs, or matplotlib is not installed.
    """
    card = make_card(path, task)
    bands = card.bands()
    difficulty = measure(card.trajectories, card.outcomes, bands["preferred"], bands["non-preferred"])
    record_path = folder / f"{card.name}.json"
    clones = recorded_clones(record_path, card.digest)
    if cloning is not None and card.labels is not None:
        clones = cloning(card.trajectories, card.outcomes, task, workers=workers)
    warnings = (*card.warnings, *difficulty.faults, *(clones.faults if clones else []))
    origin = f"{card.origin}{command_of(task, card)}"
    card = replace(card, origin=origin, facts=facts_of(card, difficulty, clones), warnings=warnings)
    page = write_card(card, folder)
    record: dict[str, Any] = {
        "task": task.name,
        "sha256": card.digest,
        "warnings": warnings,
        "difficulty": asdict(difficulty),
    }
    with atomic_write(record_path) as temporary:
        record |= {"clones": asdict(clones) if clones else None}
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    return page


def recorded_clones(path: Path, digest: str) -> Clones | None:
    """What an earlier record of the same file says of cloning it; None when there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    clones = record.get("clones") if record.get("sha256") == digest else None
    return Clones(**{name: tuple(values) for name, values in clones.items()}) if clones else None


def command_of(task: Task, card: Card) -> str:
    """How to collect a file again that a single recipe of the task gave, and how long that takes; else nothing."""
    recipe = RECIPES.get(task.name, {}).get(str(card.recipes[0]))
    if recipe is None or len(set(card.recipes)) > 1 or not card.origin.startswith("collected"):
        return ""
    command = f"python -m safemil.collect --task {task.name} --recipe {card.recipes[0]}"
    return f" by `{command}`, about {recipe.minutes:g} min on 2 cores"


def facts_of(card: Card, difficulty: Difficulty, clones: Clones | None) -> dict[str, str]:
    """What was measured, in words."""
    levels = {
        band: better_half(card.outcomes.returns[members]).mean()
        for band, members in card.bands().items()
        if members.any()
    }
    facts = {
        "floor of trajectory AUROC: best feature's mean": f"{difficulty.feature_floor:.2f} ({difficulty.feature})",
        "floor of trajectory AUROC: median untrained network": f"{difficulty.untrained_floor:.2f}",
        "ceiling of step AUROC: classifier of true labels": f"{difficulty.step_ceiling:.2f}",
        "unsafe steps in non-preferred trajectories": f"{difficulty.unsafe_share:.0%}",
        "return, better half: preferred, non-preferred": ", ".join(
            f"{levels.get(band, math.nan):.1f}" for band in ("preferred", "non-preferred")
        ),
    }
    if clones is not None:
        for name, costs, returns in (
            ("all of D_U", clones.all_costs, clones.all_returns),
            ("D_U's safe trajectories", clones.safe_costs, clones.safe_returns),
        ):
            values = ", ".join(f"{cost:.2f}" for cost in costs)
            facts[f"cost of clones of {name}, in limits ({EPISODES} episodes, one number a seed)"] = (
                f"{values}; return {sum(returns) / len(returns):.1f}"
            )
    return facts
