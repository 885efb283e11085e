"""What a grid will take, before it starts: hours of training and of rollouts, memory and disk per task.

Every rate is in tune/rates.json with where it was measured; rates of training are those of one core ("cpu") and of a
GPU ("cuda"). Times are sums over packs, so they do not depend on how many run side
by side. Needs no torch.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safemil.data.tasks import find_task
from tune.trials import Trial, packs

FULL_SEGMENT = "full"


@functools.cache
def rates() -> dict[str, Any]:
    """The measured rates."""
    return json.loads((Path(__file__).parent / "rates.json").read_text())


@dataclass(frozen=True)
class Estimate:
    """Of some trials; hours add up, memory is that of the largest pack."""

    training_hours: float = 0.0  # of one core, or of one GPU
    rollout_hours: float = 0.0  # of one core
    memory: float = 0.0  # bytes of one pack's process
    disk: float = 0.0  # bytes

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.training_hours + other.training_hours,
            self.rollout_hours + other.rollout_hours,
            max(self.memory, other.memory),
            self.disk + other.disk,
        )


def estimate(trials: Sequence[Trial], device: str = "cpu") -> dict[str, Estimate]:
    """Task -> what its trials take, trained on ``device``."""
    per_task: dict[str, Estimate] = {}
    for pack in packs(trials):
        per_task[pack[0].task] = per_task.get(pack[0].task, Estimate()) + of_pack(pack, device)
    return per_task


def of_pack(pack: Sequence[Trial], device: str = "cpu") -> Estimate:
    """What one pack takes."""
    trial, n = pack[0], len(pack)
    evaluation, task = trial.evaluation, find_task(trial.task)
    earlier = evaluation.checkpoints - 1
    episodes = evaluation.episodes + earlier * evaluation.checkpoint_episodes
    simulator = rates()["simulator"]
    speed = simulator["steps_per_second"].get(task.base, simulator["otherwise"])
    rollout_seconds = n * episodes * (task.horizon / speed + simulator["reset_seconds"][task.family])
    files = rates()["bytes"]
    dataset = task.n_trajectories * task.horizon * task.step_bytes
    return Estimate(
        training_seconds(trial, n, device) / 3600,
        rollout_seconds / 3600,
        files["process"] + files["dataset_copies"] * dataset,
        n * (files["trial"] + files["snapshot"] * evaluation.checkpoints + files["episode"] * episodes),
    )


def training_seconds(trial: Trial, n_seeds: int, device: str = "cpu") -> float:
    """For all seeds of a pack; a stage costs so much a step, and so much a step and row of each network."""
    config, measured = trial.config, rates()["training"][device]
    total = 0.0
    for stage, steps, rows, networks in stages(trial):
        rate = measured.get(stage)
        if rate is None:  # on a GPU not every method was measured
            return math.nan
        total += steps * (rate["step_ms"] + rate["row_us"] / 1e3 * rows * networks * n_seeds) / 1e3
    if trial.method.startswith("osrl-"):  # not packed
        rate = measured.get(trial.method)  # OSRL's loops on a GPU: not measured
        if rate is None:
            return math.nan
        step_ms = rate["step_ms"] + rate["row_us"] / 1e3 * config.policy.batch_size
        total += n_seeds * config.policy.steps * step_ms / 1e3
    return total


def stages(trial: Trial) -> list[tuple[str, int, int, int]]:
    """(family of the rate, steps, rows a step and network, networks of a seed) of each stage of a packed method."""
    config, task = trial.config, find_task(trial.task)
    if trial.method.startswith("osrl-"):
        return []
    parts = []
    joint = getattr(config, "mode", "") == "joint"
    if hasattr(config, "cost_model"):
        cost = config.cost_model
        length = task.horizon if cost.segment_length == FULL_SEGMENT else int(cost.segment_length)
        rows = 2 * getattr(cost, "pairs", 1) * getattr(cost, "bag_size", getattr(cost, "batch_size", 1)) * length
        family = "osil cost_model" if trial.method == "osil" else "cost_model"
        parts.append((family, config.policy.steps if joint else cost.steps, rows, getattr(config, "ensemble", 1)))
        if joint:  # the policy learns from the same segments of D_U
            return [*parts, ("cloning", config.policy.steps, rows // 2, 1)]
    if hasattr(config, "discriminator"):
        settings = config.discriminator
        batch = getattr(settings, "batch_size", config.policy.batch_size)
        parts.append((f"{trial.method.split('-')[0]} discriminator", settings.steps, batch, 1))
    if hasattr(config, "critic"):
        steps = config.critic.updates * config.policy.steps
        parts.append((f"{trial.method} critic", steps, config.policy.batch_size, 1))
        if trial.method == "osil":  # its policy learns on the critic's batches
            return parts
    family = trial.method.split("-")[0] if trial.method.split("-")[0] in ("dwbc", "safedice") else "cloning"
    return [*parts, (family, config.policy.steps, config.policy.batch_size, 2 if trial.method == "dexperts" else 1)]
