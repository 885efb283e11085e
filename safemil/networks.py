"""Networks of R replicas: every parameter has a leading axis R, so that all seeds of a configuration train as one.

Inputs are ``(R, n, features)``, one batch per replica; outputs keep the leading axis. Replica r reads and writes slice
r of every tensor and nothing else, which is why its result does not depend on its companions. A network of one replica
is the ordinary case, not a special one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Elu(torch.autograd.Function):
    """x where positive, else e^x - 1: torch's, but in place and by the faster of the two exponentials of a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        y = x.clamp(max=0).exp_().sub_(1)
        torch.maximum(x, y, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return y.clamp(max=0).add_(1).mul_(gradient)


ACTIVATIONS = {"relu": torch.relu, "elu": Elu.apply, "tanh": torch.tanh}

NARROW = 32  # columns: batched products with fewer are several times slower than they need be on a CPU


class NarrowProduct(torch.autograd.Function):
    """``x @ weight`` for few columns: the products with rows and columns exchanged where that is faster."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(weight.transpose(1, 2), x.transpose(1, 2)).transpose(1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return torch.bmm(gradient, weight.transpose(1, 2)), torch.bmm(gradient.transpose(1, 2), x).transpose(1, 2)


class StackedLinear(nn.Module):
    """R linear layers side by side: ``y[r] = x[r] @ weight[r] + bias[r]`` as one batched product.

    weight  (R, n_in, n_out)
    bias    (R, 1, n_out)
    """

    def __init__(self, n_replicas: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_replicas, n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_replicas, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        n_out = self.weight.shape[2]
        if n_out == 1:
            return (x * self.weight.transpose(1, 2)).sum(-1, keepdim=True) + self.bias
        if n_out <= NARROW:
            return NarrowProduct.apply(x, self.weight) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)

    @torch.no_grad()
    def initialize(self, kind: str, generators: Sequence[torch.Generator]) -> None:
        """Fill the layer, each replica from its own generator.

        ``orthogonal`` (gain sqrt 2, zero bias), ``torch`` (uniform +-1/sqrt(n_in), as ``nn.Linear``), ``he``, ``zero``.
        """
        bound = self.weight.shape[1] ** -0.5
        for weight, bias, generator in zip(self.weight, self.bias, generators, strict=True):
            drawn = torch.empty(weight.shape[1], weight.shape[0])  # nn.init expects (n_out, n_in); drawn on the CPU
            nn.init.zeros_(bias)
            if kind == "orthogonal":
                nn.init.orthogonal_(drawn, gain=2**0.5, generator=generator)
            elif kind == "he":
                nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
            elif kind == "torch":
                drawn.uniform_(-bound, bound, generator=generator)
                bias.copy_(torch.empty(bias.shape).uniform_(-bound, bound, generator=generator))
            else:
                drawn.zero_()
            weight.copy_(drawn.T)


class StackedMLP(nn.Module):
    """R multi-layer perceptrons. Input ``(R, n, n_in)``, output ``(R, n, n_out)``."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        initialization: str = "torch",
        last: str | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            StackedLinear(len(generators), n_in, n_out) for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.activation = ACTIVATIONS[activation]
        for layer in self.layers:
            kind = last if last and layer is self.layers[-1] else initialization
            layer.initialize(kind, generators)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer reads."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.embed(x))


class Normalizer(nn.Module):
    """``(s - mean) / (std + 1e-3)`` with one mean and spread per replica, carried by the network that needs it.

    mean, scale  (R, 1, observation_dim); the identity until ``set_statistics``.
    """

    def __init__(self, n_replicas: int, observation_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_replicas, 1, observation_dim))
        self.register_buffer("scale", torch.ones(n_replicas, 1, observation_dim))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """mean, std  (R, observation_dim): statistics over D_N and D_U alone."""
        self.mean.copy_(mean.unsqueeze(1))
        self.scale.copy_(1.0 / (std.unsqueeze(1) + 1e-3))

    def forward(self, observations: Tensor) -> Tensor:
        return (observations - self.mean) * self.scale


class StepScorer(nn.Module):
    """A network that scores single steps: ``(R, n, obs), (R, n, act) -> (R, n)``, before any squashing.

    The cost model, a discriminator and a value of a step are all of this shape. ``embed`` and ``score`` are its two
    halves: a step's embedding ``(R, n, E)`` is what the last layer reads.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        activation: str = "relu",
        initialization: str = "torch",
        last: str | None = None,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.shape = {"observation_dim": observation_dim, "action_dim": action_dim, "hidden": list(hidden)}
        self.normalizer = Normalizer(len(generators), observation_dim)
        self.mlp = StackedMLP(
            generators,
            (observation_dim + action_dim, *hidden, outputs),
            activation=activation,
            initialization=initialization,
            last=last,
        )

    @property
    def embedding_dim(self) -> int:
        """E."""
        return self.mlp.layers[-1].weight.shape[1]

    def embed(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.mlp.embed(torch.cat([self.normalizer(observations), actions], dim=-1))

    def score(self, embeddings: Tensor) -> Tensor:
        return self.mlp.layers[-1](embeddings).squeeze(-1)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.score(self.embed(observations, actions))


class CostNetwork(StepScorer):
    """Per-step cost in (0, 1): sigmoid of an ELU network whose last layer starts at zero (first loss: log 2)."""

    def __init__(
        self, generators: Sequence[torch.Generator], observation_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> None:
        super().__init__(
            generators, observation_dim, action_dim, hidden, activation="elu", initialization="orthogonal", last="zero"
        )

    def score(self, embeddings: Tensor) -> Tensor:
        return torch.sigmoid(super().score(embeddings))


def replica(module: nn.Module, index: int) -> nn.Module:
    """Replica ``index`` of a stacked network as a network of one replica, on the CPU, for evaluation."""
    single = copy.deepcopy(module).cpu()
    for part in single.modules():
        for name, parameter in part._parameters.items():
            part._parameters[name] = nn.Parameter(parameter.detach()[index : index + 1].clone(), requires_grad=False)
        for name, buffer in part._buffers.items():
            part._buffers[name] = buffer[index : index + 1].clone()
    return single.eval()


def n_replicas(module: nn.Module) -> int:
    """R of a stacked network."""
    return next(iter(module.parameters())).shape[0]
