"""Layers of R replicas.

Every parameter has a leading axis R. Inputs are ``(R, n, features)``, one batch per replica; outputs keep the leading
axis. Replica r reads and writes slice r of every tensor and nothing else, which is why its result does not depend on
its companions. A network of one replica is the ordinary case, not a special one.

Under ``torch.autocast`` (safemil/nn/precision.py) products with the weights of wide layers are rounded; first and last
layers are narrow, where rounding would gain nothing, and what a multi-layer perceptron of them puts out is float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDE = 128  # inputs and outputs: with fewer, converting takes longer than bfloat16 saves
ACTIVATIONS = {"relu": torch.relu, "elu": nn.functional.elu, "tanh": torch.tanh}


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
        n_in, n_out = self.weight.shape[1:]
        if n_out == 1:  # a batched product with one column is several times slower on a CPU
            return (x.to(self.weight.dtype) * self.weight.transpose(1, 2)).sum(-1, keepdim=True) + self.bias
        device = x.device.type
        if min(n_in, n_out) < WIDE and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return torch.baddbmm(self.bias, x.to(self.weight.dtype), self.weight)
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
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers: Sequence[StackedLinear] = nn.ModuleList(  # type: ignore[assignment]  # it says Module of its items
            StackedLinear(len(generators), n_in, n_out) for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.activation, self.layer_norm = activation, layer_norm
        for layer in self.layers:
            kind = last if last and layer is self.layers[-1] else initialization
            layer.initialize(kind, generators)

    def embed(self, x: Tensor, units: Tensor | None = None) -> Tensor:
        """What the last layer reads. ``units`` ``(R, n_hidden_layers, width)``: factors of the hidden units."""
        for number, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.layer_norm and number == 0:  # to mean 0 and spread 1 over the units
                x = nn.functional.layer_norm(x, x.shape[-1:])
            x = ACTIVATIONS[self.activation](x)
            if units is not None:
                x = x * units[:, number].unsqueeze(1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.embed(x))
