"""The allocator's settings for training: memory that a step freed is kept for the next step.

glibc hands large blocks back to the system as soon as they are freed, and each step then pays for every page anew: with
whole trajectories in large bags, as much time as for the arithmetic (benchmarks/README.md). Between trainings it is
handed back: glibc keeps a heap a thread, Ray runs each trial in a thread of its own, and a process that went on to
another heap would keep what it freed in the last one.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST_BLOCK = 2**30


@functools.cache
def keep_freed_memory() -> None:
    """Ask for it, once a process; where the C library is not glibc nothing happens."""
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_BLOCK - 1)


def release_freed_memory() -> None:
    """Hand what all heaps of this process hold and do not use back to the system; takes milliseconds."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _glibc(name: str) -> Any:
    """A function of the C library; None where that is not glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
