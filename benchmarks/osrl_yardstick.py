"""Today's tool: OSRL's BC trainer, fed as OSRL's scripts feed it, by its own dataset and torch's loader. A yardstick.

    python benchmarks/osrl_yardstick.py --workers 2        # prints steps/s

A process of its own, so that nothing that this suite sets in a process (its memory settings, say) helps or hinders it.
OSRL's package imports wandb, for a logger that is not used here: where it is not installed an empty module stands in.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import types
import warnings
from typing import Any

import numpy as np

OBSERVATIONS, ACTIONS, HIDDEN, BATCH, ROWS, LENGTH = 17, 6, 256, 512, 200_000, 1000
WARM_UP = 10


class Silent:
    """Stands in for OSRL's logger."""

    def store(self, **_: Any) -> None: ...


def dataset() -> dict[str, np.ndarray]:
    """Random steps under DSRL's keys."""
    rng, zeros = np.random.default_rng(0), np.zeros(ROWS, dtype=np.float32)
    observations = rng.normal(size=(ROWS, OBSERVATIONS)).astype(np.float32)
    timeouts = zeros.copy()
    timeouts[LENGTH - 1 :: LENGTH] = 1.0
    return {
        "observations": observations,
        "next_observations": observations,
        "actions": rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32),
        **{"rewards": zeros, "costs": zeros, "terminals": zeros, "timeouts": timeouts},
    }


def main() -> None:
    """Train; print steps/s after the warm-up."""
    import torch

    if importlib.util.find_spec("wandb") is None:
        sys.modules["wandb"] = types.ModuleType("wandb")
    from osrl.algorithms import BC, BCTrainer
    from osrl.common import TransitionDataset
    from torch.utils.data import DataLoader

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=0, help="of the loader")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    loader = iter(DataLoader(TransitionDataset(dataset()), batch_size=BATCH, num_workers=options.workers))
    model = BC(OBSERVATIONS, ACTIONS, 1.0, [HIDDEN, HIDDEN], LENGTH, device=options.device)
    trainer = BCTrainer(model, None, Silent(), actor_lr=1e-3, device=options.device)
    for step in range(WARM_UP + options.steps):
        if step == WARM_UP:
            started = time.perf_counter()
        observations, _, actions, *_ = next(loader)
        trainer.train_one_step(observations.to(options.device), actions.to(options.device))
    if options.device == "cuda":
        torch.cuda.synchronize()
    print(options.steps / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
