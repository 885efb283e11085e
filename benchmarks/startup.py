"""Start-up: what a process pays before its first step. Imports (each in a fresh process), a dataset, a trial.

python benchmarks/startup.py
python benchmarks/startup.py --dataset ~/.dsrl/datasets/SafetyBallCircle-v0-113-700.hdf5 --json startup.json
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import arguments, finish, machine, show

from safemil.data.tasks import TASKS
from tune.attempts import perform
from tune.files import write_json
from tune.grids import GRIDS
from tune.job import Job
from tune.trials import expand

IMPORTS = {
    "python alone": "pass",
    "numpy": "import numpy",
    "torch": "import torch",
    "safemil.algorithm.safemil": "import safemil.algorithm.safemil",
    "dry run of a grid": "import sys; sys.argv = ['run.py', '--grid', 'paper', '--dry-run', '--name', 'none'];"
    "from tune.run import main; sys.stdout = open('/dev/null', 'w'); main(sys.argv[1:])",
    "simulators": "from safemil.simulation.dsrl_simulator import import_simulators; import_simulators()",
    "first optimizer of torch": "import torch; torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])",
    "ray.tune": "import ray.tune",
}


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs ``code``."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def trial_seconds(dataset: Path) -> dict[str, float]:
    """A pack of one-step trials in this process, the first and the second: what a trial costs besides its work."""
    (name,) = [task.name for task in TASKS.values() if dataset.name.startswith(f"{task.file_stem}-")]
    tiny = {"cost_model.steps": 1, "policy.steps": 1, "evaluation.episodes": 1, "evaluation.checkpoints": 1}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "run.json", {})
        for label, seed in (("first pack of a process", 0), ("second pack", 1)):
            trials = expand(GRIDS["demo"], tasks=[name], methods=["safemil"], seeds=[seed], smoke=True, settings=tiny)
            started = time.perf_counter()
            rows = perform(Job(tuple(trial.to_dict() for trial in trials), f"{folder}/trials", str(dataset)))
            found[label] = time.perf_counter() - started
            if [row["status"] for row in rows] != ["ok"]:
                raise RuntimeError(rows[0]["reason"])
    return found


def main() -> int:
    """Measure."""
    parser = arguments(__doc__)
    parser.add_argument("--dataset", type=Path, help="a DSRL file: its loading and a one-step trial are timed too")
    options = parser.parse_args()
    results = {"machine": machine(), "import_seconds": {}}
    for _ in range(options.rounds):
        for name, code in IMPORTS.items():
            results["import_seconds"].setdefault(name, []).append(seconds(code))
    show("Seconds", ["", "least"], [[name, min(own)] for name, own in results["import_seconds"].items()])
    if options.dataset:
        from safemil.data.hdf5 import load

        started = time.perf_counter()
        load(options.dataset)
        results["load_seconds"] = time.perf_counter() - started
        results["pack_seconds"] = trial_seconds(options.dataset)
        rows = [["loading the dataset", results["load_seconds"]], *map(list, results["pack_seconds"].items())]
        show("Seconds", ["", ""], rows)
    finish(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
