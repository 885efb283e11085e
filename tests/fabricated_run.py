"""Result folders with invented numbers, for tests of the analysis alone. Never write one of these under results/."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.trial_rows import AXES, METRICS
from safemil.algorithm.discounting import discounted_length
from safemil.evaluation import metrics

# method -> mean normalized return and cost on the first task; the others are shifted.
LEVELS = {
    **{"safemil": (0.58, 0.62), "ppl": (0.66, 1.55), "dwbc": (0.63, 1.30), "safedice": (0.60, 1.72)},
    **{"dexperts": (0.49, 1.18), "bc-all": (0.74, 2.61), "bc-safe": (0.62, 0.31), "oracle-cost": (0.61, 0.45)},
}
LIMIT = 25.0


def write_run(
    folder: Path,
    *,
    tasks: Iterable[str] = ("BallCircle",),
    methods: Iterable[str] = tuple(LEVELS),
    seeds: Iterable[int] = range(5),
    settings: Iterable[dict] = ({},),
    axes: Iterable[str] = (),
    steps: int = 20_000,
    points: int = 10,
) -> Path:
    """A finished run; ``settings`` (columns of trials.csv) multiply the methods that have a cost model."""
    for task_number, task in enumerate(tasks):
        for method in methods:
            learned = method in ("safemil", "ppl")
            for setting in settings if learned else ({},):
                for seed in seeds:
                    write_trial(folder, task, task_number, method, seed, setting, steps, points)
    record = {"grid": "demo", "command": "python tune/run.py --grid demo", "created": "2026-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps({**record, "axes": {axis: [] for axis in axes}}))
    return folder


def write_trial(
    folder: Path, task: str, task_number: int, method: str, seed: int, setting: dict, steps: int, points: int
) -> Path:
    """One finished trial: row.json, curves.csv, config.json and, last, done."""
    rng = np.random.default_rng([seed, task_number, len(method), len(str(setting))])
    learned = method in ("safemil", "ppl")
    defaults = {"bag_size": 128 if method == "safemil" else 1, "horizon": 5, "weighting": "exponential"}
    row = {"contamination": 0, "n_nonpreferred": 50, "n_unlabeled": 200, "mixture": 0.5, "aggregator": "mean"}
    row |= (defaults if learned else {}) | setting
    # Larger bags help, an unhelpful setting hurts: just enough for the figures to have a shape.
    skill = 1 - 1 / math.sqrt(row["bag_size"]) if learned and method == "safemil" else 1.0
    goal, cost = LEVELS[method]
    goal, cost = goal - 0.07 * task_number + rng.normal(0, 0.03), cost * (1 + 0.35 * task_number)
    cost = max(0.0, cost * (1 + 1.6 * (1 - skill)) + rng.normal(0, 0.12))
    costs = np.maximum(0, rng.normal(cost * LIMIT, 14, 50))
    costs *= cost * LIMIT / max(costs.mean(), 1e-9)
    floor = metrics.mil_loss_floor(0.5, discounted_length(5), row["bag_size"]) if learned else math.nan
    row |= {
        **{"task": task, "method": method, "seed": seed, "return_mean": 900 * goal, "return_std": 40.0},
        **{"cost_mean": float(costs.mean()), "cost_std": float(costs.std(ddof=1)), "normalized_return": goal},
        **{"normalized_return_reference": goal / 0.62, "normalized_cost": metrics.normalized_cost(costs, LIMIT)},
        **{"normalized_cost_reference": float(costs.mean()) - 8.0, "cost_limit": LIMIT, "episodes": 50},
        **{f"cvar_cost_{a}": metrics.scale_by_limit(metrics.cvar(costs, a / 100), LIMIT) for a in (50, 20, 10, 5)},
        "violation_rate": metrics.violation_rate(costs, LIMIT),
        "auroc": min(1.0, 0.55 + 0.42 * skill + rng.normal(0, 0.01)) if method not in ("bc-all", "bc-safe") else None,
        "auroc_unlabeled": min(0.75, 0.52 + 0.2 * skill + rng.normal(0, 0.01)) if learned else None,
        "mil_loss_final": floor + 0.02 + abs(rng.normal(0, 0.01)) if learned else None,
        **{"train_seconds": 41.5, "eval_seconds": 12.25, "status": "ok", "warnings": "", "reason": ""},
        **{"dataset_sha256": f"{task_number:064x}", "git_commit": "0123456789abcdef", "normalized_cost_last5": cost},
        "package_versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "1.26.4"},
    }
    trial = folder / "trials" / trial_id(task, method, seed, setting)
    trial.mkdir(parents=True)
    (trial / "config.json").write_text(json.dumps({"task": task, "method": method, "seed": seed}))
    _write_curves(trial / "curves.csv", row, steps, points, rng)
    if learned:
        _write_scores(trial, skill, rng)
    (trial / "row.json").write_text(json.dumps(row))
    (trial / "done").touch()
    return trial


def trial_id(task: str, method: str, seed: int, setting: dict) -> str:
    """Readable and unique by setting, like the real ones."""
    return f"{task}-{method}-s{seed}-" + ("-".join(f"{k}_{v}" for k, v in setting.items()) or "default")


def edit_row(trial: Path, **changes: object) -> None:
    """Change cells of a trial's row; None removes one."""
    row = json.loads((trial / "row.json").read_text()) | changes
    (trial / "row.json").write_text(json.dumps({key: value for key, value in row.items() if value is not None}))


