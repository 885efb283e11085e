"""One pack of trials from dataset file to result rows, without Ray: load, split, fit, save; tune/rows.py does the rest.

    train_pack   dataset -> splits -> method -> trials/<id>/{config.json, curves.csv, policy.*, ...}, then `trained`
    rows.py      policy -> simulator -> trials/<id>/{episodes.csv, row.json}, then `done`

Each stage reads only what the one before it wrote, so evaluation can be resumed or repeated from the checkpoints alone.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.registry import find_method
from safemil.config.errors import UserError
from safemil.config.overrides import fingerprint, to_dict
from safemil.data.tasks import find_task
from safemil.nn import precision
from tune.files import read_json, write_atomically, write_json
from tune.job import Job, Progress, is_done, is_trained
from tune.provenance import git_commit, package_versions
from tune.rows import evaluate_trial, write_row
from tune.trials import Trial


@functools.lru_cache(maxsize=2)
def load_dataset(path: str, task_name: str):
    """Trajectories and outcomes of a dataset file, read once per process.

    Raises:
        UserError: the file cannot be used, or holds no rewards and costs.
    """
    from safemil.data.hdf5 import load

    trajectories, outcomes = load(path, find_task(task_name))
    if outcomes is None:
        raise UserError(f"{path}: no rewards or no costs in it; the study needs both (python -m safemil.train neither)")
    return trajectories, outcomes


def run_pack(job: Job, progress: Progress) -> list[dict[str, Any]]:
    """Train what is not trained, evaluate what is not evaluated; returns the rows of the pack.

    A job that is not to roll out ends with no rows.
    """
    prepare_process(job)
    pack = [trial for trial in job.trials if not is_trained(job.folder(trial))]
    if pack:
        train_pack(pack, job, progress)
    if not job.roll_out:
        return []
    folders = [job.folder(trial) for trial in job.trials]
    for number, folder in enumerate(folders):
        progress("evaluation", number, len(folders), {})
        if not is_done(folder):
            evaluate_trial(folder, job.workers)
            write_row(folder)
    return [read_json(folder / "row.json") for folder in folders]


def prepare_process(job: Job) -> None:
    """Give torch the pack's share of the machine.

    Raises:
        UserError: the folder of results is not the one that the driver wrote to.
    """
    import torch

    if not job.storage and not (job.run_folder / "run.json").exists():
        raise UserError(
            f"{job.run_folder} is not on {socket.gethostname()}: --storage must be a folder all nodes share, or a URI"
        )
    torch.set_num_threads(job.threads)
    if job.device == "cuda" and 0 < job.gpus < 1:
        torch.cuda.set_per_process_memory_fraction(job.gpus)


def dataset_on_this_node(job: Job, task_name: str) -> Path:
    """The dataset at the driver's path, else in this node's own dataset folder, downloaded if need be.

    Raises:
        UserError: there is none, or not the one that the driver saw.
    """
    from safemil.data.locate import fetch, sha256

    path = Path(job.dataset)
    if not path.exists():
        try:
            path = fetch(find_task(task_name))
        except UserError as error:
            raise UserError(f"on {socket.gethostname()}: no {job.dataset}, and {error}") from None
    if job.dataset_sha256 and sha256(path) != job.dataset_sha256:
        raise UserError(f"{path} on {socket.gethostname()} is not the file that the run began with (other SHA-256)")
    return path


def train_pack(pack: Sequence[Trial], job: Job, progress: Progress) -> None:
    """Fit every seed of the pack at once and write one folder per trial, complete but for its rollouts."""
    from safemil.data.locate import sha256
    from safemil.data.splits import make_split
    from safemil.evaluation import calibration, diagnostics
    from safemil.nn import checkpoints
    from safemil.training.checkpoint import TrainingCheckpoint
    from safemil.training.context import FitContext, KeptStages

    first = pack[0]
    dataset = dataset_on_this_node(job, first.task)
    trajectories, outcomes = load_dataset(str(dataset), first.task)
    drawn = [make_split(trajectories, outcomes, trial.split, trial.seed) for trial in pack]
    splits, labels = [split for split, _ in drawn], [hidden for _, hidden in drawn]
    method = find_method(first.method)
    curves = Curves(first.config, len(pack), progress)
    digest = sha256(dataset)
    origin_of_all = [digest, job.precision, git_commit(), package_versions()]
    identity = fingerprint([[trial.id for trial in pack], *origin_of_all])
    drawn_as = [first.task, to_dict(first.split), [trial.seed for trial in pack], job.device]
    state = job.run_folder / "unfinished" / f"{first.pack_id}-{identity}.pt"
    checkpoint = TrainingCheckpoint(state, identity, curves.rows, job.keep_every)
    context = FitContext(
        seeds=tuple(trial.seed for trial in pack),
        device=job.device,
        log=curves,
        snapshots=first.evaluation.checkpoints,
        precision=job.precision,
        checkpoint=checkpoint,
        kept=KeptStages(job.run_folder / "stages", fingerprint([drawn_as, *origin_of_all])),
    )
    learned = method.load()(splits, first.config, context, *([labels] if method.oracle else []))
    train_seconds = checkpoint.seconds / len(pack)
    for index, (trial, result) in enumerate(zip(pack, learned, strict=True)):
        folder = job.folder(trial)
        metadata: dict[str, Any] = {
            "task": trial.task,
            "method": trial.method,
            "seed": trial.seed,
            "trial_id": trial.id,
        }
        for step, policy in result.snapshots[:-1]:
            checkpoints.save(folder / "snapshots", policy, stem=f"step-{step:08d}", step=step, **metadata)
        checkpoints.save(folder, result.policy, scorer=result.scorer, step=result.snapshots[-1][0], **metadata)
        curves.write(folder / "curves.csv", index)
        measured = {
            **diagnostics.label_free(result, splits[index]),
            **diagnostics.oracle(result, splits[index], labels[index]),
            **reference_levels(splits[index], labels[index]),
            "mil_loss_final": curves.last(index, "mil_loss"),
            "train_seconds": train_seconds,
        }
        write_json(folder / "diagnostics.json", measured)
        if result.scorer is not None or result.weights is not None:
            write_columns(folder / "scores.csv", calibration.trajectory_table(result, splits[index], labels[index]))
        if result.scorer is not None:
            write_columns(folder / "example_steps.csv", calibration.example_steps(result, splits[index], labels[index]))
        origin = {
            "dataset": dataset.name,
            "dataset_sha256": digest,
            "git_commit": git_commit(),
            "command": job.command,
        }
        record = {
            "split_record": labels[index].record,
            "device": job.device,
            "precision": precision.in_effect(job.precision, job.device),
            "packed_seeds": [t.seed for t in pack],
        }
        write_json(
            folder / "config.json", {**trial.to_dict(), **record, **origin, "package_versions": package_versions()}
        )
        (folder / "trained").touch()
    checkpoint.delete()


class Curves:
    """Collects what the training loops report: rows of curves.csv per replica, and progress for whoever watches."""

    def __init__(self, config: Any, n_replicas: int, progress: Progress) -> None:
        self.rows: list[list[dict[str, Any]]] = [[] for _ in range(n_replicas)]
        self.totals = {"joint": config.policy.steps}
        for stage in ("cost_model", "discriminator", "policy"):
            if hasattr(config, stage):
                self.totals[stage] = getattr(config, stage).steps
        if hasattr(config, "critic"):
            self.totals["critic"] = config.critic.updates * config.policy.steps
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
