"""Training that goes on after a crash: the state of a method's training loops in one file, written now and then.

    checkpoint = TrainingCheckpoint(path, identity, records)
    fit(splits, config, FitContext(..., checkpoint=checkpoint))     the training loop keeps its state there
    checkpoint.delete()                                             once the result is on disk

A method may train in several stages; they are told apart by their order. A stage that had ended is not run again: its
networks are given their last values. Random numbers are not stored: the loop draws those of the steps it skips again,
so that the streams stand where they stood. The result equals that of an undisturbed training bit for bit. What a stage
changes besides its objectives' state would be lost; OSRL's methods have loops of their own and start from zero.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safemil.config.atomic import atomic_write, discard

logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """The state of a training in one file.

    Args:
        path: of that file; it need not exist.
        identity: what the state belongs to (trials, data, code). A file with another identity is not used.
        records: what was logged so far; kept with the state and put back in place.
        interval: seconds between two writes.
    """

    def __init__(self, path: Path, identity: str, records: list[Any], interval: float = 60.0) -> None:
        self.path, self.identity, self.records, self.interval = path, identity, records, interval
        self.began = self.wrote = time.monotonic()
        self.earlier_seconds = 0.0
        self.found: list[dict[str, Any]] = []  # stages of the interrupted training, taken in turn
        self.stages: list[dict[str, Any]] = []  # stages of this one
        self._read()

    @property
    def seconds(self) -> float:
        """Time trained so far, that of the interrupted training included as far as it is of use."""
        return self.earlier_seconds + time.monotonic() - self.began

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes torch raise
            logger.warning("%s is damaged (%s); training starts from zero", self.path, type(error).__name__)
            return
        if state["identity"] == self.identity:
            self.found, self.earlier_seconds = state["stages"], state["seconds"]
            self.records[:] = state["records"]

    def write(self) -> None:
        """Whole or not at all."""
        state = {"identity": self.identity, "seconds": self.seconds}
        content = as_bytes({**state, "stages": self.stages, "records": list(self.records)})
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(content)
        self.wrote = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self.wrote >= self.interval

    def delete(self) -> None:
        """Delete the file, and what a killed process left half-written of it."""
        discard(self.path)


class StageState:
    """One training loop as the checkpoint sees it; without a checkpoint, all of this does nothing."""

    def __init__(
        self,
        checkpoint: TrainingCheckpoint | None,
        objectives: Sequence[Any],
        on_snapshot: Callable[[int], Any] | None,
        more: Sequence[Tensor] = (),
    ) -> None:
        self.on_snapshot = on_snapshot
        self.values = [objective.values for objective in objectives]
        self.tensors = [tensor for objective in objectives for tensor in objective.state()] + list(more)
        self.checkpoint = checkpoint
        if checkpoint is not None:
            self.state: dict[str, Any] = {"step": 0, "snapshots": []}
            checkpoint.stages.append(self.state)

    def restore(self) -> int:
        """Put networks and optimizers where the interrupted training left them; returns the step to go on from."""
        if self.checkpoint is None or not self.checkpoint.found:
            return 0
        self.state.update(self.checkpoint.found.pop(0))
        for step, values in self.state["snapshots"]:
            put(self.values, values)
            if self.on_snapshot is not None:
                self.on_snapshot(step)
        put(self.tensors, self.state["tensors"])
        return self.state["step"]

    def snapshot(self, step: int) -> None:
        """To be called after ``on_snapshot(step)``."""
        if self.checkpoint is not None:
            self.state["snapshots"].append((step, copies(self.values)))

    def keep(self, step: int, *, last: bool) -> None:
        """To be called after ``log``: writes if it is time; a finished stage is remembered for later writes."""
        if self.checkpoint is None or not (last or self.checkpoint.due()):
            return
        self.state.update(step=step, tensors=copies(self.tensors))
        if self.checkpoint.due():
            self.checkpoint.write()


def as_bytes(state: dict[str, Any]) -> memoryview:
    """What ``torch.save`` would write; its own writing of a file does not say that a disk is full."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """On the CPU, as the tensors now are."""
    return [tensor.detach().cpu().clone() for tensor in tensors]


@torch.no_grad()
def put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Overwrite each tensor in place."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