def _write_curves(path: Path, row: dict, steps: int, points: int, rng: np.random.Generator) -> None:
    metric_columns = ["mil_loss", "policy_loss", "held_out_loss", "normalized_return", "normalized_cost"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["stage", "step", *metric_columns], restval="")
        writer.writeheader()
        for step in np.linspace(0, steps, points, dtype=int).tolist():
            done = 1 - math.exp(-5 * step / max(1, steps))
            noise = rng.normal(0, 0.02, 3)
            if row["mil_loss_final"] is not None:
                loss = math.log(2) + (row["mil_loss_final"] - math.log(2)) * done + 0.3 * noise[0]
                writer.writerow({"stage": "cost_model", "step": step, "mil_loss": loss})
            loss = 0.4 * math.exp(-3 * done) + 0.2 * abs(noise[1])
            writer.writerow({"stage": "policy", "step": step, "policy_loss": loss, "held_out_loss": loss + 0.02})
            goal = row["normalized_return"] * done + noise[2]
            cost = row["normalized_cost"] * done + abs(noise[1])
            writer.writerow({"stage": "evaluation", "step": step, "normalized_return": goal, "normalized_cost": cost})


def _write_scores(trial: Path, skill: float, rng: np.random.Generator) -> None:
    """scores.csv and example_steps.csv, as safemil/evaluation/calibration.py describes them."""
    places = [("D_N", "train", 1), ("D_N", "held_out", 1), ("D_U", "train", 0), ("D_U", "held_out", 0)]
    rows = []
    for name, part, all_bad in [*places, ("none", "unused", 0)]:
        for number in range(20):
            bad = bool(all_bad or number % 2)
            cost = float(rng.uniform(75, 110) if bad else rng.uniform(0, 25))
            score = float(np.clip(0.5 + 0.4 * skill * (1 if bad else -1) + rng.normal(0, 0.1), 0, 1))
            weight = 2 * (1 - score) if (name, part) == ("D_U", "train") else math.nan
            place = {"trajectory": len(rows), "set": name, "part": part, "band": "nonpreferred" if bad else "preferred"}
            truth = {"true_cost": cost, "return": 500.0, "length": 60}
            rows.append({**place, "predicted_cost": score, **truth, "weight": weight})
    pd.DataFrame(rows).to_csv(trial / "scores.csv", index=False)
    steps = []
    for number, band in enumerate(("nonpreferred", "preferred")):
        for step in range(60):
            costs = band == "nonpreferred" and step % 20 > 12
            predicted = 0.5 + 0.4 * skill * (1 if costs else -1) + rng.normal(0, 0.05)
            example = {"trajectory": number, "band": band, "step": step}
            steps.append({**example, "predicted_cost": predicted, "true_cost": float(costs)})
    pd.DataFrame(steps).to_csv(trial / "example_steps.csv", index=False)


def small_run(folder: Path, **changes: object) -> Path:
    """SafeMIL, BC-All and BC-Safe on BallCircle, three seeds."""
    return write_run(folder, **{"methods": ("safemil", "bc-all", "bc-safe"), "seeds": range(3), "points": 4, **changes})


def trials_frame(rows: list[dict]) -> pd.DataFrame:
    """Trials with the columns that summaries need; blanks where a row says nothing."""
    blank = {**dict.fromkeys(METRICS, math.nan), **dict.fromkeys(AXES, ""), "warnings": ""}
    return pd.DataFrame([{**blank, "episodes": 50, "train_seconds": 1.0, "eval_seconds": 1.0, **row} for row in rows])


def trial_values(
    method: str, seed: int, cost: float, goal: float = 0.5, task: str = "BallCircle", **more: object
) -> dict:
    row = {"trial_id": f"{task}-{method}-s{seed}", "task": task, "method": method, "seed": seed, "cost_limit": 25.0}
    return {**row, "normalized_cost": cost, "normalized_return": goal, **more}
