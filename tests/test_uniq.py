"""UNIQ's closed forms: T-UQ1 (a bandit), T-UQ2 (a chain), T-UQ3 (nothing to avoid); its guards, its ratio network."""

import numpy as np
import pytest
import torch

from baselines import discriminator, uniq
from baselines.critics import Value
from safemil.algorithm.weights import effective_sample_size
from safemil.nn.streams import make_generators
from tests.conftest import toy_splits
from tests.test_baselines import D_N, D_P, D_U, minimize
from tests.test_methods import actions_of, fit

DISCOUNT = 0.9


def expected(losses: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return (losses * shares).sum()


def ratio_of(nonpreferred: torch.Tensor, unlabeled: torch.Tensor, cap: float = 19.0) -> torch.Tensor:
    """tau through the loss that the ratio network minimizes, its clip and its cap."""

    def loss(logits):
        counts = [(share * 100_000).round().long() for share in (nonpreferred, unlabeled)]
        return discriminator.logistic_loss(*(logits.repeat_interleave(own) for own in counts))

    (logits,) = minimize(loss, len(nonpreferred))
    return uniq.density_ratio(torch.sigmoid(logits).clamp(*uniq.OUTPUT_RANGE), cap)


@pytest.mark.parametrize(
    ("beta", "value", "policy"),
    [(5.0, 1.19725, [0.2291, 0.7709]), (1.0, 3.0914, [0.0010, 0.9990]), (4.4555, None, [0.2, 0.8])],
)
@pytest.mark.parametrize("literal", [False, True])
def test_uq1_bandit(beta, value, policy, literal):
    ratios = ratio_of(D_N, D_U)
    np.testing.assert_allclose(ratios, [1.6364, 0.2222], atol=1e-4)
    rewards = uniq.reward(ratios)
    np.testing.assert_allclose(rewards, [-3.1818, 3.8889], atol=1e-3)
    (q,) = minimize(lambda q: expected(uniq.q_loss(q, rewards, torch.zeros(2), literal=literal), D_U), 2)
    np.testing.assert_allclose(q, rewards, atol=1e-5)
    twice = torch.stack([q, q + 1])  # of two values of a step the smaller counts
    (v,) = minimize(lambda v: expected(uniq.value_loss(uniq.scaled_advantage(twice, v, beta)), D_U), 1)
    if value is not None:
        assert v.item() == pytest.approx(value, abs=1e-3)
    weights = uniq.policy_weights(uniq.scaled_advantage(twice, v, beta).numpy())
    cloned = D_U.numpy() * weights
    np.testing.assert_allclose(cloned / cloned.sum(), policy, atol=2e-4)
    if beta == 5.0:
        np.testing.assert_allclose(((q - v) / beta).exp(), [0.4165, 1.7131], atol=2e-4)
        np.testing.assert_allclose(D_P, [0.2, 0.8])  # which beta = 5 overshoots and 4.4555 meets


def test_uq1_descent_on_both_losses_gets_there():
    rewards = uniq.reward(ratio_of(D_N, D_U))
    q, v = torch.zeros(2, dtype=torch.float64, requires_grad=True), torch.zeros((), dtype=torch.float64)
    v.requires_grad_(True)
    optimizer = torch.optim.SGD([q, v], 0.5)
    for _ in range(2_000):
        optimizer.zero_grad()
        (expected(uniq.q_loss(q, rewards, torch.zeros(2)), D_U)).backward()
        (5.0 * expected(uniq.value_loss((q.detach() - v) / 5.0), D_U)).backward()
        optimizer.step()
    np.testing.assert_allclose(q.detach(), rewards, atol=1e-5)
    assert v.item() == pytest.approx(5 * np.log((D_U * (rewards / 5).exp()).sum().item()), abs=1e-5)


def chain():
    """Occupancies of T-SD2's chain, whose actions are the next states: of N, of U, and U's policy."""
    policies = np.array([[[0.8, 0.2], [0.7, 0.3]], [[0.2, 0.8], [0.1, 0.9]]])
    occupancies = [
        np.linalg.solve(np.eye(2) - DISCOUNT * own.T, (1 - DISCOUNT) * np.array([0.5, 0.5]))[:, None] * own
        for own in policies
    ]
    unlabeled = np.mean(occupancies, axis=0)
    return occupancies[0], occupancies[1], unlabeled


@pytest.mark.parametrize("literal", [False, True])
def test_uq2_chain(literal):
    preferred, nonpreferred, unlabeled = (torch.tensor(own) for own in chain())
    ratios = uniq.density_ratio(nonpreferred / (nonpreferred + unlabeled), cap=5.0)
    np.testing.assert_allclose(ratios, [[0.0979, 0.9032], [0.6471, 1.8189]], atol=1e-4)
    rewards = uniq.reward(ratios)
    np.testing.assert_allclose(rewards, [[4.5105, 0.4839], [1.7647, -4.0945]], atol=1e-3)
    behavior = unlabeled / unlabeled.sum(1, keepdim=True)
    q, v = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for _ in range(2_000):
        q = rewards + DISCOUNT * v  # the lowest point of Q's loss
        v = 5 * (behavior * (q / 5).exp()).sum(1).log()  # and of V's
    np.testing.assert_allclose(v, [29.690, 22.514], atol=1e-3)
    np.testing.assert_allclose(q, [[31.232, 20.746], [28.486, 16.168]], atol=1e-3)
    q.requires_grad_(True)
    v.requires_grad_(True)
    of_q = expected(uniq.q_loss(q, rewards, DISCOUNT * v.detach(), literal=literal), unlabeled)
    of_v = expected(uniq.value_loss((q.detach() - v[:, None]) / 5), unlabeled)
    residuals = [*torch.autograd.grad(of_q, [q]), *torch.autograd.grad(of_v, [v])]
    assert max(own.abs().max().item() for own in residuals) < 1e-13
    weights = uniq.policy_weights(((q - v[:, None]) / 5).detach().numpy())
    cloned = behavior.numpy() * weights
    cloned /= cloned.sum(1, keepdims=True)
    np.testing.assert_allclose(cloned, [[0.9495, 0.0505], [0.7858, 0.2142]], atol=1e-4)
    states = np.linalg.solve(np.eye(2) - DISCOUNT * cloned.T, (1 - DISCOUNT) * np.array([0.5, 0.5]))
    assert 0.5 * np.abs(states[:, None] * cloned - preferred.numpy()).sum() == pytest.approx(0.245, abs=1e-3)


def test_uq3_nothing_to_avoid_is_plain_cloning():
    ratios = ratio_of(D_U, D_U)
    np.testing.assert_allclose(ratios, 1.0, atol=1e-5)
    rewards = uniq.reward(ratios)
    (q,) = minimize(lambda q: expected(uniq.q_loss(q, rewards, torch.zeros(2)), D_U), 2)
    (v,) = minimize(lambda v: expected(uniq.value_loss(q - v), D_U), 1)
    np.testing.assert_allclose(uniq.policy_weights((q - v).numpy()), 1.0, atol=1e-4)


def test_uq3_a_large_beta_is_bc_all():
    """The whole of fit: the same rows, the same loss, weights of 1."""
    (learned,), pairs = fit("uniq", beta=1e6)
    (cloned,), _ = fit("bc-all")
    np.testing.assert_allclose(learned.weights, 1.0, atol=1e-4)
    np.testing.assert_allclose(actions_of(learned, pairs), actions_of(cloned, pairs), atol=2e-3)


def test_both_forms_of_q_s_loss_have_the_same_direction():
    values = torch.linspace(-9, 9, 7, dtype=torch.float64, requires_grad=True)
    rewards, following = torch.tensor([-2.0, 0.0, 1.0, 5.0, -20.0, 3.0, 2.0]).double(), torch.ones(7).double()
    slopes = [
        torch.autograd.grad(uniq.q_loss(values, rewards, following, literal=literal).sum(), values)[0]
        for literal in (False, True)
    ]
    torch.testing.assert_close(slopes[0], 5 * slopes[1])


def test_guards():
    exponents = torch.tensor([4.999, 5.001, 400.0], requires_grad=True)
    losses = uniq.value_loss(exponents)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    np.testing.assert_allclose(exponents.grad, np.exp([4.999, 5.0, 5.0]) - 1, rtol=1e-4)  # never without a slope
    weights = uniq.policy_weights(np.array([1e6, 0.0, 0.0], np.float32))
    np.testing.assert_allclose(weights, np.array([100, 1, 1]) / 34)
    capped = uniq.density_ratio(torch.tensor([0.5, 0.95]), cap=5.0)
    np.testing.assert_allclose(capped, [1.0, 5.0])
    assert effective_sample_size(weights) < 1.1


def test_the_network_with_the_lowest_held_out_loss_is_kept():
    ((split, _), (other, _)) = toy_splits((0, 1))
    from safemil.training.transitions import Transitions

    steps = Transitions.from_splits([split, other], "cpu")
    network = uniq.RatioNetwork(make_generators([0, 1], "test"), 3, 2, (8,)).requires_grad_(False)
    best = discriminator.BestHeldOut(network, network.logits, [split, other], steps, 100)
    assert best.steps == tuple(range(10, 101, 10))
    bias = network.mlp.layers[-1].bias
    for levels in ((0.0, 3.0), (5.0, 1.0), (-7.0, 2.0)):  # D_N and D_U are equally likely: the level nearest to 0
        bias.copy_(torch.tensor(levels).view(2, 1, 1))
        best(0)
    best.put_back()
    assert bias.flatten().tolist() == [0.0, 1.0]
    assert (best.losses < 2).all()


def test_kept_units_have_mean_one():
    units = uniq.kept_units((torch.arange(1000) + 0.5) / 1000, 0.75)
    assert units.mean().item() == pytest.approx(1.0) and sorted(set(units.tolist())) == [0.0, 4.0]


def test_dropped_units_are_left_out_of_the_whole_batch():
    network = uniq.RatioNetwork(make_generators([0], "test"), 3, 2, (4, 4))
    batch = torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    units = torch.tensor([[[2.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    bias = network.mlp.layers[-1].bias
    torch.testing.assert_close(network.logits(*batch, units), bias.view(1, 1).expand(1, 6))
    assert not torch.equal(network.logits(*batch, torch.ones(1, 2, 4)), network.logits(*batch, units))
    torch.testing.assert_close(network.logits(*batch, torch.ones(1, 2, 4)), network.logits(*batch))


def test_advantage_is_the_smaller_value_against_the_state_s():
    from baselines.critics import TwinCritic

    generators = make_generators([0], "test")
    critic, value = TwinCritic(generators, 3, 2, (8,)), Value(generators, 3, (8,), "torch")
    batch = torch.randn(1, 6, 3), torch.randn(1, 6, 2)
    smaller = torch.minimum(critic.first(*batch), critic.second(*batch))
    torch.testing.assert_close(uniq.Advantage(critic, value, 2.0)(*batch), (smaller - value(batch[0])) / 2)


def test_it_turns_away_from_what_d_n_does():
    """On the toy data whose unsafe steps push right; the ratio alone tells them apart."""
    settings = {"discriminator.steps": 300, "discriminator.learning_rate": 3e-3, "policy.steps": 400}
    (learned,), pairs = fit("uniq", **settings)
    (cloned,), _ = fit("bc-all", **settings)
    assert actions_of(learned, pairs)[:, 0].mean() < actions_of(cloned, pairs)[:, 0].mean() - 0.15
    assert learned.extra["ratio_mean"] == pytest.approx(1.0, abs=0.25)
