"""OSIL's closed forms: T-OS1 (the contrastive loss), T-OS2 (the policy), T-OS3 (the critic and the cost); its traps."""

import copy
import math

import numpy as np
import pytest
import torch

from baselines import osil
from safemil.algorithm.cost_model import mil_loss
from safemil.config.overrides import ConfigError
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from tests.conftest import toy_splits
from tests.test_baselines import minimize
from tests.test_methods import actions_of, fit
from tests.test_uniq import chain

B, H, GAMMA = 128, 5, 0.99
FACTORS = (GAMMA ** torch.arange(H, dtype=torch.float64)).expand(1, 2 * B, H)


def test_os1_identical_embeddings():
    same = torch.zeros(1, 2 * B, H, 3, dtype=torch.float64)
    same[..., 0] = 1.0
    assert osil.contrastive_loss(same, FACTORS).item() == pytest.approx(7.15383, abs=1e-5)  # log(2 B H - 1)


def test_os1_a_direction_for_each_segment():
    clusters = torch.eye(2 * B, dtype=torch.float64)[None, :, None].expand(1, 2 * B, H, 2 * B)
    loss = osil.contrastive_loss(clusters, FACTORS).item()
    assert loss == pytest.approx(1.40066, abs=1e-5) and loss == pytest.approx(
        math.log(H - 1 + (2 * B - 1) * H * math.exp(-10)), abs=1e-6
    )


def test_os1_the_floor_is_the_entropy_of_the_targets():
    """With the best possible similarities inside a segment and none to others; 1.38620 < log 4."""
    targets = FACTORS[0, 0].expand(H, H) * ~torch.eye(H, dtype=torch.bool)
    targets = targets / targets.sum(1, keepdim=True)
    floor = -(targets * targets.clamp(min=1e-300).log()).sum(1).mean()
    assert floor.item() == pytest.approx(1.38620, abs=1e-5)


def test_contrastive_loss_by_hand():
    """Two segments of three steps; of step 0 the positives are steps 1 and 2, likelier the earlier one."""
    embeddings = torch.nn.functional.normalize(torch.randn(1, 2, 3, 4, dtype=torch.float64), dim=-1)
    factors = torch.tensor([[[1.0, 0.5, 0.25]] * 2], dtype=torch.float64)
    flat = embeddings.flatten(0, 2)
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        logits = {j: (flat[i] @ flat[j]).item() / 0.1 for j in others}
        normalizer = math.log(sum(math.exp(value) for value in logits.values()))
        mine = [j for j in others if j // 3 == i // 3]
        shares = np.array([0.5 ** (j % 3) for j in mine])
        total += sum(share / shares.sum() * (normalizer - logits[j]) for j, share in zip(mine, shares, strict=True))
    assert osil.contrastive_loss(embeddings, factors).item() == pytest.approx(total / 6, rel=1e-9)


def test_padding_is_neither_asked_nor_an_answer():
    embeddings = torch.nn.functional.normalize(torch.randn(1, 4, 5, 8), dim=-1)
    factors = (GAMMA ** torch.arange(5)).expand(1, 4, 5).clone()
    factors[:, :, 3:] = 0.0
    padded = osil.contrastive_loss(embeddings, factors)
    torch.testing.assert_close(padded, osil.contrastive_loss(embeddings[:, :, :3], factors[:, :, :3]))
    factors[:, 0, 1:] = 0.0  # a trajectory of one step has no positive
    assert torch.isfinite(osil.contrastive_loss(embeddings, factors)).all()


@pytest.mark.parametrize(
    ("alpha", "beta", "action", "strength"),
    [(0.25, 0.5, 0.26087, 0.23913), (0.25, 1e9, 0.25, 0.25), (2.5, 0.5, -0.29177, None)],
)
def test_os2_one_state(alpha, beta, action, strength):
    """Actions 0 and 1 equally often, Q(a) = a, no tanh: descent with a detached weight ends at 1/2 - a."""
    data = torch.tensor([0.0, 1.0], dtype=torch.float64)
    policy = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for _ in range(4_000):
        chosen = policy.expand(2)
        found = osil.penalty_strength(chosen.detach(), data, alpha, beta)
        (slope,) = torch.autograd.grad(osil.penalized_loss(0.5 * (chosen - data).square(), chosen, found), policy)
        policy.data -= 0.05 * slope
    assert policy.item() == pytest.approx(action, abs=1e-4)
    if strength is not None:
        assert found.item() == pytest.approx(strength, abs=1e-4)


def test_os2_the_weight_at_the_start_and_at_its_cap():
    data, middle = torch.tensor([0.0, 1.0]), torch.full((2,), 0.5)
    assert osil.penalty_strength(middle, data, 0.25, 0.5).item() == pytest.approx(0.38577, abs=1e-5)
    assert osil.penalty_strength(middle + 1e4, data, 2.5, 0.5).item() == pytest.approx(2.5 * math.exp(5))
    assert osil.penalty_strength(middle - 50, data, 2.5, 0.5).item() == pytest.approx(0.0, abs=1e-9)


def test_os3_critic_on_a_chain():
    """c = 1[a = 2], pi = pi_P, discount .9: the loss that fit takes has its minimum at the exact values."""
    preferred, _, unlabeled = (torch.tensor(own) for own in chain())
    policy = preferred / preferred.sum(1, keepdim=True)
    costs = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(2, 2)
    q = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(300):
        following = (policy * q).sum(1).expand(2, 2)  # actions are the next states

        def loss(flat, following=following):
            values = flat.view(1, 2, 2).expand(2, 2, 2)
            twice = torch.stack([following, following - 3.0])  # of the two, the larger is the goal
            return (osil.critic_loss(values, costs, twice, 0.9) * unlabeled).sum()

        flat = q.flatten().clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(flat), flat)
        q = (flat - slope.view(2, 2).flatten() / (2 * unlabeled.flatten())).detach().view(2, 2)
    np.testing.assert_allclose(q[:, 0], 1.97802, atol=1e-4)
    np.testing.assert_allclose(q[:, 1], 3.07692, atol=1e-4)


