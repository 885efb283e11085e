"""What a researcher imports: trajectories in, a policy, a step cost and a ranking out.

    from safemil import SafeMIL, Trajectories

    model = SafeMIL(bag_size=64, segment_length=10, seed=0).fit(non_preferred, unlabeled)
    model.predict(observations)          # actions
    model.cost(observations, actions)    # per-step cost
    model.rank(unlabeled)                # trajectory indices, safest first, with cost and weight
    print(model.summary())               # how well bad was told from good, in words
    model.save("policy"); SafeMIL.load("policy")

``non_preferred`` and ``unlabeled`` are ``Trajectories``, lists of (observations, actions), or paths: see data.logs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from safemil.algorithm.ranking import Ranking, ranked
from safemil.algorithm.safemil import fit, weights_from_costs
from safemil.algorithm.weights import trajectory_means
from safemil.config.checks import checked_device, checked_seed
from safemil.config.errors import UserError
from safemil.config.overrides import configure, known_settings, override, to_dict
from safemil.config.settings import SafeMILConfig
from safemil.data import trajectories
from safemil.data.logs.reading import read_trajectories
from safemil.data.splits import Split
from safemil.evaluation import diagnostics
from safemil.evaluation.findings import find, in_words
from safemil.nn import checkpoints, precision
from safemil.training.context import FitContext, Log, no_log
from safemil.training.fit_result import FitResult
from safemil.training.packing import splits_of, train_splits
from safemil.training.stopping import Patience

if TYPE_CHECKING:
    from typing_extensions import Self

LAPTOP_STEPS = {"cost_model.steps": 20_000, "policy.steps": 20_000, "cost_model.pairs": 1}  # at most, of SafeMIL
Episodes = Sequence[tuple[np.ndarray, np.ndarray]]  # (length, observation_dim), (length, action_dim) of each
Data = trajectories.Trajectories | Episodes | str | Path


class Trajectories(trajectories.Trajectories):
    """Observations ``(n_steps, observation_dim)`` and actions ``(n_steps, action_dim)`` of trajectories back to back.

    Trajectory i is rows ``offsets[i]:offsets[i + 1]``. Actions lie in [-1, 1].
    """

    @classmethod
    def from_episodes(cls, episodes: Episodes) -> Trajectories:
        """From (observations, actions) of each trajectory.

        Raises:
            UserError: there are none, or observations and actions of one differ in length.
        """
        if not len(episodes):
            raise UserError("no trajectories were given")
        for number, (seen, done) in enumerate(episodes):
            if len(seen) != len(done):
                raise UserError(f"trajectory {number} has {len(seen)} observations and {len(done)} actions")
        sides = zip(*episodes, strict=True)
        observations, actions = (np.concatenate([np.asarray(part) for part in parts]) for parts in sides)
        return cls(observations, actions, np.cumsum([0, *(len(part) for _, part in episodes)]))

    @classmethod
    def from_file(cls, source: Any, keys: Sequence[str] = (), bounds: Sequence[float] = ()) -> Trajectories:
        """From a file, folder or pandas frame: see ``read_trajectories`` in ``safemil.data.logs.reading``.

        Raises:
            UserError: it cannot be read, or does not say clearly what it holds.
        """
        read, _ = read_trajectories(source, keys, bounds)
        return cls(read.observations, read.actions, read.offsets)


class Learner:
    """A label-limited method as an object. Subclasses say which.

    Args:
        seed: of every random draw, the split into training and held-out trajectories included.
        device: cpu or cuda; by default cuda where there is one.
        precision: of training's products, see safemil/nn/precision.py.
        log: called with stage, step and metrics at every report of training.
        settings: of the method. A keyword is a setting's dotted name with ``__`` for the dots, or its last part, which
            then holds for every setting so called: ``steps=500`` for cost model and policy, ``weights__kind="hard"``.

    Raises:
        UserError: a setting that does not exist (names the nearest), a value out of range, a device that is not there.
    """

    method: ClassVar[str]
    held_out = 0.2  # share of both sets that training does not see

    def __init__(
        self,
        *,
        seed: int = 0,
        device: str | None = None,
        precision: str = "highest",
        log: Log = no_log,
        **settings: Any,
    ) -> None:
        self.config = configure(self.defaults(), settings)
        self.seed, self.device = checked_seed(seed), checked_device(device)
        self.precision, self.log = precision, log
        self.patience: Patience | None = None
        self.result: FitResult | None = None
        self.split: Split | None = None

    @classmethod
    def defaults(cls) -> Any:
        """The method's settings before keywords."""
        raise NotImplementedError

    @classmethod
    def fitting(cls) -> Callable[[Sequence[Split], Any, FitContext], list[FitResult]]:
        """The method's ``fit``."""
        raise NotImplementedError

    def fit(self, non_preferred: Data, unlabeled: Data) -> Self:
        """Train on trajectories known to be bad and on unlabeled ones; returns itself.

        Raises:
            UserError: fewer than three trajectories in a set, or sets of different dimensions.
            TrainingError: a loss stopped being finite.
        """
        fit_packed([self], non_preferred, unlabeled)
        return self

    def predict(self, observations: np.ndarray) -> np.ndarray:
        """Actions ``(n, action_dim)`` for observations ``(n, observation_dim)``."""
        return self._fitted().policy.act(trajectories.as_observations(observations))

    def cost(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Score of each step, ``(n,)``: for SafeMIL its cost in (0, 1); higher is riskier.

        Raises:
            UserError: the method has no score (plain cloning).
        """
        result = self._fitted()
        if result.scorer is None:
            raise UserError(f"{type(self).__name__} clones without a score of steps")
        return result.score_steps(trajectories.as_observations(observations), np.asarray(actions, np.float32))

    def rank(self, unlabeled: Data) -> Ranking:
        """Trajectories from safest to riskiest, by mean step score."""
        data = as_trajectories(unlabeled)
        scores = self.cost(data.observations, data.actions)
        return ranked(scores, data.lengths, self._weights(scores, data.lengths))

    def _weights(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Weight of each trajectory, from its steps' scores."""
        return np.full(len(lengths), np.nan)

    def diagnostics(self) -> dict[str, float]:
        """What can be said without true costs; of the fit on the data it was fitted to."""
        return diagnostics.label_free(self._fitted(), self._split())

    def summary(self) -> str:
        """How well the score tells bad from good, on held-out trajectories, in words a newcomer understands."""
        return "\n".join(in_words(find(self._fitted(), self._split())))

    def save(self, folder: str | Path) -> Path:
        """Write policy.safetensors and policy.json, whole or not at all; returns the former's path."""
        result = self._fitted()
        described: dict[str, Any] = {"method": self.method, "seed": self.seed, "config": to_dict(self.config)}
        level = precision.in_effect(self.precision, torch.device(self.device).type)
        described |= {"device": self.device, "precision": level}
        if self.split is not None:
            described["diagnostics"] = json.loads(json.dumps(self.diagnostics(), default=float))
        return checkpoints.save(folder, result.policy, scorer=result.scorer, **described)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What ``save`` wrote.

        Raises:
            UserError: there is nothing, or another method's.
        """
        described = checkpoints.load_metadata(folder, seed=int, config=dict)
        if described.get("method") != cls.method:
            raise UserError(f"{folder} holds a policy of {described.get('method')}, not of {cls.method}")
        model = cls(seed=described["seed"], device="cpu")
        model.config = override(model.config, known_settings(described["config"], model.config))
        model.result = FitResult(checkpoints.load_policy(folder), checkpoints.load_scorer(folder))
        return model

    def shared(self) -> tuple[Any, ...]:
        """What models that train as one must have in common."""
        return type(self), self.config, self.device, self.precision, self.patience

    def _split(self) -> Split:
        if self.split is None:
            raise UserError("this can be said of a fit alone, not of a model that was loaded")
        return self.split

    def _fitted(self) -> FitResult:
        if self.result is None:
            raise UserError(f"{type(self).__name__} has not been fitted: call fit(non_preferred, unlabeled) first")
        return self.result


class SafeMIL(Learner):
    """SafeMIL (arXiv 2511.08136): a step cost from bags, weights from the cost, a policy cloned with the weights.

    Args:
        early_stopping: cost model and policy train until their loss on held-out trajectories has stopped falling
            (safemil/training/stopping.py) and ``steps`` are the most they take; False trains ``steps`` exactly, as
            studies do. ``mode="joint"`` always trains ``steps``.
        keywords: as of every method, see ``Learner``.
    """

    method = "safemil"

    def __init__(self, *, early_stopping: bool = True, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.patience = Patience() if early_stopping else None

    @classmethod
    def defaults(cls) -> SafeMILConfig:
        return override(SafeMILConfig(), LAPTOP_STEPS)

    @classmethod
    def fitting(cls) -> Callable[..., list[FitResult]]:
        return fit

    def _weights(self, scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        if self.config.weights.kind == "hard":  # compares with D_N, which is not here
            return np.full(len(lengths), np.nan)
        return trajectory_means(weights_from_costs(scores, lengths, self.config), lengths)


def fit_packed(models: Sequence[Learner], non_preferred: Data, unlabeled: Data) -> None:
    """Train models that differ in their seeds alone, all at once: much faster than one after the other."""
    train_splits(models, splits_of(models, as_trajectories(non_preferred), as_trajectories(unlabeled)))


def as_trajectories(data: Data) -> trajectories.Trajectories:
    """Trajectories, a list of (observations, actions), or the path of a dataset file."""
    if isinstance(data, trajectories.Trajectories):
        return data
    return Trajectories.from_file(data) if isinstance(data, str | Path) else Trajectories.from_episodes(data)
