"""A Ray cluster to run on: one that is made of this machine for the time of a run, or one that runs already."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safemil.config.errors import UserError, printable

STARTS = 3  # of Ray on this machine, before it is given up

LONGEST_TEMPORARY_FOLDER = 40  # a socket's path has at most 107 bytes, of which Ray itself needs 66
QUIET: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}

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

    if address is None:
        _start_here()
    else:
        try:
            ray.init(address=address, **QUIET)
        except (ConnectionError, ValueError, RuntimeError) as error:  # it answered when it was asked
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"--address {address}: no Ray cluster answers any more ({reason})") from None
    try:
        total = ray.cluster_resources()
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        yield Cluster(total.get("CPU", 0.0), total.get("GPU", 0.0), max(nodes, default=0.0))
    finally:
        ray.shutdown()


def _start_here() -> None:
    """On this machine alone, whatever RAY_ADDRESS says.

    A raylet gives up when a busy machine takes more than 30 seconds to start its agents; another try helps.
    """
    import ray

    if not home_can_be_written() and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in ~/.ray
    for attempt in range(STARTS):
        try:
            ray.init(address="local", include_dashboard=False, _temp_dir=temporary_folder(), **QUIET)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS - 1:
                reason = printable(f"{type(error).__name__}: {error}".strip().splitlines()[0])
                raise UserError(f"Ray cannot be started here ({reason}); --shard 1/1 does without") from error


def home_can_be_written() -> bool:
    """Whether there is a ~/.ray that can be written in; makes it, as Ray would."""
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(exist_ok=True)
    except (OSError, RuntimeError):
        return False
    return os.access(folder, os.W_OK)


def temporary_folder() -> str | None:
    """Where Ray puts its sockets and logs: one of this user's own, with a path short enough for a socket's.

    None (Ray's own choice) where there is none.
    """
    for folder in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")):
        own = folder / f"ray-{os.getuid()}"
        if len(os.fsencode(own)) > LONGEST_TEMPORARY_FOLDER:
            continue
        with contextlib.suppress(OSError):
            own.mkdir(mode=0o700, exist_ok=True)
            if own.stat().st_uid == os.getuid() and os.access(own, os.W_OK):
                return str(own)
    return None
