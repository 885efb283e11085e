"""Reading agents that Stable-Baselines3 has saved. In: the zip file of an agent, the pickle of its observation
statistics. Out: its policy as plain numbers.

Both files come from elsewhere and may hold anything, and a pickle can call any function. So the weights are read as
tensors alone, and of the pickle numpy's arrays alone are built: an object of a known library is an empty shell that
keeps what it is given, and a file that asks for anything else is refused.
"""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from safemil.collection.recipes.networks import Network
from safemil.config.errors import UserError

ARRAY_PARTS = ("_reconstruct", "ndarray", "dtype", "scalar")  # numpy's, all that an array or a number is made of
SHELLS = ("stable_baselines3", "sb3_contrib", "gym", "gymnasium", "numpy.random")  # whose objects are kept as shells
LAYERS = ("mlp_extractor.policy_net", "actor.latent_pi", "action_net", "actor.mu")  # in the order they are passed


def read_agent(policy: Path, statistics: Path | None) -> Network:
    """The policy that an agent acts by when it does not explore.

    Args:
        policy: the zip file that ``save`` of Stable-Baselines3 writes (ARS, A2C, PPO, TRPO, SAC).
        statistics: the pickle that ``save`` of VecNormalize writes; None for an agent that sees raw observations.

    Raises:
        UserError: a file cannot be read, is not of this kind, or holds more than numbers.
    """
    tensors = _read_tensors(policy)
    weights = [tensors[name].T for name in _layer_names(tensors)]
    if not weights or any(after.shape[0] != before.shape[1] for before, after in itertools.pairwise(weights)):
        raise UserError(f"{policy}: no policy that is known here; its entries are {', '.join(tensors) or 'none'}")
    biases = [
        tensors.get(name.removesuffix("weight") + "bias", np.zeros(matrix.shape[1]))
        for name, matrix in zip(_layer_names(tensors), weights, strict=True)
    ]
    # What stands between the layers is no tensor and not in the file: these are the algorithms' own.
    squashed = "actor.mu.weight" in tensors or "action_net.0.weight" in tensors  # SAC, and networks of ARS
    hidden = "relu" if squashed else "tanh"
    n_inputs = weights[0].shape[0]
    mean, deviation, clip = np.zeros(n_inputs), np.ones(n_inputs), np.inf
    if statistics is not None:
        mean, deviation, clip = read_statistics(statistics, n_inputs)
    contiguous = tuple(np.ascontiguousarray(matrix) for matrix in weights)
    return Network(contiguous, tuple(biases), hidden, squashed, mean, deviation, clip)


def read_statistics(path: Path, n_inputs: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(mean (n_inputs,), deviation (n_inputs,), clip) of the observations that VecNormalize has seen."""
    try:
        with path.open("rb") as file:
            state = vars(_ArraysOnly(file).load())
        running = vars(state["obs_rms"])
        mean, variance = (np.asarray(running[name], dtype=np.float64) for name in ("mean", "var"))
        deviation = np.sqrt(variance + float(state["epsilon"]))
        clip = float(state["clip_obs"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle fails in any way
        raise UserError(f"{path}: no observation statistics of Stable-Baselines3 ({_said(error)})") from error
    if mean.shape != (n_inputs,) or deviation.shape != (n_inputs,):
        raise UserError(f"{path}: statistics of {mean.shape} observations, the policy has {n_inputs} inputs")
    return mean, deviation, clip


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The entries of ``policy.pth`` in an agent's zip file, as float64."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            held = io.BytesIO(archive.read("policy.pth"))
        tensors = torch.load(held, map_location="cpu", weights_only=True)
        return {str(name): tensor.double().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # no zip, no such entry, a pickle of more than tensors: torch has many words for it
        raise UserError(f"{path}: not an agent of Stable-Baselines3 ({_said(error)})") from error


def _layer_names(tensors: dict[str, np.ndarray]) -> list[str]:
    """The entries that hold the policy's matrices, from the observation to the action."""
    names = [
        (part, name)
        for name in tensors
        for part, prefix in enumerate(LAYERS)
        if name.startswith(prefix + ".") and name.endswith(".weight")
    ]
    return [name for _, name in sorted(names, key=lambda named: (named[0], _number(named[1])))]


def _number(name: str) -> int:
    """The layer's number in "action_net.2.weight"; 0 where there is none."""
    number = name.split(".")[-2]
    return int(number) if number.isdigit() else 0


def _said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


class _Shell:
    """Stands for an object of another library: takes anything, does nothing, keeps its attributes."""

    def __new__(cls, *arguments: Any, **named: Any) -> _Shell:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy's arrays, numbers and plain containers; refuses everything that could act."""

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle calls ``module.name``. Raises ``UserError`` for what is neither an array nor a shell."""
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in ARRAY_PARTS:
            return super().find_class("numpy" if name in ("ndarray", "dtype") else "numpy.core.multiarray", name)
        if any(module == library or module.startswith(library + ".") for library in SHELLS):
            return _Shell
        raise UserError(f"asks for {module}.{name}, which is no number; nothing of it was executed")
