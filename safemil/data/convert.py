"""Somebody's own logs -> a dataset file in DSRL's layout, with a report of what was missing.

    python -m safemil.datasets convert logs.npz --output mine.hdf5
    python -m safemil.datasets convert ~/.minari/datasets/D4RL/pen/human-v2 --output pen.hdf5
    python -m safemil.datasets convert csv_folder --task PointGoal1            # into the dataset folder

What is read, whatever the format, under any of the names in ``NAMES``:

- Minari: ``main_data.hdf5`` or the folder that holds it; one group per episode, costs in its ``infos/cost``.
- D4RL and others: HDF5 with flat arrays; an episode ends where terminals or timeouts is 1.
- npz: the same arrays; the ends may be ``offsets`` (n + 1,) or ``lengths`` (n,) instead.
- a folder of csv: one file per episode in the order of their names, the columns ``observation_0 .. action_0 ..``.

Observations and actions must be there. Nothing is made up but next observations, which are the following row's.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.hdf5 import load, save
from safemil.data.tasks import Task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories

# Our name -> the names it goes by elsewhere
NAMES = {
    "observations": ("observations", "observation", "obs", "states"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward"),
    "costs": ("costs", "cost", "infos/costs", "infos/cost", "info/cost"),
    "terminals": ("terminals", "terminal", "terminations", "terminated", "dones", "done"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
}


@dataclass(frozen=True, eq=False)
class Log:
    """Flat arrays under our names, the offsets of the episodes, and what is known of them."""

    format: str
    columns: dict[str, np.ndarray]
    offsets: np.ndarray  # (n_trajectories + 1,)


def convert(source: Path, output: Path, task: Task | None = None) -> list[str]:
    """Write ``source`` to ``output`` in DSRL's layout; gives the report, a line each.

    Raises:
        UserError: the format is not known, observations or actions are missing, or shapes do not fit.
    """
    if output.exists():
        raise UserError(f"{output} exists; remove it, or name another file with --output")
    log = read_log(source)
    columns = log.columns
    for name in ("observations", "actions"):
        if name not in columns:
            raise UserError(f"{source}: no {name}; looked for {', '.join(NAMES[name])}")
    n_steps = int(log.offsets[-1])
    for name, values in columns.items():
        if len(values) < n_steps:
            raise UserError(f"{source}: {name} has {len(values)} rows, but {n_steps} steps are in its episodes")
    columns = {name: values[:n_steps] for name, values in columns.items()}
    matrices = {name: _matrix(columns[name], name) for name in ("observations", "actions")}
    trajectories = Trajectories(matrices["observations"], matrices["actions"], log.offsets)
    missing = [
        name for name in ("rewards", "costs", "terminals", "timeouts", "next_observations") if name not in columns
    ]
    outcomes = None
    if "rewards" in columns and "costs" in columns:
        terminals = columns.get("terminals", np.zeros(n_steps)).reshape(-1).astype(bool)
        outcomes = Outcomes(columns["rewards"].reshape(-1), columns["costs"].reshape(-1), terminals, log.offsets)
    following = _matrix(columns["next_observations"], "next_observations") if "next_observations" in columns else None
    attributes = {"converted_from": source.name, "format": log.format, "missing": " ".join(missing)}
    save(output, trajectories, outcomes, attributes, next_observations=following)
    try:
        load(output, task)  # checks actions and dimensions as every later reader will
    except DatasetError:
        output.unlink()
        raise
    counted = f"{len(trajectories)} trajectories, {n_steps} steps, observations {trajectories.observation_dim}"
    return [
        f"{log.format}: {counted}, actions {trajectories.action_dim}",
        *(f"missing: {name}; {CONSEQUENCES[name]}" for name in missing),
    ]


UNSPLIT = "neither rewards nor costs are written, as a split needs both; training on D_N and D_U needs neither"
CONSEQUENCES = {
    "rewards": UNSPLIT,
    "costs": UNSPLIT,
    "terminals": "no episode counts as ended by the task itself",
    "timeouts": "an episode that did not end in a terminal counts as cut",
    "next_observations": "taken from the following row; an episode's last row repeats its own",
}


def read_log(source: Path) -> Log:
    """Read any of the formats. Raises ``UserError`` when it is none of them."""
    try:
        if minari := next((path for path in (source / "data", source) if (path / "main_data.hdf5").is_file()), None):
            return _read_hdf5(minari / "main_data.hdf5")
        if source.is_dir():
            return _read_csv(source)
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        if source.suffix == ".npz":
            with np.load(source) as arrays:
                return _flat("npz", dict(arrays))
        if source.suffix in (".hdf5", ".h5"):
            return _read_hdf5(source)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source}: cannot be read ({error})") from error
    raise UserError(f"{source}: expected .npz, .hdf5, .h5, a Minari dataset or a folder of .csv")


def _read_hdf5(path: Path) -> Log:
    import h5py

    with h5py.File(path) as file:
        episodes = sorted((name for name in file if re.fullmatch(r"episode_\d+", name)), key=lambda name: int(name[8:]))
        if episodes:
            return _join("Minari", [_minari_episode(file[name], f"{path}: {name}") for name in episodes])
        arrays: dict[str, np.ndarray] = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None)
    return _flat("HDF5", arrays)


def _minari_episode(group: Any, where: str) -> dict[str, np.ndarray]:
    """One group; its observations have a row more than the steps: the one after the last."""
    arrays: dict[str, np.ndarray] = {}
    group.visititems(lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "shape") else None)
    episode = _named(arrays)
    if "observations" not in episode or "actions" not in episode:
        raise UserError(f"{where}: no plain arrays of observations and actions (found {', '.join(sorted(arrays))})")
    n_steps = len(episode["actions"])
    if len(episode["observations"]) == n_steps + 1:
        episode["next_observations"] = episode["observations"][1:]
    # Infos may hold a row more as well: the reset's, in front.
    return {name: values[-n_steps:] if name == "costs" else values[:n_steps] for name, values in episode.items()}


def _read_csv(folder: Path) -> Log:
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise UserError(f"{folder}: neither a Minari dataset nor any .csv in it")
    return _join("csv", [_csv_episode(path) for path in files])


def _csv_episode(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
    except ValueError as error:
        raise UserError(f"{path}: not a table of numbers under one header ({error})") from error
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(header):
        groups.setdefault(re.sub(r"[_.]?\d+$", "", name.strip()), []).append(column)
    arrays = {name: table[:, columns] for name, columns in groups.items()}
    return _named({name: values[:, 0] if name in _SCALARS else values for name, values in arrays.items()})


_SCALARS = {alias for name in ("rewards", "costs", "terminals", "timeouts") for alias in NAMES[name]}


def _named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the arrays that are known, under our names."""
    found = {name: next((alias for alias in aliases if alias in arrays), None) for name, aliases in NAMES.items()}
    return {name: np.asarray(arrays[alias]) for name, alias in found.items() if alias is not None}


