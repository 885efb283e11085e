"""Collecting: in a stand-in simulator for the bookkeeping, in the real one for the data."""

from __future__ import annotations

import json
import logging

import h5py
import numpy as np
import pytest

from safemil import collect, datasets, simulators
from safemil.behaviors import BALL_CIRCLE, RECIPES, CircleDriver, RunDriver, find_recipe
from safemil.errors import UserError
from safemil.tasks import find_task
from safemil.trajectories import load

TASK = find_task("BallCircle")


class Walk:
    """A stand-in for the simulator: the seed sets the start, half the episodes end by themselves after 3 of 5 steps."""

    def __init__(self, task):
        self.task = task

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def reset(self, seed):
        self.state, self.steps = np.full(8, (seed % 1000) / 1000, dtype=np.float32), 0
        self.short = seed % 2 == 0
        return self.state.copy()

    def step(self, action):
        self.steps += 1
        self.state[:2] += action
        terminated = self.short and self.steps == 3
        return (
            self.state.copy(),
            float(action[0]),
            float(self.steps > 1),
            terminated,
            not terminated and self.steps == 5,
        )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def walk(monkeypatch):
    monkeypatch.setattr(simulators, "make", Walk)


def run(n: int = 10, **options):
    return collect.collect(TASK, n_trajectories=n, workers=1, progress=False, **options)


class TestBookkeeping:
    def test_file_in_dsrls_format_with_provenance(self, folder, walk):
        path = run()
        assert path == folder / "SafetyBallCircle-v0-4-10.hdf5"  # cost 4 in the episodes of 5 steps
        trajectories, outcomes = load(path, TASK)
        assert len(trajectories) == 10 and set(trajectories.lengths) == {3, 5}
        np.testing.assert_array_equal(outcomes.costs_total, trajectories.lengths - 1)
        ends = outcomes.terminals[trajectories.offsets[1:] - 1]
        np.testing.assert_array_equal(ends, trajectories.lengths == 3)
        with h5py.File(path) as file:
            attributes, following = dict(file.attrs), file["next_observations"][:]
            timeouts = file["timeouts"][:]
        assert timeouts.sum() == (trajectories.lengths == 5).sum()
        np.testing.assert_allclose(following[:, :2], trajectories.observations[:, :2] + trajectories.actions, atol=1e-6)
        assert attributes["collected_by"] == "safemil.collect"
        assert (attributes["task"], attributes["recipe"], attributes["seed"]) == ("BallCircle", "scripted", 0)
        assert "numpy" in json.loads(attributes["versions"])
        assert json.loads(attributes["parameters"])["clip"] == list(BALL_CIRCLE["clip"])

    def test_trajectory_i_depends_on_seed_and_i_alone(self, tmp_path, walk):
        ten, _ = load(run(10, output=tmp_path / "ten.hdf5"))
        four, _ = load(run(4, output=tmp_path / "four.hdf5"))
        other, _ = load(run(4, output=tmp_path / "other.hdf5", seed=1))
        np.testing.assert_array_equal(ten.select(range(4)).actions, four.actions)
        np.testing.assert_array_equal(ten.select(range(4)).observations, four.observations)
        assert not np.array_equal(four.observations[0], other.observations[0])

    def test_same_seed_same_bytes(self, tmp_path, walk):
        first, second = (run(output=tmp_path / name) for name in ("a.hdf5", "b.hdf5"))
        assert first.read_bytes() == second.read_bytes()

    def test_existing_file_is_left_alone(self, walk, caplog, monkeypatch):
        caplog.set_level(logging.INFO)
        path = run()
        monkeypatch.setattr(collect, "record_all", None)  # would fail if it were called
        assert run() == path
        assert "exists already, collected with these settings" in caplog.text
        with pytest.raises(UserError, match=r"exists and was made otherwise \(seed 0\); --overwrite replaces it"):
            run(seed=7)

    def test_overwrite_replaces_the_file_of_that_size(self, folder, walk):
        run(4)
        path = run(10)
        path.rename(folder / "SafetyBallCircle-v0-99-10.hdf5")  # as if other data had another maximum cost
        assert run(10, seed=7, overwrite=True) == path
        assert sorted(file.name for file in folder.glob("*.hdf5")) == [
            "SafetyBallCircle-v0-4-10.hdf5",
            "SafetyBallCircle-v0-4-4.hdf5",
        ]
        assert datasets.find(TASK) == path

    def test_a_file_of_somebody_else_is_never_overwritten(self, folder, walk):
        path = run()
        with h5py.File(path, "r+") as file:
            file.attrs.clear()
        with pytest.raises(UserError, match="was not made by this command and is not overwritten"):
            run(overwrite=True)
        with pytest.raises(UserError, match="was made otherwise .task unknown, recipe unknown"):
            run()

    def test_fetch_finds_it(self, walk):
        assert run() == datasets.fetch(TASK, sources=[])


