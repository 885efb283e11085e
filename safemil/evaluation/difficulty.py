"""How hard is a dataset? Answered before anything is trained on it, from true costs and the split's bands.

- Floors: what trajectory AUROC costs no learning. The mean of the one feature that separates the bands best, and the
  median of untrained networks of the cost network's shape. An AUROC near its floors says nothing of a method.
- Ceiling: how well single steps that cost can be told from steps that do not, by a classifier that is shown true
  labels, on trajectories it has not seen. Where it is low, safe and unsafe steps overlap.
- How small a part of an unsafe trajectory the unsafe steps are, and what both sides return.

Images are read as the mean brightness of 8 x 8 fields. In: trajectories, outcomes, bands. Out: ``Difficulty``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from safemil.data.trajectories import Outcomes, Trajectories
from safemil.evaluation.metrics import auroc
from safemil.nn.layers import StackedMLP
from safemil.nn.streams import make_generators

TRIVIAL = 0.95  # a floor from which on a trajectory AUROC is no evidence
UNTRAINED = 40  # networks
HIDDEN = (256, 256)  # as the cost network's default
MOST_TRAJECTORIES, MOST_STEPS = 200, 100  # of each band, of each trajectory, that untrained networks read
FOLDS, CLASSIFIER_STEPS, CLASSIFIER_ROWS, CLASSIFIER_BATCH = 5, 500, 30_000, 256


@dataclass(frozen=True)
class Difficulty:
    """What is known of a dataset before training; nan where a band is empty or no step costs."""

    feature_floor: float  # trajectory AUROC of the best single feature's mean
    feature: str  # which one: "observation 7"
    untrained_floor: float  # median over untrained networks
    step_ceiling: float  # AUROC of steps that cost, by a classifier trained on true labels
    unsafe_share: float  # of the steps of non-preferred trajectories, the part that costs

    @property
    def faults(self) -> list[str]:
        """What a user should be warned of, in words."""
        floors = {
            f"the mean of {self.feature}": self.feature_floor,
            "the median untrained network": self.untrained_floor,
        }
        return [
            f"trajectory AUROC is trivial here: {what} reaches {floor:.2f}"
            for what, floor in floors.items()
            if floor >= TRIVIAL
        ]


def measure(
    trajectories: Trajectories, outcomes: Outcomes, preferred: np.ndarray, nonpreferred: np.ndarray, seed: int = 0
) -> Difficulty:
    """Measure a dataset; ``preferred`` and ``nonpreferred`` are (n_trajectories,) bool. Takes about half a minute."""
    best, which = feature_floor(trajectories, preferred, nonpreferred)
    n_observed = trajectories.vectors(np.arange(1)).shape[1]
    feature = f"observation {which}" if which < n_observed else f"action {which - n_observed}"
    unsafe = outcomes.costs[trajectories.rows(np.flatnonzero(nonpreferred))] > 0
    return Difficulty(
        best,
        feature,
        untrained_floor(trajectories, preferred, nonpreferred, seed),
        step_ceiling(trajectories, outcomes.costs > 0, seed),
        float(unsafe.mean()) if len(unsafe) else np.nan,
    )


def separation(scores: np.ndarray, preferred: np.ndarray, nonpreferred: np.ndarray) -> float:
    """AUROC of the bands by a score (n_trajectories,), whichever way round it is better; nan with an empty band."""
    value = auroc(scores[nonpreferred], scores[preferred])
    return max(value, 1 - value)


def feature_floor(trajectories: Trajectories, preferred: np.ndarray, nonpreferred: np.ndarray) -> tuple[float, int]:
    """Best separation by the mean of one feature over a trajectory; which one, observations first, then actions."""
    observed = trajectories.vectors(np.arange(trajectories.n_steps))
    features = np.concatenate([observed, trajectories.actions], axis=1, dtype=np.float64)
    means = np.add.reduceat(features, trajectories.offsets[:-1]) / trajectories.lengths[:, None]
    found = [separation(mean, preferred, nonpreferred) for mean in means.T]
    return max(found), int(np.argmax(found))


@torch.inference_mode()
def untrained_floor(
    trajectories: Trajectories, preferred: np.ndarray, nonpreferred: np.ndarray, seed: int = 0
) -> float:
    """Median separation by the mean output of untrained networks."""
    rng = np.random.default_rng([seed, 0x0F10])
    bands = [np.flatnonzero(band) for band in (preferred, nonpreferred)]
    bands = [rng.choice(band, min(len(band), MOST_TRAJECTORIES), replace=False) for band in bands]
    chosen = np.concatenate(bands)
    rows = [_spread(trajectories, index) for index in chosen]
    inputs = _normalized(trajectories, np.concatenate(rows))
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    is_nonpreferred = np.arange(len(chosen)) >= len(bands[0])
    found = []
    for generator in make_generators(range(UNTRAINED), "untrained floor"):
        network = StackedMLP(
            [generator], (inputs.shape[1], *HIDDEN, 1), activation="elu", initialization="orthogonal", last="torch"
        )
        outputs = torch.sigmoid(network(inputs[None])).squeeze().double().numpy()
        means = np.add.reduceat(outputs, starts) / [len(own) for own in rows]
        found.append(separation(means, ~is_nonpreferred, is_nonpreferred))
    return float(np.median(found))


def step_ceiling(trajectories: Trajectories, unsafe: np.ndarray, seed: int = 0) -> float:
    """AUROC of unsafe steps, (n_steps,) bool, by a small network trained on true labels: mean over folds held out.

    A fold holds whole trajectories. nan when there are no unsafe steps, or no others, to learn from.
    """
    rng = np.random.default_rng([seed, 0xCE11])
    rows = np.sort(rng.choice(len(unsafe), min(len(unsafe), CLASSIFIER_ROWS), replace=False))
    fold = rng.integers(FOLDS, size=len(trajectories))[np.searchsorted(trajectories.offsets, rows, "right") - 1]
    inputs, labels = _normalized(trajectories, rows), torch.tensor(unsafe[rows], dtype=torch.float32)
    training = [np.flatnonzero(fold != held_out) for held_out in range(FOLDS)]
    network = StackedMLP(make_generators(range(FOLDS), "step ceiling"), (inputs.shape[1], 64, 64, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(CLASSIFIER_STEPS):
        batch = torch.as_tensor(np.stack([rng.choice(own, CLASSIFIER_BATCH) for own in training]))
        logits = network(inputs[batch]).squeeze(-1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[batch], reduction="none")
        optimizer.zero_grad()
        loss.mean(1).sum().backward()
        optimizer.step()
    with torch.inference_mode():
        scores = network(inputs.expand(FOLDS, -1, -1)).squeeze(-1).numpy()
    found = [auroc(own[(fold == k) & unsafe[rows]], own[(fold == k) & ~unsafe[rows]]) for k, own in enumerate(scores)]
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def _spread(trajectories: Trajectories, index: int) -> np.ndarray:
    """Rows of up to ``MOST_STEPS`` steps of a trajectory, evenly spaced."""
    start, end = trajectories.offsets[index : index + 2]
    return np.unique(np.linspace(start, end - 1, min(MOST_STEPS, end - start)).astype(int))


def _normalized(trajectories: Trajectories, rows: np.ndarray) -> torch.Tensor:
    """Observations and actions of these rows, (n, d + action_dim), observations by mean and spread."""
    observations = trajectories.vectors(rows)
    observations = (observations - observations.mean(0)) / (observations.std(0) + 1e-3)
    return torch.tensor(np.concatenate([observations, trajectories.actions[rows]], axis=1), dtype=torch.float32)
