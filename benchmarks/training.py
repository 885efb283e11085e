"""Training speed: steps/s of the methods' own loops, against the bare arithmetic, OSRL's trainer and a JAX loop.

    python benchmarks/training.py                          # about five minutes on 2 cores
    python benchmarks/training.py --only bc mil --replicas 1 5
    python benchmarks/training.py --precision medium       # ours in bfloat16, where the processor has it
    python benchmarks/training.py --device cuda --replicas 1 5 20 100 --precision high --json gpu.json

Needs torch, numpy and h5py alone (not installed: PYTHONPATH=. before the command). OSRL is measured where osrl-lib is
installed, the JAX loop where jax is. The limit of a step is the forward and backward pass of plain torch layers on a
batch that lies ready: no data, no optimizer. All networks are 256-256, 17 observations and 6 actions, as Walker2d has;
R replicas train packed.
"""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import ACTIONS, BATCH, HIDDEN, LENGTH, NONPREFERRED, OBSERVATIONS, SHAPES, UNLABELED, Bench
from measuring import arguments, finish, machine, rates, ratio, show
from torch import nn

from baselines.dwbc import DWBCConfig
from baselines.safedice import SafeDICEConfig
from safemil.config.settings import CostModelConfig, PolicyConfig, SafeMILConfig
from safemil.nn import precision


def osrl_rate(workers: int, threads: int) -> float:
    """Steps/s of OSRL's BC in a process of its own."""
    script = Path(__file__).with_name("osrl_yardstick.py")
    command = [sys.executable, str(script), "--workers", str(workers), "--threads", str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split()[-1])


def measure_cloning(bench: Bench, options, results: dict[str, Any]) -> None:
    """BC: ours packed, the limit, OSRL's."""
    work = {f"R={r}": bench.cloning(r, max(5, 400 // r)) for r in options.replicas}
    work["limit"] = bench.bare(OBSERVATIONS, ACTIONS, nn.ReLU, BATCH, 400)
    found = rates(work, options.rounds)
    if importlib.util.find_spec("osrl"):
        for workers in (0, 2):
            found[f"OSRL, {workers} workers"] = [osrl_rate(workers, options.threads) for _ in range(options.rounds)]
    if "R=1" in found:
        results["bc_vs_limit_ratio"] = ratio(found["R=1"], found["limit"])
        if "R=5" in found:
            results["packed5_vs_single_ratio"] = 5 * ratio(found["R=5"], found["R=1"])
        osrl = [own for name, own in found.items() if name.startswith("OSRL")]
        if osrl:
            results["bc_vs_osrl_ratio"] = min(ratio(found["R=1"], own) for own in osrl)
    tabulate(f"Behaviour cloning, batch {BATCH}", found, BATCH, results, "bc")


def measure_cost_model(bench: Bench, options, results: dict[str, Any]) -> None:
    """The cost step at several K x H, and its limits."""
    worst = []
    for bag_size, length in SHAPES:
        rows = 2 * bag_size * (LENGTH if length == "full" else int(length))
        n_steps = max(2, 200_000 // rows)
        replicas = options.replicas if length != "full" else [r for r in options.replicas if r == 1]
        work = {f"R={r}": bench.cost_model(r, bag_size, length, max(2, n_steps // r)) for r in replicas}
        work["limit"] = bench.bare(OBSERVATIONS + ACTIONS, 1, nn.ELU, rows, n_steps)
        found = rates(work, options.rounds)
        if "R=1" in found:
            worst.append(ratio(found["R=1"], found["limit"]))
        tabulate(f"SafeMIL's cost step, K={bag_size}, H={length}", found, rows, results, f"mil_{bag_size}x{length}")
    if worst:
        results["mil_vs_limit_ratio"] = min(worst)


def measure_others(bench: Bench, options, results: dict[str, Any]) -> None:
    """DWBC and SafeDICE by their own reports."""
    from baselines import dwbc, safedice

    found: dict[str, list[float]] = {}
    for r in options.replicas:
        n_steps = max(20, 200 // r)
        trained = {
            "DWBC": (dwbc.fit, shortened(DWBCConfig(), n_steps), ["policy"]),
            "SafeDICE": (safedice.fit, shortened(SafeDICEConfig(), n_steps), ["discriminator", "policy"]),
        }
        for name, (fit, config, stages) in trained.items():
            for stage in stages:
                found[f"{name}, {stage}, R={r}"] = [bench.fitted(fit, config, r, stage) for _ in range(options.rounds)]
    tabulate(f"Other methods, batch {BATCH}", found, BATCH, results, "others")


def shortened(config: Any, n_steps: int) -> Any:
    """A baseline's settings with few steps, the benchmark's batch and nothing else changed."""
    parts = {"policy": replace(config.policy, steps=n_steps, batch_size=BATCH)}
    if config.discriminator.steps:
        parts["discriminator"] = replace(config.discriminator, steps=n_steps)
    return replace(config, **parts)


def measure_joint(bench: Bench, options, results: dict[str, Any]) -> None:
    """SafeMIL's joint update (cost, then policy; K=128, H=5) against the same in one compiled JAX loop."""
    from safemil.algorithm.safemil import fit

    for r in options.replicas:
        n_steps = max(20, 300 // r)
        config = SafeMILConfig(
            mode="joint", cost_model=CostModelConfig(pairs=1), policy=PolicyConfig(steps=n_steps, schedule="linear")
        )
        work = {"torch": lambda config=config, r=r: bench.fitted(fit, config, r, "joint")}
        if importlib.util.find_spec("jax"):
            from jax_yardstick import joint_rate

            work["jax"] = lambda r=r, n_steps=n_steps: joint_rate(
                bench.split.trajectories, (NONPREFERRED, UNLABELED), HIDDEN, n_replicas=r, steps=n_steps
            )
        measured = {name: [] for name in work}
        for _ in range(options.rounds):
            for name, rate in work.items():
                measured[name].append(rate())
        if "jax" in measured:
            name = "mil_vs_jax_ratio" if r == 1 else f"mil_vs_jax_{r}_replicas"
            results[name] = ratio(measured["torch"], measured["jax"])
        tabulate(f"Joint update, K=128, H=5, R={r}", measured, 2 * 128 * 5 * r, results, f"joint_{r}")


def tabulate(title: str, found: dict[str, list[float]], rows: int, results: dict[str, Any], key: str) -> None:
    """One line per thing measured: median updates/s, updates/s of one replica, samples/s."""
    lines = []
    for name, own in found.items():
        middle = float(np.median(own))
        packed = int(name.rpartition("R=")[2]) if "R=" in name else 1
        lines.append([name, middle, middle * packed, middle * packed * rows])
        results.setdefault("updates_per_second", {})[f"{key}, {name}"] = own
    show(title, ["", "updates/s", "replica updates/s", "samples/s"], lines)


PARTS = {"bc": measure_cloning, "mil": measure_cost_model, "others": measure_others, "joint": measure_joint}


def main() -> int:
    """Measure the parts asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure (default: all)")
    parser.add_argument("--replicas", nargs="+", type=int, default=[1, 5], metavar="R", help="default: 1 5")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1, as a pack has)")
    precision.add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options.device, options.precision)
    results: dict[str, Any] = {
        "machine": machine(options.threads),
        "device": options.device,
        "precision": options.precision,
    }
    for part in options.only:
        PARTS[part](bench, options, results)
    results["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if options.device == "cuda":
        results["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(f"\npeak memory: {results['peak_memory_gib']:.2f} GiB")
    finish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
