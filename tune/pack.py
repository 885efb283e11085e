"""One pack of trials from dataset file to result rows, without Ray: load, split, fit, save; tune/rows.py does the rest.

    train_pack   dataset -> splits -> method -> trials/<id>/{config.json, curves.csv, policy.*, ...}, then `trained`
    rows.py      policy -> simulator -> trials/<id>/{episodes.csv, row.json}, then `done`

Each stage reads only what the one before it wrote, so evaluation can be resumed or repeated from the checkpoints alone.
"""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safemil.errors import UserError
from safemil.tasks import find_task
from tune.files import read_json, write_atomically, write_json
from tune.methods import find_method
from tune.provenance import git_commit, package_versions
from tune.rows import evaluate_trial, write_failure, write_row
from tune.storage import push_trials
from tune.trials import Trial, trial_from_dict

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, step, of how many, metrics


def no_progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
    """Discards what it is told."""


@functools.lru_cache(maxsize=2)
def load_dataset(path: str, task_name: str):
    """Trajectories and outcomes of a dataset file, read once per process."""
    from safemil.trajectories import load

    return load(path, find_task(task_name))


def is_done(folder: Path) -> bool:
    """Whether the trial of this folder is finished."""
    return (folder / "done").exists()


def is_trained(folder: Path) -> bool:
    """Whether its policy is trained (the last file that training writes is there)."""
    return (folder / "trained").exists()


@dataclass(frozen=True)
class Work:
    """One pack and all it takes to run it, as plain values that any process or machine can be handed."""

    pack: tuple[dict[str, Any], ...]  # Trial.to_dict of each seed
    trials_folder: str
    dataset: str
    device: str = "cpu"
    workers: int = 1  # rollout processes; 1 rolls out in the process that trained
    threads: int = 1
    command: str = ""
    storage: str = ""  # URI that finished trials are copied to; empty where trials_folder is the storage itself

    @property
    def trials(self) -> list[Trial]:
        """The pack's trials."""
        return [trial_from_dict(values) for values in self.pack]


def perform(work: Work, progress: Progress = no_progress) -> list[dict[str, Any]]:
    """Run a pack; a user's mistake or a diverged loss becomes failed rows, anything else is raised (and retried)."""
    import torch

    from safemil.training import TrainingError

    torch.set_num_threads(work.threads)
    try:
        rows = run_pack(work, progress)
    except (UserError, TrainingError) as error:
        rows = fail(work, str(error), traceback.format_exc())
    if work.storage:
        push_trials(work.storage, Path(work.trials_folder), [trial.id for trial in work.trials])
    return rows


def fail(work: Work, reason: str, details: str) -> list[dict[str, Any]]:
    """Write a failed row for every trial of the pack that is not done; returns the rows of the pack."""
    folders = [(Path(work.trials_folder) / trial.id, trial) for trial in work.trials]
    return [
        read_json(folder / "row.json") if is_done(folder) else write_failure(folder, trial, reason, details)
        for folder, trial in folders
    ]


def run_pack(work: Work, progress: Progress) -> list[dict[str, Any]]:
    """Train what is not trained, evaluate what is not evaluated; returns the rows of the pack."""
    pack = work.trials
    folders = [Path(work.trials_folder) / trial.id for trial in pack]
    if not all(is_trained(folder) for folder in folders):
        train_pack(pack, work, progress)
    for number, folder in enumerate(folders):
        progress("evaluation", number, len(pack), {})
        if not is_done(folder):
            evaluate_trial(folder, work.workers)
            write_row(folder)
    return [read_json(folder / "row.json") for folder in folders]


