"""Machines as they are: homes, temporary folders, terminals, addresses and disks that are not what one would wish."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from safemil.config import ray_address
from safemil.config.checks import at_least, checked_device, checked_seed
from safemil.config.errors import UserError, entry_point
from safemil.config.ray_address import check_ray_address
from safemil.data.locate import dataset_folder
from tests.conftest import ENVIRONMENT, ROOT, run_python, write_ball_dataset
from tune.prepare import share_out
from tune.ray_cluster import LONGEST_TEMPORARY_FOLDER, home_can_be_written, temporary_folder
from tune.run import main
from tune.storage import working_folder

RUN = ["--grid", "demo", "--smoke", "--seeds", "0", "--methods", "bc-all", "--cpus-per-trial", "1"]
QUICK = ["--set", "policy.steps=5", "evaluation.episodes=1", "evaluation.checkpoints=1"]
POWERLESS = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]  # root who may not write everywhere


def one_line(shown: subprocess.CompletedProcess, *words: str) -> None:
    lines = [line for line in shown.stderr.splitlines() if line.startswith("error: ")]
    assert shown.returncode == 2 and len(lines) == 1 and "Traceback" not in shown.stderr, shown.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> Path:
    return write_ball_dataset(tmp_path_factory.mktemp("datasets")).parent


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_on_ray_amid_all_of_it_at_once(datasets, tmp_path):
    """RAY_ADDRESS of a cluster that is none, a relative dataset folder, a temporary folder whose path is too long for a
    socket, a home that cannot be written, a terminal that is not UTF-8, a folder with a name it cannot show."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    variables = {
        "RAY_ADDRESS": "192.0.2.1:6379",
        "DSRL_DATASET_DIR": os.path.relpath(datasets, ROOT),
        "TMPDIR": str(long),
        "HOME": "/proc",
        "PYTHONIOENCODING": "ascii",
    }
    shown = run_python("tune/run.py", *RUN, "--storage", tmp_path / "ergebnisse-für", *QUICK, timeout=500, **variables)
    assert shown.returncode == 0 and "Traceback" not in shown.stderr, shown.stderr
    assert list((tmp_path / "ergebnisse-für").glob("*/trials/*/done"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "-1"], ["--seeds -1", "whole number"]),
        (["--storage", "{file}"], ["a file lies where a folder should be"]),
        (["--storage", "{file}/x"], ["a file lies where a folder should be"]),
        (["--storage", "{long}"], ["too long"]),
        (["--shard", "1/1", "--gpus-per-trial", "99"], ["--gpus-per-trial 99", "this machine has"]),
    ],
)
def test_what_cannot_be_is_one_line(arguments, words, datasets, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(datasets))
    (tmp_path / "file").touch()
    places = {"file": str(tmp_path / "file"), "long": str(tmp_path / ("x" * 300))}
    command = [*RUN, "--storage", str(tmp_path / "results"), *(word.format(**places) for word in arguments), *QUICK]
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


def test_storage_that_may_not_be_written_is_one_line(datasets, tmp_path):
    (tmp_path / "other").mkdir()
    command = [
        sys.executable,
        "tune/run.py",
        *RUN,
        "--shard",
        "1/1",
        "--storage",
        str(tmp_path / "other" / "x"),
        *QUICK,
    ]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's rights")
        os.chown(tmp_path / "other", 65534, 65534)
        command = [*POWERLESS, *command]
    else:
        (tmp_path / "other").chmod(0o555)
    environment = {**ENVIRONMENT, "DSRL_DATASET_DIR": str(datasets)}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    one_line(shown, "ermission denied", str(tmp_path / "other"))


