"""The dry run's estimates: a case worked by hand, and that nothing in a grid is forgotten."""

import pytest

from baselines.registry import METHODS
from tune import estimates
from tune.estimates import Estimate, estimate, training_seconds
from tune.grids import GRIDS, find_grid
from tune.trials import expand

MADE_UP = {
    "training": {"cpu": {"cloning": {"step_ms": 1.0, "row_us": 10.0}, "cost_model": {"step_ms": 2.0, "row_us": 5.0}}},
    "simulator": {"steps_per_second": {"BallCircle": 1000}, "otherwise": 1, "reset_seconds": {"bullet": 0.3}},
    "bytes": {"process": 1e9, "dataset_copies": 1, "trial": 100, "snapshot": 10, "episode": 1},
}
SETTINGS = {
    "policy.steps": 1000,
    "policy.batch_size": 100,
    "cost_model.steps": 500,
    "cost_model.bag_size": 10,
    "cost_model.pairs": 2,
    "evaluation.episodes": 5,
    "evaluation.checkpoints": 3,
    "evaluation.checkpoint_episodes": 2,
}


def test_a_case_worked_by_hand(monkeypatch):
    """Cost: 500 (2 ms + 2 x 2 x 10 x 5 rows x 3 seeds x 5 us); cloning: 1000 (1 ms + 100 x 3 x 10 us)."""
    monkeypatch.setattr(estimates, "rates", lambda: MADE_UP)
    trials = expand(find_grid("demo"), methods=["safemil"], seeds=[0, 1, 2], settings=SETTINGS)
    (found,) = estimate(trials).values()
    assert found.training_hours * 3600 == pytest.approx(500 * 5e-3 + 1000 * 4e-3)
    assert found.rollout_hours * 3600 == pytest.approx(3 * 9 * (200 / 1000 + 0.3))
    assert found.disk == 3 * (100 + 3 * 10 + 9)
    assert found.memory == 1e9 + 886 * 200 * 12 * 4


def test_hours_add_up_and_memory_does_not():
    total = Estimate(1.0, 2.0, 3e9, 4.0) + Estimate(1.0, 1.0, 1e9, 1.0)
    assert total == Estimate(2.0, 3.0, 3e9, 5.0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_rate(method):
    grid = find_grid("demo")
    settings = [{"policy.steps": steps} for steps in (100, 200)]
    one, two = (expand(grid, methods=[method], seeds=[0], settings=own)[0] for own in settings)
    assert 0 < training_seconds(one, 1) < training_seconds(two, 1)
    assert training_seconds(one, 5) > training_seconds(one, 1)


def test_osrls_methods_cost_by_the_row():
    """Of 22 ms a step and 505 us a row (tune/rates.json), rows are by far the larger part of a batch of 512."""
    settings = [{"policy.batch_size": rows} for rows in (64, 128, 512)]
    grid = find_grid("demo")
    small, double, large = (
        training_seconds(expand(grid, methods=["osrl-bcql"], seeds=[0], settings=own)[0], 1) for own in settings
    )
    assert (large - small) / (double - small) == pytest.approx(7.0)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_has_an_estimate(grid):
    found = estimate(expand(find_grid(grid)))
    assert all(own.training_hours > 0 and own.rollout_hours > 0 for own in found.values())
