"""Conversions: the same three episodes in every format come out the same, and what is missing is said."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest

from safemil import datasets
from safemil.config.errors import UserError
from safemil.data import provenance as file_notes
from safemil.data.convert import convert
from safemil.data.hdf5 import load, read_layout
from safemil.data.tasks import find_task

LENGTHS = (3, 5, 2)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


@pytest.fixture
def log(rng) -> dict[str, np.ndarray]:
    """Flat arrays of three episodes: the first two were cut, the third ended by itself."""
    n = OFFSETS[-1]
    ends = np.zeros((2, n), dtype=bool)
    ends[0, 9], ends[1, [2, 7]] = True, True
    return {
        "observations": rng.normal(size=(n, 8)).astype(np.float32),
        "next_observations": rng.normal(size=(n, 8)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "rewards": rng.random(n).astype(np.float32),
        "costs": rng.integers(0, 2, n).astype(np.float32),
        "terminals": ends[0],
        "timeouts": ends[1],
    }


def npz(folder, log):
    np.savez(folder / "log.npz", **log)
    return folder / "log.npz"


def hdf5(folder, log):
    with h5py.File(folder / "log.h5", "w") as file:
        for name, values in log.items():
            file["infos/cost" if name == "costs" else name] = values
    return folder / "log.h5"


def minari(folder, log):
    (folder / "pen" / "data").mkdir(parents=True)
    with h5py.File(folder / "pen" / "data" / "main_data.hdf5", "w") as file:
        for index, (start, end) in enumerate(zip(OFFSETS[:-1], OFFSETS[1:], strict=True)):
            group = file.create_group(f"episode_{index}")
            group["observations"] = np.concatenate(
                [log["observations"][start:end], log["next_observations"][end - 1 : end]]
            )
            group["infos/cost"] = np.concatenate([[9.0], log["costs"][start:end]])  # the reset's comes first
            for name, theirs in (("actions", "actions"), ("rewards", "rewards"), ("terminals", "terminations"),
                                 ("timeouts", "truncations")):  # fmt: skip
                group[theirs] = log[name][start:end]
    return folder / "pen"


def csvs(folder, log):
    (folder / "csv").mkdir()
    names = [
        f"{one}_{column}"
        for one, n in (("observation", 8), ("next_observation", 8), ("action", 2))
        for column in range(n)
    ]
    for index, (start, end) in enumerate(zip(OFFSETS[:-1], OFFSETS[1:], strict=True)):
        with (folder / "csv" / f"{index:02d}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*names, "reward", "cost", "terminal", "timeout"])
            for row in range(start, end):
                vectors = [log[name][row] for name in ("observations", "next_observations", "actions")]
                rest = [float(log[name][row]) for name in ("rewards", "costs", "terminals", "timeouts")]
                writer.writerow([*map(float, np.concatenate(vectors)), *rest])
    return folder / "csv"


@pytest.mark.parametrize("write", [npz, hdf5, minari, csvs])
def test_round_trip(write, log, tmp_path):
    output = tmp_path / "out.hdf5"
    report = convert(write(tmp_path, log), output, find_task("BallCircle"))
    assert len(report) == 1 and report[0].endswith("3 trajectories, 10 steps, observations 8, actions 2")
    trajectories, outcomes = load(output)
    np.testing.assert_array_equal(trajectories.offsets, OFFSETS)
    np.testing.assert_array_equal(trajectories.observations, log["observations"])
    np.testing.assert_array_equal(trajectories.actions, log["actions"])
    for name in ("rewards", "costs", "terminals"):
        np.testing.assert_array_equal(getattr(outcomes, name), log[name])
    with h5py.File(output) as file:
        following, timeouts = file["next_observations"][:], file["timeouts"][:]
    np.testing.assert_array_equal(timeouts, log["timeouts"])
    last = OFFSETS[1:] - 1
    np.testing.assert_array_equal(following[last], log["next_observations"][last])


def test_says_what_was_missing(log, tmp_path, capsys):
    del log["costs"], log["next_observations"], log["terminals"], log["timeouts"]
    source, output = npz(tmp_path, log | {"lengths": np.array(LENGTHS)}), tmp_path / "out.hdf5"
    assert datasets.main(["convert", str(source), "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines[1:-1]] == [
        "missing: costs",
        "missing: terminals",
        "missing: timeouts",
        "missing: next_observations",
    ]
    assert "neither rewards nor costs are written" in lines[1]
    trajectories, outcomes = load(output)
    assert outcomes is None and trajectories.lengths.tolist() == list(LENGTHS)
    assert read_layout(output).attributes["missing"] == "costs terminals timeouts next_observations"
    assert file_notes.origin_of(output, read_layout(output).attributes) == "converted (npz log.npz)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "no actions; looked for actions, action, acts"),
        ({"terminals": None, "timeouts": None}, "no terminals or timeouts say where episodes end"),
        ({"rewards": np.zeros(4)}, "rewards has 4 rows, but 10 steps are in its episodes"),
        ({"observations": np.zeros((10, 4, 4))}, "images are not supported"),
        ({"actions": np.full((10, 2), 30.0)}, "expected \\[-1, 1\\]: other units"),
        ({"observations": np.zeros((10, 5))}, "is this the file of another task"),
    ],
)
def test_what_cannot_be_converted(change, message, log, tmp_path):
    changed = {name: values for name, values in (log | change).items() if values is not None}
    if "observations" in change:
        del changed["next_observations"]
    output = tmp_path / "out.hdf5"
    with pytest.raises(UserError, match=message):
        convert(npz(tmp_path, changed), output, find_task("BallCircle"))
    assert not output.exists()


def test_unknown_formats_and_files_in_the_way(log, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        convert(tmp_path / "nothing", tmp_path / "out.hdf5")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="expected .npz, .hdf5, .h5, a Minari dataset or a folder of .csv"):
        convert(tmp_path / "notes.txt", tmp_path / "out.hdf5")
    (tmp_path / "out.hdf5").touch()
    with pytest.raises(UserError, match="exists; remove it, or name another file"):
        convert(npz(tmp_path, log), tmp_path / "out.hdf5")
