"""DWBC: cloning weighted by a discriminator that also reads the policy's own log-likelihood.

`dwbc` (DWBC-NU: non-preferred and unlabeled), d is the probability of D_N, detached in the policy's loss:

    d       E_N[ -log d + log(1 - d) ] + (1 / eta) E_U[ -log(1 - d) ]
    policy  E_U[ (1 - d) * loss(pi(s), a) ]

Its optimum is d = eta d_N / d_U; with eta = 1 - p, (1 - d) d_U = p d_P: exact cloning of the preferred part of D_U.

`dwbc-oracle` (the original, github.com/ryanxhr/DWBC; it needs preferred ids), d is that of the preferred set D_E:

    policy  alpha E_E[ loss ] - E_E[ loss (eta / (d (1 - d)) + 1) ] + E_U[ loss (1 / (1 - d) - 1) 1[d >= 1/2] ]

d's output is clipped to [0.1, 0.9], its log-likelihood input to a fixed range mapped to [0, 1]. The loss is that of
every method here, the squared error of a deterministic head, which has no likelihood: the log pi that d reads is then
that of a tanh-Gaussian of the same size, trained by E_U[ -log pi ] on the same batches, that acts nowhere. With
policy.head=tanh_gauss, the original's, loss is -log pi of the policy itself and d reads that one. Other differences:
`period` is 10, not 100 (at 1e5 steps a period of 100 leaves the discriminator nearly untrained); the Jacobian of the
tanh has the right sign.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.batches import StepSampler
from baselines.bc import safe_trajectories
from baselines.discriminator import DiscriminatorConfig
from safemil.algorithm.cloning import cloning_objective, make_policy, refuse_samples, weighted_loss
from safemil.config.overrides import Settings, setting
from safemil.config.settings import PolicyConfig
from safemil.data.splits import HiddenLabels, Split
from safemil.nn.encoders import Size, make_encoder
from safemil.nn.layers import StackedMLP
from safemil.nn.networks import extract_replica
from safemil.nn.policies import Likelihood, Policy
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, SnapshotRecorder
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info, Objective
from safemil.training.transitions import Transitions, set_normalizers

OUTPUT_RANGE = (0.1, 0.9)
LOG_PROB_RANGE = (-60.0, 10.0)  # of log pi summed over action dimensions


@dataclass(frozen=True)
class DWBCConfig(Settings):
    """Discriminator-weighted cloning."""

    eta: float = setting(0.5, "class prior; 1 - p makes the weights exact", low=0.01, high=1.0)
    period: int = setting(10, "policy steps for one discriminator step", low=1)
    alpha: float = setting(7.5, "weight of the preferred set's own loss (dwbc-oracle alone)", low=0.0)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=lambda: DiscriminatorConfig(steps=0))
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def discriminator_loss(labeled: Tensor, unlabeled: Tensor, eta: float) -> Tensor:
    """The unbiased positive-unlabeled loss over the last axis; may be negative."""
    return (-labeled.log() + torch.log1p(-labeled)).mean(-1) - torch.log1p(-unlabeled).mean(-1) / eta


class Discriminator(nn.Module):
    """d(s, a, log pi(a|s)): two branches of 128, one layer of 256, sigmoid, clipped.

    ``policy`` supplies log pi; in a checkpoint it is built from its shape.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        policy: Policy | None = None,
        policy_shape: dict | None = None,
    ) -> None:
        super().__init__()
        self.policy = policy or Policy(generators, **(policy_shape or {}))
        self.shape = {
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "policy_shape": self.policy.shape,
        }
        self.encoder = make_encoder(generators, observation_dim)
        self.steps = StackedMLP(generators, (self.encoder.features + action_dim, 128))
        self.likelihood = StackedMLP(generators, (1, 128))
        self.joined = StackedMLP(generators, (256, 256, 1))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``(R, n, .)`` -> ``(R, n)`` in [0.1, 0.9]."""
        with torch.no_grad():
            level = likelihood_level(self.policy.log_prob(observations, actions)).unsqueeze(-1)
        steps = self.steps(torch.cat([self.encoder(observations), actions], dim=-1))
        joined = self.joined(torch.relu(torch.cat([steps, self.likelihood(level)], dim=-1)))
        return torch.sigmoid(joined).squeeze(-1).clamp(*OUTPUT_RANGE)

    def own_parameters(self) -> list[nn.Parameter]:
        """Without the policy's."""
        return [p for name, p in self.named_parameters() if not name.startswith("policy.")]


def likelihood_level(log_prob: Tensor) -> Tensor:
    """log pi clipped to a fixed range and mapped to [0, 1]."""
    low, high = LOG_PROB_RANGE
    return (log_prob.clamp(low, high) - low) / (high - low)


PolicyLoss = Callable[[Policy, Discriminator, Batch], tuple[Tensor, Info]]


def policy_weights(d: Tensor) -> Tensor:
    """DWBC-NU's, 1 - d."""
    return 1 - d


def policy_loss_of_unlabeled(policy: Policy, discriminator: Discriminator, batch: Batch) -> tuple[Tensor, Info]:
    """DWBC-NU's: E_U[(1 - d) loss]."""
    with torch.no_grad():
        d = discriminator(batch["unlabeled_observations"], batch["unlabeled_actions"])
    losses = policy.loss(batch["unlabeled_observations"], batch["unlabeled_actions"])
    return weighted_loss(losses, policy_weights(d)), discriminator_info(d)


