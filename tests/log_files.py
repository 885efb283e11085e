"""One log of three episodes, written as the libraries write it whose files people have."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np

LENGTHS = (3, 5, 2)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


def make_log(rng: np.random.Generator, observation_dim: int = 8) -> dict[str, np.ndarray]:
    """Flat arrays of three episodes: the first two were cut, the third ended by itself."""
    n = OFFSETS[-1]
    ends = np.zeros((2, n), dtype=bool)
    ends[0, 9], ends[1, [2, 7]] = True, True
    return {
        "observations": rng.normal(size=(n, observation_dim)).astype(np.float32),
        "next_observations": rng.normal(size=(n, observation_dim)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "rewards": rng.random(n).astype(np.float32),
        "costs": rng.integers(0, 2, n).astype(np.float32),
        "terminals": ends[0],
        "timeouts": ends[1],
    }


def episodes(log: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The arrays of each episode; ``all_observations`` hold the one after the last step as well."""
    parts = [{name: values[start:end] for name, values in log.items()} for start, end in zip(OFFSETS, OFFSETS[1:])]  # noqa: B905
    for part in parts:
        part["all_observations"] = np.concatenate([part["observations"], part["next_observations"][-1:]])
    return parts


def npz(folder: Path, log) -> Path:
    np.savez(folder / "log.npz", **log)
    return folder / "log.npz"


def hdf5(folder: Path, log) -> Path:
    with h5py.File(folder / "log.h5", "w") as file:
        for name, values in log.items():
            file["infos/cost" if name == "costs" else name] = values
    return folder / "log.h5"


