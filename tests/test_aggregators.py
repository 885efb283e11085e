"""The aggregators' identities: what each becomes in the limit, and what none of them may depend on."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from safemil.algorithm.aggregators import AGGREGATORS, MonotoneMLP, any_costly, make_aggregator, soft_maximum
from safemil.algorithm.bags import bag_scores, segment_scores
from safemil.algorithm.cost_model import mil_loss
from safemil.algorithm.discounting import discounted_length
from safemil.config.overrides import ConfigError
from safemil.config.settings import AggregationConfig, CostModelConfig
from safemil.evaluation import diagnostics
from safemil.training.context import FitContext
from safemil.training.loop import train
from tests.conftest import toy_splits
from tests.test_cost_model import cost_model, first_batch, separable_split
from tests.test_methods import actions_of, fit

SMALL = AggregationConfig(deepsets_width=8, attention_width=8, transformer_width=8, transformer_heads=2)
R, BAGS, K, H, E = 2, 3, 5, 4, 6
LENGTHS = torch.arange(R * BAGS * K).view(R, -1) % H + 1  # of the segments: every length from 1 to H
every_aggregator = pytest.mark.parametrize("name", AGGREGATORS)
over_steps = pytest.mark.parametrize("name", ["softmax", "noisy-or", "attention"])


def shaken(name: str, seeds=(3, 4), **settings) -> torch.nn.Module:
    """An aggregator whose layers that start at zero do so no more."""
    config = CostModelConfig(aggregator=name, bag_size=K, aggregation=AggregationConfig(**{**vars(SMALL), **settings}))
    aggregator = make_aggregator(config, seeds, E)
    for parameter in aggregator.parameters():
        for own, seed in zip(parameter.data, seeds, strict=True):
            own += 0.5 * torch.randn(own.shape, generator=torch.Generator().manual_seed(seed))
    return aggregator.requires_grad_(False)


def bags() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs, factors (G_H in sum, whatever the length) and embeddings of R replicas' bags."""
    generator = torch.Generator().manual_seed(0)
    factors = 0.9 ** torch.arange(H) * (torch.arange(H) < LENGTHS.unsqueeze(-1))
    factors = factors * discounted_length(H, 0.9) / factors.sum(-1, keepdim=True)
    shape = (R, BAGS * K, H)
    return torch.rand(shape, generator=generator), factors, torch.randn(*shape, E, generator=generator)


