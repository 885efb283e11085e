"""Policies: a stacked network, the head that turns its output into an action distribution, and ``act``.

A head is stateless: how many outputs it needs, the loss of an action, its log-density where it has one, and the action
taken in evaluation. The policy carries its own observation statistics, so evaluation cannot forget to normalize.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safemil.nn.encoders import Size, make_encoder
from safemil.nn.layers import StackedMLP

UNIFORM_MARGIN = 1e-6  # uniform numbers are clipped to it before they become normal ones
ACTION_MARGIN = 1e-6  # actions are clipped to +-(1 - margin) before atanh
MEAN_CLIP = 7.0
LOG_STD_RANGE = (-5.0, 2.0)


def squash_inverse(actions: Tensor) -> Tensor:
    """atanh of actions clipped to the open interval."""
    return torch.atanh(actions.clamp(-1 + ACTION_MARGIN, 1 - ACTION_MARGIN))


def gaussian_parameters(output: Tensor) -> tuple[Tensor, Tensor]:
    """Split ``(..., 2 * action_dim)`` into the pre-tanh mean (clipped to +-7) and log standard deviation."""
    mean, log_std = output.chunk(2, dim=-1)
    return mean.clamp(-MEAN_CLIP, MEAN_CLIP), log_std.clamp(*LOG_STD_RANGE)


def tanh_gaussian_log_prob(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """Log-density of each action dimension under tanh(N(mean, std)): the normal density minus log|da/du|."""
    u = squash_inverse(actions)
    normal = -0.5 * ((u - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    log_jacobian = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))  # log(1 - tanh(u)^2), stable
    return normal - log_jacobian


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones."""
    return torch.erfinv(2 * uniform.clamp(UNIFORM_MARGIN, 1 - UNIFORM_MARGIN) - 1) * 2**0.5


class Deterministic:
    """tanh output; loss is the squared error summed over action dimensions (OSRL's BC takes the mean instead)."""

    def outputs(self, action_dim: int) -> int:
        return action_dim

    def loss(self, output: Tensor, actions: Tensor) -> Tensor:
        return (torch.tanh(output) - actions).square().sum(-1)

    def mode(self, output: Tensor) -> Tensor:
        """The action taken in evaluation, with gradients."""
        return torch.tanh(output)

    def sample(self, output: Tensor, uniform: Tensor) -> Tensor:
        """An action drawn with the uniform numbers ``(..., action_dim + 1)``, reparameterized; here the only one."""
        return self.mode(output)

    def action(self, output: np.ndarray) -> np.ndarray:
        return np.tanh(output)


class Likelihood:
    """Heads with a log-density; loss is its negative."""

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        raise NotImplementedError

    def loss(self, output: Tensor, actions: Tensor) -> Tensor:
        return -self.log_prob(output, actions)


class TanhGaussian(Likelihood):
    """One tanh-Gaussian; loss is the negative log-likelihood; evaluation takes tanh(mean)."""

    def outputs(self, action_dim: int) -> int:
        return 2 * action_dim

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        return tanh_gaussian_log_prob(*gaussian_parameters(output), actions).sum(-1)

    def mode(self, output: Tensor) -> Tensor:
        return torch.tanh(gaussian_parameters(output)[0])

    def sample(self, output: Tensor, uniform: Tensor) -> Tensor:
        mean, log_std = gaussian_parameters(output)
        return torch.tanh(mean + log_std.exp() * normal(uniform[..., 1:]))

    def action(self, output: np.ndarray) -> np.ndarray:
        mean, _ = np.split(output, 2, axis=-1)
        return np.tanh(mean.clip(-MEAN_CLIP, MEAN_CLIP))


