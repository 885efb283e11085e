"""A run for TensorBoard: every trial's curves as scalars, its settings and results as hparams.

    python analysis/export.py results/demo --to tensorboard/demo
    tensorboard --logdir tensorboard/demo

Reads a run, or a reference, whose curves are thinned. Weights & Biases takes the same folder with
`wandb sync --sync-tensorboard`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from torch.utils.tensorboard import SummaryWriter

    from analysis.load import CURVE_COLUMNS, load_run, load_trial_tables
    from analysis.setting_figures import CURVE_PANELS
    from analysis.trial_rows import AXES, METRICS
    from safemil.config.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")


def export(run_folder: Path, to: Path) -> int:
    """Write ``to``/<trial id>/ for every finished trial; returns how many.

    Raises:
        UserError: no such run, or ``to`` holds something already.
    """
    run = load_run(run_folder)
    if to.exists() and any(to.iterdir()):
        raise UserError(f"{to}: is not empty, and two exports in one folder would be read as one; choose another --to")
    curves = load_trial_tables(run, "curves.csv", CURVE_COLUMNS)
    drawn = [metric for metric in CURVE_PANELS if metric in curves]
    for trial in run.trials.to_dict("records"):
        settings = {name: trial[name] for name in ("task", "method", "seed", *dict.fromkeys([*AXES, *run.axes]))}
        results = {f"result/{name}": trial[name] for name in METRICS if not math.isnan(trial[name])}
        with SummaryWriter(str(to / trial["trial_id"])) as writer:
            for row in curves[curves["trial_id"] == trial["trial_id"]].to_dict("records"):
                for metric in drawn:
                    if not math.isnan(row[metric]):
                        writer.add_scalar(f"{row['stage']}/{metric}", row[metric], int(row["step"]))
            writer.add_hparams({name: value for name, value in settings.items() if value != ""}, results, run_name=".")
    return len(run.trials)


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("analysis/export.py", description=__doc__, formatter_class=keep_lines)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, such as results/demo")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where TensorBoard will read it")
    options = parser.parse_args(arguments)
    print(f"export: {export(options.run, options.to)} trials in {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
