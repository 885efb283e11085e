"""OSIL (arXiv 2602.11018): clone D_U under a penalty on the future cost of the policy's own actions.

    cost    min over c   E[ softplus(z(tau_U) - z(tau_N)) ] + L_con,   z = sum_{t<H} g^t c,   c = sigmoid(w f + b)
    L_con   cross-entropy of softmax_j(f_i f_j / 0.1), j != i, |f| = 1, against p_ij ~ g^pos(j) in the segment of i
    critic  min over Q_k Huber(Q_k(s, a) - [ c(s, a) + g max_k Q'_k(s', pi'(s')) ]),   ' slow copies, on D_U
    policy  min over pi  E_U[ loss(pi(s), a) / 2 ] + a E_U[ max_k Q_k(s, pi(s)) ]
            a = alpha min(e^5, E_U[ exp((Q(s, pi(s)) - Q(s, a)) / beta) ]), detached, one number for each batch

The cost is PPL's with another network and L_con; a grows where the policy is costlier than the data and shrinks where
it is safer. The cost limit never enters. c is known up to a constant only, which Q sums up over about 1 / (1 - g)
steps: `osil_center` takes max(0, c - its 5 % quantile over D_U). alpha and beta have no label-free criterion: they stay
2.5 and 0.5, other values of alpha are printed as a sensitivity (grid osil-alpha).

The paper has no code; the form is that of public notes and of its first author's later research code. Differences from
that: first the cost, then critic and policy, with the rate to zero; both critics train, and a step that is skipped is
skipped whole; steps of padding take no part in L_con; a trajectory's last step has no successor and is left out
(baselines/batches.py says why); policy and loss are those of every method here (policy.head=tanh_gauss: -log pi, the
penalty at tanh of the mean; that code takes the squared error of a sample of a two-component mixture).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.batches import StepSampler, rows_with_successors
from baselines.critics import CriticConfig, TwinCritic, critic_objective, follower
from baselines.ppl import PreferenceConfig, as_bags_of_one
from safemil.algorithm.bags import segment_scores
from safemil.algorithm.cloning import cloning_objective, make_policy, refuse_samples, weight_table
from safemil.algorithm.cost_model import CostModel, mil_loss
from safemil.config.overrides import ConfigError, Settings, setting, to_dict
from safemil.config.settings import PolicyConfig
from safemil.data.splits import Split
from safemil.nn.encoders import Size
from safemil.nn.layers import StackedMLP
from safemil.nn.networks import StepScorer, extract_replica
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, SnapshotRecorder, score_rows
from safemil.training.kept_stages import train_once
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info
from safemil.training.transitions import Transitions, set_normalizers

NETWORK: dict[str, Any] = {"activation": "elu", "initialization": "orthogonal"}  # of cost and critic
EMBEDDING = 128  # width of f
CONTRASTIVE_TEMPERATURE = 0.1
HUBER_WIDTH = 2.0
LARGEST_GROWTH = math.exp(5.0)  # of alpha
FEWEST_STEPS = 3  # of a segment: with one, L_con is empty; with two, a step's only positive is the other
CENTER_QUANTILE = 0.05


@dataclass(frozen=True)
class OSILConfig(Settings):
    """Cloning with a penalty on the future cost."""

    cost_model: PreferenceConfig = dataclasses.field(default_factory=PreferenceConfig)
    alpha: float = setting(2.5, "weight of the penalty before it is adapted", low=0.0)
    beta: float = setting(0.5, "temperature of its adaptation", low=1e-3)
    osil_center: bool = setting(False, "costs less their 5 % quantile over D_U, at least 0")
    critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def contrastive_loss(embeddings: Tensor, factors: Tensor) -> Tensor:
    """L_con of unit embeddings ``(R, segments, H, E)`` with discount factors ``(R, segments, H)``, ``(R,)``.

    A factor of 0 marks padding, which is neither asked nor an answer.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        flat, real = embeddings.flatten(1, 2), factors.flatten(1, 2) > 0
        similarity = torch.bmm(flat, flat.transpose(1, 2)) / CONTRASTIVE_TEMPERATURE
        itself = torch.eye(flat.shape[1], dtype=torch.bool, device=flat.device)
        normalizer = similarity.masked_fill(itself | ~real.unsqueeze(1), -1e9).logsumexp(-1).view_as(factors)
        within = embeddings @ embeddings.transpose(-1, -2) / CONTRASTIVE_TEMPERATURE
        others = ~torch.eye(factors.shape[-1], dtype=torch.bool, device=factors.device)
        targets = factors.unsqueeze(-2) * others
        total = targets.sum(-1)
        agreement = (targets * within).sum(-1) / total.clamp(min=1e-12)
        asked = (factors > 0) & (total > 0)
        return ((normalizer - agreement) * asked).sum((1, 2)) / asked.sum((1, 2)).clamp(min=1)


