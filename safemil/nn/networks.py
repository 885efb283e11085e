"""What the methods' networks share: a network that scores steps, slopes, a replica for itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from safemil.nn.encoders import Size, make_encoder
from safemil.nn.layers import StackedMLP

Stacked = TypeVar("Stacked", bound=nn.Module)


class StepScorer(nn.Module):
    """A network that scores single steps: ``(R, n, obs), (R, n, act) -> (R, n)``, before any squashing.

    The cost model, a discriminator and a value of a step are all of this shape. A step's embedding ``(R, n, E)`` is
    what the last layer reads; ``score(embed(...))`` is ``scores(...)``, in two halves.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        *,
        activation: str = "relu",
        initialization: str = "torch",
        last: str | None = None,
        layer_norm: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.shape: dict[str, Any] = {
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "hidden": list(hidden),
        }
        self.encoder = make_encoder(generators, observation_dim)
        self.mlp = StackedMLP(
            generators,
            (self.encoder.features + action_dim, *hidden, outputs),
            activation=activation,
            initialization=initialization,
            last=last,
            layer_norm=layer_norm,
        )

    @property
    def embedding_dim(self) -> int:
        """E."""
        return self.mlp.layers[-1].weight.shape[1]

    def inputs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What the first layer reads."""
        return torch.cat([self.encoder(observations), actions], dim=-1)

    def embed(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.mlp.embed(self.inputs(observations, actions))

    def score(self, embeddings: Tensor) -> Tensor:
        return self.read(self.mlp.layers[-1](embeddings))

    def scores(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.read(self.mlp(self.inputs(observations, actions)))

    def read(self, outputs: Tensor) -> Tensor:
        """Scores from what the last layer gives, ``(R, n, outputs)``."""
        return outputs.squeeze(-1)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.scores(observations, actions)


COST_INITIALIZATIONS: dict[str, dict[str, Any]] = {
    "zero-last": {"initialization": "orthogonal", "last": "zero"},  # the first author's older files
    "plain": {"initialization": "torch"},  # the newest
}


class CostNetwork(StepScorer):
    """Per-step cost in (0, 1): sigmoid of an ELU network whose last layer starts at zero (first loss: log 2)."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: Size,
        action_dim: int,
        hidden: Sequence[int],
        initialization: str = "zero-last",
    ) -> None:
        options = COST_INITIALIZATIONS[initialization]
        super().__init__(generators, observation_dim, action_dim, hidden, activation="elu", **options)

    def read(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(super().read(outputs))


def slopes(network: StackedMLP, x: Tensor) -> Tensor:
    """Gradient of each row's summed outputs with respect to the row, ``(R, n, n_in)``, for ReLU networks.

    Such a network is linear about almost every x: which units are on does not change with the weights to first order.
    So this is a product of weight matrices, through which gradients with respect to the weights flow as ever, and a
    penalty on it takes none of the time of differentiating twice.
    """
    if network.activation != "relu":
        raise ValueError("slopes are those of ReLU networks; differentiate others twice")
    with torch.autocast(x.device.type, enabled=False):
        switches = []
        with torch.no_grad():
            for layer in network.layers[:-1]:
                x = torch.relu(layer(x))
                switches.append(x.sign())
        gradient = network.layers[-1].weight.sum(2).unsqueeze(1)
        for layer, on in zip(reversed(network.layers[:-1]), reversed(switches), strict=True):
            gradient = torch.bmm(gradient * on, layer.weight.transpose(1, 2))
        return gradient


def extract_replica(module: Stacked, index: int) -> Stacked:
    """Replica ``index`` of a stacked network as a network of one replica, on the CPU, for evaluation."""
    single = copy.copy(module)  # of its parts only the replica's own are copied: with many replicas all would be much
    single._parameters = {
        name: nn.Parameter(own.detach()[index : index + 1].cpu().clone(), requires_grad=False)
        for name, own in module._parameters.items()
        if own is not None
    }
    single._buffers = {
        name: own[index : index + 1].cpu().clone() for name, own in module._buffers.items() if own is not None
    }
    single._modules = {name: extract_replica(part, index) for name, part in module._modules.items() if part is not None}
    return single.eval()


def n_replicas(module: nn.Module) -> int:
    """R of a stacked network."""
    return next(iter(module.parameters())).shape[0]
