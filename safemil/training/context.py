"""What a fit needs besides data and settings, in one frozen object that travels openly from the command to the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safemil.training.checkpoint import TrainingCheckpoint
from safemil.training.stopping import Patience

Log = Callable[[str, int, dict[str, np.ndarray]], None]  # stage, step, metric -> (R,)

# Updates from which on a loop on CUDA is compiled: that takes some 10 s, and makes it 1.4 times as fast.
COMPILED_FROM = 10_000


def no_log(stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
    """A logger that does nothing."""


@dataclass(frozen=True)
class KeptStages:
    """A folder of stages trained once (safemil/training/kept_stages.py), and what they have in common."""

    folder: Path
    defined_by: str  # changes with data, splits, seeds, precision and code


@dataclass(frozen=True)
class FitContext:
    """Seeds, device and whatever else does not define a method."""

    seeds: tuple[int, ...] = (0,)  # of the learner's own draws, one policy each, all packed
    device: str = "cpu"
    log: Log = no_log  # called at every report of a training loop
    snapshots: int = 1  # evenly spaced copies of each policy to keep; the last is the result
    precision: str = "highest"  # of training's products, see safemil/nn/precision.py
    checkpoint: TrainingCheckpoint | None = None  # where an interrupted training goes on from
    kept: KeptStages | None = None  # where stages are taken from that another training shares
    patience: Patience | None = None  # for loops that have a held-out loss; None: fixed numbers of updates
    captured: bool = True  # on CUDA, replay updates as CUDA graphs
    compiled_from: int = COMPILED_FROM
