"""Somebody's own logs -> a dataset file in DSRL's layout, with a report of what was read and what was missing.

    python -m safemil.datasets convert logs.npz --output mine.hdf5
    python -m safemil.datasets convert ~/.minari/datasets/D4RL/pen/human-v2 --output pen.hdf5
    python -m safemil.datasets convert csv_folder --task PointGoal1 --output goal.hdf5

What is read, whatever the format, under any of the names in ``safemil.data.log_columns.NAMES``:

- Minari: ``main_data.hdf5`` or the folder that holds it; one group per episode, costs in its ``infos/cost``.
- D4RL and others: HDF5 with flat arrays; an episode ends where terminals or timeouts is 1.
- npz: the same arrays. In both, ``offsets`` (n + 1,) or ``lengths`` (n,) may say where episodes begin and end.
- a folder of csv: one file per episode, the columns ``observation_0 .. action_0 ..`` in any order.

Observations and actions must be there. Nothing is made up but next observations, which are the following row's.
Actions must lie in [-1, 1]: what lies outside is refused, as nobody but the owner knows whether to scale or to clip it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.hdf5 import ACTION_ROUNDING, load, save
from safemil.data.log_formats import read_log
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


def convert(source: Path, output: Path, task: Task | None = None) -> list[str]:
    """Write ``source`` to ``output`` in DSRL's layout; gives the report, a line each.

    Args:
        task: check the dimensions of observations and actions against this task's.

    Raises:
        UserError: ``output`` exists, the format is not known, or the logs do not say clearly what they mean. Nothing
            is written then.
    """
    if output.exists():
        raise UserError(f"{output} exists; remove it, or name another file with --output")
    log = read_log(source)
    try:
        observations, actions = _matrix(log.columns["observations"], "observations"), _actions(log.columns["actions"])
        trajectories = Trajectories(observations, actions, log.offsets)
        following = log.columns.get("next_observations")
        if following is not None:
            following = as_float32("next_observations", _matrix(following, "next_observations"))
        outcomes = None
        if "rewards" in log.columns and "costs" in log.columns:
            terminals = log.columns.get("terminals", np.zeros(trajectories.n_steps, dtype=bool))
            outcomes = Outcomes(log.columns["rewards"], log.columns["costs"], terminals, log.offsets)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    missing = [name for name in CONSEQUENCES if name not in log.columns]
    attributes = {"converted_from": source.name, "format": log.format, "missing": " ".join(missing)}
    save(output, trajectories, outcomes, attributes, next_observations=following)
    try:
        _check_written(output, trajectories, outcomes, task)
    except DatasetError:
        output.unlink()
        raise
    counted = f"{len(trajectories)} trajectories, {trajectories.n_steps} steps"
    return [
        f"{log.format}: {counted}, observations {trajectories.observation_dim}, actions {trajectories.action_dim}",
        *log.notes,
        *(f"missing: {name}; {CONSEQUENCES[name]}" for name in missing),
    ]


def _matrix(values: np.ndarray, name: str) -> np.ndarray:
    """(n_steps,) or (n_steps, d) -> (n_steps, d)."""
    if values.ndim not in (1, 2):
        raise UserError(f"{name}: shape {values.shape}, expected one vector per step; images are not supported")
    return values.reshape(len(values), -1)


def _actions(values: np.ndarray) -> np.ndarray:
    """(n_steps, action_dim) float64 in [-1, 1], or a refusal."""
    actions = _matrix(values, "actions").astype(np.float64)
    whole = values.dtype.kind in "iub" or bool(np.isin(actions, (0, 1)).all() and actions.any())
    if actions.shape[1] == 1 and whole:
        found = f"whole numbers from {actions.min():g} to {actions.max():g} in one column"
        raise UserError(f"actions: {found} are discrete choices; vectors of real numbers in [-1, 1] are expected")
    outside = np.abs(actions).max(axis=1, initial=0) > 1 + ACTION_ROUNDING
    if outside.any():
        found = (
            f"{outside.sum()} of {len(actions)} rows reach outside [-1, 1], from {actions.min():g} to {actions.max():g}"
        )
        raise UserError(f"actions: {found}; divide them by their bounds, or clip them if the simulator did, and retry")
    return np.clip(actions, -1, 1)  # what float rounding added


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
