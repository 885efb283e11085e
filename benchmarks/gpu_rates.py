"""Updates per second on a device: of each method against replicas and precision, of rivals, of the paper's grid."""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.registry import METHODS
from safemil.config.overrides import dotted_fields, override
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.training.context import FitContext

N_TRAJECTORIES, LENGTH, BATCH, HIDDEN = 250, 1000, 512, 256
REPLICAS, LEVELS = (1, 5, 20, 100, 400), ("highest", "medium")
VELOCITY, NAVIGATION = (17, 6), (60, 2)  # observations and actions, as of Walker2dVelocity and of PointGoal1
SIZES: dict[str, Any] = {"policy.batch_size": BATCH, "discriminator.batch_size": BATCH, "cost_model.pairs": 1}
Network = tuple[tuple[int, ...], int, bool]  # widths, rows, whether it is trained


@dataclass(frozen=True)
class Loop:
    """One training loop to be measured: a method, the stage of it, its networks' work in one update."""

    method: str
    stage: str
    settings: dict[str, Any] = field(default_factory=dict)
    networks: tuple[Network, ...] = ()


def widths(n_in: int, n_out: int) -> tuple[int, ...]:
    return n_in, HIDDEN, HIDDEN, n_out


_S, _A = VELOCITY
LOOPS: dict[str, Loop] = {
    "BC": Loop("bc-all", "policy", networks=((widths(_S, _A), BATCH, True),)),
    "cost model, K=128, H=5": Loop("safemil", "cost_model", networks=((widths(_S + _A, 1), 1280, True),)),
    "joint, K=128, H=5": Loop(
        "safemil",
        "joint",
        {"mode": "joint"},
        ((widths(_S + _A, 1), 1280, True), (widths(_S + _A, 1), 640, False), (widths(_S, _A), 640, True)),
    ),
    "DWBC": Loop(
        "dwbc",
        "policy",
        {"discriminator.steps": 0},
        ((widths(_S, 2 * _A), BATCH, True), (widths(_S, 2 * _A), BATCH, False), ((_S + _A, 128, 256), BATCH, False)),
    ),
    "SafeDICE, discriminator": Loop(
        "safedice", "discriminator", networks=((widths(_S + _A, 1), 2 * BATCH, True), (widths(_S + _A, 1), 1024, True))
    ),
    "SafeDICE, policy": Loop(
        "safedice",
        "policy",
        {"discriminator.steps": 20},
        ((widths(_S, 2 * _A), BATCH, True), (widths(_S, 1), 3 * BATCH, True), (widths(_S + _A, 1), BATCH, False)),
    ),
}


def split_of(sizes: tuple[int, int]) -> Split:
    """D_N and D_U of the default sizes, of random steps; a fifth of each held out."""
    rng, n = np.random.default_rng(0), N_TRAJECTORIES * LENGTH
    observations = rng.normal(size=(n, sizes[0])).astype(np.float32)
    actions = rng.uniform(-1, 1, (n, sizes[1])).astype(np.float32)
    ids = np.arange(N_TRAJECTORIES)
    data = Trajectories(observations, actions, np.arange(N_TRAJECTORIES + 1) * LENGTH)
    return Split(data, ids[:40], ids[50:210], ids[40:50], ids[210:])


class Measured(Exception):
    """Enough is known; the rest of the training is of no interest."""


class Stopwatch:
    """Stands in for the log of a training: times what lies between the reports of a stage, then profiles one interval.

    The first interval holds the warm-up and the capture of the updates, and is not counted.
    """

    def __init__(self, stage: str, seconds: float, *, profile: bool = False, last: bool = True) -> None:
        self.stage, self.seconds, self.profile, self.last = stage, seconds, profile, last
        self.marks: dict[str, list[tuple[int, float]]] = {}
        self.profiler: Any = None
        self.kernel_seconds: float | None = None  # of one update
        self.kernels = 0.0  # in one update

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        if self.profiler is not None:
            self.read_profile(step - self.profiled_from)
            raise Measured
        marks = self.marks.setdefault(stage, [])
        marks.append((step, time.perf_counter()))
        if stage == self.stage and len(marks) > 2 and marks[-1][1] - marks[0][1] >= self.seconds:
            if not self.profile:
                raise Measured
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.__enter__()
            self.profiled_from = step

    def read_profile(self, updates: int) -> None:
        """Sum of the kernels' own times."""
        self.profiler.__exit__(None, None, None)
        kernels = [event for event in self.profiler.events() if event.device_type.name == "CUDA"]
        self.kernel_seconds = sum(event.time_range.elapsed_us() for event in kernels) / 1e6 / updates
        self.kernels = len(kernels) / updates

    def rate(self, stage: str) -> float:
        """Updates per second of a stage."""
        (first, began), (last, ended) = self.marks[stage][0], self.marks[stage][-1]
        return (last - first) / (ended - began)