class Mixture2(Likelihood):
    """Two tanh-Gaussians with learned weights; evaluation takes the likelier component's tanh(mean), never a sample."""

    def outputs(self, action_dim: int) -> int:
        return 4 * action_dim + 2

    def components(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log weights (..., 2), means (..., 2, action_dim), log stds (..., 2, action_dim)."""
        logits, rest = output[..., :2], output[..., 2:]
        mean, log_std = gaussian_parameters(rest.unflatten(-1, (2, -1)))
        return torch.log_softmax(logits, dim=-1), mean, log_std

    def log_prob(self, output: Tensor, actions: Tensor) -> Tensor:
        log_weights, mean, log_std = self.components(output)
        return torch.logsumexp(
            log_weights + tanh_gaussian_log_prob(mean, log_std, actions.unsqueeze(-2)).sum(-1), dim=-1
        )

    def mode(self, output: Tensor) -> Tensor:
        log_weights, mean, _ = self.components(output)
        first = log_weights[..., :1] >= log_weights[..., 1:]
        return torch.tanh(torch.where(first, mean[..., 0, :], mean[..., 1, :]))

    def sample(self, output: Tensor, uniform: Tensor) -> Tensor:
        """The component is drawn by its weight, through which no gradient goes."""
        log_weights, mean, log_std = self.components(output)
        first = uniform[..., :1] < log_weights[..., :1].exp()
        drawn = mean + log_std.exp() * normal(uniform[..., None, 1:])
        return torch.tanh(torch.where(first, drawn[..., 0, :], drawn[..., 1, :]))

    def action(self, output: np.ndarray) -> np.ndarray:
        means = np.split(output[..., 2:].reshape(*output.shape[:-1], 2, -1), 2, axis=-1)[0]
        likelier = output[..., :2].argmax(-1)[..., None, None]
        return np.tanh(np.take_along_axis(means, likelier, axis=-2).squeeze(-2).clip(-MEAN_CLIP, MEAN_CLIP))


HEADS: dict[str, Deterministic | TanhGaussian | Mixture2] = {
    "det": Deterministic(),
    "tanh_gauss": TanhGaussian(),
    "mix2": Mixture2(),
}


class Policy(nn.Module):
    """R policies. ``forward``: observations ``(R, n, observation_dim)`` -> raw head output."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        head: str = "det",
    ) -> None:
        super().__init__()
        self.shape: dict[str, Any] = {
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
            "head": head,
        }
        self.head = HEADS[head]
        self.encoder = make_encoder(generators, observation_dim)
        self.mlp = StackedMLP(generators, (self.encoder.features, *hidden, self.head.outputs(action_dim)))

    def forward(self, observations: Tensor) -> Tensor:
        return self.mlp(self.encoder(observations))

    def loss(self, observations: Tensor, actions: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Imitation loss of each pair, ``(R, n)``; with uniform numbers ``(R, n, action_dim + 1)`` that of a sample."""
        output = self(observations)
        if uniform is None:
            return self.head.loss(output, actions)
        return (self.head.sample(output, uniform) - actions).square().sum(-1)

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Log-density of each pair, ``(R, n)``; a deterministic head has none."""
        if not isinstance(self.head, Likelihood):
            raise TypeError(f"policy.head={self.shape['head']} has no density")
        return self.head.log_prob(self(observations), actions)

    @functools.cached_property
    def _layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """A one-replica policy's layers as arrays that share the tensors' memory."""
        return [(layer.weight.detach()[0].numpy(), layer.bias.detach()[0].numpy()) for layer in self.mlp.layers]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Evaluation actions of a one-replica policy: ``(n, *observation)`` -> ``(n, action_dim)``, float32.

        In numpy: on the single observations of a rollout, torch would spend most of its time on the calls.
        """
        product = row_product if len(observations) == 1 else np.matmul
        x = self.encoder.encode(observations)
        for weight, bias in self._layers[:-1]:
            x = np.maximum(product(x, weight) + bias, 0.0)
        weight, bias = self._layers[-1]
        return self.head.action(product(x, weight) + bias)


def row_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``x @ weight`` without BLAS, whose rounding may depend on the number of threads."""
    return np.einsum("ni,io->no", x, weight)