def train_pack(pack: Sequence[Trial], work: Work, progress: Progress) -> None:
    """Fit every seed of the pack at once and write one folder per trial, complete but for its rollouts."""
    from safemil import calibration, checkpoints, diagnostics
    from safemil.datasets import sha256
    from safemil.splits import make_split

    first = pack[0]
    trajectories, outcomes = load_dataset(work.dataset, first.task)
    drawn = [make_split(trajectories, outcomes, trial.split, trial.seed) for trial in pack]
    splits, labels = [split for split, _ in drawn], [hidden for _, hidden in drawn]
    method = find_method(first.method)
    curves = Curves(first.config, len(pack), progress)
    started = time.perf_counter()
    learned = method.load()(
        splits,
        first.config,
        seeds=[trial.seed for trial in pack],
        device=work.device,
        log=curves,
        snapshots=first.evaluation.checkpoints,
        **({"labels": labels} if method.oracle else {}),
    )
    train_seconds = (time.perf_counter() - started) / len(pack)
    dataset = Path(work.dataset)
    digest = sha256(dataset)
    for index, (trial, result) in enumerate(zip(pack, learned, strict=True)):
        folder = Path(work.trials_folder) / trial.id
        metadata = {"task": trial.task, "method": trial.method, "seed": trial.seed, "trial_id": trial.id}
        for step, policy in result.snapshots[:-1]:
            checkpoints.save(folder / "snapshots", policy, stem=f"step-{step:08d}", step=step, **metadata)
        checkpoints.save(folder, result.policy, scorer=result.scorer, step=result.snapshots[-1][0], **metadata)
        curves.write(folder / "curves.csv", index)
        found = {
            **diagnostics.label_free(result, splits[index]),
            **diagnostics.oracle(result, splits[index], labels[index]),
            **reference_levels(splits[index], labels[index]),
            "mil_loss_final": curves.last(index, "mil_loss"),
            "train_seconds": train_seconds,
        }
        write_json(folder / "diagnostics.json", found)
        if result.scorer is not None or result.weights is not None:
            write_columns(folder / "scores.csv", calibration.trajectory_table(result, splits[index], labels[index]))
        if result.scorer is not None:
            write_columns(folder / "example_steps.csv", calibration.example_steps(result, splits[index], labels[index]))
        origin = {
            "dataset": dataset.name,
            "dataset_sha256": digest,
            "git_commit": git_commit(),
            "command": work.command,
        }
        record = {"split_record": labels[index].record, "device": work.device, "packed_seeds": [t.seed for t in pack]}
        write_json(
            folder / "config.json", {**trial.to_dict(), **record, **origin, "package_versions": package_versions()}
        )
        (folder / "trained").touch()


class Curves:
    """Collects what the training loops report: rows of curves.csv per replica, and progress for whoever watches."""

    def __init__(self, config: Any, n_replicas: int, progress: Progress) -> None:
        self.rows: list[list[dict[str, Any]]] = [[] for _ in range(n_replicas)]
        self.totals = {"policy": config.policy.steps, "joint": config.policy.steps}
        if hasattr(config, "cost_model"):
            self.totals["cost_model"] = config.cost_model.steps
        self.progress = progress

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        for index, rows in enumerate(self.rows):
            rows.append({"stage": stage, "step": step, **{name: float(v[index]) for name, v in metrics.items()}})
        means = {name: float(np.mean(values)) for name, values in metrics.items()}
        self.progress(stage, step, self.totals.get(stage, step), means)

    def last(self, index: int, name: str) -> float | None:
        """The newest value of a metric, the mean over its last twentieth (at least one report)."""
        values = [row[name] for row in self.rows[index] if name in row]
        return float(np.mean(values[-max(1, len(values) // 20) :])) if values else None

    def write(self, path: Path, index: int) -> None:
        """One replica's curves as csv."""
        import pandas as pd

        write_atomically(path, pd.DataFrame(self.rows[index]).to_csv(index=False))


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Columns as csv, numbers with six digits."""
    import pandas as pd

    write_atomically(path, pd.DataFrame(columns).to_csv(index=False, float_format="%.6g"))


def reference_levels(split, labels) -> dict[str, float]:
    """Mean true return and cost of D_U's preferred trajectories: the reference that needs no training."""
    unlabeled = np.concatenate([split.unlabeled, split.unlabeled_held_out])
    preferred = unlabeled[labels.preferred[unlabeled]]
    if len(preferred) == 0:
        return {}
    return {
        "reference_return": float(labels.outcomes.returns[preferred].mean()),
        "reference_cost": float(labels.outcomes.costs_total[preferred].mean()),
    }
