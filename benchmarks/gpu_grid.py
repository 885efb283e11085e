"""What the paper's grid takes on a device: every stage of every label-limited method timed, then extrapolated."""

from __future__ import annotations

from typing import Any

from gpu_rates import NAVIGATION, VELOCITY, Stopwatch, split_of, timed

from baselines.registry import LABEL_LIMITED, METHODS
from safemil.config.overrides import dotted_fields, flatten, override, to_dict
from safemil.data.splits import Split
from safemil.training.context import FitContext
from tune.grids import PRESETS

PROBE = 20  # updates of what is not measured


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
            for stage, steps in stage_steps(method, full, split, device).items():
                short = {f"{name}.steps": PROBE for name in ("cost_model", "discriminator") if name != stage}
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


def stage_steps(method: str, config: Any, split: Split, device: str) -> dict[str, int]:
    """Updates of each of a method's stages, as it runs them: from a training of a few, and the settings."""
    values = flatten(to_dict(config))
    lengths = [f"{name}.steps" for name in ("cost_model", "discriminator", "policy")]
    probe = {name: PROBE for name in lengths if values.get(name)} | {"policy.normalize_observations": False}
    last: dict[str, int] = {}

    def log(stage: str, step: int, metrics: Any) -> None:
        last[stage] = step

    METHODS[method].load()([split], override(config, probe), FitContext(device=device, log=log))
    return {stage: n * values.get(f"{stage}.steps", config.policy.steps) // PROBE for stage, n in last.items()}
