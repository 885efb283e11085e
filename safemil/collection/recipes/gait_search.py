"""Search for a linear gait of a velocity task, fast at little cost, to collect data with. Out: a small file.

    python -m safemil.collection.recipes.gait_search --task SwimmerVelocity

Augmented random search (``safemil.collection.recipes.random_search``), first on the return alone, from standing still;
then on return - penalty x cost with the penalty raised at every iteration, beginning at the fast gait turned down to a
share of its strength. A penalty from the start ends in standing still, and at full strength, where actions stand at -1
or 1, a fast gait does not slow down. The best gait of the second part by return - cost is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from safemil.collection.recipes.random_search import Normalizer, improvement, walk
from safemil.collection.recipes.velocity import gait_path
from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError, entry_point
from safemil.data.tasks import Task, find_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """Settings of a search; all go into the file."""

    seed: int = 0
    directions: int = 4  # random changes tried at each iteration, both ways
    kept: int = 2  # the best of them that are followed
    noise: float = 0.03  # standard deviation of a change, in units of normalized observations
    step: float = 0.05
    climb: int = 80  # iterations on the return alone
    descend: int = 60  # iterations with the rising penalty
    strength: float = 0.1  # share of the fast gait's strength with which the descent begins
    caution: float = 0.25  # share of noise and step during the descent
    penalties: tuple[float, float] = (0.2, 1.0)  # per unit of cost, at the descent's first and last iteration


# The seed matters: of swimmer's seeds 0 and 1, the first finds no fast gait in 60 iterations. The larger bodies have
# more parameters, and ant and walker can fall: more directions.
SEARCHES = {
    "SwimmerVelocity": Search(seed=1, climb=26, descend=40, strength=0.08),
    "HalfCheetahVelocity": Search(directions=6, kept=3, step=0.03, climb=60, descend=30, strength=0.7, caution=0.5),
    "AntVelocity": Search(
        directions=16, kept=8, step=0.02, noise=0.025, climb=400, descend=100, strength=1.0, caution=0.5
    ),
    "Walker2dVelocity": Search(directions=16, kept=8, step=0.03, climb=500, descend=100, strength=1.0, caution=0.5),
}


@dataclass
class Gait:
    """A linear policy and how it did in one episode."""

    gains: np.ndarray  # (action_dim, observation_dim)
    offsets: np.ndarray  # (action_dim,)
    return_: float
    cost: float


def search(task: Task, settings: Search) -> Iterator[Gait]:
    """The gait after each iteration: first faster and faster, then slower and slower."""
    from safemil.simulation import simulators

    rng = np.random.default_rng(settings.seed)
    width = cast(int, task.observation_dim)  # of a vector
    weights, normalizer = np.zeros((task.action_dim, width)), Normalizer(width)
    with simulators.make(task) as simulator:
        for iteration in range(settings.climb + settings.descend):
            descended = iteration - settings.climb
            if descended < 0:
                change, seen = _change(simulator, weights, normalizer, 0.0, 1.0, settings, rng)
                normalizer.update(seen)  # not later, when the same weights are to stay the same gait
            else:
                weights = weights * settings.strength if descended == 0 else weights
                penalty = float(np.interp(descended, (0, settings.descend - 1), settings.penalties))
                change, _ = _change(simulator, weights, normalizer, penalty, settings.caution, settings, rng)
            weights = weights + change
            gains, offsets = normalizer.linear(weights)
            return_, cost, _ = walk(simulator, gains, offsets, int(rng.integers(2**32)))
            yield Gait(gains, offsets, return_, cost)


def _change(
    simulator: Any,
    weights: np.ndarray,
    normalizer: Normalizer,
    penalty: float,
    caution: float,
    settings: Search,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One iteration: by how much the weights change, and all observations seen on the way."""

    def play(tried: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
        return_, cost, observations = walk(simulator, *normalizer.linear(tried), seed)
        return return_ - penalty * cost, observations

    change, _, seen = improvement(
        play,
        weights,
        rng,
        directions=settings.directions,
        kept=settings.kept,
        noise=settings.noise * caution,
        step=settings.step * caution,
    )
    return change, seen


def best(gaits: list[Gait]) -> Gait:
    """The one with the highest return - cost."""
    return max(gaits, key=lambda gait: gait.return_ - gait.cost)


def save(path: Path, task: Task, settings: Search, gait: Gait) -> None:
    """Write the gait, how it did, and the settings it was found with."""
    record = {
        "task": task.name,
        "settings": asdict(settings),
        "return": round(gait.return_, 3),
        "cost": gait.cost,
        "gains": gait.gains.round(6).tolist(),
        "offsets": gait.offsets.round(6).tolist(),
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m safemil.collection.recipes.gait_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", required=True, help=", ".join(SEARCHES))
    parser.add_argument("--seed", type=int, help="default: the task's own, with which its gaits were found")
    parser.add_argument("--output", type=Path, help="default: where the task's recipe looks for it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    task = find_task(options.task)
    if task.name not in SEARCHES:
        raise UserError(f"no settings to search gaits for {task.name}: there are some for {', '.join(SEARCHES)}")
    settings = SEARCHES[task.name]
    if options.seed is not None:
        settings = replace(settings, seed=options.seed)
    path, gaits = options.output or gait_path(task), []
    for iteration, gait in enumerate(search(task, settings), 1):
        if iteration % 10 == 0:
            logger.info("iteration %d: return %.1f, cost %.0f", iteration, gait.return_, gait.cost)
        if iteration > settings.climb:
            gaits.append(gait)
    save(path, task, settings, best(gaits))
    print(path)


if __name__ == "__main__":
    sys.exit(main())