class TestMistakes:
    def test_unknown_recipe_or_task_without_one(self):
        with pytest.raises(UserError, match="unknown recipe 'learned' for BallCircle: there is scripted"):
            run(recipe="learned")
        with pytest.raises(
            UserError, match="no recipe to collect CarRun with yet; there are recipes for: BallCircle BallRun"
        ):
            collect.collect(find_task("CarRun"))

    def test_numbers_out_of_range(self):
        with pytest.raises(UserError, match="--trajectories 0: expected at least 1"):
            run(0)
        with pytest.raises(UserError, match="--seed -1: expected at least 0"):
            run(seed=-1)

    def test_command_line(self, folder, walk, capsys):
        assert collect.main(["--task", "BallCircle", "--trajectories", "3", "--workers", "1"]) == 0
        assert capsys.readouterr().out == f"{folder / 'SafetyBallCircle-v0-4-3.hdf5'}\n"
        assert collect.main(["--task", "BalCircle"]) == 2
        assert capsys.readouterr().err.startswith("error: unknown task 'BalCircle'")
        assert collect.main(["--task", "BallCircle", "BallRun", "--output", "x.hdf5"]) == 2
        assert "--output names one file, but there are 2 tasks" in capsys.readouterr().err
        assert collect.main(["--list"]) == 0
        assert "BallCircle           scripted       700 trajectories" in capsys.readouterr().out


class TestBehaviors:
    def test_every_entry_of_the_table_belongs_to_a_task(self):
        for name, recipes in RECIPES.items():
            assert recipes and find_task(name)
            assert find_recipe(find_task(name), next(iter(recipes))).n_trajectories > 0

    def test_draws_within_its_ranges(self, rng):
        for _ in range(50):
            driver = CircleDriver.draw(rng)
            assert all(low <= getattr(driver, name) <= high for name, (low, high) in BALL_CIRCLE.items())

    def test_cautious_and_reckless_differ_in_the_same_state(self, rng):
        """At x = 5, moving clockwise and outwards: the one clipped at 4 pushes back, the one clipped at 8 does not."""
        observation = np.array(
            [0.5, 0.45, 0.2, -0.2, 0, 0, 0, 0], dtype=np.float32
        )  # position (5, 4.5), velocity (1, -1)
        push = {
            clip: CircleDriver(clip, radius=7.5, lead=0.8, stiffness=0.3, damping=0.5, noise=0.0).act(observation, rng)
            for clip in (4.0, 8.0)
        }
        assert push[4.0][0] < -0.2 and push[8.0][0] > 0.2
        assert push[4.0][1] == push[8.0][1] < 0
        assert push[4.0].dtype == np.float32

    def test_runners_hold_speed_and_lane(self, rng):
        observation = np.array([0.3, 0.1, 0.4, 0.2, 0, 0, 0], dtype=np.float32)  # position (3, 1), velocity (2, 1)
        slow, fast = (
            RunDriver(speed, lane=0.5, eagerness=1.0, stiffness=0.4, damping=0.5, noise=0.0).act(observation, rng)
            for speed in (1.5, 2.75)
        )
        np.testing.assert_allclose(slow, [1.5 - 2, 0.4 * (0.5 - 1 - 0.5)], atol=1e-6)
        np.testing.assert_allclose(fast, [2.75 - 2, -0.4], atol=1e-6)


@pytest.mark.slow
def test_every_recipe_fills_both_bands(tmp_path):
    for name in RECIPES:
        path = collect.collect(find_task(name), n_trajectories=12, workers=1, output=tmp_path / name, progress=False)
        _, outcomes = load(path, find_task(name))
        assert (outcomes.costs_total < 25).any() and (outcomes.costs_total > 75).any()


@pytest.mark.slow
def test_real_data_do_not_depend_on_workers_and_fill_both_bands(tmp_path):
    one = collect.collect(TASK, n_trajectories=5, workers=1, output=tmp_path / "one.hdf5", progress=False)
    two = collect.collect(TASK, n_trajectories=24, workers=2, output=tmp_path / "two.hdf5", progress=False)
    few, _ = load(one, TASK)
    many, outcomes = load(two, TASK)
    np.testing.assert_array_equal(many.select(range(5)).observations, few.observations)
    np.testing.assert_array_equal(many.select(range(5)).actions, few.actions)
    assert set(many.lengths) == {200} and np.abs(many.actions).max() <= 1
    preferred, nonpreferred = outcomes.costs_total < 25, outcomes.costs_total > 75
    assert preferred.sum() >= 4 and nonpreferred.sum() >= 6
    assert outcomes.returns[preferred].max() > 350 and outcomes.returns[nonpreferred].max() > 400
