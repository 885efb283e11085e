"""Images on a device: the same policies however they are trained, and updates/s at the size of BallCirclePixels."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np
from gpu_rates import Stopwatch, timed

from baselines.registry import METHODS
from safemil.config.overrides import override
from safemil.data.splits import Split, split_of_sets
from safemil.data.trajectories import Trajectories
from safemil.training.context import FitContext
from tests.test_pixels import blobs, both, small

CASES: list[tuple[str, dict[str, Any]]] = [
    ("safemil", {}),
    ("safemil", {"mode": "joint"}),
    ("dwbc", {}),
    ("safedice", {}),
    ("uniq", {}),
    ("osil", {}),
    ("bc-all", {}),
]
LOOPS = [
    ("safemil", "cost_model", {"cost_model.bag_size": 16}),
    ("safemil", "cost_model", {"cost_model.bag_size": 64}),
    ("bc-all", "policy", {"policy.batch_size": 128}),
]
TOLERANCE = 1e-2  # of actions in [-1, 1], to a CPU's and to compiled ones, after 20 updates


def learned(name: str, settings: dict[str, Any], **context: Any) -> np.ndarray:
    """Actions of two seeds' policies on the same images."""
    rng = np.random.default_rng(0)
    sets = blobs(10, 0.6, rng), both(blobs(10, 0.6, rng), blobs(10, -0.6, rng))
    splits = [split_of_sets(*sets, seed=seed, held_out=0.2) for seed in (0, 1)]
    config = override(small(METHODS[name].config(), 20), settings)
    results = METHODS[name].load()(splits, config, FitContext((0, 1), **context))
    return np.stack([own.policy.act(sets[1].observations[:100]) for own in results])


def frames(n: int, length: int) -> Split:
    """Noise of the size of two stacked frames of 64 x 64, three colors."""
    rng, ids = np.random.default_rng(0), np.arange(n)
    observations = rng.integers(0, 255, (n * length, 64, 64, 6), dtype=np.uint8)
    actions = rng.uniform(-1, 1, (n * length, 2)).astype(np.float32)
    data = Trajectories(observations, actions, np.arange(n + 1) * length)
    return Split(data, ids[: n // 4], ids[n // 2 :], ids[n // 4 : n // 3], ids[n // 3 : n // 2])


def measure_pixels(device: str, *, quick: bool) -> dict[str, Any]:
    """Largest differences of actions, and rates."""
    ways: dict[str, dict[str, Any]] = {"again": {"device": device}}
    if device == "cuda":
        ways |= {"uncaptured": {"device": device, "captured": False}, "cpu": {}}
        ways["compiled"] = {"device": device, "compiled_from": 1}
    differences: dict[str, Any] = {}
    for name, settings in CASES[:1] if quick else CASES:
        label = " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
        expected = learned(name, settings, device=device)
        differences[label] = {
            way: float(np.abs(learned(name, settings, **context) - expected).max()) for way, context in ways.items()
        }
        print(label, differences[label], flush=True)
    split, rows = frames(12, 20) if quick else frames(60, 200), []
    for method, stage, settings in LOOPS[:1] if quick else LOOPS:
        for replicas in (1,) if quick else (1, 5):
            watch = Stopwatch(stage, 0.01 if quick else 1.0)
            own = {"cost_model.pairs": 1, "cost_model.segment_length": 5, **settings}
            row: dict[str, Any] = {"method": method, "stage": stage, **settings, "replicas": replicas}
            try:
                timed(method, own, split, replicas, watch, 1 if quick else 16, device=device, precision="highest")
                row["updates_per_second"] = watch.rate(stage)
            except RuntimeError:  # as where memory ends
                row["error"] = traceback.format_exc()
            rows.append(row)
            print(row, flush=True)
    passed = all(value <= TOLERANCE for own in differences.values() for value in own.values())
    return {"differences": differences, "tolerance": TOLERANCE, "rates": rows, "passed": passed}
