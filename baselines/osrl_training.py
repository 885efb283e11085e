"""What OSRL's methods share: a split and its true outcomes -> OSRL's data -> OSRL's trainer -> one policy per seed.

    D_N, D_U, outcomes --dsrl_arrays--> DSRL's keys --OSRL's dataset--> tables on the device --indices--> batches
    batches --OSRL's trainer, `steps` times--> OSRL's model --frozen--> a policy that acts and can be saved

OSRL's models, trainers and datasets are called, not rewritten (osrl-lib 0.1.0, github.com/liuzuxin/OSRL). They are
full-information references: D_N and D_U together, without a label, with true rewards and costs. What differs from
OSRL's scripts for all five:

- OSRL's loaders make one sample at a time; here whole batches are gathered on the device, under the same distribution.
- The last policy is the result. OSRL's scripts also keep the one of least cost in the simulator, which leaks that cost.
- DSRL's next observations are not kept by the suite: the next row stands for them, and for the last row of a trajectory
  its own observation. Nothing reads it in a reward backup, which ends there; cost backups of OSRL never end (below).
- The horizon is the longest trajectory of the dataset, not a table of tasks.
- Seeds are not packed: OSRL's classes hold one model each and draw from torch's global generator.

OSRL's own choices, kept because these are references to OSRL:

- A time-out ends the reward backup like a terminal state.
- Cost backups never read `done` (osrl-coptidice's do): what would follow the end of an episode is bootstrapped too, so
  a cost of c a step is worth c / (1 - g) however short the episode.
- The cost limit K of an episode of T steps becomes the threshold K (1 - g^T) / ((1 - g) T) on discounted cost values,
  as if costs came evenly.

`osrl_faithful` false corrects the first two and each method's own (baselines/osrl_corrections.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safemil.config.errors import UserError
from safemil.data.splits import HiddenLabels, Split
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, snapshot_steps
from safemil.training.loop import check_finite

REPORTS = 100  # how often metrics are logged over a training


def require_osrl() -> None:
    """Raise ``UserError`` where OSRL cannot be imported."""
    try:
        import osrl.algorithms  # noqa: F401
    except ImportError as error:
        raise UserError(f"OSRL is not installed ({error}): `make install` puts it into .venv") from error


def dsrl_arrays(split: Split, labels: HiddenLabels) -> dict[str, np.ndarray]:
    """The training part of D_N and D_U under DSRL's keys, in the order of the dataset, ``(n_steps, ...)`` each."""
    indices = np.sort(np.concatenate([split.nonpreferred, split.unlabeled]))
    data, outcomes = split.trajectories.select(indices), labels.outcomes.select(indices)
    last = data.offsets[1:] - 1
    following = np.arange(1, data.n_steps + 1)
    following[last] = last
    timeouts = np.zeros(data.n_steps, dtype=bool)
    timeouts[last] = ~outcomes.terminals[last]
    return {
        "observations": data.observations,
        "next_observations": data.observations[following],
        "actions": data.actions,
        "rewards": outcomes.rewards,
        "costs": outcomes.costs,
        "terminals": outcomes.terminals,
        "timeouts": timeouts,
    }


class Collector:
    """The logger that OSRL's trainers want: keeps the means of what they report."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def store(self, tab: str | None = None, **values: float) -> None:
        """Called by OSRL at each step. Its `loss/loss_vae` and `train/nll` are named ``vae_loss`` and ``nll`` here."""
        for name, value in values.items():
            name = name.removeprefix("loss/")
            name = f"{name.removeprefix('loss_')}_loss" if name.startswith("loss_") else name
            self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Of everything reported since the last call."""
        means = {name: float(np.mean(values)) for name, values in self.values.items()}
        self.values = {}
        return means


