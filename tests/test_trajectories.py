"""Trajectories in memory and in files: the layout by hand, the round trip, and the message of every refusal."""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import subprocess
import sys

import h5py
import numpy as np
import pytest

from safemil.data.hdf5 import load, save
from safemil.data.tasks import find_task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories

LENGTHS = (3, 2, 4)
OFFSETS = np.array([0, 3, 5, 9])
TASK = find_task("BallCircle")  # 8 observations, 2 actions


@pytest.fixture
def trajectories(rng) -> Trajectories:
    return Trajectories(rng.normal(size=(9, 8)), rng.uniform(-1, 1, (9, 2)), OFFSETS)


@pytest.fixture
def outcomes() -> Outcomes:
    terminals = np.arange(9) == 4  # the second episode ends by itself, the others by the time limit
    return Outcomes(np.arange(9), [1, 0, 1, 0, 0, 1, 1, 1, 1], terminals, OFFSETS)


@pytest.fixture
def path(tmp_path, trajectories, outcomes):
    save(tmp_path / "data.hdf5", trajectories, outcomes, {"recipe": "test", "seed": 3})
    return tmp_path / "data.hdf5"


def change(path, key, value) -> None:
    """Replace a key of the file, or remove it."""
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value


class TestInMemory:
    def test_layout(self, trajectories):
        assert len(trajectories) == 3 and trajectories.n_steps == 9
        assert (trajectories.observation_dim, trajectories.action_dim) == (8, 2)
        assert trajectories.lengths.tolist() == [3, 2, 4]

    def test_one_step_is_a_trajectory_and_fields_cannot_be_set(self):
        zeros, offsets = np.zeros((3, 1)), [0, 1, 3]
        trajectories = Trajectories(zeros, zeros, offsets)
        outcomes = Outcomes(zeros[:, 0], zeros[:, 0], np.zeros(3, bool), offsets)
        for values, name in ((trajectories, "actions"), (outcomes, "costs")):
            assert len(values) == 2 and values != dataclasses.replace(values)  # told apart by identity
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(values, name, zeros)

    @pytest.mark.parametrize(
        ("column", "kept"),
        [
            ([16_777_217.0] * 3, True),  # 2**24 + 1 becomes 2**24, but nothing is told apart by it
            ([0.0, 1e9 + 33, 2e9 + 33], True),  # an error of 33 in a range of two thousand million
            ([1.0, 1 + 1e-9, 1 + 2e-9], True),  # noise of small numbers
            ([1e4, 1e4 + 1e-4, 1e4 + 2e-4], False),  # float32 has steps of 0.001 there
            ([-1.7e9, 1 - 1.7e9, 2 - 1.7e9], False),
            (np.array([2**24, 2**24 + 1, 2**24 + 2]), False),
        ],
    )
    def test_numbers_that_float32_tells_apart(self, column, kept):
        observations = np.column_stack([np.arange(3.0), column])
        if kept:
            assert len(Trajectories(observations, np.zeros((3, 1)), [0, 3])) == 1
        else:
            with pytest.raises(DatasetError, match="observations: column 1 runs from .* subtract an offset"):
                Trajectories(observations, np.zeros((3, 1)), [0, 3])

    def test_rows_keep_order_and_repeats(self, trajectories):
        assert trajectories.rows([2, 0]).tolist() == [5, 6, 7, 8, 0, 1, 2]
        assert trajectories.rows([1, 1]).tolist() == [3, 4, 3, 4]
        assert trajectories.rows([]).tolist() == []
        assert trajectories.rows(np.array([False, True, False])).tolist() == [3, 4]
        assert trajectories.rows([-1]).tolist() == [5, 6, 7, 8]
        with pytest.raises(IndexError):
            trajectories.rows([3])

    def test_select(self, trajectories, outcomes):
        chosen, theirs = trajectories.select([2, 0]), outcomes.select([2, 0])
        assert chosen.offsets.tolist() == theirs.offsets.tolist() == [0, 4, 7]
        np.testing.assert_array_equal(chosen.observations[4:], trajectories.observations[:3])
        np.testing.assert_array_equal(theirs.rewards, [5, 6, 7, 8, 0, 1, 2])
        assert theirs.returns.tolist() == [26, 3] and theirs.costs_total.tolist() == [4, 2]
        assert len(trajectories.select([])) == 0 and outcomes.select([]).returns.shape == (0,)

    def test_sums_are_exact_where_float32_would_not_be(self):
        n = 300_000
        outcomes = Outcomes(np.full(n, 0.1), np.ones(n), np.zeros(n, bool), np.array([0, n]))
        assert outcomes.returns.dtype == np.float64
        assert outcomes.returns[0] == pytest.approx(n * float(np.float32(0.1)), rel=1e-12)

    def test_arrays_are_read_only_and_the_callers_stay_writable(self):
        observations = np.zeros((2, 3), dtype=np.float32)
        trajectories = Trajectories(observations, np.zeros((2, 1)), [0, 2])
        for array in (trajectories.observations, trajectories.actions, trajectories.offsets, trajectories.lengths):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        observations[0] = 1

    @pytest.mark.parametrize(
        ("observations", "actions", "offsets", "message"),
        [
            (np.zeros((4, 2)), np.zeros((3, 1)), [0, 4], "actions: 3 rows, but the offsets end at 4"),
            (np.zeros((4, 2)), np.zeros((4, 1)), [0, 3], "observations: 4 rows, but the offsets end at 3"),
            (np.zeros((4, 2)), np.zeros((4, 1)), [0, 2, 2, 4], "trajectory 1 has no rows"),
            (np.zeros((4, 2)), np.zeros((4, 1)), [0, 1, 1, 4], r"trajectory 1 has no rows \(1 to 1\)"),
            (np.zeros((4, 2)), np.zeros((4, 1)), [1, 4], "must begin with 0"),
            (np.zeros(4), np.zeros((4, 1)), [0, 4], r"observations: shape \(4,\) has 1 dimension"),
            (np.array([[0.0], [np.nan]]), np.zeros((2, 1)), [0, 2], "observations: row 1 holds NaN or infinity"),
        ],
    )
    def test_refusals(self, observations, actions, offsets, message):
        with pytest.raises(DatasetError, match=message):
            Trajectories(observations, actions, offsets)


