"""Policy networks that act alike on every processor. In: an observation. Out: an action, the same to the last bit.

Matrix products of BLAS, numpy's einsum and the tanh of numpy and of the C library add in another order, or round once
instead of twice, depending on the processor; after a thousand steps of a walking robot the last bit decides where it
stands. So everything here is made of numpy's elementwise sums, products and quotients in double precision, each of
which IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

# exp(r) for |r| <= ln(2) / 2 by its Taylor series: the first term left out is below 1e-17.
_FACTORIALS = [float(np.prod(np.arange(1.0, order + 1))) for order in range(14)]
_LN2_HIGH = float.fromhex("0x1.62e42fefa0000p-1")  # ln(2) to 40 bits: products with small integers are exact
_LN2_LOW = float.fromhex("0x1.cf79abc9e3b39p-40")
_LOG2_E = float.fromhex("0x1.71547652b82fep+0")


def product(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """inputs @ weights, the terms added one after the other.

    Args:
        weights: (n_inputs, n_outputs) float64, contiguous, so that numpy adds whole rows.
        inputs: (n_inputs,).
    """
    return (weights * inputs[:, None]).sum(axis=0)


def tanh(values: np.ndarray) -> np.ndarray:
    """Hyperbolic tangent, elementwise, float64, to 1e-15."""
    doubled = 2.0 * np.minimum(np.abs(values), 20.0)  # beyond, it is 1
    power = np.rint(doubled * _LOG2_E)
    rest = (doubled - power * _LN2_HIGH) - power * _LN2_LOW
    series = np.zeros_like(rest)
    for factorial in reversed(_FACTORIALS):
        series = series * rest + 1.0 / factorial
    return np.copysign(1.0 - 2.0 / (np.ldexp(series, power.astype(np.int32)) + 1.0), values)


def relu(values: np.ndarray) -> np.ndarray:
    """max(values, 0), elementwise."""
    return np.maximum(values, 0.0)


ACTIVATIONS = {"tanh": tanh, "relu": relu}


@dataclass(frozen=True, eq=False)
class Network:
    """A policy as numbers: normalized observations go through layers to an action. All arrays are float64."""

    weights: tuple[np.ndarray, ...]  # (n_inputs, n_outputs) of each layer
    biases: tuple[np.ndarray, ...]  # (n_outputs,) of each layer
    hidden: str  # activation between the layers, a name of ``ACTIVATIONS``
    squashed: bool  # the output goes through tanh; otherwise it is clipped to [-1, 1]
    mean: np.ndarray  # (n_inputs,) subtracted from the observation
    deviation: np.ndarray  # (n_inputs,) that divides the rest
    clip: float  # bound of a normalized input

    @property
    def n_inputs(self) -> int:
        """The inputs, which may be more than a task's observations."""
        return len(self.mean)

    def act(self, observation: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """The action, (action_dim,) float64 in [-1, 1]; ``strength`` multiplies it before it is bounded.

        ``observation`` may be shorter than the inputs: the last ones are 0 then, as the contact forces of Ant-v3 are.
        """
        inputs = np.zeros(self.n_inputs)
        inputs[: len(observation)] = observation
        values = np.clip((inputs - self.mean) / self.deviation, -self.clip, self.clip)
        for layer, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            values = product(weights, values) + bias
            if layer < len(self.weights):
                values = ACTIVATIONS[self.hidden](values)
        return tanh(strength * values) if self.squashed else np.clip(strength * values, -1.0, 1.0)

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers and of what is done with them, in hexadecimal."""
        digest = hashlib.sha256(f"{self.hidden} {self.squashed} {self.clip!r}".encode())
        for array in (*self.weights, *self.biases, self.mean, self.deviation):
            digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()


def linear(gains: np.ndarray, offsets: np.ndarray) -> Network:
    """The policy clip(gains @ observation + offsets); gains (action_dim, observation_dim), offsets (action_dim,)."""
    n_inputs = gains.shape[1]
    weights = np.ascontiguousarray(gains.T, dtype=np.float64)
    return Network((weights,), (offsets,), "relu", False, np.zeros(n_inputs), np.ones(n_inputs), np.inf)
