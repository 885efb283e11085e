"""Shared by all tests: one torch thread, one seed, a generator, and a toy dataset whose safe behaviour is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safemil.config.settings import SplitConfig
from safemil.data.hdf5 import save
from safemil.data.splits import HiddenLabels, Split, make_split
from safemil.data.tasks import find_task
from safemil.data.trajectories import Outcomes, Trajectories

ROOT = Path(__file__).resolve().parent.parent
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PYTHONPATH}  # for the processes that tests start
SAFE_ACTION, UNSAFE_ACTION = -0.6, 0.6  # first action dimension of the toy dataset's two behaviours


@pytest.fixture(autouse=True)
def _same_torch_each_time():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run_python(*arguments: str | Path, timeout: float = 300, **variables: str | Path) -> subprocess.CompletedProcess:
    """A command in a process of its own, started at the root of the repository; ``variables`` of its environment."""
    environment = ENVIRONMENT | {name: str(value) for name, value in variables.items()}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def toy_dataset(n: int = 240, seed: int = 0) -> tuple[Trajectories, Outcomes]:
    """Half the trajectories push left (free), half push right (cost 3 a step); lengths 28 to 44; 3 observations."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(28, 45, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    unsafe = np.repeat(np.arange(n) % 2 == 1, lengths)
    observations = rng.normal(size=(offsets[-1], 3)) * [1.0, 5.0, 0.2] + [0.0, 3.0, 0.0]
    first = np.where(unsafe, UNSAFE_ACTION, SAFE_ACTION) + 0.05 * rng.normal(size=offsets[-1])
    actions = np.stack([first, 0.3 * np.tanh(observations[:, 0])], axis=1)
    rewards = rng.random(offsets[-1])
    return (
        Trajectories(observations.astype(np.float32), actions.clip(-1, 1).astype(np.float32), offsets),
        Outcomes(
            rewards.astype(np.float32),
            np.where(unsafe, 3.0, 0.0).astype(np.float32),
            np.zeros(offsets[-1], dtype=bool),
            offsets,
        ),
    )


def write_ball_dataset(folder: Path) -> Path:
    """A file of toy trajectories in the shape of BallCircle's, where ``DSRL_DATASET_DIR=folder`` finds it."""
    task = find_task("BallCircle")
    toy, outcomes = toy_dataset(120)
    observations = np.random.default_rng(1).normal(size=(toy.n_steps, task.observation_dim)).astype(np.float32)
    path = folder / f"{task.file_stem}-130-120.hdf5"
    save(path, Trajectories(observations, toy.actions, toy.offsets), outcomes, {"recipe": "toy", "seed": 0})
    return path


def toy_splits(seeds=(0,), n: int = 240, **settings) -> list[tuple[Split, HiddenLabels]]:
    """One split of the toy dataset per seed: 20 trajectories in D_N, 80 in D_U."""
    trajectories, outcomes = toy_dataset(n)
    config = SplitConfig(**{"n_nonpreferred": 20, "n_unlabeled": 80, **settings})
    return [make_split(trajectories, outcomes, config, seed) for seed in seeds]
