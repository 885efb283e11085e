"""Somebody's own logs, read: the one door. In: a file, a folder or a pandas frame. Out: a ``Log``, or ``Trajectories``.

| source | layout |
|---|---|
| HDF5 | flat arrays (DSRL, D4RL); a group for each episode (Minari, robomimic, ManiSkill) |
| npz | flat arrays; Stable-Baselines' rollouts and expert datasets; imitation's trajectories |
| csv, parquet, arrow | a table with flags of ends or a column ``episode``; a folder with a file for each episode |
| a folder of Minari, LeRobot, imitation | as these libraries write them |
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.actions import in_range
from safemil.data.logs import arrow
from safemil.data.logs.columns import Wanted
from safemil.data.logs.csv_files import read_csv
from safemil.data.logs.episodes import Log
from safemil.data.logs.hdf5_logs import read_hdf5
from safemil.data.logs.npz import read_npz
from safemil.data.logs.tables import log_of_tables
from safemil.data.trajectories import Trajectories, check_image_type

logger = logging.getLogger(__name__)

HDF5 = (".hdf5", ".h5", ".hdf")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".npy")
EXPECTED = "expected .npz, .hdf5, .h5, .csv, .parquet, or a folder of csv, parquet, Minari or LeRobot"
MOST = 290  # letters of a message beside the path


def read_log(source: Any, wanted: Wanted = Wanted()) -> Log:  # noqa: B008 - frozen
    """Read any of the formats: a path, or a pandas frame.

    Raises:
        UserError: it is none of them, is damaged, or does not say clearly what its arrays and episodes are.
    """
    where = "the frame" if hasattr(source, "columns") else str(source)
    try:
        return _read(source, wanted)
    except Exception as error:  # libraries raise anything on a damaged file
        ours = isinstance(error, UserError)
        said = str(error) if ours else f"cannot be read ({printable(error, 200) or type(error).__name__})"
        said = said if said.startswith(where) else f"{where}: {said}"
        raise UserError(printable(said, MOST + len(where))) from error


def read_trajectories(
    source: Any, observation_keys: Sequence[str] = (), action_bounds: Sequence[float] = (), *, outcomes: bool = False
) -> tuple[Trajectories, Log]:
    """Observations and actions of any of the formats, as training takes them, and the log they are from.

    Args:
        source: a path, or a pandas frame with a row for each step.
        observation_keys: of observations that are several arrays, in the order in which they are put side by side.
        action_bounds: what to divide actions by: one number, or one for each action.
        outcomes: also read rewards, costs and next observations; without them, what was dropped is logged.

    Raises:
        UserError: as ``read_log``; or actions are discrete or outside [-1, 1].
    """
    wanted = Wanted(tuple(observation_keys), outcomes)
    where = "the frame" if hasattr(source, "columns") else source
    log = read_log(source if where == "the frame" else Path(source), wanted)
    for note in () if outcomes else log.dropped:
        logger.warning("%s: %s", where, note)
    try:
        observations, actions = (matrix(log.columns[name], name) for name in ("observations", "actions"))
        return Trajectories(observations, in_range(actions, action_bounds), log.offsets), log
    except UserError as error:
        raise UserError(printable(f"{where}: {error}", MOST + len(str(where)))) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads logs."""
    parser.add_argument(
        "--observation-keys",
        nargs="+",
        default=(),
        metavar="KEY",
        help="which arrays are the observations, where there are several: side by side in this order",
    )
    parser.add_argument(
        "--action-bounds",
        nargs="+",
        type=float,
        default=(),
        metavar="B",
        help="divide actions by this, or by one number for each, so that they lie in [-1, 1]; the policy's do as well",
    )


IMAGES = "images are uint8 (n_steps, height, width, channels)"


def matrix(values: np.ndarray, name: str) -> np.ndarray:
    """(n_steps,) or (n_steps, d) -> (n_steps, d); observations that are images as they are."""
    if values.ndim == 4 and name.endswith("observations"):
        check_image_type(name, values.dtype)
        return values
    if values.ndim not in (1, 2):
        shape = printable(str(values.shape), 60)
        raise UserError(f"{name}: shape {shape}, expected a vector, or for observations an image, per step; {IMAGES}")
    return values.reshape(len(values), -1)


def _read(source: Any, wanted: Wanted) -> Log:
    if hasattr(source, "columns"):
        return log_of_tables("pandas", {"": _of_frame(source)}, wanted)
    if source.is_dir():
        return _read_folder(source, wanted)
    if not source.exists():
        raise UserError("no such file or folder")
    if source.suffix in HDF5:
        return read_hdf5(source, wanted)
    if source.suffix == ".npz":
        return read_npz(source, wanted)
    if source.suffix == ".csv":
        return log_of_tables("csv", {"": read_csv(source, wanted)}, wanted)
    if source.suffix in arrow.SUFFIXES:
        return arrow.read_arrow(source, wanted)
    if source.suffix in PICKLES:
        raise UserError("may hold a pickle, which runs code as it is read, and is not opened; save it with numpy.savez")
    raise UserError(EXPECTED)


def _read_folder(folder: Path, wanted: Wanted) -> Log:
    for inner in (folder / "data", folder):
        described = arrow.read_json(inner / "metadata.json")
        if (inner / "main_data.hdf5").is_file():
            return read_hdf5(inner / "main_data.hdf5", wanted, described.get("total_episodes"))
        if described.get("data_format") in ("arrow", "parquet") or (described and (inner / "0").is_dir()):
            return arrow.read_minari(inner, wanted)
    if (folder / "meta" / "info.json").is_file():
        return arrow.read_lerobot(folder, wanted)
    if files := arrow.files_in(folder, arrow.SUFFIXES):
        return arrow.read_folder(files, wanted)
    if files := arrow.files_in(folder, (".csv",)):
        return log_of_tables("csv", {path.name: _named(path, wanted) for path in files}, wanted)
    hdf5 = arrow.files_in(folder, HDF5)
    raise UserError(f"{len(hdf5)} HDF5 files; name one of them" if hdf5 else f"no logs in this folder; {EXPECTED}")


def _named(path: Path, wanted: Wanted) -> Any:
    try:
        return read_csv(path, wanted)
    except (UserError, ValueError) as error:
        raise UserError(f"{path.name}: {error}") from error


def _of_frame(frame: Any) -> dict[str, np.ndarray]:
    """The columns of a pandas frame; cells that hold vectors as (n_rows, d)."""
    columns = {}
    for name in frame.columns:
        values = frame[name].to_numpy()
        if values.dtype == object and len(values) and all(np.shape(cell) == np.shape(values[0]) for cell in values):
            values = np.stack([np.asarray(cell) for cell in values])
        columns[str(name)] = values
    return columns
