"""The one training loop: draw a batch, let each objective take its step, keep metrics on the device, report in blocks.

Several objectives (safemil/training/objectives.py) in one loop take their steps in order on the same batch: SafeMIL's
joint mode cost, then policy; DWBC discriminator, then policy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from safemil.nn import precision
from safemil.nn.streams import BLOCK, sent
from safemil.training.capture import Updates
from safemil.training.checkpoint import StageState
from safemil.training.context import FitContext
from safemil.training.memory import keep_freed_memory
from safemil.training.objectives import Batch, Objective, schedule_factor
from safemil.training.stopping import EarlyStopping, Ended, HeldOutLoss


class TrainingError(RuntimeError):
    """Training diverged. Names the stage, the step and the replicas.

    A method that packs several networks for each seed lays those of one seed side by side, so that the seed of replica
    i of n is i * (number of seeds) // n.
    """

    def __init__(self, message: str, replicas: Sequence[int] = (), n_replicas: int = 1) -> None:
        super().__init__(message)
        self.replicas, self.n_replicas = tuple(replicas), n_replicas

    def seeds(self, n_seeds: int) -> list[int]:
        """Which of ``n_seeds`` seeds trained together diverged, by their position."""
        return sorted({replica * n_seeds // self.n_replicas for replica in self.replicas})


class Recorder(Protocol):
    """Takes note of the networks after the steps that it names; on going on after a crash, of each once more."""

    @property
    def steps(self) -> Collection[int]: ...

    def __call__(self, step: int) -> None: ...


def train(
    stage: str,
    objectives: Sequence[Objective],
    draw: Callable[[int], Batch],
    prepare: Callable[[Batch], Batch],
    context: FitContext,
    *,
    steps: int,
    recorder: Recorder | None = None,
    reports: int = 100,
    held_out: HeldOutLoss | None = None,
) -> Ended | None:
    """Run ``steps`` steps, or go on to them from where the context's checkpoint says an interrupted training stood.

    On a GPU updates are replayed (safemil/training/capture.py). So ``prepare`` and the losses must come to the same
    operations each time, and what changes between updates must be in the batch or in tensors that are written in place:
    a number that Python counts would stay what it was.

    Args:
        stage: name under which metrics are reported.
        objectives: take their steps in this order on each batch.
        draw: block length -> random numbers or indices with a leading axis of that length.
        prepare: one step's slice of a block -> batch (the gathers, on the device).
        context: device, precision, log and checkpoint; its seeds are those of ``draw``.
        recorder: called after the steps that it names.
        reports: how often metrics (means since the last report) are read back and passed to the log.
        held_out: the loss that the context's patience watches. With both, ``steps`` are the most that are taken,
            reports come with its looks, and there is one snapshot: of the parameters that were kept.

    Returns:
        How each replica ended, or None where the number of steps was fixed.

    Raises:
        TrainingError: a loss stopped being finite.
    """
    keep_freed_memory()
    every = max(1, steps // reports)
    stopping = None
    if context.patience is not None and held_out is not None:
        stopping = EarlyStopping(context.patience, [objective.values for objective in objectives], held_out)
    snapshots = () if recorder is None or stopping is not None else recorder.steps
    state = StageState(context.checkpoint, objectives, recorder, stopping.state() if stopping else ())
    done = first = state.restore()

    def update(inputs: Batch, active: Sequence[int]) -> None:
        batch = prepare(inputs)
        for number in active:
            objectives[number].optimizer.rate.copy_(inputs["rates"][number])
            objectives[number].step(batch)

    device = objectives[0].values.device
    on_gpu = device.type == "cuda"
    if on_gpu and steps >= context.compiled_from:
        torch.compiler.reset()  # an earlier stage may have compiled the same loss for parameters that lay elsewhere
        for objective in objectives:
            objective.compile()
    updates = Updates(update, device, captured=on_gpu and context.captured)
    with precision.training_at(context.precision, device.type):
        if stopping is not None and first == 0:
            stopping.begin()
        for _ in range(0, first, BLOCK):
            block = draw(BLOCK)
        for step in range(first, steps):
            if stopping is not None and stopping.over:
                break
            if step % BLOCK == 0:
                block = draw(BLOCK)
            if step % BLOCK == 0 or step == first:
                updates.load({**block, "rates": learning_rates(objectives, step, steps, device)}, step % BLOCK)
            active = tuple(number for number, objective in enumerate(objectives) if step % objective.period == 0)
            updates.run(active)
            for number in active:
                objectives[number].meter.count += 1
            done = step + 1
            reported = done % every == 0 or done == steps if stopping is None else stopping.due(done, steps)
            if reported:
                metrics = {name: values for objective in objectives for name, values in objective.meter.read().items()}
                if stopping is not None:
                    metrics[f"held_out_{objectives[0].name}_loss"] = stopping.look(done)
                context.log(stage, done, check_finite(stage, done, metrics))
            if recorder is not None and done in snapshots:
                recorder(done)
                state.snapshot(done)
            if reported:
                state.keep(done, last=done == steps or (stopping is not None and stopping.over))
    updates.captured.clear()  # they refer to it, and it to them: their memory would wait for Python to find the circle
    if stopping is None:
        return None
    ended = stopping.finish(done)
    if recorder is not None:
        recorder(done)
    return ended


def learning_rates(objectives: Sequence[Objective], step: int, steps: int, device: torch.device) -> Tensor:
    """Of each update of the block that ``step`` lies in, ``(BLOCK, n_objectives)``."""
    block = range(step // BLOCK * BLOCK, (step // BLOCK + 1) * BLOCK)
    rates = [[o.learning_rate * schedule_factor(o.schedule, min(n, steps), steps) for o in objectives] for n in block]
    return sent(torch.tensor(rates), device)


def check_finite(stage: str, step: int, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics as they are, unless a loss stopped being finite.

    Raises:
        TrainingError: one did; names the replicas.
    """
    for name, per_replica in metrics.items():
        if name.endswith("_loss") and not np.isfinite(per_replica).all():
            bad = np.flatnonzero(~np.isfinite(per_replica)).tolist()
            raise TrainingError(
                f"{stage}: {name} is not finite at step {step} in replica(s) {bad}; lower the learning rate"
                " or look for extreme values in the dataset",
                bad,
                len(per_replica),
            )
    return metrics
