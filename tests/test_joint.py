"""SafeMIL's two modes learn by the same losses; two initializations of its cost network; a sampled action's loss."""

import math

import numpy as np
import pytest
import torch

from baselines.registry import METHODS
from safemil.algorithm.cloning import weighted_loss
from safemil.algorithm.cost_model import CostModel
from safemil.algorithm.safemil import discounted_loss, segment_weights
from safemil.algorithm.weights import step_weights
from safemil.config.overrides import ConfigError
from safemil.config.settings import CostModelConfig, WeightsConfig
from safemil.nn.policies import HEADS, normal
from safemil.training.transitions import Transitions
from tests.conftest import toy_splits
from tests.test_methods import actions_of, fit
from tune.grids import GRIDS
from tune.trials import expand


def test_both_modes_train_the_same_cost_bit_for_bit():
    """As many steps of each: the same bags, the same loss, the same optimizer; the policy beside it changes nothing."""
    same = {"cost_model.steps": 70, "policy.steps": 70, "cost_model.schedule": "linear"}
    (joint,), _ = fit("safemil", mode="joint", **same)
    (two_stage,), _ = fit("safemil", mode="two_stage", **same)
    pairs = zip(joint.scorer.state_dict().values(), two_stage.scorer.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    np.testing.assert_array_equal(joint.weights, two_stage.weights)


@pytest.mark.parametrize("kind", ["exponential-segment", "exponential-step", "linear-step"])
def test_both_modes_weigh_alike(kind):
    """On segments that are whole trajectories; joint mode's mean is over its batch, here all of D_U."""
    discount, length, n = 0.9, 6, 7
    costs = torch.rand(1, n, length, dtype=torch.float64)
    factors = (discount ** torch.arange(length, dtype=torch.float64)).expand_as(costs)
    config = WeightsConfig(kind=kind)
    joint = segment_weights(costs, factors, config, float(factors[0, 0].sum()))
    lengths = np.full(n, length)
    cached = step_weights(costs.flatten().numpy(), lengths, config, segment_length=length, discount=discount)
    assert 0.9 < joint.mean().item() < 1  # of the 1e-3 in its denominator
    np.testing.assert_allclose(joint.flatten() / joint.mean(), cached, rtol=1e-9)


def test_both_modes_take_the_same_policy_loss():
    losses, weights = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    found = discounted_loss(losses, weights, torch.ones(2, 5, 3))
    torch.testing.assert_close(found, weighted_loss(losses.flatten(1), weights.flatten(1)))
    factors = torch.tensor([[[1.0, 0.5, 0.0]]])  # the last step is padding
    by_hand = (1.0 * 2.0 * 3.0 + 0.5 * 4.0 * 5.0) / 1.5
    found = discounted_loss(torch.tensor([[[2.0, 4.0, 9.0]]]), torch.tensor([[[3.0, 5.0, 9.0]]]), factors)
    assert found.item() == pytest.approx(by_hand)


def first_loss(**settings) -> float:
    splits = [toy_splits()[0][0]]
    config = CostModelConfig(bag_size=4, pairs=2, hidden=(16,), **settings)
    model = CostModel(splits, config, Transitions.from_splits(splits, "cpu"), [0])
    batch = model.prepare({name: values[0] for name, values in model.draw(1).items()})
    return model.loss(batch)[0].item()


def test_zero_last_starts_at_chance_and_plain_does_not():
    assert first_loss() == pytest.approx(math.log(2), abs=1e-7)
    assert first_loss(heads=1, initialization="plain") != pytest.approx(math.log(2), abs=1e-4)
    (one,), pairs = fit("safemil", **{"cost_model.initialization": "plain", "mode": "joint"})
    (other,), _ = fit("safemil", **{"mode": "joint"})
    assert not np.allclose(actions_of(one, pairs), actions_of(other, pairs))


def test_normal_numbers_are_normal():
    numbers = normal((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    assert numbers.mean().item() == pytest.approx(0.0, abs=1e-9) and numbers.std().item() == pytest.approx(
        1.0, abs=1e-3
    )
    assert torch.isfinite(normal(torch.tensor([0.0, 1.0]))).all()


def test_samples_of_a_gaussian_have_its_mean_and_spread():
    uniform = torch.rand(100_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = HEADS["tanh_gauss"].sample(torch.tensor([0.2, -1.0]).expand(100_000, 2), uniform).atanh()
    assert drawn.mean().item() == pytest.approx(0.2, abs=5e-3)
    assert drawn.std().item() == pytest.approx(math.exp(-1), abs=5e-3)


def test_samples_of_the_mixture_have_its_mean():
    """A quarter of tanh(-1), the rest tanh(.5), as spreads vanish; with spread, the mean of the density itself."""
    n = 200_000
    narrow = torch.tensor([math.log(0.25), math.log(0.75), -1.0, -5.0, 0.5, -5.0])  # logits; mean, log spread
    uniform = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    drawn = HEADS["mix2"].sample(narrow.expand(n, 6), uniform)
    assert drawn.mean().item() == pytest.approx(0.25 * math.tanh(-1) + 0.75 * math.tanh(0.5), abs=5e-3)
    wide = torch.tensor([math.log(0.25), math.log(0.75), -1.0, -0.5, 0.5, -1.0], dtype=torch.float64)
    grid = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)[:, None]
    density = HEADS["mix2"].log_prob(wide.expand(len(grid), 6), grid).exp()
    expected = torch.trapezoid(density * grid[:, 0], grid[:, 0])
    drawn = HEADS["mix2"].sample(wide.float().expand(n, 6), uniform)
    assert drawn.mean().item() == pytest.approx(expected.item(), abs=5e-3)


@pytest.mark.parametrize("head", HEADS)
def test_a_sample_without_spread_is_the_action_itself_and_carries_gradients(head):
    output = torch.randn(4, HEADS[head].outputs(2))
    if head != "det":
        parts = output[..., 2:].unflatten(-1, (2, 4)) if head == "mix2" else output
        parts[..., 2:] = -50.0  # log spreads, clipped to e^-5
    output.requires_grad_(True)
    uniform = torch.full((4, 3), 0.5)
    uniform[:, 0] = (output[:, 0] < output[:, 1]).float() if head == "mix2" else 0.5  # draw the likelier component
    drawn = HEADS[head].sample(output, uniform)
    torch.testing.assert_close(drawn, HEADS[head].mode(output), atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(drawn.sum(), output)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("mode", ["joint", "two_stage"])
def test_the_sampled_loss_clones(mode):
    """The squared error of a sample has its optimum at the conditional mean: the same policy as the common head's."""
    steps = {"cost_model.steps": 250, "policy.steps": 400, "mode": mode}
    (sampled,), pairs = fit("safemil", **steps, **{"policy.head": "mix2", "policy.sampled": True})
    (plain,), _ = fit("safemil", **steps)
    assert actions_of(sampled, pairs)[:, 0].mean() == pytest.approx(actions_of(plain, pairs)[:, 0].mean(), abs=0.15)
    (likelihood,), _ = fit("safemil", **steps, **{"policy.head": "mix2"})
    assert not np.allclose(actions_of(sampled, pairs), actions_of(likelihood, pairs))


def test_the_first_author_s_settings():
    (trial,) = expand(GRIDS["demo"], methods=["safemil"], seeds=[0], preset="author")
    config = trial.config
    assert (config.mode, config.policy.head, config.policy.sampled) == ("joint", "mix2", True)
    assert not config.policy.normalize_observations
    assert config.policy.schedule == config.cost_model.schedule == "constant"
    assert config.policy.learning_rate == config.cost_model.learning_rate == 1e-5
    (other,) = expand(GRIDS["demo"], methods=["bc-all"], seeds=[0], preset="author")
    assert other.config.policy.head == "det" and not other.config.policy.sampled


@pytest.mark.parametrize("name", ["dwbc", "safedice", "osil", "dexperts"])
def test_where_there_is_no_sampled_loss_it_is_refused(name):
    assert hasattr(METHODS[name].config().policy, "sampled")
    with pytest.raises(ConfigError, match=f"{name} has no such loss"):
        fit(name, **{"policy.sampled": True})
