"""PPL, "T-REX-WBC": a cost from preferences between single segments, then weighted cloning.

    cost    min over c  E_{tau_N, tau_U}[ softplus(z(tau_U) - z(tau_N)) ]    each D_N segment is worse than each of D_U
    weight  w = 1 - c(s, a)
    policy  min over pi  E_{D_U}[ w * loss(pi(s), a) ]

This is SafeMIL with bags of one (bitwise, under the same seed) and another weight; the label noise of its preferences
is (1 - p) / 2, since D_U holds non-preferred trajectories too. `ppl-trex` is the original T-REX form
(github.com/hiwonjoon/ICML2019-TREX): unbounded scores, undiscounted sums over 50 steps, three networks.

Differences from T-REX: scores read actions too; no label flips; decay decoupled; scores are costs, not rewards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safemil.algorithm import safemil
from safemil.algorithm.cloning import clone_trajectories
from safemil.algorithm.cost_model import CostModel
from safemil.algorithm.weights import normalize
from safemil.config.overrides import Settings, setting, to_dict
from safemil.config.settings import CostModelConfig, PolicyConfig, SafeMILConfig, SegmentCostConfig, WeightsConfig
from safemil.data.splits import Split
from safemil.nn.encoders import Size
from safemil.nn.networks import StepScorer, extract_replica
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, score_rows
from safemil.training.kept_stages import train_once
from safemil.training.transitions import Transitions, set_normalizers


@dataclass(frozen=True)
class PreferenceConfig(SegmentCostConfig):
    """A cost network trained on preferences between single segments."""

    batch_size: int = setting(128, "pairs of segments in an update", low=1)


@dataclass(frozen=True)
class PPLConfig(Settings):
    """Preferences between single segments: SafeMIL's cost model with K = 1, and the weight 1 - c(s, a)."""

    cost_model: PreferenceConfig = dataclasses.field(default_factory=PreferenceConfig)
    weights: WeightsConfig = dataclasses.field(default_factory=lambda: WeightsConfig(kind="linear-step"))
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


@dataclass(frozen=True)
class TREXConfig(Settings):
    """T-REX's own form: unbounded scores, undiscounted sums of 50 steps, an ensemble."""

    cost_model: PreferenceConfig = dataclasses.field(
        default_factory=lambda: PreferenceConfig(
            segment_length=50, batch_size=64, discount=1.0, learning_rate=1e-4, schedule="constant", steps=10_000
        )
    )
    ensemble: int = setting(3, "networks whose standardized scores are averaged", low=1)
    beta: float = setting(0.6, "temperature of exp((score - best) / beta), scores standardized over D_U", low=1e-6)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def as_bags_of_one(config: PreferenceConfig) -> CostModelConfig:
    """Preferences between segments are bags with K = 1."""
    settings = dataclasses.asdict(config)
    return CostModelConfig(bag_size=1, pairs=settings.pop("batch_size"), **settings)


def as_safemil(config: PPLConfig) -> SafeMILConfig:
    """The SafeMIL configuration that PPL is."""
    cost_model = as_bags_of_one(config.cost_model)
    return SafeMILConfig(cost_model=cost_model, weights=config.weights, policy=config.policy)


def fit(splits: Sequence[Split], config: PPLConfig, context: FitContext) -> list[FitResult]:
    """PPL: SafeMIL's own code with K = 1."""
    return safemil.fit(splits, as_safemil(config), context)


def standardize(scores: np.ndarray) -> np.ndarray:
    """Mean 0, spread 1."""
    return (scores - scores.mean()) / (scores.std() + 1e-6)


def trex_weights(scores: np.ndarray, beta: float) -> np.ndarray:
    """exp((best - score) / beta) with mean 1; the best score is the lowest cost."""
    return normalize(np.exp((scores.min() - scores) / beta))


class Ensemble(nn.Module):
    """Mean of the members' scores, each standardized over D_U. A scorer of one replica."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        members: int,
    ) -> None:
        super().__init__()
        shape: dict[str, Any] = {"observation_dim": observation_dim, "action_dim": action_dim, "hidden": list(hidden)}
        self.shape: dict[str, Any] = {**shape, "members": members}
        self.members = nn.ModuleList(StepScorer(generators, **shape) for _ in range(members))
        self.register_buffer("mean", torch.zeros(members, 1, 1))
        self.register_buffer("std", torch.ones(members, 1, 1))

    @classmethod
    def of(cls, networks: Sequence[StepScorer], scores: Sequence[np.ndarray]) -> Ensemble:
        """The ensemble of these one-replica networks, given their scores of D_U's steps."""
        ensemble = cls(make_generators([0], "shape"), **networks[0].shape, members=len(networks))
        for member, network in zip(ensemble.members, networks, strict=True):
            member.load_state_dict(network.state_dict())
        for buffer, statistic in ((ensemble.mean, np.mean), (ensemble.std, np.std)):
            buffer.copy_(torch.tensor([float(statistic(values)) for values in scores]).view(-1, 1, 1))
        return ensemble.requires_grad_(False).eval()

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        scores = torch.stack([member(observations, actions) for member in self.members])
        return ((scores - self.mean) / (self.std + 1e-6)).mean(0)


def fit_trex(splits: Sequence[Split], config: TREXConfig, context: FitContext) -> list[FitResult]:
    """ppl-trex: an ensemble of unbounded scores, trained as further replicas; weight exp((best - score) / beta)."""
    data, members = splits[0].trajectories, config.ensemble
    steps = Transitions.from_splits(splits, context.device)
    member_splits = [split for split in splits for _ in range(members)]
    member_seeds = [1_000_003 * (member + 1) + seed for seed in context.seeds for member in range(members)]
    cost_config = as_bags_of_one(config.cost_model)
    scorer = StepScorer(
        make_generators(member_seeds, "trex"), data.observation_dim, data.action_dim, cost_config.hidden
    )
    cost_model = CostModel(member_splits, cost_config, steps, member_seeds, scorer)
    if config.policy.normalize_observations:
        set_normalizers([cost_model.network.encoder], member_splits)

    def log_means(stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        context.log(stage, step, {name: values.reshape(-1, members).mean(1) for name, values in metrics.items()})

    objective = cost_model.objective()
    member_context = dataclasses.replace(context, seeds=tuple(member_seeds), log=log_means)
    train_once(
        "cost_model",
        [objective],
        cost_model.draw,
        cost_model.prepare,
        member_context,
        steps=cost_config.steps,
        defined_by=["trex", members, to_dict(cost_config), config.policy.normalize_observations],
    )
    scores = score_rows(cost_model.network, steps, [data.rows(split.unlabeled) for split in member_splits])
    networks = [extract_replica(cost_model.network, index) for index in range(len(member_seeds))]
    packs = [slice(index * members, (index + 1) * members) for index in range(len(splits))]
    ensembles = [Ensemble.of(networks[own], scores[own]) for own in packs]
    means = [np.mean([standardize(values) for values in scores[own]], axis=0) for own in packs]
    weights = [trex_weights(own, config.beta) for own in means]
    return clone_trajectories(
        splits,
        [split.unlabeled for split in splits],
        config.policy,
        steps,
        context,
        weights=weights,
        scorers=ensembles,
    )
