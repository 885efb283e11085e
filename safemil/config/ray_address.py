"""Whether a Ray cluster answers at an address, found out in a process that can be given up.

``ray.init`` itself cannot: where nothing answers it tries again for minutes and writes about it, where something else
does it may wait for ever.
"""

from __future__ import annotations

import socket
import subprocess
import sys

from safemil.config.errors import UserError, printable

PATIENCE = 22.0  # seconds
PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="CRITICAL", log_to_driver=False)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}".strip().splitlines()[0])
ray.shutdown()
"""


def check_ray_address(address: str) -> None:
    """Return if a cluster answers.

    Raises:
        UserError: none does within ``PATIENCE``.
    """
    reason = _closed(address) or _unanswered(address)
    if reason is not None:
        raise UserError(
            f"--address {address}: no Ray cluster answers ({reason}); start one (ray start --head) or leave it out"
        )


def _closed(address: str) -> str | None:
    """Why HOST:PORT takes no call at all; None where it takes one, or is no such address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return None
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return None


def _unanswered(address: str) -> str | None:
    """Why Ray cannot be connected to, or None where it can."""
    command = [sys.executable, "-c", PROBE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"nothing within {PATIENCE:g} s"
    if done.returncode == 0:
        return None
    return printable((done.stderr.strip().splitlines() or ["the process that asked died"])[-1])[:200]
