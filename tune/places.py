"""Where the packs of a run are carried out: in this process, or on a Ray cluster."""

from __future__ import annotations

import functools
import os

from tune.job import Job
from tune.prepare import deal_out, share_out, with_share
from tune.progress import Board
from tune.schedulers import run_serially, run_to_the_end

Jobs = dict[str, Job]


def run_here(jobs: Jobs, board: Board, *, cpus: float | None, gpus: float | None) -> None:
    """In this process, which has the whole machine.

    Args:
        cpus, gpus: of a pack, where the user said so.
    """
    import torch

    cores = max(os.cpu_count() or 1, cpus or 0)  # more processes than cores do no harm
    share = share_out(1, cpus, gpus, total_cpus=cores, total_gpus=torch.cuda.device_count(), fixed=True)
    jobs = {pack: with_share(job, share, apart=False) for pack, job in jobs.items()}
    run_to_the_end(lambda some: run_serially(some, board), jobs, board)


def run_on_ray(
    jobs: Jobs, board: Board, *, address: str | None, cpus: float | None, gpus: float | None, apart: bool
) -> None:
    """On a Ray cluster: the one at ``address``, or one made of this machine.

    Args:
        cpus, gpus: of a pack, where the user said so.
        apart: roll out in tasks of their own even without a GPU.
    """
    from tune.ray_cluster import connected
    from tune.ray_runner import run_with_ray

    with connected(address) as cluster:
        if cpus is None and not cluster.gpus:
            jobs = deal_out(jobs, cluster.cpus)
            board.divide(list(jobs))
        share = share_out(
            len(jobs),
            cpus,
            gpus,
            total_cpus=cluster.cpus,
            total_gpus=cluster.gpus,
            node_cpus=cluster.cpus_of_largest_node,
            apart=apart,
            fixed=address is None,
        )
        jobs = {pack: with_share(job, share, apart=share.apart) for pack, job in jobs.items()}
        schedule = functools.partial(
            run_with_ray, board=board, cpus=share.cpus, gpus=share.gpus, concurrent=share.concurrent
        )
        run_to_the_end(schedule, jobs, board)
