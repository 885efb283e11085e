"""Train a safe policy from two files of your own: non-preferred and unlabeled trajectories. No simulator, no costs.

    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out policies/first
    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out out --seeds 0 1 2 --set weights.beta=1
    python -m safemil.train --non-preferred bad.hdf5 --unlabeled logs.hdf5 --out out --set steps=5000 --fixed-steps
    python -m safemil.train --non-preferred crashes.npz --unlabeled ~/.minari/datasets/D4RL/pen/human-v2 --out out
    python -m safemil.train --non-preferred bad.hdf5 --unlabeled demo.hdf5 --observation-keys joints object --out out
    python -m safemil.train --non-preferred bad_arm --unlabeled arm --action-bounds 100 --out out   # LeRobot, degrees

Both may be HDF5 (DSRL, D4RL, Minari, robomimic), npz, csv, Parquet, or a folder of csv, Parquet, Minari or LeRobot. It
must be clear where trajectories end; rewards and costs may be there and are never read. A fifth of each file is held
out; training ends when the loss on that part has stopped falling, at the latest after cost_model.steps and policy.steps
updates.

Each seed writes OUT/seed-<S>/report.md, scores.png (where matplotlib is installed), curves.csv, predicted_costs.csv
(for every unlabeled trajectory its mean predicted cost and its weight, lowest cost first), and policy.safetensors with
policy.json: load with safemil.load_policy, ``act`` on batches. The same command again goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.config.checks import at_least, checked_seed
from safemil.config.errors import UserError, entry_point
from safemil.config.overrides import configure, fingerprint, flatten, parse_assignments, to_dict
from safemil.data.logs.reading import add_options
from safemil.nn import precision

if TYPE_CHECKING:
    from safemil.api import SafeMIL, Trajectories
    from safemil.training.progress import Curves

RECORD, STATE = "training.json", "unfinished.pt"  # in the --out folder


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m safemil.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--non-preferred", required=True, type=Path, metavar="A", help="trajectories known as bad")
    parser.add_argument("--unlabeled", required=True, type=Path, metavar="B", help="trajectories of both kinds")
    add_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the policies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S", help="one policy per seed, packed")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings", help="override settings")
    parser.add_argument(
        "--fixed-steps",
        action="store_true",
        help="train cost_model.steps and policy.steps updates exactly, not until the held-out loss stops falling",
    )
    parser.add_argument("--device", default=None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of torch (default: 1; more help on idle cores)"
    )
    precision.add_option(parser)
    options = parser.parse_args(arguments)
    options.seeds = list(dict.fromkeys(checked_seed(seed, "--seeds") for seed in options.seeds))
    at_least("--threads", options.threads, 1)
    return options


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything, train, save each seed, say how well the two sets were told apart."""
    options = parse_arguments(arguments)
    from filelock import FileLock, Timeout

    from safemil.api import SafeMIL, Trajectories
    from safemil.training.packing import splits_of

    shared = {"device": options.device, "precision": options.precision, "early_stopping": not options.fixed_steps}
    config = configure(SafeMIL.defaults(), parse_assignments(options.settings))
    models = [SafeMIL(seed=seed, **shared) for seed in options.seeds]
    for model in models:
        model.config = config
    chosen = options.observation_keys, options.action_bounds
    sets = [Trajectories.from_file(path, *chosen) for path in (options.non_preferred, options.unlabeled)]
    splits_of(models, *sets)  # fails here if it does, before anything is written
    open_folder(options.out, record_of(models[0], sets))
    try:
        with FileLock(options.out / ".lock", timeout=0):
            train(models, sets, options)
    except Timeout:
        raise UserError(
            f"{options.out}: another process trains into it; wait for it, or choose another --out"
        ) from None
    return 0


def record_of(model: SafeMIL, sets: Sequence[Trajectories]) -> dict[str, Any]:
    """All that the policies of one folder have in common."""
    return {
        "non_preferred": digest_of(sets[0]),
        "unlabeled": digest_of(sets[1]),
        "settings": to_dict(model.config),
        "early_stopping": model.patience is not None,
        "precision": model.precision,
    }


