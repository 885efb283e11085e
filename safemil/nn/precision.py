"""Whether products within networks are rounded while they train, in the words of torch's float32 matmul precision.

| level             | products with the weights of wide layers                            | other products           |
|-------------------|---------------------------------------------------------------------|--------------------------|
| highest (default) | float32                                                             | float32                  |
| high              | float32; on CUDA TensorFloat32, torch's own                         | likewise                 |
| medium            | bfloat16 by autocast, where the device has it; else as `high`       | likewise in attention    |

Parameters, losses, optimizers and what networks put out stay float32 at every level. Outside training nothing is
rounded: acting is float32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
from collections.abc import Iterator

logger = logging.getLogger(__name__)

LEVELS = ("highest", "high", "medium")


def add_option(parser: argparse.ArgumentParser) -> None:
    """``--precision LEVEL``."""
    parser.add_argument(
        "--precision",
        choices=LEVELS,
        default=LEVELS[0],
        help="of training's matrix products: high allows TensorFloat32 on CUDA, medium bfloat16 where the device has it"
        " (default: highest, float32)",
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
def training_at(level: str, device_type: str) -> Iterator[None]:
    """Products are rounded in here as ``level`` says; torch's own setting is put back afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if level == "highest" else "high")
    rounded = in_effect(level, device_type) == "medium"
    try:
        # Without a cache: it would keep the weights of the first update for all others.
        with torch.autocast(device_type, torch.bfloat16, enabled=rounded, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
