"""Observations -> features, R replicas at once: the only networks that know whether an observation is a vector or an
image. What comes after an encoder reads ``(R, n, features)``.

    vector  (R, n, d)                                   normalized by mean and spread: ``Normalizer``
    image   (R, n, height, width, channels), 0 to 255   two convolutions and a layer of 50 units: ``ImageEncoder``

A convolution is done replica by replica: the result is then that of the replica alone, and on a CPU plain convolutions
take less time than a grouped one. Images are encoded in parts, whose layers a backward pass computes again, so that the
memory of a bag of K segments of H images does not grow with K times H.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from safemil.config.errors import UserError
from safemil.nn.layers import StackedLinear

Size = (
    int | tuple[int, int, int]
)  # of an observation: the length of a vector, or height, width and channels of an image

FEATURES = 50  # of an image, as DrQ's (arXiv 2004.13649)
CONVOLUTIONS = ((16, 8, 4), (32, 4, 2))  # channels, kernel, stride: small enough for a CPU
SMALLEST = 20  # height and width that leave the second convolution something to read
IMAGES_KEPT = {"cpu": 2048, "cuda": 16384}  # of all replicas, whose layers are kept at once: about 50 KB each


def make_encoder(generators: Sequence[torch.Generator], size: Size) -> Encoder:
    """The encoder for observations of a size. Raises ``UserError`` when images are too small for it."""
    if isinstance(size, int):
        return Normalizer(len(generators), size)
    return ImageEncoder(generators, *size)


class Normalizer(nn.Module):
    """``(s - mean) / (std + 1e-3)`` with one mean and spread per replica, carried by the network that needs it.

    mean, scale  (R, 1, observation_dim); the identity until ``set_statistics``.
    """

    def __init__(self, n_replicas: int, observation_dim: int) -> None:
        super().__init__()
        self.features = observation_dim
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(n_replicas, 1, observation_dim))
        self.register_buffer("scale", torch.ones(n_replicas, 1, observation_dim))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """mean, std  (R, observation_dim): statistics over D_N and D_U alone."""
        self.mean.copy_(mean.unsqueeze(1))
        self.scale.copy_(1.0 / (std.unsqueeze(1) + 1e-3))

    def forward(self, observations: Tensor) -> Tensor:
        return (observations - self.mean) * self.scale

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Of one replica, sharing the tensors' memory."""
        return self.mean[0].numpy(), self.scale[0].numpy()

    def encode(self, observations: np.ndarray) -> np.ndarray:
        """Of one replica, in numpy: ``(n, observation_dim)`` -> the same."""
        mean, scale = self._arrays
        return (np.asarray(observations, dtype=np.float32) - mean) * scale


class StackedConvolution(nn.Module):
    """R convolutions side by side. weight ``(R, out, in, kernel, kernel)``, bias ``(R, out)``; as torch's at first."""

    def __init__(self, generators: Sequence[torch.Generator], n_in: int, n_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride, bound = stride, (n_in * kernel**2) ** -0.5
        shapes = (n_out, n_in, kernel, kernel), (n_out,)
        drawn = [[torch.empty(shape).uniform_(-bound, bound, generator=own) for shape in shapes] for own in generators]
        self.weight, self.bias = (nn.Parameter(torch.stack(part)) for part in zip(*drawn, strict=True))

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """For each replica ``(n, in, height, width)`` -> ``(n, out, ., .)``."""
        parts = zip(images, self.weight, self.bias, strict=True)
        return [nn.functional.conv2d(own, weight, bias, self.stride) for own, weight, bias in parts]


class ImageEncoder(nn.Module):
    """Images -> 50 features in (-1, 1): two convolutions, a layer, normalization over its units, tanh."""

    scale = 1.0  # of a gradient with respect to what is encoded: for images that is the features themselves

    def __init__(self, generators: Sequence[torch.Generator], height: int, width: int, channels: int) -> None:
        super().__init__()
        if min(height, width) < SMALLEST:
            raise UserError(f"images of {height} x {width}: at least {SMALLEST} x {SMALLEST} are needed")
        self.features = FEATURES
        self.convolutions = nn.ModuleList()
        for n_out, kernel, stride in CONVOLUTIONS:
            self.convolutions.append(StackedConvolution(generators, channels, n_out, kernel, stride))
            height, width, channels = (height - kernel) // stride + 1, (width - kernel) // stride + 1, n_out
        self.layer = StackedLinear(len(generators), height * width * channels, FEATURES)
        self.layer.initialize("torch", generators)

    def forward(self, observations: Tensor) -> Tensor:
        size = max(1, IMAGES_KEPT[observations.device.type] // len(observations))
        parts = observations.split(size, dim=1)
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([self.encode_part(part) for part in parts], dim=1)
        encoded = [checkpoint(self.encode_part, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return torch.cat(encoded, dim=1)

    def encode_part(self, observations: Tensor) -> Tensor:
        """``(R, n, height, width, channels)`` -> ``(R, n, 50)``."""
        images = list((observations.to(self.layer.weight.dtype) / 255.0 - 0.5).movedim(-1, 2))
        for convolution in self.convolutions:
            images = [torch.relu(own) for own in convolution(images)]
        units = self.layer(torch.stack(images).flatten(2))
        return torch.tanh(nn.functional.layer_norm(units, units.shape[-1:]))

    @torch.inference_mode()
    def encode(self, observations: np.ndarray) -> np.ndarray:
        """Of one replica: ``(n, height, width, channels)`` -> ``(n, 50)``."""
        return self(torch.tensor(observations).unsqueeze(0)).squeeze(0).numpy()


Encoder = Normalizer | ImageEncoder
