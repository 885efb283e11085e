"""Models that differ in their seeds alone, trained as one pack on two sets of trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safemil.config.errors import UserError
from safemil.data.splits import Split, split_of_sets
from safemil.data.trajectories import Trajectories
from safemil.training.checkpoint import TrainingCheckpoint
from safemil.training.context import FitContext


def splits_of(models: Sequence[Any], non_preferred: Trajectories, unlabeled: Trajectories) -> list[Split]:
    """What each model (a ``Learner``) is to be trained on, after all checks that can be made before training.

    Raises:
        UserError: models that cannot be packed, too few trajectories, or sets that cannot be of one task.
    """
    if any(model.shared() != models[0].shared() for model in models):
        raise UserError("models of one pack may differ in their seeds alone")
    return [split_of_sets(non_preferred, unlabeled, seed=model.seed, held_out=model.held_out) for model in models]


def train_splits(models: Sequence[Any], splits: Sequence[Split], checkpoint: TrainingCheckpoint | None = None) -> None:
    """Train each model on its split; an interrupted training goes on from the checkpoint."""
    first, seeds = models[0], tuple(model.seed for model in models)
    context = FitContext(
        seeds, first.device, first.log, precision=first.precision, patience=first.patience, checkpoint=checkpoint
    )
    for model, split, result in zip(models, splits, first.fitting()(splits, first.config, context), strict=True):
        model.split, model.result = split, result
