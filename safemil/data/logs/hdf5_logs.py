"""HDF5 files of anybody -> a ``Log``: flat arrays as D4RL's, or a group for each episode.

    observations, actions, terminals ..                     D4RL and many others
    episode_0/{observations, actions, infos/cost ..}        Minari; observations may be a group of keys
    data/demo_0/{obs/KEY, next_obs/KEY, actions ..}         robomimic, Isaac Lab
    traj_0/{obs, actions, terminated ..}                    ManiSkill

Episodes go by their numbers. robomimic's ``dones`` mark success, the end or both, and are not read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError
from safemil.data.hdf5_access import check_stored, check_survivable, datasets, member, opened
from safemil.data.logs.columns import Stored, Wanted, unused
from safemil.data.logs.episodes import Log, flat, join, with_final_observation

EPISODE = re.compile(r"(episode|demo|traj|trajectory)_(\d{1,9})")
FORMATS = {"episode": "Minari", "demo": "robomimic", "traj": "HDF5 of episodes", "trajectory": "HDF5 of episodes"}


def read_hdf5(path: Path, wanted: Wanted, n_episodes: int | None = None) -> Log:
    """Read any of the layouts. ``n_episodes``: how many there must be, where another file says it.

    Raises:
        DatasetError: the file cannot be read, leads out of itself, or does not say clearly what it holds.
    """
    check_survivable(path, lambda: _read(path, wanted, n_episodes))
    return _read(path, wanted, n_episodes)


def _read(path: Path, wanted: Wanted, n_episodes: int | None) -> Log:
    import h5py

    with opened(path) as file:
        inner = member(file, "data")
        for group in (file, inner) if isinstance(inner, h5py.Group) else (file,):
            found = [match for name in group if (match := EPISODE.fullmatch(name))]
            if found:
                numbers = {match[0]: int(match[2]) for match in found}
                if n_episodes not in (None, len(numbers)):
                    raise UserError(f"{len(numbers)} episodes, but metadata.json says {n_episodes}")
                in_order = sorted(numbers, key=lambda name: numbers[name])
                return _join(FORMATS[found[0][1]], {name: _stored(member(group, name)) for name in in_order}, wanted)
        return flat("HDF5", _stored(file), wanted)


def _join(kind: str, episodes: dict[str, dict[str, Any]], wanted: Wanted) -> Log:
    read, notes = {}, tuple[str, ...]()
    for name, arrays in episodes.items():
        marks = arrays.pop("dones", None) if kind == "robomimic" else None
        try:
            read[name], notes = with_final_observation(arrays, wanted), unused(arrays, wanted)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        if marks is not None:
            notes += ("not used: dones, which mark success, the end or both",)
    return join(kind, read, notes)


def _stored(group: Any) -> dict[str, Stored]:
    """The arrays of a group by their paths, not yet read."""

    def reader(name: str, dataset: Any):
        def read():
            check_stored(dataset, name)
            return dataset[()]

        return read

    if not hasattr(group, "keys"):
        raise UserError("an episode is expected to be a group")
    return {name: Stored(item.shape, item.dtype, reader(name, item)) for name, item in datasets(group).items()}