def critic_loss(values: Tensor, costs: Tensor, following: Tensor, discount: float) -> Tensor:
    """Huber loss of Q(s, a) against c + g Q'(s', pi'(s')), elementwise; of the two Q' ``(2, ...)`` the larger."""
    goals = (costs + discount * following.amax(0)).expand_as(values)
    return nn.functional.huber_loss(values, goals, reduction="none", delta=HUBER_WIDTH)


def penalty_strength(of_policy: Tensor, of_data: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha as it is adapted, from Q(s, pi(s)) and Q(s, a) over the last axis."""
    growth = torch.exp((of_policy - of_data) / beta).mean(-1)
    return alpha * growth.clamp(max=LARGEST_GROWTH)


def penalized_loss(losses: Tensor, of_policy: Tensor, strength: Tensor) -> Tensor:
    """E_U[loss] + a E_U[Q(s, pi(s))] over the last axis."""
    return losses.mean(-1) + strength * of_policy.mean(-1)


def imitation_loss(policy: Policy, output: Tensor, actions: Tensor) -> Tensor:
    """Half the squared error of a deterministic head, -log pi of another, ``(R, n)``."""
    share = 0.5 if policy.shape["head"] == "det" else 1.0
    return share * policy.head.loss(output, actions)


def centered(costs: np.ndarray) -> np.ndarray:
    """max(0, c - 5 % quantile)."""
    return np.maximum(0.0, costs - np.quantile(costs, CENTER_QUANTILE))


class EmbeddingCost(StepScorer):
    """Per-step cost: sigmoid of a linear function of an embedding of norm 1."""

    def __init__(
        self, generators: Sequence[torch.Generator], observation_dim: Size, action_dim: int, hidden: Sequence[int]
    ) -> None:
        options = {**NETWORK, "outputs": EMBEDDING}
        super().__init__(generators, observation_dim, action_dim, hidden, **options)
        self.last = StackedMLP(generators, (EMBEDDING, 1))

    @property
    def embedding_dim(self) -> int:
        return EMBEDDING

    def embed(self, observations: Tensor, actions: Tensor) -> Tensor:
        return nn.functional.normalize(self.mlp(self.inputs(observations, actions)).float(), dim=-1)

    def score(self, embeddings: Tensor) -> Tensor:
        return torch.sigmoid(self.last(embeddings).squeeze(-1))

    def scores(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.score(self.embed(observations, actions))


class ContrastiveCostModel(CostModel):
    """PPL's cost model whose loss also pulls the steps of a segment together."""

    def loss(self, batch: Batch) -> tuple[Tensor, Info]:
        factors = batch["factors"]
        embeddings = self.network.embed(batch["observations"].flatten(1, 2), batch["actions"].flatten(1, 2))
        costs = self.network.score(embeddings).view_as(factors)
        nonpreferred, unlabeled = segment_scores(costs, factors).chunk(2, dim=1)
        contrastive = contrastive_loss(embeddings.unflatten(1, factors.shape[1:]), factors)
        preference = mil_loss(nonpreferred, unlabeled).mean(1)
        right = (nonpreferred > unlabeled).float() + 0.5 * (nonpreferred == unlabeled).float()
        info = {
            "preference": preference.detach(),
            "contrastive": contrastive.detach(),
            "pair_accuracy": right.mean(1),
            "cost_std": costs.detach().flatten(1).std(1),
        }
        return preference + contrastive, info


def fit_cost(
    splits: Sequence[Split], config: OSILConfig, steps: Transitions, context: FitContext
) -> ContrastiveCostModel:
    """The cost model alone; it is then frozen.

    Raises:
        ConfigError: segments too short for L_con, or without an end.
    """
    data, settings = splits[0].trajectories, as_bags_of_one(config.cost_model)
    if settings.segment_length == "full" or settings.segment_length < FEWEST_STEPS:
        raise ConfigError(f"cost_model.segment_length={settings.segment_length}: osil needs at least {FEWEST_STEPS}")
    generators = make_generators(context.seeds, "cost network")
    network = EmbeddingCost(generators, data.observation_dim, data.action_dim, settings.hidden)
    model = ContrastiveCostModel(splits, settings, steps, context.seeds, network)
    if config.policy.normalize_observations:
        set_normalizers([network.encoder], splits)
    train_once(
        "cost_model",
        [model.objective()],
        model.draw,
        model.prepare,
        context,
        steps=settings.steps,
        defined_by=["osil", to_dict(settings), config.policy.normalize_observations],
    )
    return model


def fit(splits: Sequence[Split], config: OSILConfig, context: FitContext) -> list[FitResult]:
    """The cost, then critic and policy on the same batches of D_U."""
    refuse_samples(config.policy, "osil")
    if config.policy.head == "mix2":
        raise ConfigError("policy.head=mix2: osil's penalty needs one action, of det or tanh_gauss")
    data, steps, settings = splits[0].trajectories, Transitions.from_splits(splits, context.device), config.critic
    network = fit_cost(splits, config, steps, context).network
    rows = [data.rows(split.unlabeled) for split in splits]
    costs = score_rows(network, steps, rows)
    table = weight_table(rows, [centered(own) for own in costs] if config.osil_center else costs, steps)
    policy = make_policy(splits, config.policy, context)
    shape = data.observation_dim, data.action_dim, settings.hidden
    critic = TwinCritic(make_generators(context.seeds, "critic"), *shape, **NETWORK, last="zero", layer_norm=True)
    critic.to(context.device)
    if config.policy.normalize_observations:
        set_normalizers(critic.encoders, splits)
    slow_critic, slow_policy = (copy.deepcopy(own).requires_grad_(False) for own in (critic, policy))
    sets = {"unlabeled": [rows_with_successors(data, split.unlabeled) for split in splits]}
    sampler = StepSampler(sets, steps, context.seeds, config.policy.batch_size, followed="unlabeled")

    def prepare(drawn: Batch) -> Batch:
        batch = sampler.prepare(drawn)
        return {**batch, "costs": table.gather(1, batch["rows"])}

    def fit_critic(batch: Batch) -> tuple[Tensor, Info]:
        following = batch["next_observations"]
        with torch.no_grad():
            later = slow_critic(following, slow_policy.head.mode(slow_policy(following)))
        values = critic(batch["unlabeled_observations"], batch["unlabeled_actions"])
        losses = critic_loss(values, batch["costs"], later, settings.discount)
        return losses.mean(-1).sum(0), {"q": values.detach().amax(0).mean(1)}

    def fit_policy(batch: Batch) -> tuple[Tensor, Info]:
        observations, actions = batch["unlabeled_observations"], batch["unlabeled_actions"]
        output = policy(observations)
        of_policy = critic(observations, policy.head.mode(output)).amax(0)
        with torch.no_grad():
            of_data = critic(observations, actions).amax(0)
            strength = penalty_strength(of_policy, of_data, config.alpha, config.beta)
        losses = imitation_loss(policy, output, actions)
        info = {"q_policy": of_policy.detach().mean(1), "strength": strength, "imitation": losses.detach().mean(1)}
        return penalized_loss(losses, of_policy, strength), info

    n_steps = settings.updates * config.policy.steps
    recorder = SnapshotRecorder(policy, n_steps, context.snapshots)
    cloning = cloning_objective(policy, config.policy, fit_policy)
    cloning.period = settings.updates
    cloning.followers = [follower(critic, slow_critic, settings), follower(policy, slow_policy, settings)]
    objectives = [critic_objective("critic", critic, fit_critic, settings), cloning]
    train("critic", objectives, sampler.draw, prepare, context, steps=n_steps, recorder=recorder)
    learned = recorder.results([extract_replica(network, index) for index in range(len(splits))])
    for own, values in zip(learned, costs, strict=True):
        own.extra |= {"cost_center": float(np.quantile(values, CENTER_QUANTILE))}
    return learned
