"""What the paper's grid takes on a device: every stage of every label-limited method timed, then extrapolated."""

from __future__ import annotations

from typing import Any

from gpu_rates import NAVIGATION, VELOCITY, Stopwatch, split_of, timed

from baselines.registry import LABEL_LIMITED, METHODS
from safemil.config.overrides import dotted_fields, flatten, override, to_dict
from tune.grids import PRESETS


def paper_hours(device: str, precision: str, *, quick: bool) -> dict[str, Any]:
    """Five seeds of every label-limited method at the paper's preset: each stage's updates/s, hours of six tasks.

    Three tasks are as Walker2dVelocity (H = 5), three as PointGoal1 (H = 10). Updates are compiled, as in runs so long.
    """
    context = {"device": device, "precision": precision, "compiled_from": 1}
    rows, total = [], 0.0
    for sizes, length, n_tasks in ((VELOCITY, 5, 3), (NAVIGATION, 10, 3)):
        split = split_of(sizes)
        for method in LABEL_LIMITED[: 2 if quick else None]:
            preset = {**PRESETS["paper"], **PRESETS["paper"].get(method, {})}
            own = METHODS[method].config()
            known = dotted_fields(own)
            full = override(own, {"cost_model.segment_length": length} if "cost_model.bag_size" in known else {})
            full = override(full, {name: value for name, value in preset.items() if name in known})
            stages = stage_steps(full)
            for stage, steps in stages.items():
                short = {f"{name}.steps": 20 for name in ("cost_model", "discriminator") if name != stage}
                settings = {**flatten(to_dict(full)), **short}
                for name in ("policy.steps", f"{stage}.steps"):
                    settings.pop(name, None)
                watch = Stopwatch(stage, 0.01 if quick else 0.5)
                timed(method, settings, split, 2 if quick else 5, watch, 1 if quick else 32, **context)
                hours = n_tasks * steps / watch.rate(stage) / 3600
                total += hours
                rows.append({"method": method, "stage": stage, "H": length, "updates": steps} | {
                    "updates_per_second": watch.rate(stage), "hours_of_three_tasks": hours})  # fmt: skip
                print(rows[-1], flush=True)
    return {"rows": rows, "hours": total, "precision": precision}


def stage_steps(config: Any) -> dict[str, int]:
    """Updates of each stage of a method."""
    if getattr(config, "mode", "") == "joint":
        return {"joint": config.policy.steps}
    stages = [name for name in ("cost_model", "discriminator") if hasattr(config, name)]
    steps = {name: getattr(config, name).steps for name in stages if getattr(config, name).steps}
    return {**steps, "policy": config.policy.steps}
