"""SafeMIL (arXiv 2511.08136): learn a step cost from bags, weigh the unlabeled trajectories, clone the safe ones.

    cost    min over c   E[ softplus(S(B_U) - S(B_N)) ]            safemil/algorithm/cost_model.py
    weight  w = exp(-G_H * mean cost of the trajectory / beta)     safemil/algorithm/weights.py
    policy  min over pi  E_{D_U}[ w * loss(pi(s), a) ]             safemil/algorithm/cloning.py

`two_stage` trains the cost, freezes it and clones with cached weights. `joint` is the paper's alternation: one cost
update, then one policy update on the same unlabeled segments, each weighted by exp(-z / beta) and discounted by g^t.

Differences from the public notes on the paper: `two_stage` is the default (one frozen cost serves many policies, and
weights are per trajectory); observations are normalized; the head is deterministic, which shares its optimum with the
squared error on a reparameterized sample of a two-component mixture (the conditional mean, with vanishing spread).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safemil.algorithm.bags import segment_scores
from safemil.algorithm.cloning import SampleNumbers, clone_trajectories, cloning_objective, make_policy
from safemil.algorithm.cost_model import CostModel
from safemil.algorithm.weights import step_weights, trajectory_means
from safemil.config.overrides import ConfigError, to_dict
from safemil.config.settings import CostModelConfig, SafeMILConfig, WeightsConfig
from safemil.data.splits import Split
from safemil.nn.networks import extract_replica
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, SnapshotRecorder, score_rows
from safemil.training.kept_stages import train_once
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info
from safemil.training.transitions import Transitions, set_normalizers

LONGEST_WEIGHT_SCALE = 10  # H of G_H in the exponential weights; a longer one leaves a single trajectory with weight


def fit(splits: Sequence[Split], config: SafeMILConfig, context: FitContext) -> list[FitResult]:
    """Train one policy per seed, all packed.

    Args:
        splits: one per seed, over the same trajectories.
    """
    steps = Transitions.from_splits(splits, context.device)
    cost_model = CostModel(splits, config.cost_model, steps, context.seeds)
    if config.policy.normalize_observations:
        set_normalizers([cost_model.network.encoder], splits)
    if config.mode == "joint":
        return fit_jointly(splits, cost_model, config, steps, context)
    ended = train_once(
        "cost_model",
        [cost_model.objective()],
        cost_model.draw,
        cost_model.prepare,
        context,
        steps=config.cost_model.steps,
        defined_by=[to_dict(config.cost_model), config.policy.normalize_observations],
        held_out=None if context.patience is None else cost_model.held_out_loss(splits),
    )
    unlabeled = [split.unlabeled for split in splits]
    results = clone_trajectories(
        splits,
        unlabeled,
        config.policy,
        steps,
        context,
        weights=weights_of_sets(unlabeled, splits, cost_model, config, steps),
        held_out_weights=None if ended is None else held_out_weights(splits, cost_model, config, steps),
        scorers=[extract_replica(cost_model.network, index) for index in range(len(splits))],
    )
    for index, result in enumerate(results):
        result.extra |= ended.of("cost_model", index) if ended is not None else {}
    return results


def held_out_weights(
    splits: Sequence[Split], cost_model: CostModel, config: SafeMILConfig, steps: Transitions
) -> list[np.ndarray]:
    """Weight of each step of each replica's held-out D_U, as it is beside all of D_U; ones where none has any."""
    lengths = splits[0].trajectories.lengths
    every = [np.concatenate([split.unlabeled, split.unlabeled_held_out]) for split in splits]
    weights = weights_of_sets(every, splits, cost_model, config, steps)
    own = [values[-lengths[split.unlabeled_held_out].sum() :] for values, split in zip(weights, splits, strict=True)]
    return [values if values.any() else np.ones_like(values) for values in own]


def weights_of_sets(
    sets: Sequence[np.ndarray],
    splits: Sequence[Split],
    cost_model: CostModel,
    config: SafeMILConfig,
    steps: Transitions,
) -> list[np.ndarray]:
    """Weight of each step of each replica's trajectories of D_U under its frozen cost, mean 1."""
    data = splits[0].trajectories
    costs = score_rows(cost_model.network, steps, [data.rows(indices) for indices in sets])
    references: list[np.ndarray | None] = [None] * len(splits)
    if config.weights.kind == "hard":
        held_out = [split.nonpreferred_held_out for split in splits]
        held_out_costs = score_rows(cost_model.network, steps, [data.rows(indices) for indices in held_out])
        references = [
            trajectory_means(values, data.lengths[indices])
            for values, indices in zip(held_out_costs, held_out, strict=True)
        ]
    return [
        weights_from_costs(values, data.lengths[indices], config, reference)
        for values, indices, reference in zip(costs, sets, references, strict=True)
    ]


