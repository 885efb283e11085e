"""A learned policy (and its cost model) on disk: tensors in safetensors, everything else in json beside it; no pickle.

<folder>/policy.safetensors   policy.*, scorer.* tensors, one replica each
<folder>/policy.json          {"policy": its shape, "scorer": its class and shape or null, "task": ..., ...}
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError
from safemil.nn.streams import make_generators

STEM = "policy"
TRUSTED_PACKAGES = ("safemil", "baselines")  # a checkpoint names its classes; no others are imported for it
FORMER_HOMES = {  # of classes that earlier checkpoints name
    "safemil.policies": "safemil.nn.policies",
    "safemil.networks": "safemil.nn.networks",
    "safemil.failure_modes": "safemil.algorithm.failure_modes",
}


class CheckpointError(UserError):
    """A checkpoint is missing or cannot be read."""


def save(
    folder: Path | str, policy: nn.Module, *, scorer: nn.Module | None = None, stem: str = STEM, **metadata: Any
) -> Path:
    """Write ``<stem>.json`` and then ``<stem>.safetensors``, each whole or not at all; returns the latter's path.

    Policy and scorer are networks of one replica with a ``shape``: the arguments that build the same network again.
    """
    from safetensors.torch import save as as_bytes

    folder = Path(folder)
    modules = {"policy": policy} if scorer is None else {"policy": policy, "scorer": scorer}
    described = {name: {"class": class_path(module), "shape": module.shape} for name, module in modules.items()}
    tensors = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    path = folder / f"{stem}.safetensors"
    with atomic_write(path) as half, atomic_write(folder / f"{stem}.json") as half_described:
        half.write_bytes(as_bytes(tensors))  # its own writing of files gives them to their owner alone
        half_described.write_text(json.dumps({"scorer": None, **described, **metadata}, indent=2) + "\n")
    return path


def class_path(module: nn.Module) -> str:
    """``safemil.nn.policies:Policy``."""
    return f"{type(module).__module__}:{type(module).__qualname__}"


def locate(path: Path | str) -> Path:
    """The ``.safetensors`` file of a checkpoint given as that file or as the folder that holds it.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    file = path / f"{STEM}.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file() or not file.with_suffix(".json").is_file():
        raise CheckpointError(
            f"no checkpoint at {path}: expected a folder with {STEM}.safetensors and {STEM}.json,"
            " or such a .safetensors file"
        )
    return file


def load_metadata(path: Path | str) -> dict[str, Any]:
    """The json beside the tensors."""
    return json.loads(locate(path).with_suffix(".json").read_text())


def load_policy(path: Path | str) -> Any:
    """The policy, ready to ``act``."""
    return _load(path, "policy")


def load_scorer(path: Path | str) -> nn.Module | None:
    """The cost model (or another method's scorer) saved with the policy, or None where the method has none."""
    return None if load_metadata(path)["scorer"] is None else _load(path, "scorer")


def _load(path: Path | str, name: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    described = load_metadata(path)[name]
    package, class_name = described["class"].split(":")
    if package.split(".")[0] not in TRUSTED_PACKAGES:
        raise CheckpointError(f"{locate(path)} names the class {described['class']}, which is not of this suite")
    kind = getattr(importlib.import_module(FORMER_HOMES.get(package, package)), class_name)
    module = kind(make_generators([0], "shape"), **described["shape"])
    try:
        tensors = load_file(locate(path))
    except SafetensorError as error:
        raise CheckpointError(f"{locate(path)} is damaged ({error}); train the trial again") from None
    prefix = f"{name}."
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    module.load_state_dict(own)
    return module.requires_grad_(False).eval()
