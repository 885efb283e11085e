"""One pack of trials and all it takes to run it, as plain values that any process or machine can be handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.trials import Trial, trial_from_dict

Progress = Callable[[str, int, int, dict[str, float]], None]  # stage, step, of how many, metrics


def no_progress(stage: str, step: int, total: int, metrics: dict[str, float]) -> None:
    """A ``Progress`` that does nothing."""


@dataclass(frozen=True)
class Job:
    """A pack, where its dataset and its results lie, and its share of the machine."""

    pack: tuple[dict[str, Any], ...]  # Trial.to_dict of each seed
    trials_folder: str
    dataset: str
    dataset_sha256: str = ""  # of the file the driver saw; a node with another one must not take part
    device: str = "cpu"
    gpus: float = 0.0  # share of a GPU
    workers: int = 1  # rollout processes; 1 rolls out in the process that trained
    threads: int = 1
    precision: str = "highest"  # of training's products, see safemil/nn/precision.py
    command: str = ""
    storage: str = ""  # URI that finished trials are copied to; empty where trials_folder is the storage itself
    session: str = ""  # shared by all processes of one command
    keep_every: float = 60.0  # seconds between two writes of the state of a training
    starts: int = 0  # how often Ray could not start its process
    roll_out: bool = True  # False: stop once the policies are trained

    @property
    def trials(self) -> list[Trial]:
        """The pack's trials."""
        return [trial_from_dict(values) for values in self.pack]

    @property
    def run_folder(self) -> Path:
        """The run that the trials belong to."""
        return Path(self.trials_folder).parent

    def folder(self, trial: Trial) -> Path:
        """Where a trial's results go."""
        return Path(self.trials_folder) / trial.id


def is_done(folder: Path) -> bool:
    """Whether the trial of this folder is finished."""
    return (folder / "done").exists()


def is_trained(folder: Path) -> bool:
    """Whether its policy is trained (the last file that training writes is there)."""
    return (folder / "trained").exists()
