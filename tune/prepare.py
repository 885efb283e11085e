"""Everything a run needs before its first trial starts: its folder, the datasets, a share of the machine, the jobs."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError
from safemil.data.tasks import Task, find_task
from tune.files import read_json, write_json
from tune.job import Job, is_done
from tune.trials import Trial, packs

MINUTES_TO_COLLECT = 60  # a longer collection is asked for by name, not begun by a run on its own


def open_run(folder: Path, trials: Sequence[Trial], origin: dict[str, Any], *, join: bool) -> None:
    """Make or reopen a run's folder and record what it is to hold.

    Args:
        origin: grid, command, axes and precision; kept from the first time.
        join: whether a run that exists may be added to.

    Raises:
        UserError: it exists and ``join`` is off, or it was begun at another precision.
    """
    if (folder / "trials").exists() and not join:
        raise UserError(
            f"{folder} exists already: --resume continues it (finished trials are skipped), --name NAME starts another"
        )
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        _record(folder, trials, origin)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """One process of those that use a run's folder: for what is read, changed and written back."""
    from filelock import FileLock

    with FileLock(folder / ".lock"):
        yield


def _record(folder: Path, trials: Sequence[Trial], origin: dict[str, Any]) -> None:
    first = {"created": datetime.now(timezone.utc).isoformat(timespec="seconds"), **origin, "trials": []}
    known = read_json(folder / "run.json") if (folder / "run.json").exists() else first
    begun, asked = (values.get("precision", "highest") for values in (known, origin))
    if begun != asked:
        raise UserError(
            f"{folder} was begun with --precision {begun}, not {asked}: go on with that, or use --name NAME"
        )
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
    from safemil.collection.collecting import collect
    from safemil.collection.recipes.table import RECIPES
    from safemil.data.locate import fetch, find

    recipe = next(iter(RECIPES.get(task.name, {}).values()), None)
    if recipe is not None and recipe.minutes > MINUTES_TO_COLLECT:
        recipe = None
    if recipe is not None and not (download and task.file_name) and find(task) is None:
        print(f"{task.name}: no dataset yet; collecting one (about {recipe.minutes:g} min)", file=sys.stderr)
        return collect(task)
    try:
        return fetch(task)
    except UserError as error:
        if recipe is None:
            raise
        print(f"{error}\n{task.name}: collecting a dataset instead (about {recipe.minutes:g} min)", file=sys.stderr)
        return collect(task)


def make_jobs(trials: Sequence[Trial], datasets: dict[str, Path], folder: Path, **settings: Any) -> dict[str, Job]:
    """Pack id -> job, for the packs with anything left to do; ``settings`` are those of ``Job``."""
    from safemil.data.locate import sha256

    jobs = {}
    for pack in packs(trials):
        todo = tuple(trial.to_dict() for trial in pack if not is_done(folder / "trials" / trial.id))
        if todo:
            dataset = datasets[pack[0].task]
            jobs[pack[0].pack_id] = Job(
                todo, str(folder / "trials"), str(dataset), dataset_sha256=sha256(dataset), **settings
            )
    return jobs


def deal_out(jobs: dict[str, Job], cores: float) -> dict[str, Job]:
    """Packs parted by their seeds as long as cores would be left without one; the parts' names say of which pack.

    On a CPU seeds packed together take about as long as the same seeds one after the other, see
    packed5_vs_single_ratio in benchmarks/README.md. A seed's result is the same in any company.
    """
    parts, dealt = max(1, int(cores // max(1, len(jobs)))), {}
    for pack, job in jobs.items():
        n = min(parts, len(job.pack))
        for number in range(n):
            name = pack if n == 1 else f"{pack} {number + 1}/{n}"
            dealt[name] = dataclasses.replace(job, pack=job.pack[number::n])
    return dealt


def discard_stages(folder: Path) -> None:
    """Delete the training stages kept for later packs, once no trial of the run is left to do."""
    if all(is_done(folder / "trials" / trial_id) for trial_id in read_json(folder / "run.json")["trials"]):
        shutil.rmtree(folder / "stages", ignore_errors=True)


@dataclass(frozen=True)
class Share:
    """What one pack gets of a machine or cluster, and how many packs run at once (None: as many as fit)."""

    cpus: float  # as many processes roll out, where a pack does that itself
    gpus: float
    apart: bool  # rollouts are tasks of their own
    concurrent: int | None = None
    threads: int = 1  # of torch while the pack trains


def share_out(
    n_packs: int,
    cpus: float | None,
    gpus: float | None,
    *,
    total_cpus: float,
    total_gpus: float,
    node_cpus: float | None = None,
    apart: bool = False,
    fixed: bool = False,
) -> Share:
    """What was asked for, else the cores shared out evenly, a quarter of a GPU, and one thread for training.

    Two threads on cores that others use are slower than one, as they wait for each other.

    Args:
        node_cpus: of the largest node, which a pack cannot exceed.
        apart: roll out in tasks of their own even without a GPU.
        fixed: no machines will come later, so that what is not there will never be.

    Raises:
        UserError: a share that is not positive, or more than there will ever be.
    """
    threads = 1 if cpus is None else max(1, int(cpus))
    if cpus is None:
        cpus = max(1, min(total_cpus // max(1, n_packs), node_cpus or total_cpus))
    if gpus is None:
        gpus = 0.25 if total_gpus else 0.0
    if cpus <= 0 or gpus < 0:
        raise UserError(
            f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: expected more than 0 CPUs, 0 or more GPUs"
        )
    if fixed and (cpus > (node_cpus or total_cpus) or gpus > total_gpus):
        raise UserError(
            f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: this machine has {node_cpus or total_cpus:g} cores"
            f" and {total_gpus:g} GPUs; ask for less, or for a cluster with --address"
        )
    if not (apart or gpus):
        return Share(cpus, gpus, apart=False, threads=threads)
    # Waiting trainers would take every core that falls free; half of the cores stay with the rollouts.
    by_cpus = max(1, int(total_cpus / 2 / cpus))
    by_gpus = int(total_gpus / gpus) if gpus else by_cpus
    concurrent = max(1, min(by_cpus, by_gpus)) if by_gpus else None
    return Share(cpus, gpus, apart=True, concurrent=concurrent, threads=threads)


def with_share(job: Job, share: Share, *, apart: bool) -> Job:
    """The same job with its share of the machine."""
    return dataclasses.replace(
        job,
        device="cuda" if share.gpus else "cpu",
        gpus=share.gpus,
        workers=max(1, int(share.cpus)),
        threads=share.threads,
        roll_out=not apart,
    )
