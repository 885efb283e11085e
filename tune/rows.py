"""From a trained trial to its row: roll the policies out, measure, write row.json. Needs the trial's folder alone.

evaluate_trial   policy and snapshots -> simulator -> episodes.csv
write_row        episodes.csv, diagnostics.json, config.json -> row.json, evaluation points in curves.csv, `done`
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.swept import SWEPT, value_of
from safemil.data.tasks import Task, find_task
from tune.files import read_json, write_atomically, write_json
from tune.trials import Trial

CVAR_LEVELS = (50, 20, 10, 5)
Episodes = dict[Path | str, int]  # checkpoint -> how many to play


def evaluate_trial(folder: Path, workers: int) -> None:
    """Roll out the final policy and its snapshots; writes episodes.csv."""
    import pandas as pd

    from safemil.nn.checkpoints import load_metadata

    config = read_json(folder / "config.json")
    evaluation = config["evaluation"]
    final = folder / "policy.safetensors"
    snapshots = sorted((folder / "snapshots").glob("*.safetensors"))
    episodes: Episodes = {**dict.fromkeys(snapshots, evaluation["checkpoint_episodes"]), final: evaluation["episodes"]}
    started = time.perf_counter()
    task = find_task(config["task"])
    played = play(episodes, task, evaluation["seed"], workers)
    rows = [
        {"checkpoint_step": load_metadata(path)["step"], **episode.row()}
        for path, episodes_of_policy in played.items()
        for episode in episodes_of_policy
    ]
    write_json(folder / "evaluation.json", {"eval_seconds": time.perf_counter() - started})
    write_atomically(folder / "episodes.csv", pd.DataFrame(rows).to_csv(index=False))


def play(episodes: Episodes, task: Task, evaluation_seed: int, workers: int) -> dict[Path | str, list[Any]]:
    """Checkpoint -> its episodes; in this process with one worker, else on a pool."""
    from safemil.simulation.rollouts import evaluate_chunk, evaluate_policies

    if workers == 1:
        return {path: evaluate_chunk(path, task.name, range(n), evaluation_seed) for path, n in episodes.items()}
    return evaluate_policies(list(episodes), task, episodes=episodes, evaluation_seed=evaluation_seed, workers=workers)


def write_row(folder: Path) -> dict[str, Any]:
    """episodes.csv, diagnostics.json and config.json -> row.json; then the trial is done."""
    import pandas as pd

    from safemil.evaluation.diagnostics import failure_signatures

    config, diagnostics = read_json(folder / "config.json"), read_json(folder / "diagnostics.json")
    episodes = pd.read_csv(folder / "episodes.csv")
    limit = config["split"]["cost_limit"]
    steps = sorted(episodes["checkpoint_step"].unique())
    per_checkpoint = [
        rollout_metrics(episodes[episodes["checkpoint_step"] == step], config["task"], limit, diagnostics)
        for step in steps
    ]
    recent = per_checkpoint[-5:]
    row = {
        "trial_id": folder.name,
        **identity(config),
        **per_checkpoint[-1],
        "normalized_return_last5": float(np.mean([metrics["normalized_return"] for metrics in recent])),
        "normalized_cost_last5": float(np.mean([metrics["normalized_cost"] for metrics in recent])),
        **diagnostics,
        "eval_seconds": read_json(folder / "evaluation.json")["eval_seconds"],
        "status": "ok",
    }
    row["warnings"] = "; ".join(failure_signatures(row))
    extend_curves(folder / "curves.csv", steps, per_checkpoint)
    write_json(folder / "row.json", row)
    (folder / "error.txt").unlink(missing_ok=True)  # of an earlier attempt
    (folder / "done").touch()
    return row


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that come from its configuration and provenance alone."""
    return {
        "task": config["task"],
        "method": config["method"],
        "seed": config["seed"],
        **{swept.column: value_of(config, swept.setting) for swept in SWEPT},
        "discount": value_of(config, "cost_model.discount"),
        "split_fallback": config.get("split_record", {}).get("fallback"),
        "cost_limit": config["split"]["cost_limit"],
        "dataset_sha256": config.get("dataset_sha256"),
        "git_commit": config.get("git_commit"),
        "package_versions": json.dumps(config.get("package_versions", {}), sort_keys=True),
        "command": config.get("command"),
    }


def rollout_metrics(episodes, task_name: str, cost_limit: float, references: dict[str, float]) -> dict[str, Any]:
    """Metrics of one checkpoint's episodes (a table with columns return and cost)."""
    from safemil.evaluation import metrics

    task = find_task(task_name)
    returns, costs = episodes["return"].to_numpy(), episodes["cost"].to_numpy()
    result = {
        "episodes": len(episodes),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std(ddof=1)) if len(returns) > 1 else None,
        "cost_mean": float(costs.mean()),
        "cost_std": float(costs.std(ddof=1)) if len(costs) > 1 else None,
        "length_mean": float(episodes["length"].mean()),
        "normalized_return": metrics.normalized_return(returns, task.return_min, task.return_max),
        "normalized_cost": metrics.normalized_cost(costs, cost_limit),
        "violation_rate": metrics.violation_rate(costs, cost_limit),
    }
    for level in CVAR_LEVELS:
        result[f"cvar_cost_{level}"] = metrics.scale_by_limit(metrics.cvar(costs, level / 100), cost_limit)
    if references.get("reference_return", task.return_min) > task.return_min:
        result["normalized_return_reference"] = metrics.normalized_return(
            returns, task.return_min, references["reference_return"]
        )
        result["normalized_cost_reference"] = metrics.normalized_cost_reference(costs, references["reference_cost"])
    return result


def extend_curves(path: Path, steps: Sequence[int], per_checkpoint: Sequence[dict[str, float]]) -> None:
    """Append the evaluation points to curves.csv, replacing any that an earlier evaluation left."""
    import pandas as pd

    names = ("return_mean", "cost_mean", "normalized_return", "normalized_cost", "cvar_cost_20", "episodes")
    points = [
        {"stage": "evaluation", "step": int(step), **{name: metrics[name] for name in names}}
        for step, metrics in zip(steps, per_checkpoint, strict=True)
    ]
    training = pd.read_csv(path)
    training = training[training["stage"] != "evaluation"]
    write_atomically(path, pd.concat([training, pd.DataFrame(points)]).to_csv(index=False))


def failure_row(folder: Path, trial: Trial, reason: str) -> dict[str, Any]:
    """The row of a trial that failed."""
    known = read_json(folder / "config.json") if (folder / "config.json").exists() else trial.to_dict()
    return {"trial_id": folder.name, **identity(known), "status": "failed", "reason": reason}


def write_failure(folder: Path, trial: Trial, row: dict[str, Any], details: str) -> None:
    """A trial that failed still has a folder and a row: what was asked, why not, and where the details are."""
    write_atomically(folder / "error.txt", details)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", trial.to_dict())
    write_json(folder / "row.json", row)
