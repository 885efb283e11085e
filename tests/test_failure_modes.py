"""Several ways of failing: the bandit in which a rare one is missed, what mends it and what does not."""

import numpy as np
import pytest
import torch

from safemil.algorithm.bags import SegmentSampler
from safemil.algorithm.cost_model import CostModel
from safemil.algorithm.failure_modes import BalancedTable, MultiHeadCostNetwork, find_modes, k_means
from safemil.config.settings import CostModelConfig
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.nn import checkpoints
from safemil.nn.networks import CostNetwork
from safemil.nn.streams import Streams, make_generators
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.transitions import Transitions
from tests.conftest import toy_splits
from tests.test_methods import actions_of, fit

NOTHING = np.array([], dtype=np.int64)
SAFE, FIRST, SECOND = range(3)


def bandit(second: float) -> Split:
    """One step a trajectory. D_N: (1 - second, second) of two ways of failing; D_U: half safe, a quarter of each."""
    shown = np.repeat(
        [FIRST, SECOND, SAFE, FIRST, SECOND], [100 - round(100 * second), round(100 * second), 100, 50, 50]
    )
    noise = 0.05 * np.random.default_rng(0).normal(size=(300, 3))
    steps = np.eye(3)[shown] + noise
    trajectories = Trajectories(steps, np.zeros((300, 1)), np.arange(301))
    return Split(trajectories, np.arange(100), np.arange(100, 300), NOTHING, NOTHING)


def learned_costs(second: float, **settings) -> list[float]:
    """Costs of a safe step and of the two ways of failing, after training with bags of 128."""
    split = bandit(second)
    small = {"hidden": (16,), "learning_rate": 0.02, "segment_length": 1, "bag_size": 128}
    config, steps = CostModelConfig(**{**small, **settings}), Transitions.from_splits([split], "cpu")
    model = CostModel([split], config, steps, [0])
    train("cost_model", [model.objective()], model.draw, model.prepare, FitContext(), steps=200)
    with torch.no_grad():
        return model.network(torch.eye(3).unsqueeze(0), torch.zeros(1, 3, 1))[0].tolist()


@pytest.mark.parametrize("second", [0.1, 0.2, 0.3, 0.4])
def test_a_way_of_failing_is_marked_where_it_is_likelier_in_d_n(second):
    """q > (1 - p) q' = 0.25, and nothing else, decides."""
    safe, first, rare = learned_costs(second)
    assert safe < 0.05 and first > 0.95
    assert rare > 0.95 if second > 0.25 else rare < 0.05


@pytest.mark.parametrize("settings", [{"heads": 4}, {"aggregator": "deepsets"}], ids=str)
def test_neither_heads_nor_deepsets_mend_it(settings):
    safe, first, rare = learned_costs(0.1, **settings)
    assert safe < 0.1 and first > 0.9 and rare < 0.1


@pytest.mark.parametrize("settings", [{"modes": 2}, {"modes": 2, "heads": 2}], ids=str)
def test_bags_balanced_over_modes_mend_it(settings):
    safe, first, rare = learned_costs(0.1, **settings)
    assert safe < 0.05 and first > 0.95 and rare > 0.95


def test_a_low_temperature_ranks_it_right():
    """With scale = K the optimum is log(d_N / d_U) + const: the rare way stays below the frequent, above the safe."""
    safe, first, rare = learned_costs(0.1, scale="bag")
    assert safe + 0.03 < rare < first - 0.1


# --- Finding modes ---


def test_modes_are_found_whatever_their_shares():
    split = bandit(0.1)
    (modes,) = find_modes([split], 2, [0])
    shown = split.trajectories.observations[split.nonpreferred].argmax(1)
    assert len(set(modes)) == 2 and len({*zip(modes, shown, strict=True)}) == 2
    assert find_modes([split], 1, [0]) is None


def test_k_means_on_points_by_hand():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [12.0], [50.0]])
    labels = k_means(points, 3, torch.Generator().manual_seed(0)).tolist()
    assert labels[0] == labels[1] and labels[2] == labels[3] == labels[4]
    assert sorted(set(labels)) == [0, 1, 2]


