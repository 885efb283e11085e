"""Runs that are killed: the driver, a worker, a node; SIGKILL and Ctrl-C. Each ends complete, with nothing repeated.

What is started here is a process group and has a mark in its environment, so that what it leaves behind is found.
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ENVIRONMENT, ROOT, write_ball_dataset

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("survival"), pytest.mark.timeout(600)]
GRID = ["--grid", "bagsize", "--smoke", "--tasks", "BallCircle", "--seeds", "0", "--cpus-per-trial", "1"]
SMALL = ["--set", "cost_model.steps=40", "cost_model.hidden=16", "policy.steps=60", "policy.hidden=16"]
SMALL += ["evaluation.episodes=1", "evaluation.checkpoints=1"]
COMMAND = [*GRID, *SMALL, "--save-every", "0"]  # the state of a training is kept at each report
TIMED = ["train_seconds", "eval_seconds", "command"]
N_TRIALS = 7
PATIENCE = 240  # seconds; a busy machine with two cores


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> Path:
    return write_ball_dataset(tmp_path_factory.mktemp("datasets")).parent


class Started:
    """A command in a process group of its own."""

    def __init__(self, arguments: list[str], storage: Path, datasets: Path) -> None:
        self.mark, self.trials = uuid.uuid4().hex, storage / "bagsize-smoke" / "trials"
        environment = {**os.environ, **ENVIRONMENT, "DSRL_DATASET_DIR": str(datasets), "MARK": self.mark}
        command = [sys.executable, "tune/run.py", *arguments, "--storage", str(storage)]
        self.output = storage / f"{self.mark}.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Shells start background jobs, the tests among them perhaps, deaf to Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def until(self, condition: Callable[[], object]) -> object:
        """Wait for something to become true while the command runs; gives what it became."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)
        return found

    def done(self) -> set[str]:
        return {path.parent.name for path in self.trials.glob("*/done")}

    def workers(self) -> set[int]:
        """Processes at work on a trial."""
        claims = (self.trials.parent / "claims").glob("*")
        found = set()
        for path in claims:
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.add(json.loads(path.read_text())["pid"])
        return {pid for pid in found if pid in self.alive()}

    def alive(self) -> set[int]:
        """Every process that has the mark."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.add(int(folder.name))
        return found

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def ends(self) -> int:
        return self.process.wait(PATIENCE)

    def left_behind(self) -> list[str]:
        """Commands of the processes that are still there half a minute later."""
        deadline = time.monotonic() + 30
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        commands = []
        for pid in self.alive():
            with contextlib.suppress(OSError):
                commands.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return commands


@pytest.fixture
def start(datasets) -> Iterator[Callable[..., Started]]:
    started = []

    def launch(storage: Path, *arguments: str) -> Started:
        started.append(Started([*COMMAND, *arguments], storage, datasets))
        return started[-1]

    yield launch
    for run in started:
        for pid in run.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.wait()


def table(storage: Path) -> pd.DataFrame:
    return pd.read_csv(storage / "bagsize-smoke" / "trials.csv").drop(columns=TIMED)


def stamps(run: Started, trials: set[str]) -> dict[str, int]:
    return {trial: (run.trials / trial / "policy.safetensors").stat().st_mtime_ns for trial in trials}


@pytest.fixture(scope="module")
def undisturbed(datasets, tmp_path_factory) -> pd.DataFrame:
    storage = tmp_path_factory.mktemp("undisturbed")
    run = Started([*COMMAND, "--shard", "1/1"], storage, datasets)
    assert run.ends() == 0, run.output.read_text()
    expected = table(storage)
    assert len(expected) == N_TRIALS and (expected["status"] == "ok").all()
    return expected


def test_two_processes_on_one_run_share_it_and_one_may_die(start, undisturbed, tmp_path):
    """Both run all of it; the first is killed half-way through a training."""
    first = start(tmp_path, "--shard", "1/1")
    first.until(lambda: first.workers() and list(first.trials.parent.glob("unfinished/*.pt")))
    second = start(tmp_path, "--shard", "1/1")
    second.until(lambda: second.workers() and len(second.done()) >= 2)
    done = stamps(second, second.done())
    first.signal(signal.SIGKILL)
    assert second.ends() == 0, second.output.read_text()
    assert stamps(second, set(done)) == done  # nothing finished was repeated
    pd.testing.assert_frame_equal(table(tmp_path), undisturbed, rtol=1e-6)
    assert not list(first.trials.parent.glob("unfinished/*"))


def test_driver_killed_then_a_worker_then_complete(start, undisturbed, tmp_path):
    """SIGKILL for the driver's whole group; in the resumed run, for a process that trains."""
    killed = start(tmp_path)
    killed.until(lambda: len(killed.done()) >= 2)
    killed.signal(signal.SIGKILL)
    done = stamps(killed, killed.done())
    resumed = start(tmp_path, "--resume")
    (victim, *_) = resumed.until(resumed.workers)
    os.kill(victim, signal.SIGKILL)
    assert resumed.ends() == 0, resumed.output.read_text()
    assert stamps(resumed, set(done)) == done
    pd.testing.assert_frame_equal(table(tmp_path), undisturbed, rtol=1e-6)
    assert "Traceback" not in resumed.output.read_text()
    assert not killed.left_behind() and not resumed.left_behind()


