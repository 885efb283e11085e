"""Train a safe policy from two files of your own: non-preferred and unlabeled trajectories. No simulator, no costs.

    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out policies/first
    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out out --seeds 0 1 2 --set weights.beta=1

Both files are HDF5 with DSRL's keys: observations, actions, terminals and/or timeouts (where trajectories end); rewards
and costs may be there and are never read. Each seed writes OUT/seed-<S>/policy.safetensors and policy.json (load with
safemil.load_policy, ``act`` on batches), curves.csv, and predicted_costs.csv: for every unlabeled
trajectory its mean predicted cost and its weight, lowest cost first.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError, entry_point
from safemil.config.overrides import parse_assignments
from safemil.nn import precision


class CurveFiles:
    """Training metrics: a progress bar on a terminal, one curves.csv per seed."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.rows: list[tuple[str, int, dict[str, np.ndarray]]] = []
        self.totals: dict[str, int] = {}
        self.stage, self.tqdm = "", tqdm
        self.bar: Any = None

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        if stage != self.stage:
            self.close()
            self.stage = stage
            self.bar = self.tqdm(total=self.totals.get(stage, step), desc=stage, unit="step", file=sys.stderr)
        self.bar.update(step - self.bar.n)
        loss = next((values.mean() for name, values in metrics.items() if name.endswith("_loss")), None)
        self.bar.set_postfix(loss=None if loss is None else f"{loss:.3f}")
        self.rows.append((stage, step, metrics))

    def close(self) -> None:
        """End the bar of the last stage."""
        if self.bar is not None:
            self.bar.close()

    def write(self, path: Path, replica: int) -> None:
        """One seed's rows."""
        names = list(dict.fromkeys(name for _, _, metrics in self.rows for name in metrics))
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["stage", "step", *names])
            for stage, step, metrics in self.rows:
                values = [f"{metrics[name][replica]:.6g}" if name in metrics else "" for name in names]
                writer.writerow([stage, step, *values])


def write_predictions(path: Path, model, first: int) -> None:
    """Mean predicted cost and weight of every unlabeled trajectory trained on, lowest cost first.

    ``first`` is the index of the first unlabeled trajectory among those of the split.
    """
    from safemil.algorithm.weights import trajectory_means
    from safemil.evaluation.diagnostics import trajectory_scores

    split = model.split
    means, _ = trajectory_scores(model.result, split, split.unlabeled)
    weights = trajectory_means(model.result.weights, split.trajectories.lengths[split.unlabeled])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unlabeled_trajectory", "mean_predicted_cost", "weight"])
        for index in np.argsort(means, kind="stable"):
            writer.writerow([split.unlabeled[index] - first, f"{means[index]:.6f}", f"{weights[index]:.6f}"])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m safemil.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--non-preferred", required=True, type=Path, metavar="A.hdf5", help="trajectories known as bad")
    parser.add_argument("--unlabeled", required=True, type=Path, metavar="B.hdf5", help="trajectories of both kinds")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the policies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S", help="one policy per seed, packed")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings", help="override settings")
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of torch (default: 1; more help on idle cores)"
    )
    precision.add_option(parser)
    return parser.parse_args(arguments)


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Load both files, train, save, say how well the two sets were told apart."""
    options = parse_arguments(arguments)
    if options.out.exists() and any(options.out.iterdir()):
        raise UserError(f"{options.out} exists and is not empty; choose another --out")
    import torch

    from safemil.api import SafeMIL, Trajectories, fit_packed
    from safemil.evaluation.diagnostics import failure_signatures

    torch.set_num_threads(max(1, options.threads))
    curves = CurveFiles()
    shared: dict[str, Any] = {"device": options.device, "precision": options.precision, "log": curves}
    settings: dict[str, Any] = parse_assignments(options.settings)
    models = [SafeMIL(seed=seed, **shared, **settings) for seed in options.seeds]
    config = models[0].config
    curves.totals = {"cost_model": config.cost_model.steps, "policy": config.policy.steps, "joint": config.policy.steps}
    sets = [Trajectories.from_file(path) for path in (options.non_preferred, options.unlabeled)]
    fit_packed(models, *sets)
    curves.close()
    for index, model in enumerate(models):
        folder = options.out / f"seed-{model.seed}"
        path = model.save(folder)
        curves.write(folder / "curves.csv", index)
        write_predictions(folder / "predicted_costs.csv", model, len(sets[0]))
        found = model.diagnostics()
        print(f"{path}: held-out AUROC of D_N against D_U {found['auroc_unlabeled']:.2f} (ceiling (1 + p) / 2)")
        for warning in failure_signatures(found):
            print(f"  warning: {warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
