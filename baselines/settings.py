"""Settings of the comparison methods, one dataclass each. Defaults are the `bench` preset. Needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from safemil.config.overrides import Settings, setting
from safemil.config.settings import PolicyConfig, SegmentCostConfig, WeightsConfig


@dataclass(frozen=True)
class BCConfig(Settings):
    """Behaviour cloning has a policy's settings and no others."""

    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


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


@dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """A classifier of steps of D_N (or of preferred trajectories) against D_U."""

    steps: int = setting(20_000, "gradient steps before the policy's begin", low=0)
    batch_size: int = setting(256, "steps of each class in an update", low=1)
    learning_rate: float = setting(1e-4, "AdamW's (DWBC's own; the paper's runs used 1e-5)", low=0.0)
    weight_decay: float = setting(0.0, "decoupled", low=0.0)


@dataclass(frozen=True)
class DWBCConfig(Settings):
    """Discriminator-weighted cloning."""

    eta: float = setting(0.5, "class prior; 1 - p makes the weights exact", low=0.01, high=1.0)
    period: int = setting(10, "policy steps for one discriminator step", low=1)
    alpha: float = setting(7.5, "weight of the preferred set's own loss (dwbc-oracle alone)", low=0.0)
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=lambda: DiscriminatorConfig(steps=0))
    policy: PolicyConfig = dataclasses.field(
        default_factory=lambda: PolicyConfig(head="tanh_gauss", learning_rate=1e-4, weight_decay=0.005)
    )


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
    policy: PolicyConfig = dataclasses.field(
        default_factory=lambda: PolicyConfig(head="tanh_gauss", batch_size=512, learning_rate=1e-4)
    )


@dataclass(frozen=True)
class DExpertsConfig(Settings):
    """Two cloned Gaussians and a product of experts."""

    strength: float | Literal["chosen"] = setting("chosen", "a; chosen: on held-out likelihood", low=0.0, high=4.0)
    policy: PolicyConfig = dataclasses.field(default_factory=lambda: PolicyConfig(head="tanh_gauss"))


@dataclass(frozen=True)
class OracleCostConfig(Settings):
    """SafeMIL's weights and cloning with true costs in place of learned ones."""

    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