def test_ctrl_c_stops_at_once_and_leaves_nothing_behind(start, tmp_path):
    run = start(tmp_path)
    run.until(run.workers)
    began = time.monotonic()
    run.signal(signal.SIGINT)
    code, seconds, output = run.ends(), time.monotonic() - began, run.output.read_text()
    assert code == 130 and seconds < 30, output
    assert "interrupted" in output and "--resume" in output and "Traceback" not in output
    assert not run.left_behind()


def test_ctrl_c_while_tune_still_writes(monkeypatch):
    """A thread of Tune's writes into the folder that is being removed: the interrupt must come through all the same."""
    from ray import tune as ray_tune

    from tune.progress import Board
    from tune.ray_runner import run_with_ray

    def not_empty(*_, **__):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def fit(self):
        monkeypatch.setattr(os, "rmdir", not_empty)
        raise KeyboardInterrupt

    monkeypatch.setattr(ray_tune.Tuner, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        run_with_ray({}, Board({}), cpus=1, gpus=0.0)


NODES = """
import sys
from ray.cluster_utils import Cluster
for attempt in range(3):  # a raylet gives up when a busy machine takes more than 30 seconds to start its agents
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        node = cluster.add_node(num_cpus=1)
        break
    except Exception as error:
        print(error, file=sys.stderr)
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(node, allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@pytest.fixture
def two_nodes(tmp_path) -> Iterator[subprocess.Popen]:
    """A Ray cluster of two raylets; a line on its input kills the second, another one ends it."""
    with (
        (tmp_path / "nodes.txt").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", NODES],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        yield process
        process.communicate("\n\n")


@pytest.mark.long  # on a busy machine Ray may find no process for minutes
def test_a_node_dies_half_way(start, undisturbed, two_nodes, monkeypatch, tmp_path):
    """A cluster that runs already, rollouts apart from the training; one of its two raylets is killed."""
    address = two_nodes.stdout.readline().strip()
    assert address, (tmp_path / "nodes.txt").read_text()
    monkeypatch.setenv("RAY_ADDRESS", address)  # which `auto` takes first: there may be other clusters here
    run = start(tmp_path, "--address", "auto", "--rollouts", "apart")
    run.until(lambda: len(run.done()) >= 2)
    two_nodes.stdin.write("\n")
    two_nodes.stdin.flush()
    assert two_nodes.stdout.readline() == "killed\n"
    assert run.ends() == 0, run.output.read_text()
    pd.testing.assert_frame_equal(table(tmp_path), undisturbed, rtol=1e-6)
    assert "Traceback" not in run.output.read_text()
