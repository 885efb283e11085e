"""SafeDICE (NeurIPS 2023, github.com/jys5609/SafeDICE): correct D_U's distribution for its non-preferred share alpha.

    model          d_U = alpha d_N + (1 - alpha) d_P
    discriminator  min over x   -log c(x_N) - log(1 - c(x_U)) + 10 GP,   c = sigmoid(x) = d_N / (d_N + d_U) at best
    ratio          r = log[ (1 - (1 + alpha) c) / ((1 - alpha)(1 - c)) ] = log(d_P / d_U)
    value          min over nu  (1 - g) E_{s0}[nu] + log E_U[exp A],   A = r + g nu(s') - nu(s)
    policy         min over pi  E_U[ w * loss(pi(s), a) ],   w = exp(A) with mean 1

alpha is at most min over D_U of 1/c - 1, by definition of the model; that minimum is an extreme value which one
over-confident c drives to 0 (and SafeDICE to bc-all), so we take a low quantile of it and report both.

Differences from the release: the quantile; r is computed in log space and never standardized by default (the release is
ambiguous, and standardizing breaks w = d_P / d_U); observations normalized, the penalty taken on normalized inputs;
the policy is that of every method here, squared error on a deterministic head (the release's -log pi of a
tanh-Gaussian: policy.head=tanh_gauss); no absorbing rows, a trajectory's last step has no successor and is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from baselines.batches import StepSampler, rows_with_successors
from baselines.critics import Value
from baselines.discriminator import DiscriminatorConfig, logistic_loss
from safemil.algorithm.cloning import cloning_objective, make_policy, refuse_samples, weighted_loss
from safemil.config.overrides import Settings, setting
from safemil.config.settings import PolicyConfig
from safemil.data.splits import Split
from safemil.nn.networks import StepScorer, extract_replica, slopes
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, SnapshotRecorder, score_rows
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info, Objective
from safemil.training.transitions import Transitions, set_normalizers

LARGEST_ALPHA = 0.99
ALPHA_MARGIN = 1e-5


@dataclass(frozen=True)
class SafeDICEConfig(Settings):
    """Density-ratio correction with a non-preferred set."""

    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=lambda: DiscriminatorConfig(batch_size=512))
    gradient_penalty: float = setting(10.0, "on interpolates of N-U and U-U", low=0.0)
    discount: float = setting(0.99, "of the value nu", low=0.0, high=1.0)
    alpha: float | Literal["estimated"] = setting("estimated", "non-preferred share of D_U, 1 - p", low=0.0, high=0.99)
    alpha_quantile: float = setting(0.001, "of 1/c - 1 over D_U, the estimate of alpha (0: the minimum)", low=0, high=1)
    standardize_reward: bool = setting(False, "the release is ambiguous; breaks w = d_P / d_U")
    nu_learning_rate: float = setting(1e-4, "of the value network", low=0.0)
    nu_penalty: float = setting(1e-6, "on the gradient of nu", low=0.0)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def log_density_ratio(logits: Tensor, alpha: Tensor) -> Tensor:
    """r = log(d_P / d_U) from discriminator logits; ``alpha`` broadcasts."""
    numerator = (1 - (1 + alpha) * torch.sigmoid(logits)).clamp(min=1e-10)
    return numerator.log() - torch.log1p(-alpha) - nn.functional.logsigmoid(-logits)


def standardized(ratio: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Mean 0, spread 1; with mean 0 and std 1 the ratio as it is."""
    return (ratio - mean) / std


def largest_alpha(logits: np.ndarray, quantile: float) -> float:
    """A quantile of 1/c - 1 = exp(-logit) over D_U, less a margin, within [0, 0.99]."""
    return float(np.clip(np.quantile(np.exp(-logits.astype(np.float64)), quantile) - ALPHA_MARGIN, 0.0, LARGEST_ALPHA))


