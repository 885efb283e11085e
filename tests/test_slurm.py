"""Both Slurm recipes as typed, on a real Slurm of two hosts (cluster/two-nodes.sh)."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT, write_ball_dataset

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "munged", "ip", "nsenter", "unshare")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)} missing (apt-get install slurm-wlm munge)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="hosts with networks of their own need root"),
    pytest.mark.skipif(not (ROOT / ".venv" / "bin" / "ray").exists(), reason="the recipes use the checkout's .venv"),
]
GRID = ["--grid", "bagsize", "--smoke", "--tasks", "BallCircle", "--seeds", "0"]
SMALL = ["--set", "cost_model.steps=20", "cost_model.hidden=8", "policy.steps=20", "policy.hidden=8"]
SMALL += ["evaluation.episodes=1", "evaluation.checkpoints=1"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Two hosts; gives what brings them up and down, and the environment of Slurm's commands."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "data").mkdir()
    write_ball_dataset(folder / "data")
    script = str(ROOT / "cluster" / "two-nodes.sh")
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "DSRL_DATASET_DIR": str(folder / "data")}
    environment["PATH"] += ":/usr/sbin:/sbin"

    def command(*words: object, check: bool = True) -> str:
        done = subprocess.run(list(map(str, words)), cwd=ROOT, env=environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    started = subprocess.run([script, "up", str(folder)], env=environment, capture_output=True, text=True)
    try:
        if started.returncode:
            pytest.skip(f"no two hosts on this machine: {started.stderr.strip().splitlines()[-1]}")
        yield command, folder, script
    finally:
        command(script, "down", folder, check=False)


def submitted(command, folder: Path, *words: str) -> str:
    return command("sbatch", "--parsable", f"--output={folder}/%x-%j-%a.log", *words).strip()


def ended(command, folder: Path, job: str, patience: float = 1500) -> None:
    deadline = time.monotonic() + patience
    while command("squeue", "-h", "-j", job, check=False).strip():
        assert time.monotonic() < deadline, logs(folder)
        time.sleep(1)


def logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-3_000:] for path in folder.glob("*.log"))


def complete(folder: Path, storage: Path) -> None:
    rows = pd.read_csv(storage / "bagsize-smoke" / "trials.csv")
    assert len(rows) == 7 and (rows["status"] == "ok").all(), logs(folder)


def test_the_array_recipe_with_a_host_that_dies(slurm, tmp_path):
    """Its part is taken up by the other host."""
    command, folder, script = slurm
    storage = tmp_path / "results"
    job = submitted(
        command, folder, "--array=1-2", "cluster/slurm-array.sbatch", *GRID, "--storage", str(storage), *SMALL
    )
    deadline = time.monotonic() + 600
    while not list(storage.glob("bagsize-smoke/trials/*/done")):
        assert time.monotonic() < deadline, logs(folder)
        time.sleep(0.5)
    command(script, "kill", folder, "node2")
    try:
        ended(command, folder, job)
    finally:
        command(script, "start", folder, "node2")
    complete(folder, storage)


def test_the_ray_recipe_on_two_hosts(slurm, tmp_path):
    command, folder, _ = slurm
    deadline = time.monotonic() + 120
    while command("sinfo", "-h", "-t", "idle", "-o", "%D").strip() != "2":
        assert time.monotonic() < deadline, command("sinfo", "-N")
        time.sleep(1)
    storage = tmp_path / "results"
    words = ["--nodes=2", "cluster/slurm-ray.sbatch", *GRID, "--storage", str(storage), "--cpus-per-trial", "4", *SMALL]
    job = submitted(command, folder, *words)
    ended(command, folder, job)
    complete(folder, storage)
    assert not list(ROOT.glob(".ray-token-*"))