def timed(
    method: str, settings: dict[str, Any], split: Split, replicas: int, watch: Stopwatch, every: int, **context: Any
) -> Stopwatch:
    """Fit until the stopwatch has seen enough; a report every ``every`` updates. ``context``: device, precision."""
    settings = {"policy.normalize_observations": False, **settings}  # the same arithmetic; statistics take minutes
    own = METHODS[method]
    known = dotted_fields(own.config())
    config = override(own.config(), {name: value for name, value in settings.items() if name in known})
    for name in ("policy.steps", "cost_model.steps", "discriminator.steps"):
        if name in known and name not in settings:
            config = override(config, {name: 100 * every})
    with contextlib.suppress(Measured):
        own.load()([split] * replicas, config, FitContext(tuple(range(replicas)), log=watch, **context))
    gc.collect()
    if context["device"] == "cuda":
        torch.cuda.empty_cache()
    return watch


def ceilings(device: str) -> dict[str, float]:
    """Measured: bytes/s of a copy (read and written), FLOP/s of a large product in float32 and in bfloat16."""
    n = 8192 if device == "cuda" else 1024

    def seconds(work, repeats: int = 10) -> float:
        times = []
        for _ in range(repeats + 2):
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            times.append(time.perf_counter() - started)
        return float(np.median(times[2:]))

    torch.set_float32_matmul_precision("highest")
    source = torch.rand(n * n * (8 if device == "cuda" else 1), device=device)
    target = torch.empty_like(source)
    found = {"bytes_per_second": 2 * 4 * source.numel() / seconds(lambda: target.copy_(source))}
    for name, dtype in (("highest", torch.float32), ("medium", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        found[name] = 2 * n**3 / seconds(lambda a=a, b=b: a @ b)
    return found


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def least_work(networks: Sequence[Network]) -> tuple[float, float]:
    """FLOP and bytes of one replica's update: each product once, each layer's tensors read once and written once."""
    flop = moved = 0.0
    for sizes, rows, trained in networks:
        products = [a * b for a, b in zip(sizes, sizes[1:], strict=False)]
        flop += 2 * rows * (3 * sum(products) - products[0] if trained else sum(products))
        layers = sum(a + b for a, b in zip(sizes, sizes[1:], strict=False))
        moved += 4 * rows * (layers * 3 - sizes[0] if trained else layers) + 4 * sum(products) * (10 if trained else 1)
    return flop, moved


def measure_rates(device: str, *, quick: bool) -> dict[str, Any]:
    """Each loop, each number of replicas, both precisions; the time outside kernels where the device can tell."""
    split, found, tops = split_of(VELOCITY), [], ceilings(device)
    print({name: f"{value:.3g}" for name, value in tops.items()}, flush=True)
    replicas = (1, 2) if quick else REPLICAS if device == "cuda" else (1, 5)
    for (name, loop), level, r in (
        (item, level, r) for item in LOOPS.items() for level in LEVELS[: 1 if quick else 2] for r in replicas
    ):
        profile = device == "cuda"
        watch = Stopwatch(loop.stage, 0.01 if quick else 0.6, profile=profile)
        row: dict[str, Any] = {"loop": name, "precision": level, "replicas": r}
        try:
            settings = {**SIZES, **loop.settings}
            timed(loop.method, settings, split, r, watch, 1 if quick else 64, device=device, precision=level)
            flop, moved = least_work(loop.networks)
            seconds = 1 / watch.rate(loop.stage)
            row |= {"updates_per_second": 1 / seconds, "replica_updates_per_second": r / seconds}
            row |= {"share_of_matrix_ceiling": r * flop / seconds / tops[level]}
            row |= {"share_of_bandwidth": r * moved / seconds / tops["bytes_per_second"]}
            if watch.kernel_seconds is not None:
                row |= {"outside_kernels": 1 - watch.kernel_seconds / seconds, "kernels": watch.kernels}
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        found.append(row)
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    return {"ceilings": tops, "rows": found}


def measure_rivals(device: str, *, quick: bool) -> dict[str, Any]:
    """OSRL's trainer (one seed, fed by its own loader) and the JAX loop, each in a process of its own."""
    here, found = Path(__file__).parent, {}

    def run(key: str, script: str, *arguments: str) -> None:
        command = [sys.executable, str(here / script), *arguments, "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        ok = done.returncode == 0
        found[key] = json.loads(done.stdout.splitlines()[-1]) if ok else {"error": done.stderr[-2000:]}
        print(key, found[key], flush=True)

    for workers in (0,) if quick else (0, 4):
        run(f"osrl, {workers} workers", "osrl_yardstick.py", "--workers", str(workers), "--steps", "150")
    replicas, steps = (("1",), "20") if quick else (("1", "5", "100"), "1000")
    for level in LEVELS[: 1 if quick else 2]:
        run(f"jax, {level}", "jax_yardstick.py", "--replicas", *replicas, "--steps", steps, "--precision", level)
    return found
