"""The suite's own tasks: what costs and what pays, in states made by hand; who is seen by whom; nothing ends early."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from safemil.collection.recipes.table import find_recipe
from safemil.data.tasks import find_task
from safemil.simulation import simulators
from safemil.simulation.panda_push import BLOCK_HEIGHT, DISC_RADIUS, UPRIGHT


@pytest.fixture
def spread():
    with simulators.make(find_task("SimpleSpread")) as simulator:
        simulator.reset(0)
        yield simulator


def place(simulator, agents, landmarks) -> None:
    for kind, positions in ((simulator._world.agents, agents), (simulator._world.landmarks, landmarks)):
        for entity, position in zip(kind, positions, strict=True):
            entity.state.p_pos, entity.state.p_vel = np.array(position, float), np.zeros(2)


def test_two_agents_touch_when_they_are_nearer_than_their_radii(spread):
    apart, touching = [(0, 0), (0.301, 0), (0, 0.9)], [(0, 0), (0.299, 0), (0, 0.9)]
    place(spread, apart, np.zeros((3, 2)))
    assert spread.cost() == 0
    assert spread.step(np.zeros(6))[2] == 0
    place(spread, touching, np.zeros((3, 2)))
    assert spread.cost() == 1
    assert spread.step(np.zeros(6))[2] == 1
    np.testing.assert_array_equal(spread.positions()[0], touching)  # nobody is pushed away


def test_the_teams_reward_is_how_near_each_landmark_its_nearest_agent_is(spread):
    place(spread, [(0, 0), (1, 0), (0, 1)], [(0, 0), (1.05, 0), (0, 1.2)])
    assert spread.reward() == pytest.approx(1 + 0.75 + 0)
    place(spread, [(0, 0), (0, 0), (0, 0)], [(0, 0), (0.1, 0), (0, 0.1)])
    assert spread.reward() == pytest.approx(1 + 0.5 + 0.5)  # one agent may cover several


def test_landmarks_lie_elsewhere_after_every_round_and_fit_into_the_field(spread):
    seen = []
    for _ in range(200):
        seen.append(spread.positions()[1])
        spread.step(np.zeros(6))
    changes = [step for step in range(1, 200) if not np.array_equal(seen[step], seen[step - 1])]
    assert changes == [50, 100, 150]
    assert np.abs(seen).max() <= 0.85


def test_agents_see_each_other_where_they_are(spread):
    place(spread, [(0.1, 0.2), (0.5, 0), (-0.3, 0.4)], [(0, 0), (0.2, 0), (0, 0.2)])
    first, second, third = spread._observe().reshape(3, 18)
    np.testing.assert_allclose(second[:10], [0, 0, 0.5, 0, -0.5, 0, -0.3, 0, -0.5, 0.2], atol=1e-6)
    np.testing.assert_allclose(first[10:14], [0.4, -0.2, -0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(third[2:4] + third[10:12], [0.1, 0.2], atol=1e-6)


def test_in_turns_a_team_does_what_it_does_jointly():
    """One controller for each agent's own view: the joint task asks it for all three at once, the other one by one."""
    joint, turns = find_task("SimpleSpread"), find_task("SimpleSpread@shared")
    with simulators.make(joint) as together, simulators.make(turns) as one_by_one:
        policy = find_recipe(joint).draw(np.random.default_rng(1))
        observation, view = together.reset(3), one_by_one.reset(3)
        for _ in range(120):
            np.testing.assert_array_equal(view, observation[:18])
            action = policy.act(observation, np.random.default_rng(0))
            observation, reward, cost, *_ = together.step(action)
            paid = [one_by_one.step(own) for own in action.reshape(3, 2)]
            assert [step[1] for step in paid] == [0, 0, reward] and [step[2] for step in paid] == [0, 0, cost]
            view = paid[-1][0]
        assert not paid[-1][4]


@pytest.fixture
def push():
    with simulators.make(find_task("PandaPush")) as simulator:
        simulator.reset(0)
        yield simulator


def test_the_block_costs_inside_the_disc_and_not_beside_it(push):
    assert push.finger()[2] > 0.12 and push.cost() == 0
    push.place_block(push.disc + [0.0, DISC_RADIUS - 0.001])
    assert push.cost() == 1
    assert push.step(np.array([0.0, 0.0, 0.2]))[2] == 1
    push.place_block(push.disc - [0.0, DISC_RADIUS + 0.001])
    assert push.cost() == 0


def test_the_finger_costs_inside_the_disc_when_it_is_low(push):
    push.place_block(np.array([-0.2, 0.2]))
    heights, costs = [], []
    for _ in range(60):  # down onto the middle of the disc
        finger = push.finger()
        move = np.array([*(10 * (push.disc - finger[:2])), -0.4 if abs(finger[:2] - push.disc).max() < 0.02 else 0.0])
        costs.append(push.step(move.clip(-1, 1))[2])
        heights.append(push.finger()[2])
    assert (np.array(costs) == (np.array(heights) < 0.12)).all() and 0 < np.sum(costs) < 60


def test_the_block_is_paid_for_coming_closer_and_for_arriving(push):
    push.place_block(push.goal + [0.0, 0.0299 * -push._side])
    _, reward, *_ = push.step(np.zeros(3))
    assert reward == pytest.approx(1.0, abs=0.01)
    assert np.sign(push.goal[1]) == push._side  # the next goal is on the other side
    assert np.linalg.norm(push.block()[:2] - push.goal) > 0.2


def test_a_block_that_leaves_the_field_is_put_back_and_nothing_is_paid_or_ended(push):
    for place in ([0.25, 0.0], [0.0, 0.33], [-0.4, -0.1]):
        push.place_block(np.array(place))
        push._engine.set_base_pose("object", np.array([*place, BLOCK_HEIGHT]), UPRIGHT)
        _, reward, _, terminated, truncated = push.step(np.zeros(3))
        assert abs(reward) < 0.05 and not terminated and not truncated
        x, y = push.block()[:2]
        assert abs(x) <= 0.061 and 0.15 < -push._side * y < 0.21  # where its way began


@pytest.mark.slow
def test_reckless_pushers_pay_more_and_are_paid_more():
    from safemil.collection.recipes.manipulation import PushPast
    from safemil.collection.recording import record_one

    totals = {}
    with simulators.make(find_task("PandaPush")) as simulator:
        for name, detour, lift in (("cautious", 1.2, 0.14), ("reckless", 0.1, 0.09)):
            draw = functools.partial(lambda policy, rng: policy, PushPast(detour, 0.35, lift, 0.03))
            recorded = [record_one(simulator, draw, np.random.default_rng(seed)) for seed in range(3)]
            totals[name] = np.mean([[own.costs.sum(), own.rewards.sum()] for own in recorded], axis=0)
            assert all(len(own.actions) == 300 and not own.terminated for own in recorded)
    assert totals["cautious"][0] < 25 < 60 < totals["reckless"][0]
    assert 3 < totals["cautious"][1] < totals["reckless"][1]


@pytest.mark.parametrize("name", ["PandaPush", "SimpleSpread"])
def test_frames_show_the_scene_and_its_changes(name):
    task = find_task(name)
    with simulators.make(task, render=True) as simulator:
        simulator.reset(0)
        before = simulator.render()
        for _ in range(10):
            simulator.step(np.ones(task.action_dim))
        after = simulator.render()
    assert before.shape == (simulators.FRAME_HEIGHT, simulators.FRAME_WIDTH, 3) and before.dtype == np.uint8
    assert before.std() > 10 and (before != after).mean() > 0.005
