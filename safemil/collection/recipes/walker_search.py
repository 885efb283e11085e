"""Two ends of a walk for Walker2dVelocity, fast and within the limit, found by going on with a public agent.

The public ARS agent (linear) walks fast at a cost of 300 or so an episode. Random search that pays for its excess speed
makes it a policy that breaks the limit moderately, and with a higher price one that keeps it and hardly loses return:
the behaviors between the two ends cross the limit. An end is the policy around which random changes did best, as one
that falls when it is changed a little is of no use. The search is a function of the agent and of ``WALKER_ENDS`` alone,
the same to the last bit on every processor that has FMA, so it is made again where it is needed, and kept beside the
agents.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from safemil.collection.agent_files import PretrainedAgent, find_agent
from safemil.collection.recipes import networks, random_search
from safemil.collection.recipes.networks import Network, linear, product
from safemil.collection.recipes.random_search import improvement, walk
from safemil.config.atomic import atomic_write
from safemil.data.locate import dataset_folder, lock

logger = logging.getLogger(__name__)

WALKER_ARS = PretrainedAgent("ars", "Walker2d-v3", "3f077957c1d6f3961a6c1cfe815bf82c832cc64bf899e4e2730a8642f1a33655")
DIGITS = 6  # of the gains that are kept


@dataclass(frozen=True)
class Phase:
    """Some iterations of the search; where it ends is an end of the walk."""

    penalty: float  # per unit of cost
    step: float  # of the search, and standard deviation of its random changes
    iterations: int


@dataclass(frozen=True)
class WalkerEnds:
    """Settings of the search; all decide its result."""

    agent: PretrainedAgent
    strength: float  # of the agent that is gone on with
    phases: tuple[Phase, ...]
    seed: int = 0
    directions: int = 8  # random changes tried at each iteration, both ways
    kept: int = 4  # the best of them that are followed


WALKER_ENDS = WalkerEnds(WALKER_ARS, 1.15, (Phase(2.0, 0.02, 40), Phase(6.0, 0.015, 15)))


@functools.lru_cache(maxsize=2)
def find_ends(settings: WalkerEnds) -> tuple[Network, ...]:
    """The agent at its strength, then the policy at the end of each phase, searched if need be.

    Two processes that want them search once.

    Raises:
        UserError: the agent is nowhere to be found.
    """
    asked = json.dumps(asdict(settings), sort_keys=True)
    sources = [inspect.getsource(module) for module in (networks, random_search, sys.modules[__name__])]
    key = hashlib.sha256("".join([asked, *sources]).encode()).hexdigest()[:8]  # another search has other ends
    path = dataset_folder() / "agents" / f"Walker2dVelocity-{key}.json"
    with lock(path.parent, path.stem):
        ends = _read(path, asked)
        if ends is None:
            logger.info("searching the two ends of the walk, which takes some minutes once; kept in %s", path)
            ends = search(settings)
            text = json.dumps({"settings": asked, "ends": ends, "sha256": _digest(ends)}, indent=1)
            with atomic_write(path) as temporary:
                temporary.write_text(text + "\n")
        logger.info("%s: SHA-256 of the ends %s", path.name, _digest(ends))
    agent = find_agent(settings.agent)
    start = _policy(agent, settings.strength * agent.weights[0].T)
    return tuple(linear(np.array(gains), np.array(offsets)) for gains, offsets in (start, *ends))


def search(settings: WalkerEnds) -> list[list]:
    """[gains (6, 17), offsets (6,)] at the end of each phase, as lists rounded to ``DIGITS``."""
    from safemil.simulation.bare_walker import BareWalker

    agent = find_agent(settings.agent)
    (matrix,) = agent.weights  # linear, without a bias
    weights = settings.strength * matrix.T
    walker, rng, ends = BareWalker(), np.random.default_rng(settings.seed), []
    for phase in settings.phases:

        def play(tried: np.ndarray, seed: int, penalty: float = phase.penalty) -> tuple[float, np.ndarray]:
            return_, cost, observations = walk(walker, *_policy(agent, tried), seed)
            return return_ - penalty * cost, observations

        found = []  # (mean score of the changes tried, weights) of each iteration
        for _ in range(phase.iterations):
            change, scores, _ = improvement(
                play, weights, rng,
                directions=settings.directions, kept=settings.kept, noise=phase.step, step=phase.step,
            )  # fmt: skip
            found.append((float(scores.mean()), weights))
            weights = weights + change
            logger.debug("penalty %g: %.0f", phase.penalty, found[-1][0])
        _, weights = max(found, key=lambda pair: pair[0])
        ends.append([array.round(DIGITS).tolist() for array in _policy(agent, weights)])
    return ends


def _policy(agent: Network, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gains and offsets on raw observations of weights (action_dim, observation_dim) on the agent's inputs."""
    gains = weights / agent.deviation
    return gains, -product(np.ascontiguousarray(gains.T), agent.mean)


def _digest(ends: list[list]) -> str:
    return hashlib.sha256(json.dumps(ends).encode()).hexdigest()


def _read(path: Path, asked: str) -> list[list] | None:
    """What an earlier search with these settings kept; None when there is none, or its file was damaged later."""
    try:
        kept = json.loads(path.read_text())
        return kept["ends"] if kept["settings"] == asked and kept["sha256"] == _digest(kept["ends"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
