"""The one sum that bags, weights and loss floors share."""

from __future__ import annotations

from typing import overload

import numpy as np


@overload
def discounted_length(length: int, discount: float = ...) -> float: ...
@overload
def discounted_length(length: np.ndarray, discount: float = ...) -> np.ndarray: ...
def discounted_length(length: np.ndarray | int, discount: float = 0.99) -> np.ndarray | float:
    """G_H = 1 + g + ... + g^(H-1): the largest score that H steps of cost 1 can reach. Elementwise over ``length``."""
    if discount == 1:
        return np.asarray(length, dtype=np.float64) if np.ndim(length) else float(length)
    return (1 - discount**length) / (1 - discount)
