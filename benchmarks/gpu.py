"""Everything to be known of a GPU in one command: right, fast, end to end, and what the paper's grid would take there.

    python benchmarks/gpu.py --dataset SafetySwimmerVelocityGymnasium-v1-497-700.hdf5       # under 8 minutes
    python benchmarks/gpu.py --dataset FILE --wheels FOLDER      # a bare machine: what it lacks lies there as wheels
    python benchmarks/gpu.py --dataset FILE --only pack --updates 1000000
    python benchmarks/gpu.py --dataset FILE --device cpu --quick                           # any machine, a minute

    same      captured, uncaptured, resumed and on the CPU: every packed method gives the same policy
    pixels    the same for images, and updates/s at the size of BallCirclePixels
    rates     updates/s of each method against the number of replicas and the precision, beside the device's ceilings
    rivals    the JAX loop and OSRL's trainer on the same device
    pack      a pack of the paper's preset from the dataset file to its policies; its AUROC beside the CPU's
    grid      hours of the paper's grid, every stage of every label-limited method measured, then extrapolated

Needs torch, numpy, h5py, safetensors, filelock, requests, tqdm, pandas, rich, pytest and pydantic; osrl-lib and
fast-safe-rl with gymnasium, and jax, for `rivals`. Neither simulators nor a network nor pip. Figures go to
OUT/gpu.json, and as a page to OUT/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

SECTIONS = ("same", "pixels", "rates", "rivals", "grid", "pack")
ROOT = Path(__file__).resolve().parent.parent


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="DSRL file of --task, for `pack`")
    parser.add_argument("--task", default="SwimmerVelocity", help="default: SwimmerVelocity")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels to take what is not installed from")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all")
    parser.add_argument("--methods", nargs="+", default=(), metavar="M", help="of `same` (default: all)")
    parser.add_argument("--updates", type=int, default=10_000, metavar="N", help="of the pack (default 10,000)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings", help="of the pack")
    parser.add_argument(
        "--precision", default="high", choices=["highest", "high", "medium"], help="of `grid` (default high)"
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="few replicas, few updates: does it run?")
    return parser.parse_args()


def use_wheels(folder: Path | None) -> None:
    """Make the checkout, and what lies in the wheels, importable here and in processes started from here."""
    paths = [str(ROOT), str(ROOT / "benchmarks")]
    if folder is not None:
        unpacked = tempfile.mkdtemp(prefix="wheels-")
        for wheel in sorted(folder.glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(unpacked)
        paths.append(unpacked)
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs memory beside it


def sections(options: argparse.Namespace) -> dict[str, Any]:
    """Name -> what measures it. Imported one by one: a section that cannot run here leaves the others alone."""

    def same() -> Any:
        from gpu_same import compare_all

        return compare_all(options.device, options.methods, quick=options.quick)

    def pixels() -> Any:
        from gpu_pixels import measure_pixels

        return measure_pixels(options.device, quick=options.quick)

    def rates() -> Any:
        from gpu_rates import measure_rates

        return measure_rates(options.device, quick=options.quick)

    def rivals() -> Any:
        from gpu_rates import measure_rivals

        return measure_rivals(options.device, quick=options.quick)

    def grid() -> Any:
        from gpu_grid import paper_hours

        return paper_hours(options.device, options.precision, quick=options.quick)

    def pack() -> Any:
        from gpu_pack import compare_packs

        return compare_packs(options.dataset, options.task, options.updates, options.device, options.settings)

    return {name: own for name, own in locals().items() if name in options.only}


def device_name(device: str) -> str:
    """As its maker calls it."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def commit() -> str:
    """Of the checkout, if it is one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Measure; write the figures after each section, so that a machine that is taken away leaves what was found."""
    options = parse_arguments()
    options.dataset = options.dataset.resolve()
    use_wheels(options.wheels)
    from gpu_page import page
    from measuring import machine

    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "device": device_name(options.device),
        "machine": machine(),
        "seconds": {},
    }
    failed = False
    for name, measure in sections(options).items():
        print(f"--- {name}", flush=True)
        started = time.perf_counter()
        try:
            results[name] = measure()
        except Exception:
            failed = True
            results[name] = {"error": traceback.format_exc()}
            print(results[name]["error"], file=sys.stderr, flush=True)
        results["seconds"][name] = round(time.perf_counter() - started, 1)
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(results))
    print((options.out / "gpu.md").read_text())
    return int(failed or not all(own.get("passed", True) for own in results.values() if isinstance(own, dict)))


if __name__ == "__main__":
    sys.exit(main())
