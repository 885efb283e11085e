"""One process at a time on a trial: claims between processes, after deaths, across hosts."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT
from tune import claims as module
from tune.claims import Claims, Holder, started_at, this_process

IDS = ["a-s0-12345678", "a-s1-12345678"]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "claims"


def write_claim(folder: Path, trial_id: str, generation: int = 1, age: float = 0.0, **changes) -> None:
    """As another process would have left it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{trial_id}.{generation}"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(this_process("other"), **changes))))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_held_trial_is_refused_and_free_again_afterwards(folder):
    first, second = Claims(folder, "one"), Claims(folder, "two")
    with first.hold(IDS) as holder:
        assert holder is None
        with second.hold(IDS[1:]) as holder:
            assert holder == this_process("one") and str(os.getpid()) in str(holder)
        assert second.holder(IDS[0]) is not None
    assert second.holder(IDS[0]) is None and not list(folder.iterdir())
    with second.hold(IDS) as holder:
        assert holder is None


def test_all_or_nothing(folder):
    first, second = Claims(folder, "one"), Claims(folder, "two")
    with first.hold(IDS[1:]), second.hold(IDS) as holder:
        assert holder is not None
        assert first.holder(IDS[0]) is None  # the one that was free was not kept


def test_a_killed_process_loses_its_claims_at_once(folder):
    code = (
        "import sys, time; from pathlib import Path; from tune.claims import Claims\n"
        "with Claims(Path(sys.argv[1]), 'one').hold(sys.argv[2:]): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(folder), *IDS]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        claims = Claims(folder, "two")
        assert claims.holder(IDS[0]).pid == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert claims.holder(IDS[0]) is None
    with claims.hold(IDS) as holder:
        assert holder is None and sorted(path.suffix for path in folder.iterdir()) == [".1", ".1", ".2", ".2"]


@pytest.mark.parametrize(
    ("changes", "age", "held"),
    [
        ({}, 1000.0, True),  # a process of this host that lives is believed, however long it has slept
        ({"started": "1"}, 0.0, False),  # the same process id, but another process
        ({"pid": 2**22 + 1}, 0.0, False),  # no such process
        ({"host": "elsewhere"}, 0.0, True),
        ({"host": "elsewhere"}, module.TIMEOUT - 30, True),
        ({"host": "elsewhere"}, module.TIMEOUT + 30, False),
        ({"boot": "before the restart", "pid": 1}, 0.0, True),  # not to be told from a host of the same name
        ({"boot": "before the restart", "pid": 1}, module.TIMEOUT + 30, False),
        ({"host": "elsewhere", "session": "mine"}, 0.0, False),  # an earlier attempt of one's own
    ],
)
def test_which_claims_are_dead(folder, changes, age, held):
    write_claim(folder, IDS[0], age=age, **changes)
    with Claims(folder, "mine").hold(IDS[:1]) as holder:
        assert (holder is not None) == held


def test_a_claim_that_is_being_written_counts(folder):
    folder.mkdir()
    (folder / f"{IDS[0]}.1").touch()
    assert isinstance(Claims(folder, "mine").holder(IDS[0]), Holder)


def test_a_heartbeat_keeps_a_claim_young(folder, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    with Claims(folder, "mine").hold(IDS[:1]):
        (path,) = folder.iterdir()
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60


def test_deaths_of_a_session_are_counted(folder):
    for generation, session in enumerate(("other", "mine", "mine"), start=1):
        write_claim(folder, IDS[0], generation, pid=2**22 + 1, session=session)
    assert Claims(folder, "mine").attempts(IDS[0]) == 2


def test_of_many_that_find_a_dead_claim_one_gets_it(folder):
    """Eight processes, forty dead claims: each is taken over once."""
    ids = [f"trial-{number}" for number in range(40)]
    for trial_id in ids:
        write_claim(folder, trial_id, pid=2**22 + 1)
    code = (
        "import sys; from pathlib import Path; from tune.claims import Claims\n"
        "claims, taken = Claims(Path(sys.argv[1]), sys.argv[2]), []\n"
        "sys.stdin.readline()\n"
        "for trial_id in sys.argv[3:]:\n"
        "    claim = claims.hold([trial_id])\n"
        "    if claim.__enter__() is None: taken.append((trial_id, claim))\n"
        "print(*(trial_id for trial_id, _ in taken), flush=True); sys.stdin.readline()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), f"session {number}", *ids],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    try:
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = [trial_id for process in processes for trial_id in process.stdout.readline().split()]
    finally:
        for process in processes:
            process.communicate("end\n")
    assert sorted(taken) == sorted(ids)


def test_a_zombie_is_dead():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        deadline = time.monotonic() + 20
        while started_at(process.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert started_at(process.pid) is None  # it has ended, and nobody has asked for its exit code yet
