"""The recipes: what the controllers do in states whose answer is known, and how policies are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from safemil.collection.recipes import gait_search, pretrained, velocity
from safemil.collection.recipes.bullet import BALL_CIRCLE, CAR_RUN, BallInLane, BallOnCircle, CarInLane, CarOnCircle
from safemil.collection.recipes.lapse import Lapsing, schedule
from safemil.collection.recipes.navigation import BINS, CAR, CIRCLE_RANGE, GOAL_RANGE, POINT, OnCircle, ToGoal
from safemil.collection.recipes.random_search import Normalizer
from safemil.collection.recipes.table import RECIPES, find_recipe
from safemil.collection.recording import record_one
from safemil.config.errors import UserError
from safemil.data.tasks import TASKS, find_task
from safemil.simulation import simulators


class TestTable:
    def test_every_entry_belongs_to_a_task(self):
        for name, recipes in RECIPES.items():
            assert recipes and name in TASKS
            assert all(recipe.n_trajectories > 0 and recipe.minutes > 0 for recipe in recipes.values())

    def test_first_recipe_is_the_default(self):
        assert find_recipe(find_task("BallCircle")) is RECIPES["BallCircle"]["scripted"]
        with pytest.raises(UserError, match="unknown recipe 'magic' for BallCircle: there is scripted learned"):
            find_recipe(find_task("BallCircle"), "magic")
        with pytest.raises(
            UserError, match="no recipe to collect CarPush2 with yet; there are recipes for: BallCircle"
        ):
            find_recipe(find_task("CarPush2"))

    def test_draws_within_its_ranges(self, rng):
        recipe = find_recipe(find_task("BallCircle"))
        for _ in range(50):
            driver = recipe.draw(rng)
            assert all(low <= getattr(driver, name) <= high for name, (low, high) in BALL_CIRCLE.items())
        assert recipe.parameters == BALL_CIRCLE and find_recipe(find_task("CarRun")).parameters == CAR_RUN

    def test_careful_and_careless_agents_are_drawn_equally_often_and_none_between(self, rng):
        recipe = find_recipe(find_task("PointGoal1"), "scripted")
        avoidance = np.array([recipe.draw(rng).avoidance for _ in range(400)])
        for low, high in (kind["avoidance"] for kind in recipe.parameters.values()):
            assert 150 < ((avoidance >= low) & (avoidance <= high)).sum() < 250
        assert not ((avoidance > -0.2) & (avoidance < 2.2)).any()


class TestBullet:
    def test_cautious_and_reckless_differ_in_the_same_state(self, rng):
        """At x = 5, moving clockwise and outwards: the one clipped at 4 pushes back, the one clipped at 8 does not."""
        observation = np.array(
            [0.5, 0.45, 0.2, -0.2, 0, 0, 0, 0], dtype=np.float32
        )  # position (5, 4.5), velocity (1, -1)
        push = {
            clip: BallOnCircle(clip, radius=7.5, lead=0.8, stiffness=0.3, damping=0.5, noise=0.0).act(observation, rng)
            for clip in (4.0, 8.0)
        }
        assert push[4.0][0] < -0.2 and push[8.0][0] > 0.2
        assert push[4.0][1] == push[8.0][1] < 0
        assert push[4.0].dtype == np.float32

    def test_balls_hold_speed_and_lane(self, rng):
        observation = np.array([0.3, 0.1, 0.4, 0.2, 0, 0, 0], dtype=np.float32)  # position (3, 1), velocity (2, 1)
        slow, fast = (
            BallInLane(speed, lane=0.5, eagerness=1.0, stiffness=0.4, damping=0.5, noise=0.0).act(observation, rng)
            for speed in (1.5, 2.75)
        )
        np.testing.assert_allclose(slow, [1.5 - 2, 0.4 * (0.5 - 1 - 0.5)], atol=1e-6)
        np.testing.assert_allclose(fast, [2.75 - 2, -0.4], atol=1e-6)

    def test_cars_steer_towards_their_lane(self, rng):
        """At (3, 1) along x (yaw pi) at speed 1.5: positive steering turns right, so to the lane at 0."""
        observation = np.array([0.3, 0.1, 1.5, 0.0, 0.0, -1.0, 0.0], dtype=np.float32)
        right, left = (
            CarInLane(1.5, lane, eagerness=0.3, approach=0.5, steering=1.0, noise=0.0).act(observation, rng)
            for lane in (0.0, 2.0)
        )
        np.testing.assert_allclose(right, [-1.5 / 3.5, np.arctan(0.5)], atol=1e-6)
        np.testing.assert_allclose(left[1], -np.arctan(0.5), atol=1e-6)

    def test_a_car_on_its_circle_goes_clockwise(self, rng):
        """At (0, 7) heading along x it need turn but half the lead; heading along -x it turns as hard as it can."""
        driver = CarOnCircle(clip=8.0, radius=7.0, lead=0.5, throttle=0.8, steering=1.0, noise=0.0)
        along, against = (
            driver.act(np.array([0, 0.7, 0, 0, 0, cosine, 0, 0], dtype=np.float32), rng) for cosine in (-1.0, 1.0)
        )
        np.testing.assert_allclose(along, [-0.8, 0.25], atol=1e-5)
        assert abs(against[1]) == 1


def lidar(position: complex, lidar_range: float) -> np.ndarray:
    """Readings of one object, as the simulator makes them."""
    angle = np.angle(position) % (2 * np.pi)
    bin_, leaning = divmod(angle / (2 * np.pi / BINS), 1)
    readings, near = np.zeros(BINS), 1 - abs(position) / lidar_range
    for offset, share in ((0, 1), (1, leaning), (-1, 1 - leaning)):
        readings[(int(bin_) + offset) % BINS] = share * near
    return readings


def observe(agent, velocity: complex = 0, **lidars: complex | None) -> np.ndarray:
    """An observation in which each lidar sees one object, in the order given, or nothing; positions as the agent's."""
    sensors = np.zeros(agent.n_sensors)
    sensors[3:5] = (velocity * agent.ahead).real, (velocity * agent.ahead).imag
    readings = [
        np.zeros(BINS) if position is None else lidar(position * agent.ahead, GOAL_RANGE)
        for position in lidars.values()
    ]
    return np.concatenate([sensors, *readings])


