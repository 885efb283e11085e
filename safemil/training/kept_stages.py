"""Training stages trained once: their networks in a folder, each under a fingerprint of all that defines it.

A grid that varies only what comes after a stage (how costs become weights, the policy's head) trains that stage once:
whoever comes first trains it, the others wait for it and take it over, its reports included. The result is the same bit
for bit.

    kept = KeptStages(folder, "data, splits, seeds, code, precision")
    fit(splits, config, FitContext(..., kept=kept))
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from safemil.config.atomic import atomic_write
from safemil.config.overrides import fingerprint
from safemil.training.checkpoint import StageState, as_bytes, copies, put
from safemil.training.context import FitContext, KeptStages, Log
from safemil.training.loop import train
from safemil.training.objectives import Batch, Objective
from safemil.training.stopping import Ended, HeldOutLoss

logger = logging.getLogger(__name__)


class Reports:
    """A log that also remembers what it passes on."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.taken: list[tuple[int, dict[str, Tensor]]] = []

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        self.taken.append((step, {name: torch.tensor(values) for name, values in metrics.items()}))
        self.log(stage, step, metrics)


def train_once(
    stage: str,
    objectives: Sequence[Objective],
    draw: Callable[[int], Batch],
    prepare: Callable[[Batch], Batch],
    context: FitContext,
    *,
    steps: int,
    defined_by: Any,
    held_out: HeldOutLoss | None = None,
) -> Ended | None:
    """``train``, or what an earlier training of the same stage came to, where ``context`` says that stages are kept.

    Args:
        defined_by: plain values that define the stage beside what all stages of the context have in common. Nothing
            that is drawn in it may serve a later stage.
        held_out: as in ``train``; kept are stages of a fixed number of steps alone.
    """
    arguments = stage, objectives, draw, prepare
    interrupted = context.checkpoint is not None and context.checkpoint.found  # goes on from its own state
    if context.kept is None or context.patience is not None or interrupted:
        return train(*arguments, context, steps=steps, held_out=held_out)
    file = stage_file(context.kept, stage, [defined_by, steps])
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        found = read(file)
        if found is None:
            reports = Reports(context.log)
            train(*arguments, dataclasses.replace(context, log=reports), steps=steps)
            networks = copies([objective.values for objective in objectives])
            with atomic_write(file) as temporary:
                temporary.write_bytes(as_bytes({"networks": networks, "reports": reports.taken}))
            return None
    state = StageState(context.checkpoint, objectives, None)
    put(state.values, found["networks"])
    for step, metrics in found["reports"]:
        context.log(stage, step, {name: values.numpy() for name, values in metrics.items()})
    state.keep(steps, last=True)
    return None


def stage_file(kept: KeptStages, stage: str, settings: Any) -> Path:
    """Where a stage trained with these settings (plain values) lies."""
    return kept.folder / f"{stage}-{fingerprint([kept.defined_by, settings])}.pt"


def read(file: Path) -> dict[str, Any] | None:
    """What is kept there; None if nothing is, or nothing that can be read."""
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        logger.warning("%s is damaged (%s); the stage is trained again", file, type(error).__name__)
        return None
