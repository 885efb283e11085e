"""Layers of R replicas, and a multi-layer perceptron of them that is one step of autograd.

Every parameter has a leading axis R. Inputs are ``(R, n, features)``, one batch per replica; outputs keep the leading
axis. Replica r reads and writes slice r of every tensor and nothing else, which is why its result does not depend on
its companions. A network of one replica is the ordinary case, not a special one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from safemil.nn import precision

NARROW = 32  # columns: a CPU's batched products with fewer are several times slower than they need be
FEW = 8  # columns: with no more a copy of the weights, column by column, is worth its time


class Relu:
    """x where positive, else 0. Both halves work in place."""

    plain = staticmethod(torch.relu)

    @staticmethod
    def forward_(x: Tensor) -> Tensor:
        return x.relu_()

    @staticmethod
    def backward_(gradient: Tensor, y: Tensor) -> Tensor:
        """The gradient before it, from the one behind it and its output."""
        return torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)


class Elu:
    """x where positive, else e^x - 1; on CPUs by a power of two: e^x itself takes two and a half times as long."""

    plain = staticmethod(nn.functional.elu)

    @staticmethod
    def forward_(x: Tensor) -> Tensor:
        if x.is_cuda:
            return nn.functional.elu(x, inplace=True)
        return torch.maximum(x, x.clamp(max=0).mul_(math.log2(math.e)).exp2_().sub_(1), out=x)

    @staticmethod
    def backward_(gradient: Tensor, y: Tensor) -> Tensor:
        return torch.ops.aten.elu_backward.grad_input(gradient, 1, 1, 1, True, y, grad_input=gradient)


class Tanh:
    """tanh(x)."""

    plain = staticmethod(torch.tanh)

    @staticmethod
    def forward_(x: Tensor) -> Tensor:
        return x.tanh_()

    @staticmethod
    def backward_(gradient: Tensor, y: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward.grad_input(gradient, y, grad_input=gradient)


ACTIVATIONS = {"relu": Relu, "elu": Elu, "tanh": Tanh}


def product(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x[r] @ y[r]`` (plus ``bias[r]``) for each replica.

    On a CPU one replica after the other, each by all threads: a batched product deals out whole replicas, and of five
    on two threads a sixth of the time goes by idle.
    """
    if x.is_cuda:
        return torch.bmm(x, y) if bias is None else torch.baddbmm(bias, x, y)

    def one(r: int, out: Tensor | None = None) -> Tensor:
        return torch.mm(x[r], y[r], out=out) if bias is None else torch.addmm(bias[r], x[r], y[r], out=out)

    if len(x) == 1:
        return one(0).unsqueeze(0)
    products = x.new_empty(len(x), x.shape[1], y.shape[2])
    for r, own in enumerate(products):
        one(r, own)
    return products


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias``, as precise as the bias: with few columns a CPU is faster with the two axes exchanged."""
    if x.dtype != bias.dtype:
        return product(x, weight).to(bias.dtype).add_(bias)
    n_out = weight.shape[2]
    if 1 < n_out <= NARROW and not x.is_cuda:
        across = weight.transpose(1, 2)
        if n_out <= FEW:
            across = across.contiguous()
        return torch.bmm(across, x.transpose(1, 2)).transpose(1, 2).add_(bias)
    return product(x, weight, bias)


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Of ``x @ weight`` with respect to the weight."""
    if gradient.shape[2] <= NARROW:
        return torch.bmm(gradient.transpose(1, 2), x).transpose(1, 2)
    return product(x.transpose(1, 2), gradient)


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Of ``x @ weight`` with respect to x."""
    if weight.shape[2] == 1:
        return gradient * weight.transpose(1, 2)
    return product(gradient, weight.transpose(1, 2))


class Perceptron(torch.autograd.Function):
    """Layers with an activation between them as one operation: ``(R, n, n_in)`` -> ``(R, n, n_out)``.

    Autograd's own way, layer by layer, gives the same up to rounding; this one works in place, and keeps what the
    layers read and put out and nothing else. It gives the gradients of weights and biases alone, and once: where the
    input needs a gradient, layers go one by one.
    """

    @staticmethod
    def forward(ctx, activation, x: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases, last = parameters[::2], parameters[1::2], len(parameters) // 2 - 1
        outputs, factors = [], []
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            factors += precision.rounded(x, weight)
            x = linear(*factors[-2:], bias)
            if number < last:
                x = activation.forward_(x)
                outputs.append(x)
        ctx.activation = activation
        ctx.save_for_backward(*outputs, *factors)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple:
        kept = ctx.saved_tensors  # asked for once: checkpointing computes them anew
        n_hidden = len(kept) // 3
        outputs, inputs, weights = kept[:n_hidden], kept[n_hidden::2], kept[n_hidden + 1 :: 2]
        found: list[Tensor] = []
        for number in reversed(range(n_hidden + 1)):
            own = gradient.to(weights[number].dtype)
            found += [gradient.sum(1, keepdim=True), weight_gradient(inputs[number], own).to(gradient.dtype)]
            if number:
                before = input_gradient(own, weights[number]).to(gradient.dtype)
                gradient = ctx.activation.backward_(before, outputs[number - 1])
        return None, None, *reversed(found)


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
        if self.weight.shape[2] == 1:  # as in `linear`
            return (x * self.weight.transpose(1, 2)).sum(-1, keepdim=True) + self.bias
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
            x = self.activation.plain(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad or torch.compiler.is_compiling():  # a compiler fuses the layers itself
            return self.layers[-1](self.embed(x))
        return Perceptron.apply(self.activation, x, *self.parameters())
