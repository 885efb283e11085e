"""The figures of benchmarks/gpu.py as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def page(results: dict[str, Any]) -> str:
    """Every section that was measured."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"# {results['device']}, {machine['date']}",
        "",
        f"`{results['command']}`, commit {results['commit'] or 'unknown'}; Python {machine['python']}, {versions};"
        f" {machine['cores']} cores. Seconds: "
        + ", ".join(f"{name} {seconds:.0f}" for name, seconds in results["seconds"].items())
        + ".",
    ]
    for name, write in PARTS.items():
        if name in results:
            own = results[name]
            lines += ["", f"## {TITLES[name]}", ""]
            lines += ["```", own["error"].strip(), "```"] if "error" in own else write(own)
    return "\n".join(lines) + "\n"


def table(columns: list[str], rows: list[list[Any]]) -> list[str]:
    """Numbers to three digits."""
    texts = [[f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *texts]]


def share(row: dict[str, Any], name: str) -> str:
    """As per cent, where it was measured."""
    return f"{row[name]:.0%}" if name in row else "–"


def write_same(own: dict[str, Any]) -> list[str]:
    ways = list(next(iter(own["differences"].values())))
    rows = [
        [name, *(found.get(way, found.get("error", "–")) for way in ways)] for name, found in own["differences"].items()
    ]
    limits = ", ".join(f"{way} {limit:g}" for way, limit in own["tolerances"].items())
    return [
        f"Largest difference between the actions of captured policies and the others'; tolerances: {limits}."
        f" {'All within.' if own['passed'] else 'NOT all within.'}",
        "",
        *table(["method", *ways], rows),
    ]


def write_rates(own: dict[str, Any]) -> list[str]:
    tops = own["ceilings"]
    rows = [
        [
            row["loop"],
            row["precision"],
            row["replicas"],
            row.get("updates_per_second", row.get("error", "")),
            row.get("replica_updates_per_second", "–"),
            share(row, "share_of_matrix_ceiling"),
            share(row, "share_of_bandwidth"),
            share(row, "outside_kernels"),
            f"{row['kernels']:.0f}" if "kernels" in row else "–",
        ]
        for row in own["rows"]
    ]
    return [
        f"Ceilings, measured: copies {tops['bytes_per_second'] / 1e12:.2f} TB/s, float32 products"
        f" {tops['highest'] / 1e12:.1f} TFLOP/s, bfloat16 products {tops['medium'] / 1e12:.0f} TFLOP/s. Shares are of"
        " the least work of an update: each product once, each layer's tensors read and written once.",
        "",
        *table(
            ["loop", "precision", "R", "updates/s", "replica updates/s", "of products", "of copies", "outside kernels"]
            + ["kernels"],
            rows,
        ),
    ]


def write_pixels(own: dict[str, Any]) -> list[str]:
    ways = list(next(iter(own["differences"].values())))
    columns = list(dict.fromkeys(name for row in own["rates"] for name in row))
    return [
        f"Images: largest difference between actions, tolerance {own['tolerance']:g}.",
        "",
        *table(["method", *ways], [[name, *found.values()] for name, found in own["differences"].items()]),
        "",
        *table(columns, [[row.get(column, "") for column in columns] for row in own["rates"]]),
    ]


def write_rivals(own: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in own.items():
        if not isinstance(found, dict):
            rows.append([name, 1, float(found), float(found)])
        elif "error" in found:
            rows.append([name, "", "failed: " + found["error"].strip().splitlines()[-1], ""])
        else:
            rows += [[name, r, float(rate), float(rate) * int(r)] for r, rate in found.items()]
    return table(["rival", "R", "updates/s", "replica updates/s"], rows)


def write_grid(own: dict[str, Any]) -> list[str]:
    columns = ["method", "stage", "H", "updates", "updates_per_second", "hours_of_three_tasks"]
    return [
        f"Five seeds a pack, precision {own['precision']}, updates compiled; {own['hours']:.1f} hours of this device"
        " for six tasks.",
        "",
        *table(columns, [[row[column] for column in columns] for row in own["rows"]]),
    ]


def write_pack(own: dict[str, Any]) -> list[str]:
    pairs = [(f"AUROC, seed {number}", a, b) for number, (a, b) in enumerate(zip(own["device_auroc"], own["cpu_auroc"],
                                                                               strict=True))]  # fmt: skip
    times = [(key, own[f"device_{key}"], own[f"cpu_{key}"]) for key in ("updates_per_second", "seconds")]
    return [
        f"{own['task']}, {own['updates']} joint updates of {own['seeds']} seeds; the CPU's with {own['cpu_threads']}"
        f" threads, at the same time. Trajectory scores differ by {own['largest_score_difference']:.2g} at most (their"
        f" spread is {own['spread_of_scores']:.2g}), AUROC by {own['largest_auroc_difference']:.2g} (tolerance"
        f" {own['tolerance']:g}).",
        "",
        *table(["", "device", "CPU"], [list(row) for row in [*pairs, *times]]),
    ]


TITLES = {
    "same": "The same policies",
    "pixels": "Images",
    "rates": "Updates per second",
    "rivals": "Rivals",
    "grid": "The paper's grid",
    "pack": "A pack from file to policies",
}
PARTS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "same": write_same,
    "pixels": write_pixels,
    "rates": write_rates,
    "rivals": write_rivals,
    "grid": write_grid,
    "pack": write_pack,
}
