"""Worker processes for rollouts: chunks of episodes come in, each chunk with its result comes out as it is finished.

A pool of the standard library does not say which of its tasks ended a worker, so here every worker is a pool of one. A
chunk whose worker died (killed for memory, a crash inside a simulator) is played again, episode by episode, in a fresh
worker; only an episode that ends its worker again is given up.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Episodes of one checkpoint, or units of one recipe, that one worker plays in a row."""

    subject: Path | str  # a checkpoint to play, or a recipe to record
    indices: tuple[int, ...]
    repeated: bool = False  # its worker has died once


class WorkerDied(RuntimeError):
    """An episode ended its worker process twice."""


def usable_cores() -> int:
    """The cores this process may use: on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_chunks(work: Callable[..., Result], chunks: Iterable[Chunk], workers: int) -> Iterator[tuple[Chunk, Result]]:
    """Yield ``(chunk, work(chunk.subject, indices=chunk.indices))`` as the workers finish, in any order.

    ``work`` must be picklable. What it raises is raised here. However this ends, no worker stays behind.
    """
    waiting = deque(chunks)
    idle = [_Worker() for _ in range(min(workers, len(waiting)))]
    running: dict[Future, tuple[_Worker, Chunk]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, chunk = idle.pop(), waiting.popleft()
                running[worker.submit(work, chunk.subject, indices=chunk.indices)] = worker, chunk
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, chunk = running[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    waiting.extendleft(reversed(_again(chunk)))
                else:
                    yield chunk, result
                del running[future]
                idle.append(worker)
    finally:
        for worker in [*idle, *(worker for worker, _ in running.values())]:
            worker.stop()


def _again(chunk: Chunk) -> list[Chunk]:
    """What to do about a chunk whose worker died: its episodes one by one. Raises ``WorkerDied`` the second time."""
    if chunk.repeated:
        raise WorkerDied(
            f"{chunk.subject}, episode {chunk.indices[0]}: its worker process died twice; either memory ran out (try"
            " fewer workers) or the simulator crashes in this episode"
        )
    logger.warning("a worker died in episodes %s of %s; playing them again", chunk.indices, chunk.subject)
    return [Chunk(chunk.subject, (index,), repeated=True) for index in chunk.indices]


class _Worker:
    """One process, started when it is first used and again after it has died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None  # the process ends when this end is closed, also by our own death

    def submit(self, work: Callable, *arguments, **named) -> Future:
        with _one_thread_each():
            if self._pool is not None:
                with contextlib.suppress(BrokenProcessPool):
                    return self._pool.submit(work, *arguments, **named)
                self.stop()
            # Spawned, not forked: a fork copies locked mutexes of torch's and the simulators' threads.
            context = multiprocessing.get_context("spawn")
            watched, self._lifeline = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(1, context, initializer=_start_worker, initargs=(watched,))
            return self._pool.submit(work, *arguments, **named)

    def stop(self) -> None:
        """End the process at once, whatever it is doing."""
        if self._pool is not None and self._lifeline is not None:
            self._lifeline.close()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _start_worker(watched: Connection) -> None:
    # Ctrl-C reaches the workers too: they go without a traceback, the parent has the word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()


def _end_with(watched: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        watched.recv()
    os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside get one BLAS thread: they read these when numpy and torch are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