class TestNavigation:
    @pytest.mark.parametrize("agent", [POINT, CAR])
    @pytest.mark.parametrize("position", [1 + 0.1j, -0.5 + 2j, -1 - 0.3j, 0.2 - 2.5j])
    def test_lidars_are_read_exactly(self, agent, position):
        readings = lidar(position * agent.ahead, GOAL_RANGE)
        np.testing.assert_allclose(agent.seen(readings, GOAL_RANGE), [position], atol=1e-9)

    def test_heads_for_the_goal(self, rng):
        seeker = ToGoal(POINT, 0, (1,), avoidance=2.5, speed=1.3, noise=0.0)
        push, turn = seeker.act(observe(POINT, goal=2 + 0j, hazard=None), rng)
        assert push == 1 and abs(turn) < 1e-6
        _, turn = seeker.act(observe(POINT, goal=2j, hazard=None), rng)
        assert turn > 0.7  # the goal is on the left
        push, _ = seeker.act(observe(POINT, velocity=2.0, goal=2 + 0j, hazard=None), rng)
        assert push == -1  # faster than it wants to be
        left, right = ToGoal(CAR, 0, (1,), avoidance=2.5, speed=1.3, noise=0.0).act(
            observe(CAR, velocity=0.7, goal=2 + 1j, hazard=None), rng
        )
        assert left > right  # which is how the car turns left

    def test_a_hazard_on_the_way_is_shunned_by_the_careful_and_sought_by_the_careless(self, rng):
        observation = observe(POINT, velocity=0.5, goal=2 + 0j, hazard=0.5 - 0.3j)  # on the right of the way
        actions = {
            avoidance: ToGoal(POINT, 0, (1,), avoidance, speed=1.3, noise=0.0).act(observation, rng)
            for avoidance in (2.5, 0.0, -0.5)
        }
        assert actions[2.5][0] < -0.2 < 0 < actions[0.0][0]  # brakes, and turns left
        assert actions[2.5][1] > 0.5 and abs(actions[0.0][1]) < 1e-6 and actions[-0.5][1] < -0.1

    @pytest.mark.parametrize("avoidance", [3.0, -0.5])
    def test_neighboring_observations_have_neighboring_actions(self, rng, avoidance):
        """Once around the agent, goal and hazard: no jump, not even where they pass behind it."""
        seeker = ToGoal(POINT, 0, (1,), avoidance, speed=1.6, noise=0.0)
        circle = np.exp(1j * np.linspace(0, 2 * np.pi, 2001))
        for goal, hazard in ((1.5 * circle, 0.8 + 0 * circle), (1.5 + 0 * circle, 0.5 * circle)):
            actions = [
                seeker.act(observe(POINT, velocity=0.3, goal=g, hazard=h), rng)
                for g, h in zip(goal, hazard, strict=True)
            ]
            assert np.abs(np.diff(actions, axis=0)).max() < 0.1

    def test_the_goals_own_button_is_no_obstacle(self, rng):
        seeker = ToGoal(POINT, 1, (0,), avoidance=3.0, speed=1.3, noise=0.0)
        _, turn = seeker.act(observe(POINT, buttons=0.6 + 0j, goal=0.6 + 0j), rng)
        assert abs(turn) < 1e-6

    def test_a_cautious_agent_turns_off_before_the_wall(self, rng):
        """At (1, 0) in the world, facing along y: the one of radius 0.7 turns inwards more than that of 1.5."""
        turns = {}
        for radius in (0.7, 1.5):
            sensors = np.zeros(12)
            sensors[9] = -0.5  # yaw 90 degrees
            observation = np.concatenate([sensors, lidar(1j, CIRCLE_RANGE)])  # the circle's middle is on the left
            turns[radius] = OnCircle(POINT, radius, lead=0.4, speed=1.0, noise=0.0).act(observation, rng)[1]
        assert turns[0.7] > 0.3 > turns[1.5]


