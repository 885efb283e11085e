"""Files written whole or not at all: errors, killed writers, and writers that still live."""

import os
import signal
import subprocess
import sys

import pytest

from safemil.config.atomic import atomic_write, check_writable, discard

WRITER = """
import sys, time
from pathlib import Path
from safemil.config.atomic import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(600)
"""


def writer(path):
    """A process in the middle of writing ``path``, and its temporary file."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    return process, path.with_name(os.path.basename(process.stdout.readline().strip()))


def kill(process):
    with process:  # waits for its end, and closes its pipe
        process.send_signal(signal.SIGKILL)


def names(folder):
    return sorted(os.listdir(folder))


def test_the_name_is_given_at_the_end_and_folders_are_made(tmp_path):
    path = tmp_path / "new" / "row.json"
    with atomic_write(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "all of it" and names(path.parent) == ["row.json"]


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "row.json"
    path.write_text("former")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "former" and names(tmp_path) == ["row.json"]


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_one_is_not_disturbed(tmp_path):
    path = tmp_path / "row.json"
    killed, left = writer(path)
    living, half = writer(path)
    kill(killed)
    assert {left.name, half.name} == set(names(tmp_path))
    with atomic_write(path) as temporary:
        temporary.write_text("all of it")
    assert names(tmp_path) == sorted([half.name, "row.json"])
    kill(living)
    discard(path)
    assert names(tmp_path) == []


def test_other_files_and_other_machines_are_left_alone(tmp_path):
    path = tmp_path / "row"
    others = [".row~elsewhere~1.tmp", ".row.json~elsewhere~1.tmp", ".row~x~elsewhere~1.tmp", "row.tmp"]
    for name in others:
        (tmp_path / name).write_text("")
    with atomic_write(path) as temporary:
        temporary.write_text("all of it")
    assert names(tmp_path) == sorted(["row", *others])
    discard(path)
    assert names(tmp_path) == sorted(others[1:])
    discard(tmp_path / "no folder" / "row")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """As /dev/stdout is, and /dev/null, which root could put a file in place of."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    with atomic_write(pipe) as target:
        target.write_text("all of it")
    assert os.read(reader, 100) == b"all of it" and pipe.is_fifo() and names(tmp_path) == ["pipe"]
    os.close(reader)


def test_what_could_not_be_written_later_is_found_now(tmp_path):
    (tmp_path / "file").write_text("former")
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "former"
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OSError):
            check_writable(path)
