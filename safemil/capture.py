"""On CUDA: the updates of the training loop as CUDA graphs, launched whole, so that no time passes between kernels.

A graph reads and writes the same memory each time it is replayed. So a block of random numbers is copied into tensors
that stay, a counter on the device says which update of the block is next, and parameters, gradients, learning rates and
metrics are tensors that stay anyway (safemil/training.py). No update may have shapes that depend on data, nor read
anything back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from safemil.objectives import Batch

WARM_UP = 3  # updates run kernel by kernel on a stream of their own before one is captured, as CUDA graphs require


class CapturedUpdates:
    """Replays ``update(inputs, active)``: one graph for each set of objectives that take part in an update."""

    def __init__(self, update: Callable[[Batch, Sequence[int]], None]) -> None:
        self.update = update
        self.block: Batch = {}
        self.graphs: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}
        self.eager_runs: dict[tuple[int, ...], int] = {}
        self.stream = torch.cuda.Stream()

    def load(self, block: Batch, first: int) -> None:
        """Take a block, of which update ``first`` is the next."""
        if not self.block:
            self.block = {name: values.clone() for name, values in block.items()}
            self.next = torch.zeros(1, dtype=torch.int64, device=block["rates"].device)
        for name, values in block.items():
            self.block[name].copy_(values)
        self.next.fill_(first)

    def run(self, active: tuple[int, ...]) -> None:
        """The next update, with those objectives that take part in it."""
        if active in self.graphs:
            self.graphs[active].replay()
            return
        runs = self.eager_runs.get(active, 0)
        if runs < WARM_UP:
            self.eager_runs[active] = runs + 1
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self._update(active)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update(active)
        self.graphs[active] = graph
        graph.replay()  # capturing does not run anything

    def _update(self, active: tuple[int, ...]) -> None:
        self.update({name: values.index_select(0, self.next).squeeze(0) for name, values in self.block.items()}, active)
        self.next += 1
