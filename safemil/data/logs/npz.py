"""npz files of anybody -> a ``Log``: flat arrays, or what older versions of the imitation library saved.

    observations, actions, terminals | offsets | lengths          numpy
    obs, actions, rewards, episode_starts                         Stable-Baselines' expert datasets and rollouts
    obs, acts, rews, terminal, indices                            imitation's trajectories; an observation more each

Arrays are read one by one, none before its name, type and size are known to fit; Python objects are never unpickled.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError, printable
from safemil.data.hdf5_access import check_size
from safemil.data.logs.columns import Stored, Wanted, read, unused
from safemil.data.logs.episodes import Log, flat, join, with_final_observation

MOST_HEADER = 10_000  # bytes that describe an array


def read_npz(path: Path, wanted: Wanted) -> Log:
    """Read the file.

    Raises:
        UserError: it is damaged, encrypted, or does not say clearly what it holds.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise UserError("two arrays of one name; write the file again")
        if any(info.flag_bits & 1 for info in members.values()):
            raise UserError("the archive is encrypted; unpack it and write it again without a password")
        arrays = {
            name.removesuffix(".npy"): _stored(archive, info, path.stat().st_size)
            for name, info in members.items()
            if name.endswith(".npy")
        }
        if {"obs", "acts", "indices"} <= arrays.keys():
            return _imitation(arrays, wanted)
        return flat("npz", arrays, wanted)


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> Stored:
    """An array of the archive by its header; its values are checked against the archive's checksum as they are read."""
    name = printable(info.filename, 60)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise UserError(f"{name}: array format {version}; expected what numpy.savez writes of numbers")
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = read_header(file, max_header_size=MOST_HEADER)
    n_bytes = dtype.itemsize
    for length in shape:
        n_bytes *= length
    if dtype.hasobject:
        return Stored(shape, dtype, lambda: np.empty(0))  # never read: not of numbers

    def read() -> np.ndarray:
        check_size(n_bytes, size, f"{name} of shape {printable(str(shape), 60)}")
        if not 0 <= info.file_size - n_bytes <= MOST_HEADER + 16:
            found = f"{n_bytes} bytes declared, {info.file_size} there"
            raise UserError(f"{name}: {found}; the file is damaged, write it again")
        with archive.open(info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # reads to the end, where the checksum is compared
                raise UserError(f"{name}: more bytes than its shape needs; the file is damaged, write it again")
        return array

    return Stored(shape, dtype, read)


def _imitation(arrays: dict[str, Any], wanted: Wanted) -> Log:
    """Trajectories one after the other, cut before the steps ``indices``; ``terminal`` is one flag a trajectory."""
    cuts = read("indices", arrays["indices"]).reshape(-1)
    values: dict[str, np.ndarray] = {
        name: read(name, arrays[name]) for name in ("obs", "acts", "rews", "terminal") if name in arrays
    }
    n_steps, n_episodes = len(values["acts"]), len(cuts) + 1
    if cuts.dtype.kind not in "iu" or np.any(np.diff([0, *cuts.tolist(), n_steps]) < 1):
        raise UserError("indices: expected the first step of each trajectory but the first, rising")
    if len(values["obs"]) != n_steps + n_episodes or len(values.get("terminal", cuts)) not in (n_episodes, len(cuts)):
        found = f"{len(values['obs'])} observations, {n_steps} actions, {n_episodes} trajectories"
        raise UserError(f"{found}; expected one observation more than actions in each")
    parts: dict[str, list[np.ndarray]] = {
        name: np.split(values[name], cuts) for name in ("acts", "rews") if name in values
    }
    parts["obs"] = np.split(values["obs"], cuts + np.arange(1, n_episodes))
    episodes = {}
    for number in range(n_episodes):
        episode: dict[str, np.ndarray] = {name: of_each[number] for name, of_each in parts.items()}
        if "terminal" in values:
            episode["terminal"] = np.arange(1 - len(episode["acts"]), 1) * (flag := values["terminal"][number]) == 0
            episode["terminal"] &= bool(flag)
        episodes[f"trajectory {number}"] = with_final_observation(episode, wanted)
    return join("imitation", episodes, unused([name for name in arrays if name not in (*values, "indices")], wanted))
