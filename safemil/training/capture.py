"""The updates of the training loop on a GPU, run whole: each recorded once as a CUDA graph, then replayed.

A replay spends no time between kernels, and reads and writes the same memory each time. So a block of random numbers
is copied into tensors that stay, a counter on the device says which update of the block is next, and parameters,
gradients, learning rates and metrics are tensors that stay anyway (safemil/training/loop.py). No update may have shapes
that depend on data, nor read anything back. On a CPU updates are run as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from safemil.training.objectives import Batch

WARM_UP = 3  # updates run kernel by kernel on a stream of their own before one is captured, as CUDA graphs require


class Updates:
    """Runs ``update(inputs, active)`` again and again: one capture for each set of objectives that take part in it."""

    def __init__(self, update: Callable[[Batch, Sequence[int]], None], device: torch.device, *, captured: bool) -> None:
        self.update, self.capture = update, CudaUpdate if captured else lambda once: once
        self.block: Batch = {}
        self.next = torch.zeros(1, dtype=torch.int64, device=device)
        self.captured: dict[tuple[int, ...], Callable[[], None]] = {}

    def load(self, block: Batch, first: int) -> None:
        """Take a block, of which update ``first`` is the next."""
        if not self.block:
            self.block = {name: values.clone() for name, values in block.items()}
        for name, values in block.items():
            self.block[name].copy_(values)
        self.next.fill_(first)

    def run(self, active: tuple[int, ...]) -> None:
        """The next update, with those objectives that take part in it."""
        if active not in self.captured:
            self.captured[active] = self.capture(functools.partial(self._update, active))
        self.captured[active]()

    def _update(self, active: tuple[int, ...]) -> None:
        self.update({name: values.index_select(0, self.next).squeeze(0) for name, values in self.block.items()}, active)
        self.next += 1


class CudaUpdate:
    """Calls of ``update``, which takes and gives nothing: the first ones as they are, then replays of a CUDA graph."""

    def __init__(self, update: Callable[[], None]) -> None:
        self.update, self.runs = update, 0
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.graph is None and self.runs < WARM_UP:
            self.runs += 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.update()
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:  # capturing does not run anything
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.update()
        self.graph.replay()
