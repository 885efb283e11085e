"""Checks of what many commands are given: seeds, devices, counts. Each error is one line that says what would do."""

from __future__ import annotations

import operator
from typing import Any

from safemil.config.errors import UserError


def checked_seed(seed: Any, name: str = "seed") -> int:
    """A seed of random draws.

    Raises:
        UserError: it is no whole number, or negative.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise UserError(f"{name} {seed!r}: expected a whole number, 0 or more") from None
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise UserError(f"{name} {seed!r}: expected a whole number from 0 to 2^63 - 1")
    return number


def checked_device(device: str | None) -> str:
    """A device of torch that is there; by default cuda where there is one, else cpu.

    Raises:
        UserError: there is no such device on this machine.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return "cuda" if n_gpus else "cpu"
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError):
        known = None
    if known is None or known.type not in ("cpu", "cuda"):
        raise UserError(f"device {device!r}: expected cpu, cuda, or cuda:N for the N-th GPU")
    if known.type == "cuda" and not (known.index or 0) < n_gpus:
        found = "no GPU that torch can use" if not n_gpus else f"GPUs 0 to {n_gpus - 1}"
        raise UserError(f"device {device!r}: this machine has {found}; leave it out, or take device cpu")
    return str(known)


def at_least(name: str, value: float | None, least: float) -> None:
    """Refuse an option's value below its least; None passes.

    Raises:
        UserError: it lies below, or is not a number.
    """
    if value is not None and not value >= least:
        raise UserError(f"{name} is {value:g}, expected at least {least:g}")