def csvs(folder: Path, log) -> Path:
    (folder / "csv").mkdir()
    widths = [(name, log[f"{name}s"].shape[1]) for name in ("observation", "next_observation", "action")]
    for index, part in enumerate(episodes(log)):
        with (folder / "csv" / f"{index:02d}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            header = [f"{name}_{column}" for name, width in widths for column in range(width)]
            writer.writerow([*header, "reward", "cost", "terminal", "timeout"])
            for row in range(len(part["rewards"])):
                vectors = [part[f"{name}s"][row] for name, _ in widths]
                rest = [float(part[name][row]) for name in ("rewards", "costs", "terminals", "timeouts")]
                writer.writerow([*map(float, np.concatenate(vectors)), *rest])
    return folder / "csv"


def minari(folder: Path, log) -> Path:
    """Minari 0.5, HDF5 storage."""
    (folder / "pen" / "data").mkdir(parents=True)
    with h5py.File(folder / "pen" / "data" / "main_data.hdf5", "w") as file:
        for index, part in enumerate(episodes(log)):
            group = file.create_group(f"episode_{index}")
            group["observations"] = part["all_observations"]
            group["infos/cost"] = np.concatenate([[9.0], part["costs"]])  # the reset's comes first
            for name, theirs in (("actions", "actions"), ("rewards", "rewards"), ("terminals", "terminations"),
                                 ("timeouts", "truncations")):  # fmt: skip
                group[theirs] = part[name]
    describe(folder / "pen" / "data" / "metadata.json", total_episodes=3, total_steps=10, data_format="hdf5")
    return folder / "pen"


def minari_arrow(folder: Path, log, suffix: str = "arrow") -> Path:
    """Minari 0.5, Arrow and Parquet storage: a folder an episode, all but observations and infos padded by a row."""
    import pyarrow
    import pyarrow.dataset

    data = folder / "pen-arrow" / "data"
    for index, part in enumerate(episodes(log)):
        padded = {name: np.concatenate([values, np.zeros_like(values[:1])]) for name, values in part.items()}
        batch = pyarrow.RecordBatch.from_pydict(
            {
                "episode_id": np.full(len(padded["rewards"]), index, dtype=np.int32),
                "observations": fixed(part["all_observations"]),
                "actions": fixed(padded["actions"]),
                "rewards": padded["rewards"],
                "terminations": padded["terminals"],
                "truncations": padded["timeouts"],
                "infos": pyarrow.StructArray.from_arrays([np.concatenate([[9.0], part["costs"]])], names=["cost"]),
            }
        )
        options = {"partitioning": ["episode_id"], "existing_data_behavior": "overwrite_or_ignore"}
        pyarrow.dataset.write_dataset(batch, data, format=suffix, **options)
        describe(data / str(index) / "metadata.json", id=index, total_steps=len(part["rewards"]))
    describe(data / "metadata.json", total_episodes=3, total_steps=10, data_format=suffix)
    return data.parent


def minari_parquet(folder: Path, log) -> Path:
    return minari_arrow(folder, log, "parquet")


def robomimic(folder: Path, log) -> Path:
    """robomimic 0.3: states of the simulator, observations by keys, dones that mark success; one cost of ours."""
    with h5py.File(folder / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["total"], data.attrs["env_args"] = 10, json.dumps({"env_name": "Lift", "type": 1})
        for index, part in reversed(list(enumerate(episodes(log)))):
            demo = data.create_group(f"demo_{9 + index}")  # demo_10 sorts before demo_9
            demo.attrs["num_samples"] = len(part["rewards"])
            demo["states"] = np.full((len(part["rewards"]), 32), 7.0)
            demo["actions"], demo["rewards"], demo["costs"] = part["actions"], part["rewards"], part["costs"]
            demo["dones"] = np.ones(len(part["rewards"]), dtype=np.int64)
            for of, values in (("obs", part["observations"]), ("next_obs", part["next_observations"])):
                demo[f"{of}/robot0_eef_pos"], demo[f"{of}/object"] = values[:, :3], values[:, 3:]
                demo[f"{of}/agentview_image"] = np.zeros((len(values), 4, 4, 3), dtype=np.uint8)
        file["mask/train"] = np.array([b"demo_9", b"demo_10"])
    return folder / "demo.hdf5"


def maniskill(folder: Path, log) -> Path:
    """ManiSkill 3: a group a trajectory, an observation more than actions."""
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for index, part in enumerate(episodes(log)):
            group = file.create_group(f"traj_{index}")
            group["obs"], group["actions"], group["rewards"] = (
                part["all_observations"],
                part["actions"],
                part["rewards"],
            )
            group["terminated"], group["truncated"] = part["terminals"], part["timeouts"]
            group["cost"], group["success"] = part["costs"], part["terminals"]
            group["env_states/actors/cube"] = np.zeros((len(part["all_observations"]), 13))
    return folder / "trajectory.h5"


def lerobot(folder: Path, log, version: str = "v3.0") -> Path:
    """LeRobot: v2.1 has a file an episode, v3.0 several episodes a file; rewards and ends are named as the next's."""
    import pyarrow
    import pyarrow.parquet

    root = folder / "lerobot"
    table, ends = {}, log["terminals"] | log["timeouts"]
    numbers = np.repeat(np.arange(3), LENGTHS)
    table["observation.state"] = pyarrow.array(list(log["observations"]), pyarrow.list_(pyarrow.float32()))
    table["action"] = pyarrow.array(list(log["actions"]), pyarrow.list_(pyarrow.float32(), 2))
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table["observation.images.top"] = pyarrow.array([{"bytes": b"png", "path": None}] * 10, image)
    table |= {"next.reward": log["rewards"], "next.done": ends, "cost": log["costs"], "next.success": log["terminals"]}
    table["frame_index"] = np.concatenate([np.arange(n) for n in LENGTHS])
    table["timestamp"] = (table["frame_index"] / 30).astype(np.float32)
    table |= {"episode_index": numbers, "index": np.arange(10), "task_index": np.zeros(10, dtype=np.int64)}
    whole = pyarrow.table(table)
    name = "episode_{:06d}.parquet" if version < "v3" else "file-{:03d}.parquet"
    data = root / "data" / "chunk-000"
    data.mkdir(parents=True)
    cuts = OFFSETS if version < "v3" else OFFSETS[[0, 2, 3]]
    for index, (start, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        pyarrow.parquet.write_table(whole.slice(start, end - start), data / name.format(index))
    features = {"observation.state": {"dtype": "float32", "shape": [8]}, "action": {"dtype": "float32", "shape": [2]}}
    info = {"codebase_version": version, "total_episodes": 3, "total_frames": 10, "features": features}
    describe(root / "meta" / "info.json", **info)
    return root


def lerobot_2(folder: Path, log) -> Path:
    return lerobot(folder, log, "v2.1")


def imitation(folder: Path, log) -> Path:
    """imitation 1.0: a Hugging Face dataset, a row a trajectory; a cost column of ours."""
    import pyarrow
    import pyarrow.ipc

    root = folder / "imitation"
    root.mkdir()
    parts = episodes(log)
    table = pyarrow.table(
        {
            "obs": [part["all_observations"].tolist() for part in parts],
            "acts": [part["actions"].tolist() for part in parts],
            "infos": [["{}"] * len(part["actions"]) for part in parts],
            "terminal": [bool(part["terminals"][-1]) for part in parts],
            "rews": [part["rewards"].tolist() for part in parts],
            "costs": [part["costs"].tolist() for part in parts],
        }
    )
    file = str(root / "data-00000-of-00001.arrow")
    with pyarrow.OSFile(file, "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    describe(root / "state.json", _data_files=[{"filename": "data-00000-of-00001.arrow"}])
    describe(root / "dataset_info.json", features={})
    return root


def imitation_npz(folder: Path, log) -> Path:
    """imitation before 1.0; infos are Python objects."""
    parts = episodes(log)
    arrays = {"obs": np.concatenate([part["all_observations"] for part in parts]), "acts": log["actions"]}
    arrays |= {"rews": log["rewards"], "infos": np.array([{}] * 10), "terminal": log["terminals"][OFFSETS[1:] - 1]}
    np.savez(folder / "rollout.npz", **arrays, indices=OFFSETS[1:-1])
    return folder / "rollout.npz"


def baselines_expert(folder: Path, log) -> Path:
    """Stable-Baselines 2: generate_expert_traj."""
    starts = np.isin(np.arange(10), OFFSETS[:-1])
    arrays = {"obs": log["observations"], "actions": log["actions"], "rewards": log["rewards"], "costs": log["costs"]}
    np.savez(folder / "expert.npz", **arrays, episode_returns=np.zeros(3), episode_starts=starts)
    return folder / "expert.npz"


def baselines_3_buffer(folder: Path, log) -> Path:
    """Stable-Baselines3: arrays of a ReplayBuffer of two environments, dones with every end, as saved by numpy."""
    ends = log["terminals"] | log["timeouts"]
    arrays = {"observations": log["observations"], "next_observations": log["next_observations"]}
    arrays |= {"actions": log["actions"], "rewards": log["rewards"], "costs": log["costs"]}
    arrays |= {"dones": ends, "timeouts": log["timeouts"]}
    # environment 0 has the first two episodes (8 steps), environment 1 the third and an unfinished rest
    shaped = {}
    for name, values in arrays.items():
        second = np.concatenate([values[8:], np.zeros((6, *values.shape[1:]), values.dtype)])
        shaped[name] = np.stack([values[:8], second], axis=1)
    np.savez(folder / "buffer.npz", **shaped)
    return folder / "buffer.npz"


def table(folder: Path, log, suffix: str = "parquet") -> Path:
    """A pandas frame with a column of episodes, as Parquet."""
    frame(log).to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def tables(folder: Path, log) -> Path:
    """A folder of pandas frames as Parquet, one for each episode."""
    (folder / "parquet").mkdir()
    for index, part in frame(log).groupby("episode"):
        part.drop(columns="episode").to_parquet(folder / "parquet" / f"run{index + 8}.parquet")
    return folder / "parquet"


def one_csv(folder: Path, log) -> Path:
    frame(log).to_csv(folder / "all.csv", index=False)
    return folder / "all.csv"


def frame(log):
    """The log as a pandas frame with a row for each step."""
    import pandas as pd

    columns = {f"obs_{i}": log["observations"][:, i] for i in range(log["observations"].shape[1])}
    columns |= {f"next_obs_{i}": log["next_observations"][:, i] for i in range(log["observations"].shape[1])}
    columns |= {f"action_{i}": log["actions"][:, i] for i in range(2)}
    columns |= {"reward": log["rewards"], "cost": log["costs"], "terminated": log["terminals"]}
    numbers = np.repeat(np.arange(3), LENGTHS)
    return pd.DataFrame(columns | {"truncated": log["timeouts"], "episode": numbers})


def fixed(values: np.ndarray):
    import pyarrow

    kind = pyarrow.list_(pyarrow.from_numpy_dtype(values.dtype), list_size=values.shape[1])
    return pyarrow.FixedSizeListArray.from_arrays(values.reshape(-1), type=kind)


def describe(path: Path, **fields) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
