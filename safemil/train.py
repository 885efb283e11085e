"""Train a safe policy from two files of your own: non-preferred and unlabeled trajectories. No simulator, no costs.

    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out policies/first
    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out out --seeds 0 1 2 --set weights.beta=1

Both files are HDF5 with DSRL's keys: observations, actions, terminals and/or timeouts (where trajectories end); rewards
and costs may be there and are never read. Each seed writes OUT/seed-<S>/policy.safetensors and policy.json (load with
safemil.nn.checkpoints.load_policy, ``act`` on batches), curves.csv, and predicted_costs.csv: for every unlabeled
trajectory its mean predicted cost and its weight, lowest cost first.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safemil.config.errors import UserError, entry_point
from safemil.config.overrides import override, parse_assignments, to_dict
from safemil.config.settings import SafeMILConfig
from safemil.data.hdf5 import load
from safemil.data.splits import Split, hold_out
from safemil.data.trajectories import Trajectories
from safemil.nn import precision

LAPTOP_STEPS = {"cost_model.steps": 20_000, "policy.steps": 20_000, "cost_model.pairs": 1}  # minutes on a laptop


def join(nonpreferred: Trajectories, unlabeled: Trajectories) -> Trajectories:
    """Both sets as one, D_N first.

    Raises:
        UserError: they are not of the same task.
    """
    for name in ("observation_dim", "action_dim"):
        if getattr(nonpreferred, name) != getattr(unlabeled, name):
            raise UserError(
                f"the non-preferred file has {name} {getattr(nonpreferred, name)}, the unlabeled one"
                f" {getattr(unlabeled, name)}; both must come from the same task"
            )
    return Trajectories(
        np.concatenate([nonpreferred.observations, unlabeled.observations]),
        np.concatenate([nonpreferred.actions, unlabeled.actions]),
        np.concatenate([nonpreferred.offsets, nonpreferred.offsets[-1] + unlabeled.offsets[1:]]),
    )


def split_by_file(nonpreferred: Trajectories, unlabeled: Trajectories, seed: int, held_out: float = 0.2) -> Split:
    """D_N from one file, D_U from the other, a fifth of each held out."""
    data = join(nonpreferred, unlabeled)
    indices = np.arange(len(data))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5111]))
    return Split(data, *hold_out(indices[: len(nonpreferred)], indices[len(nonpreferred) :], held_out, rng))


def write_predictions(path: Path, learned, split: Split, first: int) -> None:
    """Mean predicted cost and weight of every unlabeled trajectory trained on, lowest cost first.

    ``first`` is the index of the unlabeled file's first trajectory among those of the split.
    """
    from safemil.algorithm.weights import trajectory_means
    from safemil.evaluation.diagnostics import trajectory_scores

    means, _ = trajectory_scores(learned, split, split.unlabeled)
    weights = trajectory_means(learned.weights, split.trajectories.lengths[split.unlabeled])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unlabeled_trajectory", "mean_predicted_cost", "weight"])
        for index in np.argsort(means, kind="stable"):
            writer.writerow([split.unlabeled[index] - first, f"{means[index]:.6f}", f"{weights[index]:.6f}"])


class CurveFiles:
    """Training metrics: a progress bar on a terminal, one curves.csv per seed."""

    def __init__(self, totals: dict[str, int]) -> None:
        from tqdm import tqdm

        self.rows: list[tuple[str, int, dict[str, np.ndarray]]] = []
        self.totals, self.bar, self.tqdm = totals, None, tqdm

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        if self.bar is None or self.bar.desc != f"{stage}: ":
            self.close()
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
    precision.add_option(parser)
    return parser.parse_args(arguments)


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Load both files, train, save, say how well the two sets were told apart."""
    options = parse_arguments(arguments)
    config = override(override(SafeMILConfig(), LAPTOP_STEPS), parse_assignments(options.settings))
    sets = [load(path)[0] for path in (options.non_preferred, options.unlabeled)]
    for name, trajectories in zip(("non-preferred", "unlabeled"), sets, strict=True):
        if len(trajectories) < 2:
            raise UserError(f"the {name} file holds {len(trajectories)} trajectory; at least 2 are needed")
    if options.out.exists() and any(options.out.iterdir()):
        raise UserError(f"{options.out} exists and is not empty; choose another --out")

    import torch

    from safemil.algorithm.safemil import fit
    from safemil.evaluation import diagnostics
    from safemil.nn import checkpoints

    torch.set_float32_matmul_precision(options.precision)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    splits = [split_by_file(*sets, seed) for seed in options.seeds]
    totals = {"cost_model": config.cost_model.steps, "policy": config.policy.steps, "joint": config.policy.steps}
    curves = CurveFiles(totals)
    learned = fit(splits, config, seeds=options.seeds, device=device, log=curves)
    curves.close()
    for index, (seed, own, split) in enumerate(zip(options.seeds, learned, splits, strict=True)):
        folder = options.out / f"seed-{seed}"
        found = diagnostics.label_free(own, split)
        metadata = {"method": "safemil", "seed": seed, "config": to_dict(config), "diagnostics": found}
        metadata |= {"device": device, "precision": precision.in_effect(options.precision, torch.device(device).type)}
        path = checkpoints.save(
            folder, own.policy, scorer=own.scorer, **json.loads(json.dumps(metadata, default=float))
        )
        curves.write(folder / "curves.csv", index)
        write_predictions(folder / "predicted_costs.csv", own, split, len(sets[0]))
        print(f"{path}: held-out AUROC of D_N against D_U {found['auroc_unlabeled']:.2f} (ceiling (1 + p) / 2)")
        for warning in diagnostics.failure_signatures(found):
            print(f"  warning: {warning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
