"""Who is at work on a trial: one process at a time, among all that use the run's folder, on one host or many.

A claim is the file ``RUN/claims/<trial id>.<generation>``; it says which process holds it, and a thread of that process
touches it now and then. The highest generation counts. A free trial is claimed by creating generation 1, a dead
process's by creating the next one: creating a file that must not exist yet (O_EXCL) succeeds for one process only, also
on NFS, so that of several that see a dead claim one gets it. Files of dead claims stay; they hold a hundred bytes.

A claim is dead when its process is gone (seen at once on the same host), when it belongs to an earlier attempt of the
same session (whose scheduler knows that the attempt has ended), or when it was not touched for ``TIMEOUT`` seconds by
the file server's clock. A process that was only slow may find its trial taken over; both then write the same results.

Not filelock's ``SoftFileLease``: it takes a dead host's claim over by exchanging two names, which NFS and sshfs refuse.
On two hosts that share a folder by sshfs the claim of a killed process was never free again (cluster/README.md).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEARTBEAT = 15.0  # seconds between two touches
TIMEOUT = 120.0  # seconds without one after which a process on another host counts as dead


@dataclass(frozen=True)
class Holder:
    """A process, told from any other that ever had the same id on a host of the same name."""

    host: str
    boot: str  # of the host, and of the process-id namespace where containers have their own
    pid: int
    started: str  # clock ticks after the host's start; a recycled pid has another
    session: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process(session: str) -> Holder:
    """The calling process as a holder; ``session`` is shared by all processes of one command."""
    return Holder(socket.gethostname(), _boot(), os.getpid(), started_at(os.getpid()) or "", session)


@functools.cache
def _boot() -> str:
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no /proc
        return ""


def started_at(pid: int) -> str | None:
    """When a process of this host started, "" where the system does not tell (no /proc); None if there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's, so it exists
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]  # a zombie is dead already


class Claims:
    """The claims of one run, as one process sees and makes them."""

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.me = folder, this_process(session)
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def hold(self, trial_ids: Sequence[str]) -> Iterator[Holder | None]:
        """Claim all of ``trial_ids`` for the time of the ``with``, or none; yields who is in the way, if anyone."""
        mine: list[Path] = []
        over = threading.Event()
        try:
            for trial_id in trial_ids:
                claimed = self._claim(trial_id)
                if isinstance(claimed, Holder):
                    _give_back(mine)
                    yield claimed
                    return
                mine.append(claimed)
            threading.Thread(target=_touch, args=(mine, over), daemon=True).start()
            yield None
        finally:
            over.set()
            _give_back(mine)

    def holder(self, trial_id: str) -> Holder | None:
        """Who is at work on a trial; None where it is free, or its claim dead."""
        _, newest = next(reversed(self._generations(trial_id)), (0, None))
        return None if newest is None or self._dead(newest) else _read(newest)

    def attempts(self, trial_id: str) -> int:
        """How many processes of this session have died at work on a trial."""
        return sum(_read(path).session == self.me.session for _, path in self._generations(trial_id))

    def _claim(self, trial_id: str) -> Path | Holder:
        """Create the next generation if the present one is free or dead."""
        number, newest = next(reversed(self._generations(trial_id)), (0, None))
        if newest is not None and not self._dead(newest):
            return _read(newest)
        path = self.folder / f"{trial_id}.{number + 1}"
        try:
            with path.open("x") as file:
                file.write(json.dumps(asdict(self.me)))
        except FileExistsError:
            return _read(path)
        except OSError:  # a full disk
            path.unlink(missing_ok=True)
            raise
        _, newest = next(reversed(self._generations(trial_id)), (0, path))
        if newest != path:  # what was seen above was older than what others have made since
            path.unlink(missing_ok=True)
            return _read(newest)
        return path

    def _generations(self, trial_id: str) -> list[tuple[int, Path]]:
        pattern = re.compile(re.escape(trial_id) + r"\.(\d+)")
        named = ((pattern.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in named if match)

    def _dead(self, path: Path) -> bool:
        holder = _read(path)
        if holder.session == self.me.session:
            return True
        if (holder.host, holder.boot) == (self.me.host, self.me.boot):
            return started_at(holder.pid) != holder.started
        try:
            return self._server_time() - path.stat().st_mtime > TIMEOUT
        except FileNotFoundError:
            return True  # given back in this moment

    def _server_time(self) -> float:
        """Now, by the clock that stamps the files of this folder."""
        probe = self.folder / f".{uuid.uuid4().hex}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def _read(path: Path) -> Holder:
    """Whoever a claim names; nobody known while it is being written, or once it is gone."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return Holder("an unknown host", "", 0, "", "")


def _give_back(paths: list[Path]) -> None:
    """Each once: its name may be another process's claim the moment after."""
    while paths:
        paths.pop().unlink(missing_ok=True)


def _touch(paths: list[Path], over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        for path in tuple(paths):
            with contextlib.suppress(OSError):
                os.utime(path)
