"""Whole trainings on all cores: five seeds from process start to policies, against OSRL's, JAX's, and busy neighbours.

    python benchmarks/whole.py                             # some six minutes on two cores
    python benchmarks/whole.py --precision medium --json whole.json

Ours is what tune/run.py does where there are fewer packs than cores: the seeds dealt out to one process a core, each of
one thread. OSRL's BC trains as its scripts do, a process a seed, as many at a time as there are cores. JAX's joint loop
(jax_yardstick.py) trains all seeds as one compiled loop that has all cores. Busy is the same joint training of ours
beside one spinning process a core. Times include imports and, for JAX, compiling. OSRL is measured where osrl-lib is
installed, JAX where jax is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import arguments, finish, machine, ratio, show

SEEDS, FOLDER = 5, Path(__file__).parent
Command = Sequence[str]


def run_all(commands: Sequence[Command], at_once: int) -> float:
    """Seconds until all have ended, ``at_once`` side by side."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])}
    began, waiting, running = time.perf_counter(), list(commands), []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(subprocess.Popen(waiting.pop(0), stdout=subprocess.DEVNULL, env=environment))
        time.sleep(0.02)
        for process in [own for own in running if own.poll() is not None]:
            running.remove(process)
            if process.returncode:
                raise RuntimeError(f"{' '.join(map(str, process.args))} failed")
    return time.perf_counter() - began


@contextlib.contextmanager
def spinning(cores: int) -> Iterator[None]:
    """One process a core that does nothing but count."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ours(what: str, steps: int, cores: int, precision: str) -> list[Command]:
    """Seeds dealt out to one process a core."""
    shares = [len(range(core, SEEDS, cores)) for core in range(min(cores, SEEDS))]
    own = [sys.executable, str(FOLDER / "whole.py"), "--train", what, "--steps", str(steps), "--precision", precision]
    return [[*own, "--replicas", str(share)] for share in shares]


def train_here(what: str, steps: int, replicas: int, precision: str) -> None:
    """One process's share of a training of ours."""
    import torch
    from bench import BATCH, dataset, split_of

    from baselines import bc
    from safemil.algorithm import safemil
    from safemil.config.settings import CostModelConfig, PolicyConfig, SafeMILConfig
    from safemil.training.context import FitContext

    torch.set_num_threads(1)
    splits = [split_of(dataset())] * replicas
    context = FitContext(tuple(range(replicas)), precision=precision)
    policy = PolicyConfig(steps=steps)
    if what == "cloning":
        bc.fit(splits, bc.BCConfig(policy=replace(policy, batch_size=BATCH)), context)
    else:
        safemil.fit(splits, SafeMILConfig(mode="joint", cost_model=CostModelConfig(pairs=1), policy=policy), context)


def main() -> int:
    """Time the trainings in turns."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="updates of each seed (default 1000)")
    parser.add_argument("--precision", default="highest", choices=["highest", "medium"])
    parser.add_argument("--train", choices=["cloning", "joint"], help=argparse.SUPPRESS)
    parser.add_argument("--replicas", type=int, default=SEEDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train_here(options.train, options.steps, options.replicas, options.precision)
        return 0
    cores, steps = len(os.sched_getaffinity(0)), str(options.steps)
    osrl = [sys.executable, str(FOLDER / "osrl_yardstick.py"), "--steps", steps, "--threads", "1"]
    jax = [
        sys.executable,
        str(FOLDER / "jax_yardstick.py"),
        "--whole",
        "--steps",
        steps,
        "--precision",
        options.precision,
    ]
    work: dict[str, tuple[list[Command], int]] = {
        "cloning": (ours("cloning", options.steps, cores, options.precision), cores),
        "cloning, OSRL": ([osrl] * SEEDS, cores),
        "joint": (ours("joint", options.steps, cores, options.precision), cores),
        "joint, JAX": ([[*jax, "--replicas", str(SEEDS)]], 1),
    }
    for name, package in (("cloning, OSRL", "osrl"), ("joint, JAX", "jax")):
        if importlib.util.find_spec(package) is None:
            del work[name]
    seconds: dict[str, list[float]] = {name: [] for name in [*work, "joint, busy"]}
    for _ in range(options.rounds):
        for name, (commands, at_once) in work.items():
            seconds[name].append(run_all(commands, at_once))
        with spinning(cores):
            seconds["joint, busy"].append(run_all(*work["joint"]))
    results: dict[str, Any] = {"machine": machine(1), "steps": options.steps, "precision": options.precision}
    pairs = {
        "train_vs_osrl_ratio": ("cloning, OSRL", "cloning"),
        "joint_vs_jax_ratio": ("joint, JAX", "joint"),
        "busy_slowdown_ratio": ("joint, busy", "joint"),
    }
    for key, (above, below) in pairs.items():
        if above in seconds:
            results[key] = ratio(seconds[above], seconds[below])
    results["seconds"] = seconds
    show(
        f"Whole trainings of {SEEDS} seeds, {options.steps} updates, {cores} cores",
        ["", "seconds"],
        [[name, sorted(own)[len(own) // 2]] for name, own in seconds.items()],
    )
    finish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