@dataclass(frozen=True, eq=False)
class Problem:
    """One seed's data and what OSRL's constructors are told of them."""

    dataset: dict[str, np.ndarray]  # DSRL's keys
    horizon: int  # steps of the longest trajectory
    cost_limit: float
    generator: torch.Generator  # draws the batches
    device: str
    logger: Collector = field(default_factory=Collector)

    @classmethod
    def of(cls, split: Split, labels: HiddenLabels, seed: int, device: str) -> Problem:
        """The training part of one split. Raises ``UserError`` where observations are images."""
        if split.trajectories.observations.ndim > 2:
            raise UserError("OSRL's methods read vectors; observations are images here")
        horizon, (generator,) = int(split.trajectories.lengths.max()), make_generators([seed], "osrl batches")
        return cls(dsrl_arrays(split, labels), horizon, labels.cost_limit, generator, device)

    @property
    def sizes(self) -> dict[str, int]:
        """``observation_dim`` and ``action_dim``, the part of a policy's shape that every policy has."""
        columns = {"observation_dim": "observations", "action_dim": "actions"}
        return {size: self.dataset[name].shape[1] for size, name in columns.items()}


@dataclass(frozen=True, eq=False)
class Training:
    """One seed's training as the loop below sees it."""

    update: Callable[[], Any]  # one step of OSRL's trainer on a fresh batch
    policy: Callable[[], nn.Module]  # a copy of the policy as it now is, on the CPU
    watch: Callable[[], dict[str, Tensor]] = dict  # what OSRL does not report, metric -> scalar (by default nothing)


Build = Callable[[Problem, Any], Training]


class OwnGenerators:
    """The global generators OSRL draws from. Within ``with`` they are this seed's; after it, what they were before."""

    def __init__(self, seed: int, device: str) -> None:
        self.cuda = torch.device(device) if torch.device(device).type == "cuda" else None
        outside = self._state()
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if self.cuda:
            with torch.cuda.device(self.cuda):
                torch.cuda.manual_seed(seed)
        self.other = self._state()
        self._set(outside)

    def _state(self) -> tuple[Any, ...]:
        cuda = torch.cuda.get_rng_state(self.cuda) if self.cuda else None
        return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda

    def _set(self, state: tuple[Any, ...]) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        if self.cuda:
            torch.cuda.set_rng_state(state[3], self.cuda)

    def _swap(self) -> None:
        inside, self.other = self.other, self._state()
        self._set(inside)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: Any) -> None:
        self._swap()


class Run:
    """One seed: its training, its generators, the snapshots taken so far."""

    def __init__(self, build: Build, problem: Problem, config: Any, seed: int) -> None:
        self.logger = problem.logger
        self.generators = OwnGenerators(seed, problem.device)
        self.snapshots: list[tuple[int, nn.Module]] = []
        self.seconds = 0.0
        with self.generators:
            self.training = build(problem, config)

    def advance(self, steps: int) -> None:
        """So many updates."""
        started = time.perf_counter()
        with self.generators:
            for _ in range(steps):
                self.training.update()
        self.seconds += time.perf_counter() - started

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Means of what OSRL reported since the last call, and what is watched as it now is."""
        return {**self.logger.means(), **{name: float(value) for name, value in self.training.watch().items()}}


def fit_seeds(
    build: Build, splits: Sequence[Split], config: Any, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """Train one OSRL model per seed, one seed after the other between two reports.

    Raises:
        UserError: OSRL is not installed.
        TrainingError: a loss stopped being finite.
    """
    require_osrl()
    problems = [Problem.of(*parts, context.device) for parts in zip(splits, labels, context.seeds, strict=True)]
    runs = [Run(build, problem, config, seed) for problem, seed in zip(problems, context.seeds, strict=True)]
    steps = config.policy.steps
    reported = {*range(0, steps, max(1, steps // REPORTS)), steps} - {0}
    kept = snapshot_steps(steps, context.snapshots)
    done = 0
    for step in sorted(reported | set(kept)):
        for run in runs:
            run.advance(step - done)
        done = step
        if step in reported:
            metrics = [run.metrics() for run in runs]
            columns = {name: np.array([own[name] for own in metrics], dtype=np.float32) for name in metrics[0]}
            context.log("policy", step, check_finite("policy", step, columns))
        if step in kept:
            for run in runs:
                run.snapshots.append((step, run.training.policy()))
    return [
        FitResult(run.snapshots[-1][1], snapshots=run.snapshots, extra={"steps_per_second": steps / run.seconds})
        for run in runs
    ]