class Cost:
    """A stand-in for a simulator whose episodes of three steps cost what their seed says."""

    steered_by = staticmethod(lambda observation: observation)

    def reset(self, seed):
        self.step_cost, self.steps = seed % 4, 0
        return np.zeros(2)

    def step(self, action):
        self.steps += 1
        return np.zeros(2), 1.0, float(self.step_cost), False, self.steps == 3


class Still:
    def act(self, observation, rng):
        return np.zeros(1)


class TestAcceptance:
    def test_the_same_policy_plays_again_until_its_cost_is_taken(self, rng):
        drawn = []
        behavior = Still()

        def draw(generator):
            drawn.append(generator)
            return behavior

        for _ in range(20):
            recording = record_one(Cost(), draw, rng, lambda policy, cost: policy is behavior and cost == 9.0)
            assert recording.costs.tolist() == [3.0, 3.0, 3.0]
        assert len(drawn) == 20

    def test_a_policy_that_never_is_taken_is_named(self, rng):
        with pytest.raises(UserError, match="none of 50 episodes of .*Still.* costs what its recipe asks for"):
            record_one(Cost(), lambda generator: Still(), rng, lambda policy, cost: cost > 9)

    def test_careful_agents_keep_the_limit_and_careless_ones_break_it_by_far(self):
        accept = find_recipe(find_task("PointGoal1")).accept
        careful, careless = (ToGoal(POINT, 0, (1,), avoidance, 1.3, 0.1) for avoidance in (2.5, -0.5))
        assert accept(careful, 24.0) and not accept(careful, 25.0)
        assert accept(careless, 76.0) and not accept(careless, 75.0)


class Wave:
    """A stand-in for a velocity task: pays for pushing with the first observation, costs 1 for a hard push."""

    steered_by = staticmethod(lambda observation: observation)

    def __init__(self, task):
        self.steps = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def reset(self, seed):
        self.rng, self.steps = np.random.default_rng(seed), 0
        self.observation = self.rng.normal(size=8)
        return self.observation

    def step(self, action):
        self.steps += 1
        reward, cost = float(action[0] * np.sign(self.observation[0])), float(abs(action[0]) > 0.5)
        self.observation = self.rng.normal(size=8)
        return self.observation, reward, cost, False, self.steps == 40