def original_policy_loss(eta: float, alpha: float) -> PolicyLoss:
    """The original's, with a preferred set."""

    def loss(policy: Policy, discriminator: Discriminator, batch: Batch) -> tuple[Tensor, Info]:
        losses, trusts = {}, {}
        for name in ("labeled", "unlabeled"):
            pair = batch[f"{name}_observations"], batch[f"{name}_actions"]
            losses[name] = policy.loss(*pair)
            with torch.no_grad():
                trusts[name] = discriminator(*pair)
        on_preferred, on_unlabeled = original_weights(trusts["labeled"], trusts["unlabeled"], eta, alpha)
        total = weighted_loss(losses["labeled"], on_preferred) + weighted_loss(losses["unlabeled"], on_unlabeled)
        return total, discriminator_info(trusts["unlabeled"])

    return loss


def original_weights(labeled: Tensor, unlabeled: Tensor, eta: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Weights of the loss on D_E and on D_U; the first stays positive only where alpha > eta / (d (1 - d)) + 1."""
    on_preferred = alpha - eta / (labeled * (1 - labeled)) - 1
    return on_preferred, (1 / (1 - unlabeled) - 1) * (unlabeled >= 0.5)


def discriminator_info(d: Tensor) -> Info:
    """What is worth watching: level of d on D_U and the share at the clip."""
    clipped = ((d <= OUTPUT_RANGE[0]) | (d >= OUTPUT_RANGE[1])).float()
    return {"discriminator_unlabeled": d.mean(1), "discriminator_clipped": clipped.mean(1)}


def fit(splits: Sequence[Split], config: DWBCConfig, context: FitContext) -> list[FitResult]:
    """DWBC-NU."""
    labeled = [split.nonpreferred for split in splits]
    return fit_pair(splits, labeled, policy_loss_of_unlabeled, config, context)


def fit_original(
    splits: Sequence[Split], config: DWBCConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """dwbc-oracle: D_E is the part of D_U whose true cost is within the limit; its score is 1 - d."""
    labeled = [safe_trajectories(split.unlabeled, own) for split, own in zip(splits, labels, strict=True)]
    loss = original_policy_loss(config.eta, config.alpha)
    learned = fit_pair(splits, labeled, loss, config, context)
    for own in learned:
        own.scorer = None  # trained on preferred ids, so no score that a label-limited method could have
    return learned


def fit_pair(
    splits: Sequence[Split],
    labeled: Sequence[np.ndarray],
    policy_loss: PolicyLoss,
    config: DWBCConfig,
    context: FitContext,
) -> list[FitResult]:
    """Discriminator and policy on the same batches, the discriminator every ``period`` steps."""
    refuse_samples(config.policy, "dwbc")
    data, steps = splits[0].trajectories, Transitions.from_splits(splits, context.device)
    policy = make_policy(splits, config.policy, context)
    beside = dataclasses.replace(config.policy, head="tanh_gauss")
    own_density = isinstance(policy.head, Likelihood)
    likelihood = policy if own_density else make_policy(splits, beside, context, "likelihood network")
    generators = make_generators(context.seeds, "discriminator")
    discriminator = Discriminator(generators, data.observation_dim, data.action_dim, likelihood).to(context.device)
    if config.policy.normalize_observations:
        set_normalizers([discriminator.encoder], splits)
    sets = {"labeled": labeled, "unlabeled": [split.unlabeled for split in splits]}
    rows = {name: [data.rows(indices) for indices in chosen] for name, chosen in sets.items()}
    sampler = StepSampler(rows, steps, context.seeds, config.policy.batch_size)

    def train_discriminator(batch: Batch) -> tuple[Tensor, Info]:
        labeled, unlabeled = (discriminator(batch[f"{name}_observations"], batch[f"{name}_actions"]) for name in sets)
        return discriminator_loss(labeled, unlabeled, config.eta), {"discriminator_positive": labeled.detach().mean(1)}

    def train_likelihood(batch: Batch) -> tuple[Tensor, Info]:
        return likelihood.loss(batch["unlabeled_observations"], batch["unlabeled_actions"]).mean(1), {}

    def objectives(period: int) -> list[Objective]:
        settings = config.discriminator
        of_discriminator = Objective(
            "discriminator",
            discriminator.own_parameters(),
            train_discriminator,
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            period=period,
        )
        beside_it = [] if own_density else [cloning_objective(likelihood, beside, train_likelihood, "likelihood")]
        return [of_discriminator, *beside_it]

    if config.discriminator.steps:
        steps_before = config.discriminator.steps
        train("discriminator", objectives(1), sampler.draw, sampler.prepare, context, steps=steps_before)
    recorder = SnapshotRecorder(policy, config.policy.steps, context.snapshots)
    cloning = cloning_objective(policy, config.policy, lambda batch: policy_loss(policy, discriminator, batch))
    train(
        "policy",
        [*objectives(config.period), cloning],
        sampler.draw,
        sampler.prepare,
        context,
        steps=config.policy.steps,
        recorder=recorder,
    )
    return recorder.results([extract_replica(discriminator, index) for index in range(len(splits))])
