"""Settings of OSRL's methods. Defaults are those of OSRL's own training scripts (github.com/liuzuxin/OSRL). No torch.

Learning rates stand outside the section ``policy``, so that a preset made for cloning does not change them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from safemil.config.overrides import ConfigError, Settings, setting


@dataclass(frozen=True)
class UpdatesConfig(Settings):
    """How long OSRL's trainer runs, and on what batches."""

    steps: int = setting(100_000, "gradient steps of each of the method's networks", low=1)
    batch_size: int = setting(512, "transitions (osrl-cdt: pieces of trajectories) in an update", low=1)


@dataclass(frozen=True)
class NetworksConfig(UpdatesConfig):
    """The same for a method that is made of plain networks."""

    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers of actor and critics", low=1)


@dataclass(frozen=True)
class TransitionsConfig(Settings):
    """What the four methods that learn from transitions share."""

    policy: NetworksConfig = dataclasses.field(default_factory=NetworksConfig)
    osrl_faithful: bool = setting(True, "OSRL as it is; false: its faults corrected, see baselines/osrl_corrections.py")
    reward_scale: float = setting(0.1, "multiplies rewards", low=0.0)
    cost_scale: float = setting(1.0, "multiplies costs, and the cost limit with them", low=1e-6)
    discount: float = setting(0.99, "of rewards and of costs", low=0.0, high=0.9999)
    actor_learning_rate: float = setting(1e-3, "Adam's", low=0.0)
    critic_learning_rate: float = setting(1e-3, "Adam's, of reward and cost critics", low=0.0)


@dataclass(frozen=True)
class BehaviorModelConfig(TransitionsConfig):
    """The same for the three that hold a variational autoencoder (VAE) of the data's actions."""

    critics: int = setting(2, "networks in each ensemble", low=1)
    target_rate: float = setting(0.005, "share of a network that its target copy takes on at each step", low=0, high=1)
    sampled_actions: int = setting(10, "actions drawn for each observation in a backup", low=1)
    vae_hidden: int = setting(400, "width of the VAE's two hidden layers", low=1)
    vae_learning_rate: float = setting(1e-3, "Adam's", low=0.0)
    vae_prior: float = setting(0.5, "weight of the VAE's divergence from its prior", low=0.0)


@dataclass(frozen=True)
class LagrangianConfig(BehaviorModelConfig):
    """The same for the two whose actor is held to the cost limit by a PID-controlled multiplier."""

    pid: tuple[float, float, float] = setting((0.1, 0.003, 0.001), "gains on error, its sum and its rise", low=0.0)
    pessimism: float = setting(0.75, "weight of the smaller of the two critics in a backup", low=0.0, high=1.0)


@dataclass(frozen=True)
class BCQLConfig(LagrangianConfig):
    """BCQ-Lagrangian."""

    perturbation: float = setting(0.05, "the most by which the actor moves the VAE's action", low=0.0)


@dataclass(frozen=True)
class BEARLConfig(LagrangianConfig):
    """BEAR-Lagrangian."""

    policy: NetworksConfig = dataclasses.field(default_factory=lambda: NetworksConfig(steps=300_000))
    kernel: Literal["gaussian", "laplacian"] = setting("gaussian", "of the discrepancy (MMD) between actor and VAE")
    kernel_width: float = setting(50.0, "sigma", low=1e-6)
    mmd_limit: float = setting(0.05, "above it the multiplier grows", low=0.0)
    mmd_samples: int = setting(10, "actions of each for one estimate", low=2)
    mmd_learning_rate: float = setting(1e-3, "of the logarithm of the multiplier", low=0.0)


@dataclass(frozen=True)
class CPQConfig(BehaviorModelConfig):
    """Constraints-penalized Q-learning."""

    actor_learning_rate: float = setting(1e-4, "Adam's", low=0.0)
    ood_learning_rate: float = setting(1e-4, "of the logarithm of the multiplier", low=0.0)
    ood_target: float = setting(1.5, "wanted cost value of unlikely actions, as a multiple of the threshold", low=0.0)


@dataclass(frozen=True)
class COptiDICEConfig(TransitionsConfig):
    """COptiDICE."""

    actor_learning_rate: float = setting(1e-4, "Adam's", low=0.0)
    critic_learning_rate: float = setting(1e-4, "Adam's, of nu and chi", low=0.0)
    multiplier_learning_rate: float = setting(1e-4, "Adam's, of lambda and tau", low=0.0)
    critics: int = setting(2, "networks in the ensembles nu and chi", low=1)
    divergence: Literal["softchi", "chi2", "kl"] = setting("softchi", "f, between the policy's and the data's steps")
    alpha: float = setting(0.5, "weight of the divergence", low=1e-6)
    cost_margin: float = setting(0.01, "epsilon of the upper bound on the cost; 0 takes the estimate itself", low=0.0)


@dataclass(frozen=True)
class CDTConfig(Settings):
    """Constrained decision transformer."""

    policy: UpdatesConfig = dataclasses.field(default_factory=lambda: UpdatesConfig(batch_size=2048))
    reward_scale: float = setting(0.1, "multiplies rewards and the target return", low=0.0)
    cost_scale: float = setting(1.0, "multiplies costs and the target cost", low=1e-6)
    context: int = setting(10, "steps the transformer sees", low=1)
    embedding: int = setting(128, "width of a token", low=1)
    layers: int = setting(3, "transformer blocks", low=1)
    heads: int = setting(8, "attention heads; they divide the embedding", low=1)
    dropout: float = setting(0.1, "of attention, residual and embedding", low=0.0, high=0.9)
    learning_rate: float = setting(1e-4, "AdamW's, after the warm-up", low=0.0)
    weight_decay: float = setting(1e-4, "decoupled", low=0.0)
    warmup_steps: int = setting(500, "over which the learning rate rises", low=1)
    gradient_clip: float = setting(0.25, "of the whole gradient's norm", low=1e-6)
    cost_head_weight: float = setting(0.02, "of the loss that predicts whether a step costs", low=0.0)
    cost_sampling: bool = setting(True, "draw trajectories in proportion to 70 - cost instead of uniformly")
    target_return: float | Literal["data"] = setting("data", "return asked for in evaluation; data: by target_quantile")
    target_quantile: float = setting(0.95, "of the training returns within the cost limit", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding % self.heads:
            raise ConfigError(f"embedding={self.embedding}, heads={self.heads}: the heads must divide the embedding")
