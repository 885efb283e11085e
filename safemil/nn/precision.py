"""Whether products within networks are rounded while they train: what ``torch.set_float32_matmul_precision`` asks for.

| level             | products with the weights of hidden layers                          | other products           |
|-------------------|---------------------------------------------------------------------|--------------------------|
| highest (default) | float32                                                             | float32                  |
| high              | float32; on CUDA TensorFloat32, torch's own                         | likewise                 |
| medium            | bfloat16, sums in float32, where the device has it; else as `high`  | as torch has it          |

Parameters, activations, losses, gradients and optimizers stay float32 at every level. Outside training nothing is
rounded but by torch itself, at the levels where it may; acting is float32. First and last layers are narrow: rounding
them would gain nothing. Networks that are differentiated with respect to their inputs are not rounded.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

LEVELS = ("highest", "high", "medium")
WIDE = 128  # rows and columns: with fewer, converting takes longer than bfloat16 saves
_rounding = False  # one for all threads: on CUDA, layers computed again backwards run in a thread of its own


def add_option(parser: argparse.ArgumentParser) -> None:
    """``--precision LEVEL``."""
    parser.add_argument(
        "--precision",
        choices=LEVELS,
        default=LEVELS[0],
        help="of training's matrix products, as torch.set_float32_matmul_precision: high allows TensorFloat32 on CUDA,"
        " medium bfloat16 where the device has it (default: highest, float32)",
    )


def has_bfloat16(device_type: str) -> bool:
    """Whether the device has instructions that multiply bfloat16."""
    import torch

    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def in_effect(level: str, device_type: str) -> str:
    """The level that a training has on a device, which is what its record states; says so where it is not ``level``."""
    if level != "medium" or has_bfloat16(device_type):
        return level
    _say_not_rounded(device_type)
    return "high"


@functools.cache  # once a process
def _say_not_rounded(device_type: str) -> None:
    logger.warning("precision medium: this %s does not multiply bfloat16; training as at precision high", device_type)


@contextlib.contextmanager
def in_training(device_type: str) -> Iterator[None]:
    """Inside it products are rounded, if level ``medium`` is set and the device can."""
    import torch

    global _rounding
    before = _rounding
    _rounding = in_effect(torch.get_float32_matmul_precision(), device_type) == "medium"
    try:
        yield
    finally:
        _rounding = before


def rounded(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of a layer's products, ``(R, n, n_in)`` and ``(R, n_in, n_out)``: as they are, or in bfloat16."""
    if _rounding and min(*x.shape[1:], weight.shape[2]) >= WIDE:
        return x.bfloat16(), weight.bfloat16()
    return x, weight