@pytest.mark.slow
def test_an_address_where_nothing_answers_is_one_line_within_half_a_minute(datasets, tmp_path):
    """A port that is closed, and one that takes the call and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}", "nowhere"):
            began = time.monotonic()
            with pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers") as caught:
                check_ray_address(address)
            assert time.monotonic() - began < 30 and "\n" not in str(caught.value)
    began = time.monotonic()
    shown = run_python(
        "tune/run.py", *RUN, "--storage", tmp_path / "results", "--address", "127.0.0.1:1", DSRL_DATASET_DIR=datasets
    )
    one_line(shown, "no Ray cluster answers")
    assert not (tmp_path / "results").exists()


def test_the_time_an_address_is_given_is_bounded(monkeypatch):
    monkeypatch.setattr(ray_address, "PROBE", "import time; time.sleep(100)")
    monkeypatch.setattr(ray_address, "PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"nothing within 0.5 s"):
        check_ray_address("auto")
    monkeypatch.setattr(ray_address, "PATIENCE", 20.0)
    monkeypatch.setattr(ray_address, "PROBE", "")
    check_ray_address("one that answers")


def test_rays_temporary_folder_is_ones_own_and_short(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    found = Path(temporary_folder())
    assert len(str(found)) <= LONGEST_TEMPORARY_FOLDER and found.stat().st_uid == os.getuid()
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # short, and nothing can be written there
    assert Path(temporary_folder()).parent != Path("/proc")
    socket_path = f"{found}/session_2026-11-27_18-51-49_589123_4194304/sockets/plasma_store"
    assert len(socket_path) <= 107


def test_a_home_that_cannot_be_written_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_can_be_written()
    for nowhere in ("/proc", str(tmp_path / "none")):
        monkeypatch.setenv("HOME", nowhere)
        assert not home_can_be_written()


def test_the_working_folder_of_a_bucket_is_ones_own():
    assert working_folder("s3://bucket/x", "run").parent.name == f"safemil-runs-{os.getuid()}"


def test_datasets_are_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSRL_DATASET_DIR", "data/here")
    assert dataset_folder() == tmp_path / "data" / "here"
    monkeypatch.delenv("DSRL_DATASET_DIR")
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="set DSRL_DATASET_DIR"):
        dataset_folder()


def test_shares_that_will_never_be_there():
    machine = {"total_cpus": 2.0, "total_gpus": 0.0}
    for cpus, gpus in ((4.0, None), (1.0, 1.0)):
        with pytest.raises(UserError, match=r"this machine has 2 cores and 0 GPUs"):
            share_out(1, cpus, gpus, fixed=True, **machine)
        share_out(1, cpus, gpus, **machine)  # a cluster may grow


def test_seeds_devices_and_counts():
    assert checked_seed(np.int64(7)) == 7 and checked_device("cpu") == "cpu" and checked_device(None) in ("cpu", "cuda")
    at_least("--x", None, 1)
    at_least("--x", 1, 1)
    for wrong in (lambda: checked_seed("1"), lambda: checked_seed(2**63), lambda: at_least("--x", float("nan"), 0)):
        with pytest.raises(UserError):
            wrong()


@pytest.mark.parametrize("kibibytes", [0, 1, 8, 40, 200, 900])
def test_no_full_disk_crashes_the_writing_of_hdf5(kibibytes, tmp_path):
    """A limit on the size of files, wherever in the file it comes; the former file stays."""
    code = (
        "import numpy as np, sys\n"
        "from safemil.data.hdf5 import save; from safemil.data.trajectories import Trajectories\n"
        "data = Trajectories(np.ones((20_000, 10), 'f4'), np.zeros((20_000, 2), 'f4'), np.arange(0, 20_001, 100))\n"
        "try: save(sys.argv[1], data, None, {})\n"
        "except ValueError as error: print(error)\n"
        "print('alive')"
    )
    path = tmp_path / "data.hdf5"
    path.write_text("former")
    limited = ["bash", "-c", f'ulimit -f {kibibytes}; exec "$@"', "bash", sys.executable, "-c", code, str(path)]
    shown = subprocess.run(limited, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[-1] == "alive" and len(lines) == 2 and "cannot be written (File too large)" in lines[0]
    assert path.read_text() == "former" and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_errors_that_are_no_refusals_are_not_hidden():
    @entry_point
    def broken(error):
        raise error

    for error in (TimeoutError(110, "timed out"), ZeroDivisionError("a bug")):
        with pytest.raises(type(error)):
            broken(error)
    assert broken(OSError(28, "No space left on device", "x")) == 2