def weights_from_costs(
    step_costs: np.ndarray, lengths: np.ndarray, config: SafeMILConfig, reference: np.ndarray | None = None
) -> np.ndarray:
    """Weight of each step ``(n_steps,)`` of trajectories of those lengths, mean 1; ``reference`` is for ``hard``."""
    scale, discount = weight_scale_steps(config.cost_model), config.cost_model.discount
    return step_weights(
        step_costs, lengths, config.weights, segment_length=scale, discount=discount, reference=reference
    )


def weight_scale_steps(config: CostModelConfig) -> int:
    """H of the weights' scale G_H: the segments' own up to ten, so that long segments do not collapse the weights."""
    if config.segment_length == "full":
        return LONGEST_WEIGHT_SCALE
    return min(int(config.segment_length), LONGEST_WEIGHT_SCALE)


def segment_weights(costs: Tensor, factors: Tensor, config: WeightsConfig, horizon: float) -> Tensor:
    """w of each step of drawn segments, mean 1 over the batch.

    Args:
        costs: ``(R, items, H)`` predicted costs.
        factors: ``(R, items, H)`` discounts, 0 at padding.
        horizon: G_H of the kinds that weigh single steps.
    """
    if config.kind in ("exponential", "exponential-segment"):  # the drawn segment stands for its trajectory
        weights = torch.exp(-segment_scores(costs, factors).unsqueeze(-1) / config.beta).expand_as(factors)
    elif config.kind == "exponential-step":
        weights = torch.exp(-horizon * costs / config.beta)
    else:
        weights = 1.0 - costs
    return weights / (weights.mean((1, 2), keepdim=True) + 1e-3)


def discounted_loss(losses: Tensor, weights: Tensor, factors: Tensor) -> Tensor:
    """Weighted imitation losses of segments ``(R, items, H)``, each step discounted as in the cost -> ``(R,)``."""
    return (weights * factors * losses).sum((1, 2)) / factors.sum((1, 2))


def fit_jointly(
    splits: Sequence[Split], cost_model: CostModel, config: SafeMILConfig, steps: Transitions, context: FitContext
) -> list[FitResult]:
    """One cost update, then one policy update on the same unlabeled segments, ``policy.steps`` times."""
    kind = config.weights.kind
    if kind not in ("exponential", "exponential-segment", "exponential-step", "linear-step"):
        raise ConfigError(f"weights.kind={kind}: mode=joint weighs segments or steps; use exponential-segment")
    policy = make_policy(splits, config.policy, context)
    recorder = SnapshotRecorder(policy, config.policy.steps, context.snapshots)
    sampler = cost_model.samplers[1]
    horizon = float(sampler.powers[: weight_scale_steps(config.cost_model)].sum())
    n_items = config.cost_model.pairs * config.cost_model.bag_size
    numbers = SampleNumbers(policy, config.policy, context.seeds, n_items * sampler.length)

    def prepare(drawn: Batch) -> Batch:
        batch = cost_model.prepare(drawn)
        return {**batch, "sampled": drawn["sampled"]} if "sampled" in drawn else batch

    def policy_loss(batch: Batch) -> tuple[Tensor, Info]:
        observations, actions, factors = (
            batch[name].chunk(2, dim=1)[1] for name in ("observations", "actions", "factors")
        )
        steps = observations.flatten(1, 2), actions.flatten(1, 2)
        with torch.no_grad():
            weights = segment_weights(cost_model.network(*steps).view_as(factors), factors, config.weights, horizon)
        return discounted_loss(policy.loss(*steps, batch.get("sampled")).view_as(factors), weights, factors), {}

    objectives = [cost_model.objective(), cloning_objective(policy, config.policy, policy_loss)]
    train(
        "joint",
        objectives,
        lambda n_steps: {**cost_model.draw(n_steps), **numbers.draw(n_steps)},
        prepare,
        context,
        steps=config.policy.steps,
        recorder=recorder,
    )
    scorers = [extract_replica(cost_model.network, index) for index in range(len(splits))]
    unlabeled = [split.unlabeled for split in splits]
    return recorder.results(scorers, weights_of_sets(unlabeled, splits, cost_model, config, steps))
