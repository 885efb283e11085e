"""Everything a run needs before its first trial starts: its folder, the datasets, a share of the machine, the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safemil.errors import UserError
from safemil.tasks import Task, find_task
from tune.files import read_json, write_json
from tune.pack import Work, is_done
from tune.trials import Trial, packs

MINUTES_TO_COLLECT = 60  # a longer collection is asked for by name, not begun by a run on its own


def open_run(folder: Path, trials: Sequence[Trial], origin: dict[str, Any], *, join: bool) -> None:
    """Make or reopen a run's folder and record what it is to hold.

    Args:
        origin: grid, command and axes; kept from the first time.
        join: whether a run that exists may be added to.

    Raises:
        UserError: it exists and ``join`` is off.
    """
    if (folder / "trials").exists() and not join:
        raise UserError(
            f"{folder} exists already: --resume continues it (finished trials are skipped), --name NAME starts another"
        )
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    first = {"created": datetime.now(timezone.utc).isoformat(timespec="seconds"), **origin, "trials": []}
    known = read_json(folder / "run.json") if (folder / "run.json").exists() else first
    ids = list(dict.fromkeys([*known["trials"], *(trial.id for trial in trials)]))
    write_json(folder / "run.json", {**known, "trials": ids})


def prepare_datasets(trials: Sequence[Trial], *, download: bool) -> dict[str, Path]:
    """Task -> dataset file, on disk before any trial starts."""
    return {task: dataset_file(find_task(task), download) for task in dict.fromkeys(trial.task for trial in trials)}


def dataset_file(task: Task, download: bool) -> Path:
    """The cached file, else a download, else (where a recipe exists that takes minutes) a collection.

    Raises:
        UserError: none of the three; names the ways out.
    """
    from safemil.collect import collect
    from safemil.datasets import fetch, find
    from safemil.recipes.table import RECIPES

    recipe = next(iter(RECIPES.get(task.name, {}).values()), None)
    quick = recipe is not None and recipe.minutes <= MINUTES_TO_COLLECT
    if quick and not download and find(task) is None:
        print(f"{task.name}: no dataset yet; collecting one (about {recipe.minutes:g} min)", file=sys.stderr)
        return collect(task)
    try:
        return fetch(task)
    except UserError as error:
        if not quick:
            raise
        print(f"{error}\n{task.name}: collecting a dataset instead (about {recipe.minutes:g} min)", file=sys.stderr)
        return collect(task)


def make_works(trials: Sequence[Trial], datasets: dict[str, Path], folder: Path, **settings: Any) -> dict[str, Work]:
    """Pack id -> work, for the packs with anything left to do; ``settings`` are those of ``Work``."""
    works = {}
    for pack in packs(trials):
        todo = tuple(trial.to_dict() for trial in pack if not is_done(folder / "trials" / trial.id))
        if todo:
            dataset = str(datasets[pack[0].task])
            works[pack[0].pack_id] = Work(todo, str(folder / "trials"), dataset, **settings)
    return works


def share_out(n_packs: int, cpus: float | None, gpus: float | None) -> tuple[float, float]:
    """CPUs and GPUs of each pack: what was asked for, else the cores shared out evenly and a quarter of a GPU."""
    if cpus is None:
        cpus = max(1, (os.cpu_count() or 1) // max(1, n_packs))
    if gpus is None:
        import torch

        gpus = 0.25 if torch.cuda.is_available() else 0
    if cpus <= 0 or gpus < 0:
        raise UserError(
            f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: expected more than 0 CPUs, 0 or more GPUs"
        )
    return cpus, gpus
