"""What the benchmarks share: several things timed in turns, so that a busy machine slows all alike; table and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any


def rates(work: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Time each piece of work ``rounds`` times, in turns, after one run each that is not counted.

    Args:
        work: name -> a function that does some work and says how much of it (steps, say).

    Returns:
        name -> amount per second, one figure per round.
    """
    measured: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            started = time.perf_counter()
            amount = run()
            if number:
                measured[name].append(amount / (time.perf_counter() - started))
    return measured


def ratio(above: list[float], below: list[float]) -> float:
    """Median over the rounds of above / below: each ratio is of two measurements made one after the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def slope(sizes: list[float], seconds: list[float]) -> float:
    """Exponent b of seconds ~ size^b by least squares on the logarithms."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def machine(threads: int | None = None) -> dict[str, Any]:
    """Where and when; versions of what matters."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "numpy", "jax", "osrl-lib", "ray", "mujoco", "pybullet"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": date.today().isoformat(),
        "processor": platform.machine(),
        "cores": cores,
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }


def arguments(description: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser with what every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"repetitions (default {rounds})")
    return parser


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table on screen; numbers to three digits."""
    texts = [[f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    print(f"\n{title}")
    for first, *others in [columns, *texts]:
        numbers = (value.rjust(width) for value, width in zip(others, widths[1:], strict=True))
        print("  " + "  ".join([first.ljust(widths[0]), *numbers]))


def finish(results: dict[str, Any], path: Path | None) -> None:
    """Print the ratios; write everything as JSON."""
    for name, value in results.items():
        if name.endswith("_ratio"):
            print(f"{name}: {value:.2f}")
    if path is not None:
        path.write_text(json.dumps(results, indent=2) + "\n")