def digest_of(data: Trajectories) -> str:
    """SHA-256 of the numbers, whatever file they came from."""
    digest = hashlib.sha256()
    for array in (data.observations, data.actions, data.offsets):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def open_folder(out: Path, record: dict[str, Any]) -> None:
    """Make the folder, or find it as an earlier call of the same command left it.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / RECORD
    if path.exists():
        known = flatten(json.loads(path.read_text(encoding="utf-8")))
        differing = [name for name, value in flatten(record).items() if known.get(name) != value]
        if differing:
            raise UserError(
                f"{out} holds policies that were trained otherwise ({', '.join(differing[:5])} differ);"
                " choose another --out"
            )
    elif any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; choose another --out")
    with atomic_write(path) as temporary:  # also where it is there: a folder that cannot be written shows now
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def train(models: Sequence[SafeMIL], sets: Sequence[Trajectories], options: argparse.Namespace) -> None:
    """Train the seeds that are not there yet, all packed, and write each."""
    import torch

    from safemil.training.checkpoint import TrainingCheckpoint
    from safemil.training.packing import splits_of, train_splits
    from safemil.training.progress import Curves, Progress

    torch.set_num_threads(options.threads)
    state, folders = options.out / STATE, {model.seed: options.out / f"seed-{model.seed}" for model in models}
    there = {seed for seed, folder in folders.items() if (folder / "policy.safetensors").exists()}
    for seed in sorted(there):
        print(f"seed {seed} is there already: {folders[seed]}")
    if not state.exists():  # else the interrupted pack goes on as it was, and writes what is missing
        models = [model for model in models if model.seed not in there]
    if not models or there == folders.keys():
        return state.unlink(missing_ok=True)
    config, joint = models[0].config, models[0].config.mode == "joint"
    most = {"joint": config.policy.steps} if joint else {}
    most = most or {"cost_model": config.cost_model.steps, "policy": config.policy.steps}
    curves = Curves(Progress(most, fixed=joint or options.fixed_steps))
    identity = fingerprint([record_of(models[0], sets), list(folders) if state.exists() else [m.seed for m in models]])
    checkpoint = TrainingCheckpoint(state, identity, curves.rows)
    for model in models:
        model.log = curves
    splits = splits_of(models, *sets)
    try:
        train_splits(models, splits, checkpoint)
    finally:
        curves.progress.close()
    checkpoint.write()  # a kill from here on loses nothing
    for index, model in enumerate(models):
        if model.seed not in there:
            write_seed(folders[model.seed], model, curves, index, options)
    print(f"trained in {checkpoint.seconds:.0f} s")
    checkpoint.delete()


def write_seed(folder: Path, model: SafeMIL, curves: Curves, index: int, options: argparse.Namespace) -> None:
    """One seed's files, the policy last; then what there is to say of it."""
    from safemil.evaluation.findings import find, in_words
    from safemil.evaluation.training_report import write_report
    from safemil.training.progress import write_csv

    learned, split = model.result, model.split
    assert learned is not None and split is not None
    findings = find(learned, split)
    curves.write(folder / "curves.csv", index)
    ranked = [
        [place, f"{findings.scores[place]:.6f}", "" if held_out else f"{findings.weights[place]:.6f}", int(held_out)]
        for place in np.argsort(findings.scores, kind="stable")
        for held_out in [np.isnan(findings.weights[place])]
    ]
    write_csv(
        folder / "predicted_costs.csv", ["unlabeled_trajectory", "mean_predicted_cost", "weight", "held_out"], ranked
    )
    sources = (options.non_preferred, options.unlabeled)
    report = write_report(folder, learned, split, findings, sources=sources, settings=options.settings)
    path = model.save(folder)
    said = [*in_words(findings), *(f"warning: {warning}" for warning in findings.warnings)]
    print(f"seed {model.seed}: {path}", *said, f"more: {report}", sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