def _join(kind: str, episodes: list[dict[str, np.ndarray]]) -> Log:
    """Episodes one after the other; only what all of them have."""
    names = [name for name in NAMES if all(name in episode for episode in episodes)]
    lengths = [len(episode.get("actions", ())) for episode in episodes]
    columns = {name: np.concatenate([episode[name] for episode in episodes]) for name in names}
    return Log(kind, columns, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _flat(kind: str, arrays: Mapping[str, np.ndarray]) -> Log:
    columns = _named(arrays)
    if "offsets" in arrays:
        return Log(kind, columns, np.asarray(arrays["offsets"], dtype=np.int64))
    if "lengths" in arrays:
        return Log(kind, columns, np.concatenate([[0], np.cumsum(arrays["lengths"])]).astype(np.int64))
    ends = [columns[name].reshape(-1).astype(bool) for name in ("terminals", "timeouts") if name in columns]
    if not ends:
        raise UserError(f"no terminals or timeouts say where episodes end (found {', '.join(sorted(arrays))})")
    last_rows = np.flatnonzero(np.logical_or.reduce(ends))
    if len(last_rows) == 0:
        raise UserError("no episode ends: terminals and timeouts are 0 in every row")
    return Log(kind, columns, np.concatenate([[0], last_rows + 1]).astype(np.int64))


def _matrix(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{name}: expected numbers, found {values.dtype}")
    if values.ndim not in (1, 2):
        raise UserError(f"{name}: shape {values.shape}, expected one vector per step; images are not supported")
    return values.reshape(len(values), -1)
