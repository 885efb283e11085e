"""Somebody's own logs -> a dataset file in DSRL's layout, with a report of what was read and what was missing.

    python -m safemil.datasets convert logs.npz --output mine.hdf5
    python -m safemil.datasets convert ~/.minari/datasets/D4RL/pen/human-v2 --output pen.hdf5
    python -m safemil.datasets convert demo.hdf5 --observation-keys robot0_eef_pos object --output lift.hdf5
    python -m safemil.datasets convert lerobot_folder --action-bounds 100 --output arm.hdf5
    python -m safemil.datasets convert csv_folder --task PointGoal1 --output goal.hdf5

What is read is listed in ``safemil.data.logs.reading``, under which names in ``safemil.data.logs.columns``.

Observations and actions must be there. Nothing is made up but next observations, which are the following row's.
Actions must lie in [-1, 1], as they are or divided by the bounds given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.hdf5 import load, save
from safemil.data.logs.reading import matrix, read_trajectories
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories, as_float32

UNSPLIT = "neither rewards nor costs are written, as a split needs both; training on D_N and D_U needs neither"
CONSEQUENCES = {
    "rewards": UNSPLIT,
    "costs": UNSPLIT,
    "terminals": "no episode counts as ended by the task itself",
    "timeouts": "an episode that did not end in a terminal counts as cut",
    "next_observations": "taken from the following row; an episode's last row repeats its own",
}


def convert(
    source: Path,
    output: Path,
    task: Task | None = None,
    *,
    observation_keys: Sequence[str] = (),
    action_bounds: Sequence[float] = (),
) -> list[str]:
    """Write ``source`` to ``output`` in DSRL's layout; gives the report, a line each.

    Args:
        task: check the dimensions of observations and actions against this task's.
        observation_keys, action_bounds: as in ``safemil.data.logs.reading.read_trajectories``.

    Raises:
        UserError: ``output`` exists, the format is not known, or the logs do not say clearly what they mean. Nothing
            is written then.
    """
    if output.exists():
        raise UserError(f"{output} exists; remove it, or name another file with --output")
    trajectories, log = read_trajectories(source, observation_keys, action_bounds, outcomes=True)
    try:
        following = log.columns.get("next_observations")
        if following is not None and trajectories.observations.ndim == 2:  # those of images are not kept
            following = as_float32("next_observations", matrix(following, "next_observations"))
        outcomes = None
        if "rewards" in log.columns and "costs" in log.columns:
            terminals = log.columns.get("terminals", np.zeros(trajectories.n_steps, dtype=bool))
            outcomes = Outcomes(log.columns["rewards"], log.columns["costs"], terminals, log.offsets)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    missing = [name for name in CONSEQUENCES if name not in log.columns]
    attributes = {"converted_from": source.name, "format": log.format, "missing": " ".join(missing)}
    if action_bounds:
        attributes["actions_divided_by"] = " ".join(f"{bound:.17g}" for bound in action_bounds)
    save(output, trajectories, outcomes, attributes, next_observations=following)
    try:
        _check_written(output, trajectories, outcomes, task)
    except DatasetError:
        output.unlink()
        raise
    counted = f"{len(trajectories)} trajectories, {trajectories.n_steps} steps"
    return [
        f"{log.format}: {counted}, observations {trajectories.observation_dim}, actions {trajectories.action_dim}",
        *log.dropped,
        *log.notes,
        *([f"actions were divided by {attributes['actions_divided_by']}"] if action_bounds else []),
        *(f"missing: {name}; {CONSEQUENCES[name]}" for name in missing),
    ]


def _check_written(path: Path, trajectories: Trajectories, outcomes: Outcomes | None, task: Task | None) -> None:
    """Read the file as every later reader will. Raises ``DatasetError`` when it gives other numbers than were meant."""
    written, written_outcomes = load(path, task)
    pairs: list[tuple[Any, Any, tuple[str, ...]]] = [(written, trajectories, ("observations", "actions", "offsets"))]
    if outcomes is not None:
        pairs.append((written_outcomes, outcomes, ("rewards", "costs", "terminals")))
    for read, meant, names in pairs:
        for name in names:
            if not np.array_equal(getattr(read, name), getattr(meant, name)):
                raise DatasetError(f"{path}: {name} read back otherwise than written; is the disk sound?")
