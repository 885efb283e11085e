"""Whether a GPU gives what a CPU gives: each packed method on the tests' toy split, trained in five ways.

captured     updates replayed as CUDA graphs, as ever
uncaptured   the same, kernel by kernel
compiled     captured, losses compiled by torch.compile
resumed      captured, killed in the middle, taken up again
on the CPU
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.registry import METHODS
from safemil.training.checkpoint import TrainingCheckpoint
from tests.conftest import toy_splits
from tests.test_methods import fit

SEEDS = (0, 1)
TOLERANCES = {
    "uncaptured": 1e-5,
    "resumed": 1e-5,
    "compiled": 1e-2,
    "cpu": 1e-2,
}  # of actions in [-1, 1], after some 200 updates at rate 0.01
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("safemil", {"mode": "joint"}),
    ("safemil", {"cost_model.segment_length": "full"}),
    ("safemil", {"cost_model.heads": 2, "cost_model.modes": 2}),
    ("safemil", {"cost_model.aggregator": "attention"}),
    ("safemil", {"cost_model.aggregator": "set-transformer"}),
    ("bc-all", {"policy.head": "mix2"}),
]


class Killed(BaseException):
    """Stands for a signal; not an Exception, so that nothing handles it."""


class Reports(list):
    """What a training reports; raises ``Killed`` in the place of a report."""

    def __init__(self, kill_at: int = 10**9) -> None:
        super().__init__()
        self.kill_at = kill_at

    def __call__(self, stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        if len(self) >= self.kill_at:
            raise Killed
        self.append((stage, step))


def resumed(name: str, device: str, settings: dict[str, Any], n_reports: int) -> list[Any]:
    """Train to the middle, be killed, go on from the state on disk."""
    with tempfile.TemporaryDirectory() as folder:
        for kill_at in (n_reports // 2, 10**9):
            reports = Reports(kill_at)
            checkpoint = TrainingCheckpoint(Path(folder) / "state.pt", "these trials", reports, interval=0.0)
            context = {"device": device, "log": reports, "checkpoint": checkpoint}
            with contextlib.suppress(Killed):
                learned, _ = fit(name, SEEDS, context=context, **settings)
    return learned


def actions(learned: list[Any]) -> np.ndarray:
    """Of each seed's policy on the same observations."""
    observations = toy_splits(SEEDS[:1])[0][0].trajectories.observations[:200]
    return np.stack([own.policy.act(observations) for own in learned])


def compare(name: str, settings: dict[str, Any], device: str) -> dict[str, float]:
    """Largest difference between the actions of the captured policies and the others'."""
    reports = Reports()
    captured, _ = fit(name, SEEDS, context={"device": device, "log": reports}, **settings)
    others = {"resumed": resumed(name, device, settings, len(reports))}
    if device == "cuda":
        for way, field in (("uncaptured", {"captured": False}), ("compiled", {"compiled_from": 1})):
            others[way], _ = fit(name, SEEDS, context={"device": device, **field}, **settings)
        others["cpu"], _ = fit(name, SEEDS, **settings)
    return {way: float(np.abs(actions(own) - actions(captured)).max()) for way, own in others.items()}


def compare_all(device: str, chosen: Sequence[str] = (), *, quick: bool) -> dict[str, Any]:
    """Every packed method, and variants of the cost model and of the heads; or those chosen."""
    methods = [(name, {}) for name, method in METHODS.items() if method.packed]
    found = {}
    for name, settings in methods[:2] if quick else [*methods, *VARIANTS]:
        label = " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
        if chosen and label not in chosen:
            continue
        try:
            found[label] = compare(name, settings, device)
        except Exception as error:
            found[label] = {"error": f"{type(error).__name__}: {error}"}
        print(label, found[label], flush=True)
    passed = all("error" not in own and all(own[way] <= TOLERANCES[way] for way in own) for own in found.values())
    return {"differences": found, "tolerances": TOLERANCES, "passed": passed}
