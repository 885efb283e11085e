"""Step costs -> bag scores: the paper's mean, and variants for its open questions. All of R replicas at once.

| cost_model.aggregator | z of a segment                          | S of a bag                             |
|-----------------------|-----------------------------------------|----------------------------------------|
| mean (the paper's)    | sum_t g^t c_t                           | mean_k z_k                             |
| softmax               | G_H (1/r) log mean_t exp(r c_t)         | mean_k z_k                             |
| noisy-or              | G_H (1 - prod_t (1 - c_t))              | mean_k z_k                             |
| attention             | G_H sum_t a_t c_t                       | mean_k z_k                             |
| deepsets              | sum_t g^t c_t                           | rho(mean_k h(z_k)), rho, h increasing  |
| set-transformer       | sum_t g^t c_t                           | sum_k a_k z_k                          |

`softmax` goes from the mean over steps (r -> 0) to the largest. In `attention` (Ilse et al., arXiv 1802.04712) a_t is
proportional to exp(w'(tanh(V e_t) sigmoid(U e_t))). `deepsets` is after Zaheer et al. (arXiv 1703.06114). In
`set-transformer` a_k comes from two induced attention blocks over the bag's items (Lee et al., arXiv 1810.00825).

Each is trained together with the cost network and then dropped: weights, checkpoints and diagnostics read c alone.
That is why S rises with every c, through weights that are not negative, in all of them: a free function of the bag
could turn the sign of c. Embeddings e are what the cost network's last layer reads. G_H keeps z on the scale of the
mean's. A product of many (1 - c) is 0 in float32 and so is its gradient: noisy-or is for short segments.

Shapes: R replicas, n = bags * K items, H steps, E features; where the cost has M heads, costs and z lead with M.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safemil.algorithm.bags import bag_scores, segment_scores
from safemil.config.settings import CostModelConfig
from safemil.nn.layers import StackedLinear, StackedMLP
from safemil.nn.streams import make_generators


def soft_maximum(costs: Tensor, real: Tensor, rate: float) -> Tensor:
    """(1/r) log mean exp(r c) over the real steps, ``(..., H)`` -> ``(...)``; its gradients sum to 1 over them."""
    total = torch.logsumexp((rate * costs).masked_fill(~real, -torch.inf), dim=-1)
    return (total - real.sum(-1).to(costs).log()) / rate


def any_costly(costs: Tensor, real: Tensor) -> Tensor:
    """1 - prod (1 - c) over the real steps, ``(..., H)`` -> ``(...)``."""
    return -torch.expm1((torch.log1p(-costs.clamp(max=1 - 1e-6)) * real).sum(-1))


class Aggregator(nn.Module):
    """The paper's: z = sum_t g^t c_t and S = mean_k z_k. A variant replaces one of the two."""

    reads_embeddings = False  # whether it must be given more than None for them

    def __init__(self, config: CostModelConfig, generators: Sequence[torch.Generator], embedding_dim: int) -> None:
        super().__init__()
        self.bag_size, self.sizes = config.bag_size, config.aggregation
        self.build(generators, embedding_dim)

    def build(self, generators: Sequence[torch.Generator], embedding_dim: int) -> None:
        """The variant's own networks, if it has any."""

    def pool_steps(self, costs: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        """z of each item ``(..., R, n)``: costs ``(..., R, n, H)``, factors ``(R, n, H)``, e ``(R, n, H, E)``."""
        return segment_scores(costs, factors)

    def pool_items(self, scores: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        """S of each bag: z ``(R, n)`` -> ``(R, bags)``."""
        return bag_scores(scores, self.bag_size)

    def forward(self, costs: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        scores = self.pool_steps(costs, factors, embeddings)
        if scores.dim() == 3:
            scores = scores.amax(0)  # of M heads
        return self.pool_items(scores, factors, embeddings)


class SoftMaximum(Aggregator):
    """Risk that sits in few steps: between the mean and the largest step."""

    def pool_steps(self, costs: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        return factors.sum(-1) * soft_maximum(costs, factors > 0, self.sizes.rate)


class NoisyOr(Aggregator):
    """Risk that sits in any step."""

    def pool_steps(self, costs: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        return factors.sum(-1) * any_costly(costs, factors > 0)


class GatedAttention(Aggregator):
    """A weighted mean over steps whose weights are learned. w starts at zero: at first it is the plain mean."""

    reads_embeddings = True

    def build(self, generators: Sequence[torch.Generator], embedding_dim: int) -> None:
        width = self.sizes.attention_width
        self.content = linear(generators, embedding_dim, width)  # V
        self.gate = linear(generators, embedding_dim, width)  # U
        self.weigh = linear(generators, width, 1, "zero")  # w

    def attention(self, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        """a ``(R, n, H)``: 0 on padding, 1 in sum."""
        if embeddings is None:
            raise ValueError("attention reads embeddings")
        steps = embeddings.flatten(1, 2)
        logits = self.weigh(torch.tanh(self.content(steps)) * torch.sigmoid(self.gate(steps)))
        return torch.softmax(logits.view_as(factors).masked_fill(factors <= 0, -torch.inf), dim=-1)

    def pool_steps(self, costs: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        return factors.sum(-1) * (self.attention(factors, embeddings) * costs).sum(-1)


class MonotoneMLP(StackedMLP):
    """Increasing in every input: its weights count by their size, its hidden units are tanh."""

    def __init__(self, generators: Sequence[torch.Generator], sizes: Sequence[int]) -> None:
        super().__init__(generators, sizes, activation="tanh")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            # Divided so that a unit's weights, all of one sign, add up to about a half at first.
            weight = layer.weight.abs() / layer.weight.shape[1] ** 0.5
            x = torch.baddbmm(layer.bias, x if layer is self.layers[0] else torch.tanh(x), weight)
        return x


class DeepSets(Aggregator):
    """S = rho(mean_k h(z_k)); with the identity for both it is the mean."""

    def build(self, generators: Sequence[torch.Generator], embedding_dim: int) -> None:
        width = self.sizes.deepsets_width
        self.h, self.rho = (MonotoneMLP(generators, sizes) for sizes in ((1, width, width), (width, width, 1)))

    def pool_items(self, scores: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        items = self.h(scores.unsqueeze(-1)).unflatten(1, (-1, self.bag_size))
        return self.rho(items.mean(2)).squeeze(-1)


class SetTransformer(Aggregator):
    """S = sum_k a_k z_k, a_k from all items of the bag. The last layer starts at zero: at first it is the mean."""

    reads_embeddings = True

    def build(self, generators: Sequence[torch.Generator], embedding_dim: int) -> None:
        width, heads, points = self.sizes.transformer_width, self.sizes.transformer_heads, self.sizes.inducing_points
        self.enter = linear(generators, embedding_dim, width)
        self.blocks = nn.ModuleList(InducedAttention(generators, width, heads, points) for _ in range(2))
        self.weigh = linear(generators, width, 1, "zero")

    def attention(self, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        """a ``(R, bags, K)``, 1 in sum. A token is the mean embedding of the item's real steps."""
        real = (factors > 0).unsqueeze(-1)
        tokens = self.enter((embeddings * real).sum(2) / real.sum(2)).unflatten(1, (-1, self.bag_size))
        for block in self.blocks:
            tokens = block(tokens)
        return torch.softmax(self.weigh(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3]).squeeze(-1), dim=-1)

    def pool_items(self, scores: Tensor, factors: Tensor, embeddings: Tensor | None) -> Tensor:
        return (self.attention(factors, embeddings) * scores.unflatten(-1, (-1, self.bag_size))).sum(-1)


class InducedAttention(nn.Module):
    """ISAB: m learned points read the set, the set reads the points; its cost grows with K, not K squared."""

    def __init__(self, generators: Sequence[torch.Generator], width: int, heads: int, n_points: int) -> None:
        super().__init__()
        drawn = [torch.randn(n_points, width, generator=generator) / width**0.5 for generator in generators]
        self.points = nn.Parameter(torch.stack(drawn))
        self.read, self.write = (CrossAttention(generators, width, heads) for _ in range(2))

    def forward(self, items: Tensor) -> Tensor:
        """``(R, bags, K, width)`` -> the same shape."""
        points = self.points.unsqueeze(1).expand(-1, items.shape[1], -1, -1)
        return self.write(items, self.read(points, items))


class CrossAttention(nn.Module):
    """MAB: x + attention of x on y, normalized; then the same with a layer of its own."""

    def __init__(self, generators: Sequence[torch.Generator], width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out, self.feed = (linear(generators, width, width) for _ in range(5))
        self.norms = nn.ModuleList(StackedLayerNorm(len(generators), width) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x ``(R, bags, n, width)``, y ``(R, bags, m, width)`` -> ``(R, bags, n, width)``."""
        query, key, value = (
            layer(own.flatten(1, 2)).view(*own.shape[:3], self.heads, -1).transpose(2, 3).flatten(0, 1)
            for layer, own in ((self.query, x), (self.key, y), (self.value, y))
        )
        read = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        x = x.flatten(1, 2)
        x = self.norms[0](x + self.out(read.reshape(x.shape)))
        return self.norms[1](x + torch.relu(self.feed(x))).unflatten(1, (y.shape[1], -1))


class StackedLayerNorm(nn.Module):
    """R layer norms side by side. weight, bias  (R, 1, width)."""

    def __init__(self, n_replicas: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_replicas, 1, width))
        self.bias = nn.Parameter(torch.zeros(n_replicas, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


def linear(generators: Sequence[torch.Generator], n_in: int, n_out: int, kind: str = "torch") -> StackedLinear:
    """An initialized layer."""
    layer = StackedLinear(len(generators), n_in, n_out)
    layer.initialize(kind, generators)
    return layer


AGGREGATORS: dict[str, type[Aggregator]] = {
    "mean": Aggregator,
    "softmax": SoftMaximum,
    "noisy-or": NoisyOr,
    "attention": GatedAttention,
    "deepsets": DeepSets,
    "set-transformer": SetTransformer,
}


def make_aggregator(config: CostModelConfig, seeds: Sequence[int], embedding_dim: int) -> Aggregator:
    """The one that ``cost_model.aggregator`` names, initialized from the seeds."""
    return AGGREGATORS[config.aggregator](config, make_generators(seeds, "aggregator"), embedding_dim)