def test_fewer_distinct_points_than_clusters():
    points = torch.tensor([[1.0], [1.0], [2.0]])
    labels = k_means(points, 5, torch.Generator().manual_seed(0)).tolist()
    assert labels[0] == labels[1] != labels[2] and max(labels) == 1


# --- Drawing them ---


def test_balanced_draws():
    """Modes are equally likely, and so are a mode's entries; each replica has its own modes."""
    sets, modes = [np.array([5, 6, 7, 8]), np.array([1, 2])], [np.array([0, 0, 0, 1]), np.array([0, 0])]
    table = BalancedTable(sets, modes, "cpu")
    drawn = table.sample(Streams([0, 1], "modes", "cpu").uniform(50, 400))
    for replica, expected in ((0, {5: 1 / 6, 6: 1 / 6, 7: 1 / 6, 8: 1 / 2}), (1, {1: 1 / 2, 2: 1 / 2})):
        values, counts = drawn[:, replica].unique(return_counts=True)
        shares = dict(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True))
        assert shares == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("by", ["trajectory", "transition"])
def test_segments_of_balanced_modes(by):
    """Nine trajectories of one mode, one of another: half the segments are the latter's, whichever way they start."""
    offsets = 4 * np.arange(11)
    modes = [(np.arange(10) == 9).astype(np.int64)]
    sampler = SegmentSampler(offsets, [np.arange(10)], 2, discount=1.0, by=by, modes=modes)
    starts, chosen = sampler.sample(Streams([0], "bags", "cpu").uniform(20, 1000, 2))
    assert (chosen == 9).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert set((starts - torch.tensor(offsets)[chosen]).unique().tolist()) == {0, 1, 2}


# --- Heads ---


def test_one_head_is_the_cost_network_bitwise():
    split = toy_splits()[0][0]
    networks = [
        kind(make_generators([0, 1], "cost network"), 3, 2, (16,), *heads)
        for kind, heads in ((CostNetwork, ()), (MultiHeadCostNetwork, (1,)))
    ]
    config = CostModelConfig(bag_size=8, learning_rate=1e-2, hidden=(16,))
    for network in networks:
        model = CostModel([split] * 2, config, Transitions.from_splits([split], "cpu"), [0, 1], network=network)
        train("cost_model", [model.objective()], model.draw, model.prepare, FitContext(), steps=20)
    for mine, theirs in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(mine, theirs)
    batch = torch.randn(2, 5, 3), torch.randn(2, 5, 2)
    assert torch.equal(networks[0](*batch), networks[1](*batch))


def test_heads_differ_and_the_largest_counts():
    network = MultiHeadCostNetwork(make_generators([0], "heads"), 3, 2, (16,), 4)
    batch = torch.randn(1, 50, 3), torch.randn(1, 50, 2)
    costs = network.scores(*batch)
    torch.testing.assert_close(network.score(network.embed(*batch)), costs)  # the same in two halves
    assert costs.shape == (4, 1, 50) and len(set(costs.argmax(0).flatten().tolist())) > 1
    assert torch.equal(network(*batch), costs.amax(0))


def test_safemil_with_heads_and_modes(tmp_path):
    """Packed equals alone; the network comes back from its file."""
    settings = {"cost_model.heads": 3, "cost_model.modes": 2}
    packed, pairs = fit("safemil", seeds=(2, 0), **settings)
    (alone,), _ = fit("safemil", seeds=(0,), **settings)
    np.testing.assert_allclose(actions_of(packed[1], pairs), actions_of(alone, pairs), atol=2e-4)
    checkpoints.save(tmp_path, alone.policy, scorer=alone.scorer)
    data = pairs[0][0].trajectories
    with torch.no_grad():
        loaded = checkpoints.load_scorer(tmp_path)(
            torch.tensor(data.observations[None, :9]), torch.tensor(data.actions[None, :9])
        )
    np.testing.assert_array_equal(loaded[0], alone.score_steps(data.observations[:9], data.actions[:9]))
