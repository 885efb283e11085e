"""A learned policy (and its cost model) on disk: tensors in safetensors, everything else in json beside it; no pickle.

<folder>/policy.safetensors   policy.*, scorer.* tensors, one replica each
<folder>/policy.json          {"policy": its class and shape, "scorer": the same or null, "sha256": .., "task": ..}

A checkpoint may come from anybody: it names a network of this suite or is refused, its networks are no larger than its
tensors, and a damaged byte in what the networks are made of is noticed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError, printable
from safemil.nn.streams import make_generators

STEM = "policy"
NETWORK = re.compile(r"((?:safemil|baselines)(?:\.\w+)+):(\w+)")  # of these packages alone is anything imported
MOST_BESIDE = 1 << 24  # bytes that building a network may need beside its tensors
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
    described: dict[str, Any] = {
        name: {"class": class_path(module), "shape": module.shape} for name, module in modules.items()
    }
    tensors = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    path = folder / f"{stem}.safetensors"
    with atomic_write(path) as half, atomic_write(folder / f"{stem}.json") as half_described:
        half.write_bytes(as_bytes(tensors))  # its own writing of files gives them to their owner alone
        described["sha256"] = _digest(half, described)
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


def load_metadata(path: Path | str, **expected: type | tuple[type, ...]) -> dict[str, Any]:
    """The json beside the tensors; ``expected`` are the types of the entries that must be there.

    Raises:
        CheckpointError: there is no checkpoint, or its json is damaged.
    """
    file = locate(path).with_suffix(".json")
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({printable(error, 80)}); train the trial again") from None
    for name, kind in expected.items():
        if not isinstance(described, dict) or name not in described or not isinstance(described[name], kind):
            raise CheckpointError(f"{file} is damaged: {name!r} is missing or not of its type; train the trial again")
    return described


def load_policy(path: Path | str) -> Any:
    """The policy, ready to ``act``.

    Raises:
        CheckpointError: there is none, it is damaged, or it names something else than a network of this suite.
    """
    return _load(path, "policy")


def load_scorer(path: Path | str) -> nn.Module | None:
    """The cost model (or another method's scorer) saved with the policy, or None where the method has none."""
    return None if load_metadata(path, scorer=(dict, type(None)))["scorer"] is None else _load(path, "scorer")


def _load(path: Path | str, name: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file, described = locate(path), load_metadata(path, **{name: dict})
    if described.get("sha256", "") not in ("", _digest(file, described)):
        raise CheckpointError(f"{file} is damaged, or belongs to another policy.json; train the trial again")
    kind = _network_class(file, described[name].get("class"))
    try:
        tensors = load_file(file)
        with _Bounded(2 * file.stat().st_size + MOST_BESIDE):
            module = kind(make_generators([0], "shape"), **described[name]["shape"])
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        module.load_state_dict(
            {key.replace("normalizer.", "encoder."): value for key, value in own.items()}
        )  # its old name
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged ({printable(error, 80)}); train the trial again") from None
    except Exception as error:  # whatever a constructor makes of a damaged shape
        found = printable(f"{type(error).__name__}: {error}", 120)
        raise CheckpointError(f"{file} does not fit the {name} in its json ({found}); train the trial again") from error
    return module.requires_grad_(False).eval()


def _network_class(file: Path, named: Any) -> type[nn.Module]:
    """The class that a checkpoint names, if it is a network of this suite."""
    match = NETWORK.fullmatch(named) if isinstance(named, str) else None
    kind = None
    if match:
        home = FORMER_HOMES.get(match[1], match[1])
        try:
            kind = getattr(importlib.import_module(home), match[2], None)
        except ImportError as error:
            raise CheckpointError(
                f"{file}: {printable(named, 80)} cannot be imported ({printable(error, 80)})"
            ) from None
        if not (isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == home):
            kind = None
    if kind is None:
        raise CheckpointError(f"{file} names the class {printable(named, 80)}, which is not of this suite's networks")
    return kind


def _digest(file: Path, described: dict[str, Any]) -> str:
    """SHA-256 of the tensors and of the shapes of the networks that they are loaded into."""
    shapes = {
        name: described[name].get("shape") for name in ("policy", "scorer") if isinstance(described.get(name), dict)
    }
    return hashlib.sha256(file.read_bytes() + json.dumps(shapes, sort_keys=True).encode()).hexdigest()


class _Bounded(TorchDispatchMode):
    """In here no more numbers are allocated than fit into so many bytes, whatever shapes are asked for."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__()
        self.left = n_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else ()
        sizes = first if isinstance(first, list | tuple) else [first]
        if sizes and all(isinstance(size, int) for size in sizes):
            self.left -= 4 * math.prod(sizes)
        if self.left < 0:
            raise ValueError("it describes a larger network than the tensors are of")
        return func(*args, **(kwargs or {}))
