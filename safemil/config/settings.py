"""Every setting of the suite's core on one page: split, cost model, weights, policy, SafeMIL. Needs no torch.

Defaults are the `bench` preset. A setting's range is checked at construction (safemil/config/overrides.py); names are
the dotted names of ``--set``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from safemil.config.overrides import ConfigError, Settings, setting


@dataclass(frozen=True)
class SplitConfig(Settings):
    """How D_N and D_U are drawn (the paper's sizes are the defaults)."""

    protocol: Literal["mix50", "union"] = setting("mix50", "mix50: fixed bands and sizes; union: D_U is all the rest")
    n_nonpreferred: int = setting(50, "trajectories in D_N", low=2)
    n_unlabeled: int = setting(200, "trajectories in D_U (ignored by union)", low=4)
    mixture: float = setting(0.5, "share of D_U that is non-preferred, 1 - p", low=0.0, high=1.0)
    contamination: float = setting(0.0, "share of D_N replaced by high-return preferred trajectories", low=0, high=1)
    cost_levels: Literal["mixed", "low", "middle", "high"] = setting(
        "mixed", "D_N's true costs: of the whole non-preferred band, or of a third of it; D_U is the same in all four"
    )
    cost_limit: float = setting(
        25.0, "preferred: true cost below this; mix50: non-preferred above three times this", low=0.0
    )
    held_out: float = setting(0.2, "share of D_N and of D_U kept for validation", low=0.0, high=0.5)


@dataclass(frozen=True)
class SegmentCostConfig(Settings):
    """How a cost network is trained by comparing segments of D_N with segments of D_U."""

    steps: int = setting(100_000, "gradient steps", low=1)
    segment_length: int | Literal["full"] = setting(5, "H, steps of each trajectory compared, or full", low=1)
    discount: float = setting(0.99, "g, restarts at each segment", low=0.0, high=1.0)
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers", low=1)
    learning_rate: float = setting(3e-4, "AdamW's", low=0.0)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "of the learning rate, to zero")
    weight_decay: float = setting(0.01, "decoupled", low=0.0)


@dataclass(frozen=True)
class AggregationConfig(Settings):
    """Sizes of the aggregators other than the mean, see safemil/algorithm/aggregators.py."""

    rate: float = setting(5.0, "r of soft-max: towards 0 the mean over steps, large the largest step", low=1e-3)
    deepsets_width: int = setting(64, "hidden width of rho and h", low=1)
    attention_width: int = setting(128, "rows of V and U in gated attention", low=1)
    transformer_width: int = setting(128, "of the set transformer's tokens", low=1)
    transformer_heads: int = setting(4, "attention heads; they divide transformer_width", low=1)
    inducing_points: int = setting(16, "in each of the set transformer's two blocks", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transformer_width % self.transformer_heads:
            raise ConfigError(
                f"transformer_width={self.transformer_width}, transformer_heads={self.transformer_heads}:"
                " the heads must divide the width"
            )


@dataclass(frozen=True)
class CostModelConfig(SegmentCostConfig):
    """The same with bags: SafeMIL's. The last six fields are variants; at their defaults the method is the paper's."""

    bag_size: int = setting(128, "K, trajectories in a bag (the paper's tables use 128)", low=1)
    pairs: int = setting(4, "B, pairs of bags in an update (the paper uses 1)", low=1)
    segment_by: Literal["trajectory", "transition"] = setting("trajectory", "draw a trajectory first, or any start")
    aggregator: Literal["mean", "softmax", "noisy-or", "deepsets", "attention", "set-transformer"] = setting(
        "mean", "bag score from step costs, see safemil/algorithm/aggregators.py"
    )
    aggregation: AggregationConfig = dataclasses.field(default_factory=AggregationConfig)
    initialization: Literal["zero-last", "plain"] = setting(
        "zero-last", "orthogonal with a zero last layer (the first loss is log 2), or plain: torch's own"
    )
    scale: float | Literal["sqrt", "bag"] = setting(
        1.0, "l in softplus(l (S(B_U) - S(B_N))): a number, sqrt (of K) or bag (K itself)", low=1e-6
    )
    heads: int = setting(
        1, "M, cost heads; a segment's score is its largest, see safemil/algorithm/failure_modes.py", low=1
    )
    modes: int = setting(1, "clusters of D_N from which bags draw equally often; 1 draws trajectories so", low=1)

    @property
    def loss_scale(self) -> float:
        """The number that ``scale`` stands for."""
        if isinstance(self.scale, str):
            return self.bag_size**0.5 if self.scale == "sqrt" else float(self.bag_size)
        return self.scale


@dataclass(frozen=True)
class WeightsConfig(Settings):
    """How predicted cost becomes weight."""

    kind: Literal[
        "exponential", "exponential-segment", "exponential-step", "linear-step", "linear", "hard", "quantile"
    ] = setting("exponential", "see the table in safemil/algorithm/weights.py")
    beta: float = setting(0.6, "temperature of the exponential kinds", low=1e-6)
    quantile: float = setting(0.5, "share of D_U kept by kind quantile", low=0.01, high=1.0)


@dataclass(frozen=True)
class PolicyConfig(Settings):
    """How the policy is cloned. Defaults are the `bench` preset."""

    steps: int = setting(100_000, "gradient steps", low=1)
    batch_size: int = setting(256, "transitions in an update", low=1)
    head: Literal["det", "tanh_gauss", "mix2"] = setting("det", "action distribution, see safemil/nn/policies.py")
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers", low=1)
    learning_rate: float = setting(3e-4, "AdamW's", low=0.0)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "of the learning rate, to zero")
    weight_decay: float = setting(0.0, "decoupled", low=0.0)
    sampled: bool = setting(
        False, "squared error of a sample of the head instead of its own loss (safemil, ppl, cloning)"
    )
    normalize_observations: bool = setting(True, "by mean and spread over D_N and D_U")


@dataclass(frozen=True)
class SafeMILConfig(Settings):
    """SafeMIL's settings. Defaults are the `bench` preset."""

    mode: Literal["two_stage", "joint"] = setting("two_stage", "joint: policy.steps alternating updates of both")
    cost_model: CostModelConfig = dataclasses.field(default_factory=CostModelConfig)
    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


@dataclass(frozen=True)
class EvaluationConfig(Settings):
    """How a trained policy is rolled out. The last checkpoint is the result, whatever the earlier ones score."""

    episodes: int = setting(50, "episodes of the final policy (the worst 20 % are then ten)", low=1)
    checkpoints: int = setting(5, "evenly spaced policies evaluated, the final one among them", low=1)
    checkpoint_episodes: int = setting(20, "episodes of each earlier policy", low=1)
    seed: int = setting(0, "of the evaluation episodes, shared by all methods and seeds", low=0)
