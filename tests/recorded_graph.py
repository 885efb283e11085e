"""A double of ``torch.cuda.CUDAGraph`` that any machine can run: it records operations and replays them.

As on a GPU, capturing changes nothing; a replay reads and writes the very memory that the captured operations read and
wrote, with whatever Python values they were given; and what a graph cannot hold is an error: shapes that depend on
data, values read back, random numbers, tensors made from Python values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put_}  # of a fixed shape unless by a mask
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # its only draws would be dropout
NEVER_THE_SAME = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)


def tensors(nested: Any) -> list[Tensor]:
    """Those in an operation's arguments or result."""
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def can_be_repeated(operation: torch._ops.OpOverload, arguments: tuple) -> bool:
    """Not if it reads data back, has a shape that depends on data, draws, or makes a tensor from Python's values."""
    if operation is torch.ops.aten.lift_fresh.default:
        return False
    if operation.overloadpacket in INDEXING:
        return not any(index.dtype in (torch.bool, torch.uint8) for index in tensors(arguments[1]))
    return operation.overloadpacket is ATTENTION or not any(tag in operation.tags for tag in NEVER_THE_SAME)


class RecordedGraph(TorchDispatchMode):
    """Records within ``with``; ``replay`` as often as wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []
        self.overwritten: list[tuple[Tensor, Tensor]] = []
        self.replays = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        options = options or {}
        if not can_be_repeated(operation, arguments):
            raise RuntimeError(
                f"{operation} cannot be captured: it reads data back, or draws, or its shape depends on data"
            )
        with torch.no_grad():
            self.overwritten += [(own, own.clone()) for own in written(operation, arguments, options)]
        result = operation(*arguments, **options)
        self.operations.append((operation, arguments, options, result))
        return result

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        with torch.no_grad():
            for own, before in reversed(self.overwritten):
                own.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Run all operations into the memory they had, as they were recorded: casts are among them already."""
        for operation, arguments, options, result in self.operations:
            with torch.autocast("cpu", enabled=False):
                new = operation(*arguments, **options)
            for old, own in zip(tensors(result), tensors(new), strict=True):
                if old.data_ptr() != own.data_ptr():  # neither a view nor in place
                    old.copy_(own)
        self.replays += 1


def written(operation, arguments, options) -> list[Tensor]:
    """The tensors that an operation writes to."""
    found = []
    for number, own in enumerate(operation._schema.arguments):
        if own.alias_info is not None and own.alias_info.is_write:
            found += tensors(arguments[number] if number < len(arguments) else options.get(own.name))
    return found


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


@contextlib.contextmanager
def captured_training() -> Iterator[list[RecordedGraph]]:
    """In here training loops run as on CUDA; yields the graphs they made."""
    from safemil.training.capture import Updates

    graphs: list[RecordedGraph] = []

    def make_graph() -> RecordedGraph:
        graphs.append(RecordedGraph())
        return graphs[-1]

    def as_on_cuda(update, device) -> Updates:
        return Updates(update, device, captured=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safemil.training.loop.Updates", lambda update, device, captured: as_on_cuda(update, device))
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "current_stream", Stream)
        patch.setattr(torch.cuda, "stream", contextlib.nullcontext)
        patch.setattr(torch.cuda, "CUDAGraph", make_graph)
        patch.setattr(torch.cuda, "graph", lambda graph: graph)
        yield graphs
