"""Collecting: in a stand-in simulator for the bookkeeping, in the real one for the data."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from safemil import collect, datasets
from safemil.collection import collecting
from safemil.collection.recipes.bullet import BALL_CIRCLE, BallOnCircle
from safemil.collection.recipes.recipe import Recipe
from safemil.collection.recipes.table import RECIPES
from safemil.collection.recording import Recording
from safemil.config.errors import UserError
from safemil.data.card import recipes_of, return_coverage
from safemil.data.hdf5 import load, read_layout
from safemil.data.provenance import sha256
from safemil.data.tasks import find_task
from safemil.data.trajectories import Outcomes
from safemil.simulation import simulators
from tests.conftest import run_python

TASK = find_task("BallCircle")


class Walk:
    """A stand-in for the simulator: the seed sets the start, half the episodes end by themselves after 3 of 5 steps."""

    def __init__(self, task):
        self.task = task

    def steered_by(self, observation):
        return observation

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
        monkeypatch.setattr(collecting, "record_all", None)  # would fail if it were called
        assert run() == path
        assert "exists already, collected with these settings" in caplog.text
        with pytest.raises(UserError, match=r"exists and was made otherwise \(seed 0\); --overwrite replaces it"):
            run(seed=7)
        monkeypatch.setattr(collecting, "_provenance", lambda *_: {"parameters": "{}"})
        with pytest.raises(UserError, match="the recipe's parameters have changed since"):
            run()

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


class Stops(Walk):
    """A simulator whose third episode is interrupted."""

    episodes = 0

    def reset(self, seed):
        Stops.episodes += 1
        if Stops.episodes == 3:
            raise KeyboardInterrupt
        return super().reset(seed)


class TestResuming:
    def test_goes_on_where_it_was_stopped(self, folder, tmp_path, walk, monkeypatch, capsys, caplog):
        whole = run(output=tmp_path / "whole.hdf5")
        monkeypatch.setattr(simulators, "make", Stops)
        monkeypatch.setattr("safemil.collection.checkpoint.UNITS_PER_CHUNK", 1)
        monkeypatch.setattr(Stops, "episodes", 0)
        caplog.set_level(logging.INFO)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert "the same command goes on from there" in caplog.text
        assert not list(folder.glob("*.hdf5"))
        (parts,) = folder.glob("*.parts")
        assert [path.name for path in sorted(parts.iterdir())] == ["000000.npz", "000001.npz"]
        datasets.main(["list"])
        assert capsys.readouterr().out.splitlines()[-1].endswith("unfinished collection; the same command goes on")
        assert run().read_bytes() == whole.read_bytes()
        assert Stops.episodes == 3 + 8  # two were kept
        assert not parts.exists()

    def test_what_another_seed_or_recipe_or_an_older_agent_left_is_not_taken(self, folder, walk, tmp_path, monkeypatch):
        first = collecting._checkpoint(folder, TASK, "scripted", 0)
        assert first.folder == collecting._checkpoint(folder, TASK, "scripted", 0).folder
        others = {
            collecting._checkpoint(folder, TASK, recipe, seed).folder
            for recipe, seed in (("scripted", 1), ("learned", 0))
        }
        (tmp_path / "recipes").mkdir()
        (tmp_path / "recipes" / "bullet.py").write_text("# the same ranges, another controller")
        monkeypatch.setattr(collecting.table, "__file__", str(tmp_path / "recipes" / "table.py"))
        assert len(others | {first.folder, collecting._checkpoint(folder, TASK, "scripted", 0).folder}) == 4

    def test_a_damaged_part_is_recorded_again(self, folder, tmp_path, walk):
        whole = run(4, output=tmp_path / "whole.hdf5")
        checkpoint = collecting._checkpoint(folder, TASK, "scripted", 0)
        checkpoint.folder.mkdir(parents=True)
        (checkpoint.folder / "000002.npz").write_bytes(b"PK half of it")
        assert checkpoint.load(2) is None
        assert run(4).read_bytes() == whole.read_bytes()


class TestTwoRecipes:
    @pytest.fixture
    def bold(self, monkeypatch):
        recipe = Recipe.uniform(BallOnCircle, BALL_CIRCLE | {"clip": (9.0, 9.5)}, "bold", minutes=1)
        monkeypatch.setitem(RECIPES["BallCircle"], "bold", recipe)

    def test_lie_one_after_the_other_and_are_told_apart(self, tmp_path, walk, bold):
        both = run(5, recipes=["scripted", "bold"], output=tmp_path / "both.hdf5")
        alone = run(5, recipes=["bold"], output=tmp_path / "bold.hdf5")
        attributes = read_layout(both).attributes
        assert attributes["recipe"] == "scripted+bold" and attributes["n_trajectories"] == 10
        assert recipes_of(attributes, 10).tolist() == ["scripted"] * 5 + ["bold"] * 5
        assert json.loads(attributes["parameters"])["bold"]["clip"] == [9.0, 9.5]
        trajectories, _ = load(both)
        np.testing.assert_array_equal(trajectories.select(range(5, 10)).actions, load(alone)[0].actions)

    def test_an_older_file_has_one(self):
        assert recipes_of({"recipe": "scripted"}, 3).tolist() == ["scripted"] * 3
        assert recipes_of({}, 2).tolist() == ["unknown"] * 2


class TestReturnCoverage:
    @staticmethod
    def outcomes(costs, returns) -> Outcomes:
        n = len(costs)
        return Outcomes(np.array(returns), np.array(costs), np.ones(n, bool), np.arange(n + 1))

    def test_says_which_side_lacks_what(self):
        assert return_coverage(self.outcomes([0, 0, 90, 90], [300, 200, 400, 100]), TASK) is None
        assert return_coverage(self.outcomes([0, 30], [300, 200]), TASK) == "no trajectory above a cost of 75"
        lacking = return_coverage(self.outcomes([0, 0, 90, 90], [50, 0, 400, 100]), TASK)
        assert lacking.startswith(
            "no high returns below a cost of 25: the better half has 50.0 on average, 400.0 above"
        )

    def test_the_limits_themselves_are_on_neither_side(self):
        assert return_coverage(self.outcomes([25, 90], [300, 200]), TASK) == "no trajectory below a cost of 25"
        assert return_coverage(self.outcomes([0, 75], [300, 200]), TASK) == "no trajectory above a cost of 75"

    @pytest.mark.parametrize(("weaker", "enough"), [(40, True), (39, False)])
    @pytest.mark.parametrize("costs", [[0, 90], [90, 0]])
    def test_a_third_of_the_other_sides_level_is_enough(self, costs, weaker, enough):
        task = replace(TASK, return_min=10.0)  # levels 30 (or 29) and 90
        assert (return_coverage(self.outcomes(costs, [weaker, 100]), task) is None) == enough

    def test_collecting_warns(self, walk, caplog):
        run(4)
        assert "SafetyBallCircle-v0-4-4.hdf5: no trajectory above a cost of 75" in caplog.text


def test_grid_filter_thins_out_the_crowd(rng):
    """90 recordings of a beginner and 10 others: of 20 that are kept, all the others are."""
    pytest.importorskip("tianshou", reason="the learned recipes need FSRL", exc_type=ImportError)
    recipe = RECIPES["BallCircle"]["learned"]

    def recording(return_, cost):
        zeros = np.zeros((2, 8), dtype=np.float32)
        return Recording(zeros, zeros[:1, :2], np.array([return_]), np.array([cost]), False)

    crowd = [recording(value, value) for value in rng.uniform(0, 1, 90)]
    others = [recording(100.0 * index, 10.0 * index) for index in range(1, 11)]
    kept = recipe.choose(crowd + others, 20, seed=0)
    assert len(kept) == 20 and all(any(one is other for one in kept) for other in others)
    assert [id(one) for one in recipe.choose(crowd + others, 20, seed=0)] == [id(one) for one in kept]
    with pytest.raises(UserError, match="--trajectories 200: the training runs gave 100 in all"):
        recipe.choose(crowd + others, 200, seed=0)


class TestMistakes:
    def test_unknown_recipe_or_task_without_one(self):
        with pytest.raises(UserError, match="unknown recipe 'magic' for BallCircle: there is scripted learned"):
            run(recipes=["magic"])
        with pytest.raises(
            UserError, match="no recipe to collect CarPush1 with yet; there are recipes for: BallCircle"
        ):
            collect.collect(find_task("CarPush1"))

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
        assert "BallCircle           scripted   700 trajectories, about 2 min" in capsys.readouterr().out


def test_a_file_records_the_packages_of_its_own_simulator():
    """A package for other tasks, installed or updated, must not change the bytes of this one's file."""
    versions = json.loads(collecting._provenance(TASK, ["scripted"])["versions"])
    assert set(versions) == set(collecting.DSRL_PACKAGES)
    assert "pettingzoo" in json.loads(collecting._provenance(find_task("SimpleSpread"), ["scripted"])["versions"])


AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
OTHER_PROCESSOR = {"NPY_DISABLE_CPU_FEATURES": f"AVX2 FMA3 {AVX512}", "OPENBLAS_CORETYPE": "Nehalem"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["BallCircle@lapse", "BallRun", "CarCircle@lapse", "CarRun", "SwimmerVelocity@lapse", "PointCircle2@lapse"]
)
def test_the_same_bytes_whatever_the_processor_can_do(name, tmp_path):
    """With the instructions of this one, and with those that every x86-64 has."""
    digests = set()
    for variables in ({}, OTHER_PROCESSOR):
        path = tmp_path / f"{len(variables)}.hdf5"
        options = ["--task", name, "--trajectories", 4, "--workers", 1, "--output", path]
        done = run_python("-m", "safemil.collect", *options, **variables)
        assert done.returncode == 0, done.stderr
        digests.add(sha256(path))
    assert len(digests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BallRun", "CarCircle", "SwimmerVelocity", "PointCircle2"])
def test_recipes_fill_both_bands(name, tmp_path):
    path = collect.collect(find_task(name), n_trajectories=10, workers=1, output=tmp_path / name, progress=False)
    _, outcomes = load(path, find_task(name))
    assert (outcomes.costs_total < 25).any() and (outcomes.costs_total > 75).any()


@pytest.mark.slow
def test_a_training_run_logs_every_episode(tmp_path):
    pytest.importorskip("tianshou", reason="the learned recipes need FSRL", exc_type=ImportError)
    recipe = replace(RECIPES["BallRun"]["learned"], steps=1000, cost_limits=(10.0, 50.0), episodes_per_update=5)
    first, again, other = (recipe.record(find_task("BallRun"), 0, unit) for unit in (0, 0, 1))
    assert len(first) == 10 and {len(recording.actions) for recording in first} == {100}
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.actions, two.actions)
    assert not np.array_equal(first[0].actions, other[0].actions)


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


@pytest.mark.slow
def test_a_killed_collection_resumes_and_a_cluster_gives_the_same(folder, tmp_path):
    whole = collect.collect(TASK, n_trajectories=12, workers=1, output=tmp_path / "whole.hdf5", progress=False)
    command = [
        sys.executable,
        "-m",
        "safemil.collect",
        "--task",
        "BallCircle",
        "--trajectories",
        "12",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.parts/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("*.hdf5"))
    n_done = len(list(folder.glob("*.parts/*.npz")))
    assert 0 < n_done < 12
    resumed = collect.collect(TASK, n_trajectories=12, address="local", progress=False)
    assert resumed.read_bytes() == whole.read_bytes()
