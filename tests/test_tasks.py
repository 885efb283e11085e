"""The registry against DSRL's own numbers (test_simulators.py compares the dimensions with the simulators)."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from safemil.config.errors import UserError
from safemil.data.tasks import PAPER_TASKS, TASKS, find_task, parse_file_name


@pytest.fixture(scope="module")
def infos():
    """dsrl/infos.py alone: importing the package would import the simulators."""
    package = importlib.util.find_spec("dsrl")
    specification = importlib.util.spec_from_file_location("dsrl_infos", Path(package.origin).with_name("infos.py"))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.study
def test_every_row_has_dsrls_numbers(infos):
    for task in (task for task in TASKS.values() if task.file_name):
        assert infos.DATASET_URLS[task.name].rsplit("/", 1)[1] == task.file_name
        assert task.file_name.startswith(f"{task.file_stem}-") and task.file_name.endswith(
            f"-{task.n_trajectories}.hdf5"
        )
        assert infos.DEFAULT_MAX_EPISODE_STEPS[task.name] == task.horizon
        assert infos.MIN_EPISODE_REWARD[task.name] == task.return_min
        assert infos.MAX_EPISODE_REWARD[task.name] == task.return_max
        assert infos.MAX_EPISODE_COST[task.name] == task.cost_max


@pytest.mark.study
def test_every_task_of_dsrl_but_metadrive_is_there(infos):
    assert {task.name for task in TASKS.values() if task.file_name} == {
        name for name, url in infos.DATASET_URLS.items() if "MetaDrive" not in url
    }
    assert set(PAPER_TASKS) <= set(TASKS)


def test_segment_lengths_and_cost_limit():
    assert {task.family: task.segment_length for task in TASKS.values()} == {
        "bullet": 5,
        "velocity": 5,
        "navigation": 10,
        "manipulation": 10,
        "team": 5,
        "pixels": 5,
        "turns": 15,  # five steps of three agents
    }
    assert {task.cost_limit for task in TASKS.values() if not task.variant} == {25.0}


class TestVariants:
    def test_the_same_simulator_and_numbers_under_names_of_their_own(self):
        ball, lapse = find_task("BallCircle"), find_task("BallCircle@lapse")
        assert (lapse.base, lapse.variant, lapse.file_name) == ("BallCircle", "lapse", "")
        own = {"name", "variant", "file_name", "cost_limit"}
        different = {f.name for f in dataclasses.fields(ball) if getattr(ball, f.name) != getattr(lapse, f.name)}
        assert different == own
        assert len({task.file_stem for task in TASKS.values()}) == len(TASKS)

    def test_an_unsafe_trajectory_costs_four_limits_whatever_its_share_of_unsafe_steps(self):
        """A tenth of Swimmer's 1000 steps at the usual limit of 25; a twentieth, of which the number tells, at half."""
        assert find_task("SwimmerVelocity@lapse").cost_limit == find_task("PointCircle2@lapse").cost_limit == 25
        assert find_task("SwimmerVelocity@lapse5").cost_limit == 12.5
        assert find_task("PointCircle2@lapse80").cost_limit == 0.8 * 500 / 4

    def test_a_file_name_tells_the_variant(self):
        names = {task.name: f"{task.file_stem}-101-700.hdf5" for task in TASKS.values()}
        assert names["BallCircle@lapse"] == "SafetyBallCircle@lapse-v0-101-700.hdf5"
        assert all(parse_file_name(file) == (TASKS[name], 700) for name, file in names.items())


def test_bullet_car_circle_is_not_the_navigation_one():
    assert find_task("CarCircle").environment_id == "OfflineCarCircle-v0"
    assert find_task("CarCircle1").environment_id == "OfflineCarCircle1Gymnasium-v0"
    assert find_task("SwimmerVelocity").environment_id == "OfflineSwimmerVelocityGymnasium-v1"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ballcircle", "did you mean BallCircle\\?"),
        ("OfflinePointGoal1Gymnasium-v0", "did you mean PointGoal1\\?"),
        ("SwimerVelocity", "did you mean SwimmerVelocity"),
        ("BallCircle@laps", "did you mean BallCircle@lapse"),
        ("pointcircle2@LAPSE5", "did you mean PointCircle2@lapse5\\?"),
        ("BallCircle@lapse15", "did you mean BallCircle@lapse"),
        ("zzz", "valid names: BallCircle BallRun"),
    ],
)
def test_unknown_name_gets_the_nearest(name, hint):
    with pytest.raises(UserError, match=f"unknown task '{name}': {hint}"):
        find_task(name)


def test_a_wrong_row_is_refused():
    with pytest.raises(UserError, match="family is 'mujoco', expected one of bullet, velocity, navigation"):
        dataclasses.replace(find_task("BallRun"), family="mujoco")
    with pytest.raises(UserError, match="return_min 2000 is not below return_max"):
        dataclasses.replace(find_task("BallRun"), return_min=2000)
    with pytest.raises(UserError, match="horizon is 0"):
        dataclasses.replace(find_task("BallRun"), horizon=0)