def test_huber_width():
    found = osil.critic_loss(torch.tensor([1.0, 5.0]), torch.zeros(2), torch.zeros(2, 2), 0.9)
    np.testing.assert_allclose(found, [0.5, 2 * (5 - 1)])


def test_os3_preference_alone():
    """T-MIL1 at K = 1: q_N = .6, q_U = .5; the difference of the two costs is .40547, the loss .68308."""
    shares_n, shares_u = torch.tensor([0.6, 0.4]).double(), torch.tensor([0.5, 0.5]).double()

    def loss(costs):
        pairs = mil_loss(costs[:, None], costs[None, :])
        return (pairs * shares_n[:, None] * shares_u[None, :]).sum() + 1e-12 * costs.square().sum()

    (costs,) = minimize(loss, 2)
    assert (costs[0] - costs[1]).item() == pytest.approx(0.40547, abs=1e-4)
    assert loss(costs).item() == pytest.approx(0.68308, abs=1e-5)


def test_the_cost_model_s_loss_is_the_sum_of_both():
    ((split, _),) = toy_splits()
    from baselines.ppl import PreferenceConfig, as_bags_of_one
    from safemil.algorithm.bags import segment_scores
    from safemil.training.transitions import Transitions

    config = as_bags_of_one(PreferenceConfig(batch_size=16, hidden=(8,)))
    network = osil.EmbeddingCost(make_generators([0], "test"), 3, 2, (8,))
    model = osil.ContrastiveCostModel([split], config, Transitions.from_splits([split], "cpu"), [0], network)
    batch = model.prepare({name: values[0] for name, values in model.draw(1).items()})
    loss, info = model.loss(batch)
    costs = network(batch["observations"].flatten(1, 2), batch["actions"].flatten(1, 2)).view_as(batch["factors"])
    scores = segment_scores(costs, batch["factors"])
    torch.testing.assert_close(
        info["preference"], torch.nn.functional.softplus(scores[:, 16:] - scores[:, :16]).mean(1)
    )
    torch.testing.assert_close(loss, info["preference"] + info["contrastive"])
    embeddings = network.embed(batch["observations"].flatten(1, 2), batch["actions"].flatten(1, 2))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(1, 160))


@pytest.mark.parametrize("length", [1, 2, "full"])
def test_segments_without_positives_are_refused(length):
    with pytest.raises(ConfigError, match="osil needs at least 3"):
        fit("osil", **{"cost_model.segment_length": length})


def test_imitation_is_half_the_squared_error_or_the_likelihood():
    observations, actions = torch.randn(1, 5, 3), torch.rand(1, 5, 2) - 0.5
    for head, share in (("det", 0.5), ("tanh_gauss", 1.0)):
        policy = Policy(make_generators([0], "test"), 3, 2, (8,), head)
        found = osil.imitation_loss(policy, policy(observations), actions)
        torch.testing.assert_close(found, share * policy.loss(observations, actions))


def test_without_a_penalty_it_clones_and_with_one_it_turns_away():
    settings = {"cost_model.steps": 250, "policy.steps": 400}
    (none,), pairs = fit("osil", alpha=0.0, **settings)
    (some,), _ = fit("osil", alpha=0.25, **settings)
    (cloned,), _ = fit("bc-all", **settings)
    pushed = [actions_of(own, pairs)[:, 0].mean() for own in (cloned, none, some)]
    assert pushed[1] == pytest.approx(pushed[0], abs=0.08)
    assert pushed[2] < pushed[1] - 0.15


def test_centered_costs():
    values = np.linspace(0.4, 0.6, 101)
    found = osil.centered(values)
    assert found.min() == 0.0 and found.max() == pytest.approx(0.6 - 0.41) and (found == 0).sum() == 6
    (plain,), _ = fit("osil")
    (shifted,), _ = fit("osil", osil_center=True)
    assert plain.extra["cost_center"] == shifted.extra["cost_center"]  # of the scores, which stay as they are
    assert not all(
        torch.equal(a, b)
        for a, b in zip(plain.policy.state_dict().values(), shifted.policy.state_dict().values(), strict=True)
    )


def test_slow_copies_follow():
    from safemil.training.objectives import Follower

    leader, slow = (Policy(make_generators([seed], "test"), 3, 2, (4,)) for seed in (0, 1))
    before = copy.deepcopy(slow)
    Follower(list(leader.parameters()), list(slow.parameters()), 0.25).step()
    for own, other, old in zip(slow.parameters(), leader.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(own, 0.75 * old + 0.25 * other)
