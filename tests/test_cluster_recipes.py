"""The recipes of cluster/: as far as one machine can tell, they are what Slurm, Ray, Kubernetes and Docker accept."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tune.run import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"
SBATCH = sorted(CLUSTER.glob("*.sbatch"))


def commands(text: str) -> list[list[str]]:
    """Every call of tune/run.py in a text, as arguments; placeholders of the shell are left out."""
    joined = re.sub(r"\\\n\s*|\n#\s{2,}", " ", text)
    found = re.findall(r"tune/run\.py ([^\n'`|;]+)", joined)
    return [[word for word in shlex.split(call.split("  #")[0]) if "$" not in word] for call in found]


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_sbatch_files_are_bash_and_ask_for_what_they_use(path):
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    text = path.read_text()
    assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text
    options = re.findall(r"^#SBATCH --([a-z-]+)=?", text, re.MULTILINE)
    assert {"job-name", "time", "output"} <= set(options)
    assert not [option for option in options if "gpu" in option or "gres" in option]  # there are clusters without
    first_command = next(n for n, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    directives = [n for n, line in enumerate(text.splitlines()) if line.startswith("#SBATCH")]
    assert max(directives) < first_command  # Slurm ignores those that come later


@pytest.fixture
def submit(tmp_path):
    """Runs a recipe with Slurm's variables set and some programs replaced by a line of shell: what it prints."""

    def run(recipe: str, *arguments: str, programs: dict[str, str], **slurm: object) -> str:
        folder = tmp_path / ".venv" / "bin"
        folder.mkdir(parents=True)
        for name, script in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{script}\n")
            (folder / name).chmod(0o755)
        # Not the environment's own programs: the recipe itself must find them.
        environment = {f"SLURM_{name}": str(value) for name, value in slurm.items()} | {"PATH": os.defpath}
        command = ["bash", str(CLUSTER / recipe), *arguments]
        environment["SLURM_SUBMIT_DIR"] = str(tmp_path)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def test_array_job_runs_its_shard(submit):
    """What would be run is a valid command."""
    slurm = {"ARRAY_TASK_ID": 3, "ARRAY_TASK_COUNT": 8, "CPUS_PER_TASK": 4}
    shown = submit("slurm-array.sbatch", "--grid", "paper", programs={"python": 'echo "$@"'}, **slurm).split()
    assert shown[:2] == ["-u", "tune/run.py"]
    options = parse_arguments(shown[2:])
    assert (options.shard, options.grid, options.cpus_per_trial, options.gpus_per_trial) == ("3/8", "paper", 4, 0)


@pytest.mark.parametrize(
    ("resolved", "address"),
    [
        ("echo 127.0.1.1 STREAM node1; echo 10.0.0.7 STREAM node1; echo 10.0.0.8 DGRAM", "10.0.0.7"),
        ("exit 2", "10.0.0.9"),
    ],
)
def test_ray_on_slurm_starts_the_driver_once_on_all_nodes(submit, tmp_path, resolved, address):
    """By the head's own address, even where it resolves its name to none or to itself alone."""
    programs = {"scontrol": "echo node1; echo node2", "getent": resolved, "hostname": "echo 10.0.0.9 172.17.0.1"}
    programs |= {"ray": "exit 0", "srun": '[ "$(command -v ray)" ] && echo "$@"; cat "$RAY_AUTH_TOKEN_PATH"'}
    slurm = {"JOB_ID": 7, "JOB_NODELIST": "node[1-2]", "JOB_NUM_NODES": 2, "CPUS_ON_NODE": 16}
    shown = submit("slurm-ray.sbatch", "--grid", "paper", "--resume", programs=programs, **slurm)
    line, token = shown.splitlines()
    before, driver = line.split(" -- ")
    assert f"--address {address}:6379 --min-nodes 2 --num-cpus 16 --num-gpus 0" in before
    assert parse_arguments(driver.split()[3:]).address == "auto"
    assert re.fullmatch(r"[0-9a-f]{64}", token) and not list(tmp_path.glob(".ray-token*"))


def test_symmetric_run_knows_the_options_used():
    from ray.scripts.symmetric_run import symmetric_run

    assert {"address", "min_nodes"} <= {parameter.name for parameter in symmetric_run.params}


def test_autoscaler_file_meets_rays_schema():
    """The schema that ships with Ray, and its own check of the node types."""
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = yaml.safe_load((CLUSTER / "autoscaler.yaml").read_text())
    jsonschema.validate(config, schema)
    types = config["available_node_types"]
    assert config["head_node_type"] in types and types["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in types["cpu"]["resources"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "no_such_field": 1}, schema)


def test_rayjob_has_what_kuberay_requires():
    """KubeRay's schema is on no package index; its required fields, and those of a pod, are checked by hand."""
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    pinned = re.search(r"ray\[tune\]==([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
    assert spec["rayVersion"] == pinned
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups.keys() == {"gpu", "cpu"}
    for group in groups.values():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (spec["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] and container["image"] == "IMAGE"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert {name for name in container["resources"]["requests"] if name.startswith("nvidia")} == (
            {"nvidia.com/gpu"} if group is groups["gpu"] else set()
        )
    assert parse_arguments(job["spec"]["entrypoint"].split()[3:]).resume


@pytest.mark.parametrize("path", [*SBATCH, *CLUSTER.glob("*.yaml"), CLUSTER / "README.md"], ids=lambda path: path.name)
def test_every_command_shown_is_one(path):
    """Arguments that tune/run.py does not know would end in its usage and exit code 2."""
    found = commands(path.read_text())
    assert found
    for arguments in found:
        if "--grid" in arguments or "--list" in arguments:
            parse_arguments(arguments)


def test_dockerfile_copies_what_exists():
    lines = re.sub(r"\\\n", " ", (CLUSTER / "Dockerfile").read_text()).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0] == ["FROM", "python:3.11-slim-bookworm"]  # one of the versions that pyproject.toml admits
    assert {step for step, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    for step, arguments in steps:
        if step == "COPY":
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
    made = re.search(r"mkdir ([a-z ]+)&&", " ".join(arguments for _, arguments in steps))[1].split()
    assert made == ["safemil", "baselines", "tune", "analysis"]