def advantages(ratio: Tensor, value: Tensor, following: Tensor, discount: float) -> Tensor:
    """A = r + g nu(s') - nu(s), elementwise: ``value`` is nu(s), ``following`` nu(s')."""
    return ratio + discount * following - value


def value_loss(initial: Tensor, advantages: Tensor, discount: float, log_share: Tensor | None = None) -> Tensor:
    """(1 - g) E[nu(s0)] + log E_U[exp A] over the last axis; ``log_share``: log-probabilities instead of a sample's."""
    if log_share is None:
        log_share = torch.full_like(advantages, -math.log(advantages.shape[-1]))
    return (1 - discount) * initial.mean(-1) + torch.logsumexp(advantages + log_share, dim=-1)


def policy_weights(advantages: Tensor) -> Tensor:
    """exp(A) with mean 1 over the last axis."""
    return torch.softmax(advantages, dim=-1) * advantages.shape[-1]


def interpolates(nonpreferred: Tensor, unlabeled: Tensor, mix: Tensor) -> Tensor:
    """Points ``(R, 2 n, width)`` between D_N and D_U, then between two of D_U; shares ``mix`` ``(R, 2, n)``."""
    others = (nonpreferred, unlabeled.roll(1, dims=1))
    shares = mix.unsqueeze(-1).unbind(1)
    return torch.cat([share * o + (1 - share) * unlabeled for share, o in zip(shares, others, strict=True)], dim=1)


def gradient_penalty(slope: Tensor) -> Tensor:
    """E[(|grad x| - 1)^2] of gradients ``(R, n, width)``, ``(R,)``."""
    return (slope.norm(dim=-1) - 1).square().mean(1)


def discriminator_loss(nonpreferred: Tensor, unlabeled: Tensor, slope: Tensor, penalty: float) -> Tensor:
    """Logistic loss of logits ``(R, n)`` plus the gradient penalty of slopes ``(R, m, width)``, ``(R,)``."""
    return logistic_loss(nonpreferred, unlabeled) + penalty * gradient_penalty(slope)


def smoothed_value_loss(initial: Tensor, advantages: Tensor, slope: Tensor, discount: float, penalty: float) -> Tensor:
    """nu's loss plus the mean squared norm of its slopes ``(R, n, width)``, ``(R,)``."""
    return value_loss(initial, advantages, discount) + penalty * slope.square().sum(-1).mean(1)


def train_discriminator(network: StepScorer, sampler: StepSampler, config: SafeDICEConfig, context: FitContext) -> None:
    """Logistic regression with gradient penalty; its last bias stays zero, as in the release."""
    parameters = [p for p in network.parameters() if p is not network.mlp.layers[-1].bias]

    def loss(batch: Batch) -> tuple[Tensor, Info]:
        nonpreferred, unlabeled = (
            network.inputs(batch[f"{name}_observations"], batch[f"{name}_actions"])
            for name in ("nonpreferred", "unlabeled")
        )
        logits = network.read(network.mlp(torch.cat([nonpreferred, unlabeled], dim=1)))
        slope = slopes(network.mlp, interpolates(nonpreferred, unlabeled, batch["mix"]))
        info = {"gradient_penalty": gradient_penalty(slope.detach())}
        of_nonpreferred, of_unlabeled = logits.chunk(2, dim=1)
        return discriminator_loss(of_nonpreferred, of_unlabeled, slope, config.gradient_penalty), info

    settings = config.discriminator
    objective = Objective("discriminator", parameters, loss, settings.learning_rate, weight_decay=settings.weight_decay)
    train("discriminator", [objective], sampler.draw, sampler.prepare, context, steps=max(1, settings.steps))