class TestLapses:
    def test_a_schedule_has_as_many_steps_of_each_policy_as_asked_for(self, rng):
        for _ in range(200):
            n_bold, n_reckless = rng.integers(0, 61, size=2)
            acting = schedule([n_bold, n_reckless], 12, 130, rng)
            assert np.bincount(acting, minlength=3).tolist() == [130 - n_bold - n_reckless, n_bold, n_reckless]
            starts = np.flatnonzero(np.diff(np.r_[0, acting == 2]) == 1)
            assert len(starts) <= -(-n_reckless // 12)  # spells may touch, and are not cut

    def test_any_step_may_be_reckless(self, rng):
        often = np.mean([schedule([0, 20], 10, 100, rng) == 2 for _ in range(2000)], axis=0)
        assert often.min() > 0.02 and abs(often.mean() - 0.2) < 1e-9

    @pytest.mark.parametrize("name", [name for name in RECIPES if "@lapse" in name])
    def test_one_controller_cautious_bold_or_reckless_and_a_continuum_of_recklessness(self, name, monkeypatch):
        monkeypatch.setattr(pretrained, "find_agent", lambda agent: None)  # when it acts is asked, not how
        task, recipe = find_task(name), next(iter(RECIPES[name].values()))
        drawn = [recipe.draw(np.random.default_rng(seed)) for seed in range(400)]
        assert all(len(lapsing.schedule) == task.horizon for lapsing in drawn)
        shares = np.array([(lapsing.schedule == 2).sum() for lapsing in drawn]) * recipe.parameters["spells"]["costly"]
        assert 0.15 < (shares < task.cost_limit).mean() < 0.4  # expected costs below the limit,
        # and above three times the limit, where the recklessness that takes fits into an episode
        assert (shares > 3 * task.cost_limit).mean() > 0.25
        assert len(np.unique(shares)) > 20 or task.cost_limit < 10

    def test_each_step_is_played_by_the_scheduled_policy(self, rng):
        class Constant:
            def __init__(self, value):
                self.value = value

            def act(self, observation, rng):
                return self.value

        lapsing = Lapsing([Constant(0), Constant(1), Constant(2)], np.array([0, 2, 2, 1, 0]))
        assert [lapsing.act(np.zeros(1), rng) for _ in range(5)] == [0, 2, 2, 1, 0]


class TestGaits:
    def test_search_finds_the_fast_gait_and_then_the_one_that_costs_less(self, monkeypatch):
        monkeypatch.setattr(simulators, "make", Wave)
        settings = gait_search.Search(climb=30, descend=40, strength=0.3, penalties=(1.0, 3.0))
        gaits = list(gait_search.search(find_task("SwimmerVelocity"), settings))
        fast, safe = gaits[29], gaits[-1]
        assert fast.return_ > 20 and fast.cost > 20  # of at most 40
        assert safe.cost < fast.cost / 3 and safe.return_ > 5

    def test_a_saved_gait_can_be_drawn_from(self, tmp_path, monkeypatch, rng):
        task = find_task("SwimmerVelocity")
        monkeypatch.setattr(velocity, "FOLDER", tmp_path)
        velocity._gait.cache_clear()
        with pytest.raises(UserError, match="no gait of SwimmerVelocity has been searched yet: python -m safemil"):
            velocity.draw_gait(task.name, velocity.SWIMMER, rng)
        gaits = [
            gait_search.Gait(np.full((2, 8), scale), np.zeros(2), return_, cost)
            for scale, return_, cost in ((0.1, 20.0, 0.0), (0.2, 30.0, 20.0))
        ]
        gait_search.save(velocity.gait_path(task), task, gait_search.Search(), gait_search.best(gaits))
        gait = velocity.draw_gait(task.name, velocity.SWIMMER, rng)
        low, high = velocity.SWIMMER["strength"]
        assert 0.1 * low < gait.gains.mean() < 0.1 * high  # the one whose return - cost is higher
        action = gait.act(np.ones(8), rng)
        assert action.shape == (2,) and action.dtype == np.float32 and np.all(np.abs(action) <= 1)
        velocity._gait.cache_clear()

    def test_the_normalizer_is_that_of_all_rows(self, rng):
        normalizer, rows = Normalizer(3), rng.normal(2.0, 3.0, size=(500, 3))
        for part in np.split(rows, 5):
            normalizer.update(part)
        gains, offsets = normalizer.linear(np.eye(3))
        np.testing.assert_allclose(
            gains @ rows.T + offsets[:, None], ((rows - rows.mean(0)) / rows.std(0)).T, atol=0.01
        )
