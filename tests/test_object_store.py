"""A run in an object store: a real S3 endpoint (moto's server, s3fs). Killed and resumed it equals one undisturbed."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.conftest import ENVIRONMENT, ROOT, write_ball_dataset
from tune.storage import pull, push_files

GRID = [
    "--grid",
    "bagsize",
    "--smoke",
    "--tasks",
    "BallCircle",
    "--seeds",
    "0",
    "--cpus-per-trial",
    "1",
    "--shard",
    "1/1",
]
SMALL = ["--set", "cost_model.steps=20", "cost_model.hidden=8", "policy.steps=20", "policy.hidden=8"]
SMALL += ["evaluation.episodes=1", "evaluation.checkpoints=1"]
TIMED = ["train_seconds", "eval_seconds", "command"]


def folder_of(path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_second_push_replaces_the_first(tmp_path):
    """In any store, a folder here: no report/report, nothing left of the first one, nothing else touched."""
    folder, store, back = tmp_path / "run", tmp_path / "store", tmp_path / "back"
    for version, names in (
        ("old", ["report.html", "figures/a.png", "gone.csv"]),
        ("new", ["report.html", "figures/a.png"]),
    ):
        for name in names:
            (folder / "report" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "report" / name).write_text(version)
        if version == "new":
            (folder / "report" / "gone.csv").unlink()
        (folder / "run.json").write_text(version)
        push_files(store.as_uri(), folder, ["run.json", "trials.csv", "report"])
        (store / "trials" / "x").mkdir(parents=True, exist_ok=True)
        (store / "trials" / "x" / "done").touch()
    assert folder_of(store) == {**folder_of(folder), "trials/x/done": b""}
    pull(store.as_uri(), back)
    assert folder_of(back) == folder_of(store)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The URI of an empty bucket on a server of moto's, and the environment in which s3fs finds it."""
    if missing := [name for name in ("moto", "s3fs", "flask") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"an S3 endpoint needs {', '.join(missing)}: pip install 'moto[server]' s3fs")
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while "http://" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        address = "http://" + log.read_text().split("http://")[1].split()[0]
        variables = {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "FSSPEC_S3_ENDPOINT_URL": address,
        }
        code = "import fsspec; fsspec.filesystem('s3').mkdir('results')"
        subprocess.run([sys.executable, "-c", code], env={**ENVIRONMENT, **variables}, check=True, timeout=120)
        yield "s3://results/runs", variables
    finally:
        server.terminate()
        server.wait()


def listed(uri: str, variables) -> list[str]:
    code = "import fsspec, sys; print('\\n'.join(fsspec.filesystem('s3').find(sys.argv[1])))"
    shown = subprocess.run(
        [sys.executable, "-c", code, uri], env={**ENVIRONMENT, **variables}, capture_output=True, text=True, check=True
    )
    return shown.stdout.split()


def content(uri: str, variables) -> str:
    code = "import fsspec, sys; print(fsspec.filesystem('s3').cat_file(sys.argv[1]).decode())"
    shown = subprocess.run(
        [sys.executable, "-c", code, uri], env={**ENVIRONMENT, **variables}, capture_output=True, text=True, check=True
    )
    return shown.stdout


def started(storage, environment, output, *more) -> subprocess.Popen:
    command = [sys.executable, "tune/run.py", *GRID, "--storage", str(storage), *more, *SMALL]
    with output.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_in_a_bucket_killed_and_taken_up_by_another_machine(bucket, tmp_path):
    """The second machine is another temporary folder: it knows of the run what the bucket holds."""
    uri, variables = bucket
    (tmp_path / "data").mkdir()
    write_ball_dataset(tmp_path / "data")
    common = {**ENVIRONMENT, "DSRL_DATASET_DIR": str(tmp_path / "data")}
    machines = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        machines.append({**common, **variables, "TMPDIR": str(tmp_path / name)})
    undisturbed = started(tmp_path / "results", common, tmp_path / "undisturbed.txt")
    assert undisturbed.wait(400) == 0, (tmp_path / "undisturbed.txt").read_text()

    run = started(uri, machines[0], tmp_path / "killed.txt")
    deadline = time.monotonic() + 300
    while not (done := [path for path in listed(f"{uri}/bagsize-smoke/trials", variables) if path.endswith("/done")]):
        assert run.poll() is None and time.monotonic() < deadline, (tmp_path / "killed.txt").read_text()
        time.sleep(0.2)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    before = content(f"{done[0].removesuffix('done')}row.json", variables)

    output = tmp_path / "resumed.txt"
    for _ in range(2):  # the second time only the report is made again
        assert started(uri, machines[1], output, "--resume").wait(400) == 0, output.read_text()
        assert "Traceback" not in output.read_text()
        assert f"report: {uri}/bagsize-smoke/report/report.html" in output.read_text().replace("\n", "")
    assert content(f"{done[0].removesuffix('done')}row.json", variables) == before  # not trained again
    stored = listed(f"{uri}/bagsize-smoke", variables)
    assert not [path for path in stored if "report/report/" in path]
    own = pd.read_csv(io.StringIO(content(f"{uri}/bagsize-smoke/trials.csv", variables))).drop(columns=TIMED)
    other = pd.read_csv(tmp_path / "results" / "bagsize-smoke" / "trials.csv").drop(columns=TIMED)
    assert len(own) == 7 and (own["status"] == "ok").all()
    pd.testing.assert_frame_equal(own, other, rtol=1e-6)
    page = content(f"{uri}/bagsize-smoke/report/report.html", variables)
    (local,) = (tmp_path / "second").glob("safemil-runs-*/*/report/report.html")
    assert page.strip() == local.read_text(encoding="utf-8").strip()
