"""DExperts (arXiv 2105.03023) for continuous actions: clone D_U and D_N, act by the product pi_U (pi_U / pi_N)^a.

    min over pi_U  E_{D_U}[ -log pi_U ],     min over pi_N  E_{D_N}[ -log pi_N ]

Both are tanh-Gaussians, so per action dimension, before the tanh (whose Jacobian cancels to power 1):

    precision = (1 + a) / s_U^2 - a / s_N^2,     mean = [ (1 + a) m_U / s_U^2 - a m_N / s_N^2 ] / precision

The precision is positive only where s_N^2 / s_U^2 > a / (1 + a), so s_N^2 is floored a little above. The base also
plays the expert (the original is base * (expert / anti-expert)^a on token logits). a is chosen on the held-out
likelihood of D_U against D_N, never on cost. Far from D_N the anti-expert's mean is arbitrary and the correction pushes
off-support: the share of floored dimensions and the shift of the mean are reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from safemil.algorithm.cloning import clone, make_policy, refuse_samples
from safemil.config.overrides import ConfigError, Settings, setting
from safemil.config.settings import PolicyConfig
from safemil.data.splits import Split
from safemil.nn.policies import MEAN_CLIP, Policy, gaussian_parameters, tanh_gaussian_log_prob
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult
from safemil.training.transitions import Transitions


@dataclass(frozen=True)
class DExpertsConfig(Settings):
    """Two cloned Gaussians and a product of experts."""

    strength: float | Literal["chosen"] = setting("chosen", "a; chosen: on held-out likelihood", low=0.0, high=4.0)
    policy: PolicyConfig = dataclasses.field(default_factory=lambda: PolicyConfig(head="tanh_gauss"))


STRENGTHS = (0.1, 0.25, 0.5, 1.0)
FLOOR_MARGIN = 0.1


def product(
    base: tuple[Tensor, Tensor], anti: tuple[Tensor, Tensor], strength: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """Means and log standard deviations of both Gaussians -> those of the product, and where the floor held."""
    (base_mean, base_log_std), (anti_mean, anti_log_std) = base, anti
    base_variance = torch.exp(2 * base_log_std)
    floor = base_variance * (strength / (1 + strength) + FLOOR_MARGIN)
    anti_variance = torch.maximum(torch.exp(2 * anti_log_std), floor)
    precision = (1 + strength) / base_variance - strength / anti_variance
    mean = ((1 + strength) * base_mean / base_variance - strength * anti_mean / anti_variance) / precision
    return mean.clamp(-MEAN_CLIP, MEAN_CLIP), -0.5 * precision.log(), torch.exp(2 * anti_log_std) < floor


class TwoPolicies(nn.Module):
    """Two one-replica policies, base and anti-expert."""

    def __init__(
        self, generators: Sequence[torch.Generator], base: dict | Policy, anti: dict | Policy, strength: float = 0.0
    ) -> None:
        super().__init__()
        self.base = base if isinstance(base, Policy) else Policy(generators, **base)
        self.anti = anti if isinstance(anti, Policy) else Policy(generators, **anti)
        self.strength: Tensor
        self.register_buffer("strength", torch.tensor(float(strength)))
        self.shape = {"base": self.base.shape, "anti": self.anti.shape}


class ProductPolicy(TwoPolicies):
    """Acts by the product of the two."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pre-tanh mean, log standard deviation and floored dimensions, ``(1, n, action_dim)``."""
        base, anti = (gaussian_parameters(policy(observations)) for policy in (self.base, self.anti))
        return product(base, anti, self.strength)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``(1, n)``."""
        mean, log_std, _ = self(observations)
        return tanh_gaussian_log_prob(mean, log_std, actions).sum(-1)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """tanh of the product's mean, ``(n, action_dim)``."""
        batch = torch.tensor(observations, dtype=torch.float32).unsqueeze(0)
        return torch.tanh(self(batch)[0]).squeeze(0).numpy()


class LikelihoodGap(TwoPolicies):
    """Scores a step by log pi_N - log pi_U: higher is riskier."""

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.anti.log_prob(observations, actions) - self.base.log_prob(observations, actions)


def choose_strength(base: Policy, anti: Policy, split: Split) -> float:
    """The strength whose product likes held-out D_U best compared with held-out D_N."""
    data = split.trajectories
    pairs = []
    for indices in (split.unlabeled_held_out, split.nonpreferred_held_out):
        rows = data.rows(indices)
        pairs.append((torch.tensor(data.observations[rows])[None], torch.tensor(data.actions[rows])[None]))
    with torch.inference_mode():
        gaps = {}
        for strength in STRENGTHS:
            policy = ProductPolicy([], base, anti, strength)
            on_unlabeled, on_nonpreferred = (policy.log_prob(*pair).mean().item() for pair in pairs)
            gaps[strength] = on_unlabeled - on_nonpreferred
    return max(gaps, key=gaps.__getitem__)


def fit(splits: Sequence[Split], config: DExpertsConfig, context: FitContext) -> list[FitResult]:
    """Base and anti-expert of each seed are cloned side by side, as twice as many replicas."""
    refuse_samples(config.policy, "dexperts")
    if config.policy.head != "tanh_gauss":
        raise ConfigError(f"policy.head={config.policy.head}: a product of experts needs tanh_gauss")
    data = splits[0].trajectories
    doubled = [split for split in splits for _ in range(2)]

    def log_base(stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        base = {name: values[::2] for name, values in metrics.items()}
        context.log(stage, step, {**base, "anti_expert_loss": metrics["policy_loss"][1::2]})

    both = tuple(own for seed in context.seeds for own in (seed, 1_000_003 + seed))
    doubled_context = dataclasses.replace(context, seeds=both, log=log_base)
    recorder = clone(
        make_policy(doubled, config.policy, doubled_context),
        [data.rows(indices) for split in splits for indices in (split.unlabeled, split.nonpreferred)],
        None,
        config.policy,
        Transitions.from_splits(splits, context.device),
        doubled_context,
        held_out=[data.rows(split.unlabeled_held_out) for split in doubled],
    )
    pairs = zip(recorder.taken[::2], recorder.taken[1::2], splits, strict=True)
    return [combine(base, anti, split, config) for base, anti, split in pairs]


def combine(
    bases: list[tuple[int, Policy]], antis: list[tuple[int, Policy]], split: Split, config: DExpertsConfig
) -> FitResult:
    """One seed's products, their strength chosen on the last pair."""
    strength = config.strength
    if strength == "chosen":
        strength = choose_strength(bases[-1][1], antis[-1][1], split)
    products = [
        (step, ProductPolicy([], base, anti, strength)) for (step, base), (_, anti) in zip(bases, antis, strict=True)
    ]
    last = products[-1][1]
    rows = split.trajectories.rows(split.unlabeled_held_out)
    with torch.inference_mode():
        observations = torch.tensor(split.trajectories.observations[rows])[None]
        mean, _, floored = last(observations)
        shift = (mean - gaussian_parameters(last.base(observations))[0]).norm(dim=-1).mean()
    extra = {"strength": float(strength), "floored_share": floored.float().mean().item(), "mean_shift": shift.item()}
    return FitResult(last, LikelihoodGap([], last.base, last.anti), products, extra=extra)
