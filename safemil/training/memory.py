"""The allocator's settings for training: memory that a step freed is kept for the next step.

glibc hands large blocks back to the system as soon as they are freed, and each step then pays for every page anew: with
whole trajectories in large bags, as much time as for the arithmetic (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import functools
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST_BLOCK = 2**30


@functools.cache
def keep_freed_memory() -> None:
    """Ask for it, once a process; where the C library is not glibc nothing happens."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_BLOCK - 1)