class TestFile:
    def test_round_trip(self, path, trajectories, outcomes):
        read, theirs = load(path, TASK)
        for name in ("observations", "actions", "offsets"):
            np.testing.assert_array_equal(getattr(read, name), getattr(trajectories, name))
        for name in ("rewards", "costs", "terminals", "offsets"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(outcomes, name))
        assert read.observations.dtype == np.float32 and theirs.terminals.dtype == bool

    def test_file_has_dsrls_keys(self, path, trajectories):
        with h5py.File(path) as file:
            keys = {"observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts"}
            assert set(file) == keys
            assert dict(file.attrs) == {"recipe": "test", "seed": 3}
            assert np.flatnonzero(file["terminals"][:]).tolist() == [4]
            assert np.flatnonzero(file["timeouts"][:]).tolist() == [2, 8]
            following = file["next_observations"][:]
        np.testing.assert_array_equal(following[[0, 1, 3]], trajectories.observations[[1, 2, 4]])
        np.testing.assert_array_equal(following[[2, 4, 8]], trajectories.observations[[2, 4, 8]])

    def test_same_arrays_same_bytes_and_nothing_left_behind(self, path, trajectories, outcomes):
        first = path.read_bytes()
        save(path, trajectories, outcomes, {"recipe": "test", "seed": 3})
        assert path.read_bytes() == first
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_failed_save_leaves_the_old_file(self, path, trajectories, outcomes):
        before = path.read_bytes()
        with pytest.raises(TypeError):
            save(path, trajectories, outcomes, {"recipe": object()})
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_outcomes_must_belong(self, tmp_path, trajectories, outcomes):
        with pytest.raises(DatasetError, match="different offsets"):
            save(tmp_path / "x.hdf5", trajectories, outcomes.select([1, 0, 2]), {})
        with pytest.raises(DatasetError, match=r"next_observations: shape \(2, 8\)"):
            save(tmp_path / "x.hdf5", trajectories, outcomes, {}, next_observations=np.zeros((2, 8)))

    @pytest.mark.parametrize("key", ["rewards", "costs"])
    def test_without_rewards_or_costs(self, path, key):
        change(path, key, None)
        trajectories, outcomes = load(path, TASK)
        assert len(trajectories) == 3 and outcomes is None

    def test_unfinished_tail_is_dropped_and_told(self, path, caplog):
        change(path, "timeouts", np.arange(9) == 2)
        trajectories, outcomes = load(path, TASK)
        assert trajectories.lengths.tolist() == [3, 2] and outcomes.returns.tolist() == [3, 7]
        assert "dropped the last 4 rows, an unfinished episode" in caplog.text

    def test_one_kind_of_end_is_enough(self, path):
        change(path, "terminals", None)
        trajectories, outcomes = load(path, TASK)
        assert trajectories.lengths.tolist() == [3, 6] and not outcomes.terminals.any()

    def test_columns_and_other_types_as_dsrl_allows(self, path):
        change(path, "rewards", np.arange(9.0).reshape(9, 1))
        change(path, "timeouts", (np.arange(9) % 9 == 8).astype(float).reshape(9, 1))
        _, outcomes = load(path, TASK)
        assert outcomes.returns.tolist() == [10, 26] and outcomes.rewards.dtype == np.float32

    def test_sampled_actions_are_clipped_and_told(self, path, trajectories, caplog):
        actions = trajectories.actions.copy()
        actions[4] = [1.7, -2.5]
        change(path, "actions", actions)
        read, _ = load(path, TASK)
        assert read.actions[4].tolist() == [1, -1]
        assert "clipped 1 of 9 actions to [-1, 1] (largest 2.5)" in caplog.text

    def test_rounding_beyond_one_is_clipped_in_silence(self, path, trajectories, caplog):
        change(path, "actions", np.full_like(trajectories.actions, 1.00001))
        with caplog.at_level(logging.WARNING):
            assert load(path, TASK)[0].actions.max() == 1
        assert not caplog.records

    def test_too_long_an_episode_is_told(self, tmp_path, caplog):
        n = TASK.horizon + 1
        save(tmp_path / "x.hdf5", Trajectories(np.zeros((n, 8)), np.zeros((n, 2)), [0, n]), None, {})
        load(tmp_path / "x.hdf5", TASK)
        assert "trajectory 0 has 201 steps, a BallCircle episode 200: is an end missing?" in caplog.text

    def test_compressed_and_read_in_pieces(self, path, rng, monkeypatch):
        monkeypatch.setattr("safemil.data.hdf5.ROWS_PER_READ", 4)
        observations = rng.normal(size=(9, 8))
        with h5py.File(path, "r+") as file:
            del file["observations"]
            file.create_dataset("observations", data=observations, chunks=(3, 4), compression="gzip")
        np.testing.assert_array_equal(load(path, TASK)[0].observations, observations.astype(np.float32))
        observations[7, 2] = np.inf
        change(path, "observations", observations)
        with pytest.raises(DatasetError, match="'observations': row 7 of 9 holds NaN or infinity"):
            load(path)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("actions", None, "key 'actions' is missing; found costs, next_observations, observations"),
            ("actions", np.zeros((8, 2)), "'actions' has 8 rows, but 'observations' has 9"),
            ("rewards", np.zeros(5), "'rewards' has 5 rows, but 'observations' has 9"),
            ("rewards", np.zeros((9, 2)), r"'rewards' has shape \(9, 2\), expected \(9,\)"),
            (
                "actions",
                np.zeros((9, 3)),
                r"'actions' has shape \(9, 3\), expected \(9, 2\); is this the file of another",
            ),
            ("observations", np.zeros((9, 7)), r"'observations' has shape \(9, 7\), expected \(9, 8\)"),
            ("next_observations", np.zeros((9, 7)), r"'next_observations' has shape \(9, 7\), expected \(9, 8\)"),
            ("costs", np.where(np.arange(9) == 6, np.nan, 0), "'costs': row 6 of 9 holds NaN or infinity"),
            ("rewards", np.full(9, 1e300), "'rewards': row 0 of 9 holds NaN or infinity"),
            ("actions", np.full((9, 2), 90.0), r"'actions': row 0 reaches 90, expected \[-1, 1\]"),
            ("timeouts", np.full(9, 2), "'timeouts': row 0 is 2, expected 0 or 1"),
            ("observations", np.zeros((0, 8)), "'observations' has no rows"),
            ("observations", np.array([b"x"] * 9), "'observations' is not an array of numbers"),
            ("observations", h5py.Empty("f"), "'observations' is not an array of numbers"),
            ("rewards", h5py.Empty("f"), "'rewards' is not an array of numbers"),
            ("rewards", np.float32(3), "'rewards' has 0 rows, but 'observations' has 9"),
            ("actions", np.arange(9).reshape(9, 1), "'actions' are whole numbers in one column: discrete"),
            ("actions", np.arange(9) % 2 == 0, "'actions' are whole numbers in one column: discrete"),
            (
                "observations",
                1.7e9 + np.tile(np.arange(9.0), (8, 1)).T,
                "'observations': column 0 runs from 1700000000 to",
            ),
        ],
    )
    def test_refusals_name_key_and_row(self, path, key, value, message):
        change(path, key, value)
        with pytest.raises(DatasetError, match=message) as raised:
            load(path, TASK)
        assert str(raised.value).startswith(f"{path}: ")

    def test_a_group_and_a_shape_that_no_memory_holds(self, path):
        change(path, "rewards", None)
        with h5py.File(path, "r+") as file:
            file.create_group("rewards")
        with pytest.raises(DatasetError, match="'rewards' is not an array of numbers but <HDF5 group"):
            load(path)
        change(path, "rewards", None)
        change(path, "observations", None)
        with h5py.File(path, "r+") as file:
            file.create_dataset("observations", shape=(9, 2**58), dtype="f4", chunks=(1, 8))
        with pytest.raises(DatasetError, match="would need .* bytes, but the file has .*: is it damaged"):
            load(path)

    def test_no_ends(self, path):
        change(path, "terminals", np.zeros(9))
        change(path, "timeouts", np.zeros(9))
        with pytest.raises(DatasetError, match="no episode ends: terminals and timeouts are 0 in all 9 rows"):
            load(path)
        change(path, "terminals", None)
        change(path, "timeouts", None)
        with pytest.raises(DatasetError, match="neither 'terminals' nor 'timeouts' is there"):
            load(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "the file is empty"),
            (b"\n<!DOCTYPE html><html>moved</html>", r"a web page \(HTML\), not an HDF5 file"),
            (b"version https://git-lfs", "not an HDF5 file"),
        ],
    )
    def test_not_hdf5(self, tmp_path, content, message):
        (tmp_path / "x.hdf5").write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            load(tmp_path / "x.hdf5")

    def test_locked_or_compressed_by_an_unknown_filter_is_not_called_damaged(self, path, trajectories):
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(DatasetError, match="another process is writing this file") as raised:
                load(path)
        assert "delete" not in str(raised.value)
        with h5py.File(path, "r+") as file:
            del file["observations"]
            pipeline = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            pipeline.set_chunk((9, 8))
            pipeline.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd, which needs hdf5plugin
            space = h5py.h5s.create_simple((9, 8))
            dataset = h5py.h5d.create(file.id, b"observations", h5py.h5t.NATIVE_FLOAT, space, pipeline)
            dataset.write_direct_chunk((0, 0), b"(compressed)")
        with pytest.raises(DatasetError, match="a filter that is not installed .*pip install hdf5plugin") as raised:
            load(path)
        assert "delete" not in str(raised.value)

    def test_missing_truncated_and_damaged(self, tmp_path, path):
        with pytest.raises(DatasetError, match=r"nothing.hdf5: no such file"):
            load(tmp_path / "nothing.hdf5")
        with pytest.raises(DatasetError, match="not a file"):
            load(tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DatasetError, match=r"truncated or damaged HDF5 file \(\d+ bytes"):
            load(path)
        path.write_bytes(content[:100] + bytes(3000) + content[3100:])
        with pytest.raises(DatasetError, match="truncated or damaged|is missing"):
            load(path)


def test_reading_needs_no_simulator_and_importing_no_h5py(path):
    script = """
import sys, safemil.data.trajectories, safemil.data.hdf5, safemil.datasets, safemil.collect
import safemil.collection.recipes.table
assert not {"h5py", "requests", "filelock", "tqdm", "torch", "gymnasium"} & set(sys.modules), "imported too early"
safemil.data.hdf5.load(sys.argv[1])
assert not {"gymnasium", "dsrl", "torch"} & set(sys.modules), "reading a file imports a simulator"
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