def mean_over_steps(costs: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """G_H times the plain mean over real steps, averaged over the bag."""
    real = factors > 0
    return bag_scores(discounted_length(H, 0.9) * (costs * real).sum(-1) / real.sum(-1), K)


# --- The limits ---


def test_soft_maximum_between_the_mean_and_the_largest():
    costs, factors, _ = bags()
    costs, real = costs.double(), factors > 0
    mean = (costs * real).sum(-1) / real.sum(-1)
    largest = costs.masked_fill(~real, -1).amax(-1)
    torch.testing.assert_close(soft_maximum(costs, real, 1e-6), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(soft_maximum(costs, real, 1e4), largest, rtol=0, atol=2e-4)
    middle = soft_maximum(costs, real, 5.0)
    assert ((mean <= middle + 1e-9) & (middle <= largest + 1e-9)).all()


@pytest.mark.parametrize("rate", [1.0, 5.0, 20.0])
def test_soft_maximum_s_gradients_sum_to_one(rate):
    costs, factors, _ = bags()
    costs.requires_grad_(True)
    soft_maximum(costs, factors > 0, rate).sum().backward()
    torch.testing.assert_close(costs.grad.sum(-1), torch.ones(R, BAGS * K))
    assert (costs.grad[factors == 0] == 0).all()


def test_noisy_or():
    costs, factors, _ = bags()
    one_step = any_costly(costs[..., :1], torch.ones(1, dtype=torch.bool))
    torch.testing.assert_close(one_step, costs[..., 0])
    by_hand = 1 - (1 - costs).where(factors > 0, torch.ones(())).prod(-1)
    torch.testing.assert_close(any_costly(costs, factors > 0), by_hand)
    assert torch.isfinite(any_costly(torch.ones(1, H, requires_grad=True), torch.ones(H, dtype=torch.bool))).all()


def test_attention_with_equal_embeddings_is_the_mean():
    costs, factors, embeddings = bags()
    constant = torch.full_like(embeddings, 0.3)
    torch.testing.assert_close(shaken("attention")(costs, factors, constant), mean_over_steps(costs, factors))
    assert not torch.allclose(shaken("attention")(costs, factors, embeddings), mean_over_steps(costs, factors))


def test_set_transformer_with_equal_embeddings_is_the_mean():
    costs, factors, embeddings = bags()
    expected = bag_scores(segment_scores(costs, factors), K)
    torch.testing.assert_close(shaken("set-transformer")(costs, factors, torch.ones_like(embeddings)), expected)
    assert not torch.allclose(shaken("set-transformer")(costs, factors, embeddings), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["attention", "set-transformer"])
def test_attention_starts_as_the_mean(name):
    costs, factors, embeddings = bags()
    config = CostModelConfig(aggregator=name, bag_size=K, aggregation=SMALL)
    plain = {"attention": mean_over_steps(costs, factors), "set-transformer": bag_scores((costs * factors).sum(-1), K)}
    torch.testing.assert_close(make_aggregator(config, (0, 1), E)(costs, factors, embeddings), plain[name])


def test_deepsets_of_identities_is_safemil_bitwise():
    trained = []
    for name in ("mean", "deepsets"):
        model = cost_model(separable_split(), bag_size=8, aggregator=name)
        if name == "deepsets":
            model.aggregator.h = model.aggregator.rho = torch.nn.Identity()
        train("cost_model", [model.objective()], model.draw, model.prepare, FitContext(), steps=20)
        trained.append(torch.cat([parameter.flatten() for parameter in model.network.parameters()]))
    assert torch.equal(*trained)


def test_deepsets_rises_with_every_score():
    network = MonotoneMLP([torch.Generator().manual_seed(0)], (3, 8, 2)).double()
    x = torch.randn(1, 20, 3, dtype=torch.float64, requires_grad=True)
    for output in network(x).unbind(-1):
        (slope,) = torch.autograd.grad(output.sum(), x, retain_graph=True)
        assert (slope > 0).all()


# --- What none may depend on ---


@every_aggregator
def test_order_of_the_items_does_not_matter(name, rng):
    inputs, aggregator = bags(), shaken(name)
    order = torch.tensor(np.concatenate([K * bag + rng.permutation(K) for bag in range(BAGS)]))
    moved = [values[:, order] for values in inputs]
    torch.testing.assert_close(aggregator(*moved), aggregator(*inputs))


@every_aggregator
def test_padding_does_not_matter(name):
    costs, factors, embeddings = bags()
    aggregator = shaken(name)
    before = aggregator(costs, factors, embeddings)
    padding = factors == 0
    assert padding.any()
    changed = costs.masked_fill(padding, 0.77), factors, embeddings.masked_fill(padding.unsqueeze(-1), -3.0)
    torch.testing.assert_close(aggregator(*changed), before)


@over_steps
def test_short_segments_reach_as_high_as_long_ones(name):
    """Equal costs: a segment of one step and one of four have the same z, but for noisy-or, where steps add up."""
    costs, factors, embeddings = bags()
    z = shaken(name).pool_steps(torch.full_like(costs, 0.25), factors, embeddings)
    expected = 1 - 0.75**LENGTHS if name == "noisy-or" else torch.full(LENGTHS.shape, 0.25)
    torch.testing.assert_close(z, discounted_length(H, 0.9) * expected)


@every_aggregator
def test_a_replica_depends_on_its_own_seed_and_bags_alone(name):
    inputs, together = bags(), shaken(name, (3, 4))
    alone = shaken(name, (4,))(*(values[1:] for values in inputs))
    torch.testing.assert_close(together(*inputs)[1:], alone)


@every_aggregator
def test_score_rises_with_every_step_s_cost(name):
    costs, factors, embeddings = bags()
    costs.requires_grad_(True)
    shaken(name)(costs, factors, embeddings).sum().backward()
    assert (costs.grad[factors > 0] > 0).all()
    assert (costs.grad[factors == 0] == 0).all()


@every_aggregator
def test_largest_head_counts(name):
    """Two heads of which one is dearer everywhere: as if it were the only one."""
    costs, factors, embeddings = bags()
    aggregator = shaken(name)
    torch.testing.assert_close(
        aggregator(torch.stack([0.5 * costs, costs]), factors, embeddings), aggregator(costs, factors, embeddings)
    )


# --- Training with them ---


@every_aggregator
def test_untrained_loss_is_log_2(name):
    model = cost_model(separable_split(), bag_size=8, segment_length=5, aggregator=name)
    assert model.loss(first_batch(model))[0].item() == pytest.approx(math.log(2), abs=1e-6)


@every_aggregator
def test_safemil_with_it_ranks_the_toy_steps_and_is_the_same_packed(name):
    settings = {"cost_model.aggregator": name, "cost_model.steps": 150, "policy.steps": 5}
    settings |= {f"cost_model.aggregation.{key}": value for key, value in vars(SMALL).items()}
    packed, pairs = fit("safemil", seeds=(2, 0), **settings)
    for own, (split, labels) in zip(packed, pairs, strict=True):
        assert diagnostics.oracle(own, split, labels)["oracle_step_auroc"] > 0.98
    (alone,), _ = fit("safemil", seeds=(0,), **settings)
    np.testing.assert_allclose(actions_of(packed[1], pairs), actions_of(alone, pairs), atol=2e-4)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="transformer_width=10, transformer_heads=4: the heads must divide"):
        AggregationConfig(transformer_width=10)


# --- The factor in the loss ---


@pytest.mark.parametrize(("scale", "bag_size", "expected"), [("bag", 4, 0.4055), ("sqrt", 4, 0.8109), (1.0, 2, 0.8109)])
def test_scale_divides_the_temperature_of_the_bag_size(scale, bag_size, expected):
    """T-MIL1's two states: the optimum is that of K / l; with l = K, that of K = 1."""
    counts = torch.arange(bag_size + 1) / bag_size
    share = [torch.tensor(binom.pmf(np.arange(bag_size + 1), bag_size, q)) for q in (0.6, 0.5)]
    factor = CostModelConfig(bag_size=bag_size, scale=scale).loss_scale
    deltas = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None, None]
    losses = mil_loss(deltas * counts[:, None], deltas * counts[None, :], factor)
    best = deltas[(losses * share[0][:, None] * share[1][None, :]).sum((1, 2)).argmin()].item()
    assert best == pytest.approx(expected, abs=2e-4)


def test_scale_reaches_the_training():
    split = toy_splits()[0][0]
    models = {scale: cost_model(split, bag_size=16, pairs=2, scale=scale) for scale in (1.0, "bag")}
    for model in models.values():
        train("cost_model", [model.objective()], model.draw, model.prepare, FitContext(), steps=5)
    batch = first_batch(models["bag"])
    assert models["bag"].loss(batch)[0].item() == pytest.approx(
        mil_loss(*(16 * models["bag"].scores(batch)).chunk(2, dim=1)).mean().item()
    )
    assert not torch.equal(*(next(model.network.parameters()) for model in models.values()))
