"""Values of states and of steps, for the methods that look ahead: networks, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from safemil.config.overrides import Settings, setting
from safemil.nn.encoders import Encoder, Size, make_encoder
from safemil.nn.layers import StackedMLP
from safemil.nn.networks import StepScorer, slopes
from safemil.training.objectives import Follower, Loss, Objective


@dataclass(frozen=True)
class CriticConfig(Settings):
    """How values are learned, on batches of policy.batch_size. Defaults are the `bench` preset."""

    updates: int = setting(2, "critic steps for each of policy.steps", low=1)
    hidden: tuple[int, ...] = setting((256, 256), "widths of the hidden layers", low=1)
    learning_rate: float = setting(3e-4, "AdamW's", low=0.0)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "of the learning rate, to zero")
    weight_decay: float = setting(0.0, "decoupled", low=0.0)
    discount: float = setting(0.99, "g", low=0.0, high=0.999)
    target_rate: float = setting(0.005, "of the networks that follow slowly (Polyak)", low=0.0, high=1.0)


class Value(nn.Module):
    """nu(s), ``(R, n, observation_dim)`` -> ``(R, n)``."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        hidden: Sequence[int] = (256, 256),
        initialization: str = "he",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(generators, observation_dim)
        self.mlp = StackedMLP(generators, (self.encoder.features, *hidden, 1), initialization=initialization)

    def forward(self, observations: Tensor) -> Tensor:
        return self.mlp(self.encoder(observations)).squeeze(-1)

    def slopes(self, observations: Tensor) -> Tensor:
        """Gradient of nu(s) with respect to s, ``(R, n, observation_dim)``."""
        return slopes(self.mlp, self.encoder(observations)) * self.encoder.scale


class TwinCritic(nn.Module):
    """Two values of a step, ``(R, n, .)`` twice -> ``(2, R, n)``; options are StepScorer's."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        **options,
    ) -> None:
        super().__init__()
        self.first, self.second = (
            StepScorer(generators, observation_dim, action_dim, hidden, **options) for _ in range(2)
        )

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([self.first(observations, actions), self.second(observations, actions)])

    @property
    def encoders(self) -> list[Encoder]:
        """Of both."""
        return [self.first.encoder, self.second.encoder]


def critic_objective(
    name: str, network: nn.Module, loss: Loss, config: CriticConfig, followers: Sequence[Follower] = ()
) -> Objective:
    """A loss of a value with its optimizer."""
    return Objective(
        name,
        list(network.parameters()),
        loss,
        config.learning_rate,
        schedule=config.schedule,
        weight_decay=config.weight_decay,
        followers=followers,
    )


def follower(leader: nn.Module, slow: nn.Module, config: CriticConfig) -> Follower:
    """``slow`` follows ``leader``."""
    return Follower(list(leader.parameters()), list(slow.parameters()), config.target_rate)
