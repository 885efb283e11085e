"""A Ray cluster to run on: one that is made of this machine for the time of a run, or one that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safemil.config.errors import UserError

STARTS = 3  # of Ray on this machine, before it is given up

RAY_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our trial folders are the record
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # and our registry of finished trials: Tune's own state is never read
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C stops at once; finished trials are on disk already
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
}


@dataclass(frozen=True)
class Cluster:
    """What there is to share out."""

    cpus: float
    gpus: float
    cpus_of_largest_node: float


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Ray for the time of the ``with``.

    Args:
        address: of a running cluster (``auto``: the one of this machine), or None for one on this machine alone.

    Raises:
        UserError: nothing answers at that address.
    """
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a process that died is one line of the board
    import ray

    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        _start_here(quiet)
    else:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"--address {address}: no Ray cluster answers ({reason}); start one (ray start --head) or leave it out"
            ) from None
    try:
        total = ray.cluster_resources()
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        yield Cluster(total.get("CPU", 0.0), total.get("GPU", 0.0), max(nodes, default=0.0))
    finally:
        ray.shutdown()


def _start_here(quiet: dict[str, Any]) -> None:
    """A raylet gives up when a busy machine takes more than 30 seconds to start its agents; another try helps."""
    import ray

    for attempt in range(STARTS):
        try:
            ray.init(include_dashboard=False, **quiet)
            return
        except Exception:
            ray.shutdown()
            if attempt == STARTS - 1:
                raise