def fit(splits: Sequence[Split], config: SafeDICEConfig, context: FitContext) -> list[FitResult]:
    """Discriminator first, then value and policy on the same batches."""
    refuse_samples(config.policy, "safedice")
    data, seeds, device = splits[0].trajectories, context.seeds, context.device
    steps = Transitions.from_splits(splits, device)
    network = StepScorer(
        make_generators(seeds, "safedice discriminator"),
        data.observation_dim,
        data.action_dim,
        (256, 256),
        initialization="he",
    ).to(device)
    value = Value(make_generators(seeds, "safedice value"), data.observation_dim).to(device)
    policy = make_policy(splits, config.policy, context)
    if config.policy.normalize_observations:
        set_normalizers([network.encoder, value.encoder], splits)
    unlabeled = [rows_with_successors(data, split.unlabeled) for split in splits]
    sets = {"nonpreferred": [data.rows(split.nonpreferred) for split in splits], "unlabeled": unlabeled}
    size = config.discriminator.batch_size
    batches = StepSampler(sets, steps, seeds, size, uniform={"mix": (2, size)})
    train_discriminator(network, batches, config, context)
    logits = score_rows(network, steps, [data.rows(split.unlabeled) for split in splits])
    estimated = config.alpha == "estimated"
    alphas = [largest_alpha(own, config.alpha_quantile) if estimated else float(config.alpha) for own in logits]
    alpha = torch.tensor(alphas, device=device).unsqueeze(1)
    scale = [torch.zeros_like(alpha), torch.ones_like(alpha)]
    if config.standardize_reward:
        ratios = [log_density_ratio(torch.tensor(own), torch.tensor(a)) for own, a in zip(logits, alphas, strict=True)]
        scale = [torch.stack([f(r) for r in ratios]).unsqueeze(1).to(device) for f in (torch.mean, torch.std)]
    sets = {"unlabeled": unlabeled, "initial": [data.offsets[split.unlabeled] for split in splits]}
    sampler = StepSampler(sets, steps, seeds, config.policy.batch_size, followed="unlabeled")

    def prepare(drawn: Batch) -> Batch:
        batch = sampler.prepare(drawn)
        with torch.no_grad():
            ratio = log_density_ratio(network(batch["unlabeled_observations"], batch["unlabeled_actions"]), alpha)
        return {**batch, "ratio": standardized(ratio, *scale)}

    def values_of(batch: Batch, *names: str) -> tuple[Tensor, ...]:
        """nu of several sets of states in one pass."""
        return value(torch.cat([batch[f"{name}_observations"] for name in names], dim=1)).chunk(len(names), dim=1)

    def nu_loss(batch: Batch) -> tuple[Tensor, Info]:
        here, following, initial = values_of(batch, "unlabeled", "next", "initial")
        gain = advantages(batch["ratio"], here, following, config.discount)
        slope = value.slopes(batch["unlabeled_observations"])
        return smoothed_value_loss(initial, gain, slope, config.discount, config.nu_penalty), {}

    def policy_loss(batch: Batch) -> tuple[Tensor, Info]:
        with torch.no_grad():
            here, following = values_of(batch, "unlabeled", "next")
            weights = policy_weights(advantages(batch["ratio"], here, following, config.discount))
        losses = policy.loss(batch["unlabeled_observations"], batch["unlabeled_actions"])
        info = {"weight_max": weights.amax(1), "weight_ess": weights.sum(1) ** 2 / weights.square().sum(1)}
        return weighted_loss(losses, weights), info

    recorder = SnapshotRecorder(policy, config.policy.steps, context.snapshots)
    train(
        "policy",
        [
            Objective("nu", list(value.parameters()), nu_loss, config.nu_learning_rate),
            cloning_objective(policy, config.policy, policy_loss),
        ],
        sampler.draw,
        prepare,
        context,
        steps=config.policy.steps,
        recorder=recorder,
    )
    learned = recorder.results([extract_replica(network, index) for index in range(len(seeds))])
    for own, used, found in zip(learned, alphas, logits, strict=True):
        own.extra = {"alpha": used, "alpha_minimum": largest_alpha(found, 0.0)}
    return learned
