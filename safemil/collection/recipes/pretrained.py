"""Behavior from public pretrained agents: the same skill pushed less or more, so that it keeps to a limit or breaks it.

An episode draws one agent of a mixture, a strength that multiplies its actions before they are bounded, and how much
noise is added; or a place between linear policies that one search went through. The agents are not part of this project
(``safemil.collection.agent_files`` says where they come from).
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from safemil.collection.agent_files import PretrainedAgent, find_agent
from safemil.collection.recipes.lapse import Spells, lapse_recipes
from safemil.collection.recipes.networks import Network, linear
from safemil.collection.recipes.recipe import Recipe, noisy
from safemil.collection.recipes.walker_search import WALKER_ENDS, WalkerEnds, find_ends

Range = tuple[float, float]

ANT_TRPO = PretrainedAgent("trpo", "Ant-v3", "79106875bfc58e95dff33486e25b0b773e580048ee20032718a294105b3fbff4")
ANT_ARS = PretrainedAgent("ars", "Ant-v3", "db1eb5de7fc0c83cca4191b06c4d2a6ab92982f7415cd9634e71ebc662d7762b")

CHEETAH_SAC = PretrainedAgent(
    "sac", "HalfCheetah-v3", "801c5fe9b4d12d12e1d8be05adb52b9fbfc019103f8c0c48efbeb2306956a9ab", normalized=False
)


@dataclass(frozen=True)
class Share:
    """One agent's part of a mixture."""

    agent: PretrainedAgent
    weight: float  # probability that an episode is this agent's
    strength: Range  # drawn uniformly; a factor on the actions


@dataclass(frozen=True)
class Mixture:
    """Agents at a ladder of strengths."""

    shares: tuple[Share, ...]
    noise: Range  # drawn uniformly: standard deviation of what is added to the actions

    @property
    def parameters(self) -> dict[str, Any]:
        """What the dataset's file records."""
        shares = {share.agent.name: _parameters(share) for share in self.shares}
        return {"agents": shares, "noise": self.noise}


# Strength -> cost: TRPO .4 15, .5 70, .55 180, .65 660; ARS .9 12, 1.1 50, 1.2 80, and above it may fall.
ANT = Mixture((Share(ANT_TRPO, 0.7, (0.32, 0.66)), Share(ANT_ARS, 0.3, (0.65, 1.25))), noise=(0.0, 0.12))
# Strength -> return / cost: .2 917/0, .23 1312/0, .26 2002/54, .29 2503/152.
HALF_CHEETAH = Mixture((Share(CHEETAH_SAC, 1.0, (0.21, 0.30)),), noise=(0.0, 0.12))


@dataclass(frozen=True)
class Interpolation:
    """Linear policies on the line through those that a search passed, at a ladder of positions."""

    ends: WalkerEnds
    position: Range  # drawn uniformly: 0 is the public agent at its strength, 1 the first phase's end, ...
    noise: Range

    @property
    def parameters(self) -> dict[str, Any]:
        """What the dataset's file records."""
        return {"search": asdict(self.ends), "position": self.position, "noise": self.noise}


# Its lapses: the TRPO agent at strengths that cost nothing, hardly anything, and about one in two steps.
ANT_LAPSE = {"strength": (0.28, 0.38), "bold": (0.4, 0.42), "reckless": (0.6, 0.68), "noise": ANT.noise}

# Return / cost without noise: .4 2895/139, 1 2719/94, 1.4 2631/74, 2 2573/28, 2.1 2550/10, 2.5 2300/0; it may fall
# below .3 and above 2.7.
WALKER = Interpolation(WALKER_ENDS, position=(0.4, 2.6), noise=(0.0, 0.12))


@dataclass(frozen=True, eq=False)
class NetworkBehavior:
    """A network's actions at some strength, with noise."""

    network: Network
    strength: float
    noise: float

    def act(self, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return noisy(self.network.act(observation, self.strength), self.noise, rng)


def draw_from(mixture: Mixture, rng: np.random.Generator) -> NetworkBehavior:
    """One agent of a mixture, its strength and its noise."""
    share = mixture.shares[rng.choice(len(mixture.shares), p=[share.weight for share in mixture.shares])]
    strength, noise = rng.uniform(*share.strength), rng.uniform(*mixture.noise)
    return NetworkBehavior(find_agent(share.agent), strength, noise)


def draw_strengths(agent: PretrainedAgent, ranges: dict[str, Range], rng: np.random.Generator) -> list[NetworkBehavior]:
    """One agent at three strengths: cautious, bold and reckless."""
    noise = rng.uniform(*ranges["noise"])
    strengths = [rng.uniform(*ranges[name]) for name in ("strength", "bold", "reckless")]
    return [NetworkBehavior(find_agent(agent), strength, noise) for strength in strengths]


def draw_between(interpolation: Interpolation, rng: np.random.Generator) -> NetworkBehavior:
    """A policy between two neighboring ends, or beyond the last one, and its noise."""
    position, noise = rng.uniform(*interpolation.position), rng.uniform(*interpolation.noise)
    ends = find_ends(interpolation.ends)
    first = min(int(position), len(ends) - 2)
    share = position - first
    (before, after), (offset, offset_after) = (
        [getattr(end, name)[0] for end in ends[first : first + 2]] for name in ("weights", "biases")
    )
    gains = (1 - share) * before + share * after
    return NetworkBehavior(linear(gains.T, (1 - share) * offset + share * offset_after), 1.0, noise)


def fetch_agents(mixture: Mixture) -> None:
    """Have every agent of a mixture at hand. Raises ``UserError`` when one is nowhere to be found."""
    for share in mixture.shares:
        find_agent(share.agent)


def _parameters(share: Share) -> dict[str, Any]:
    return {"sha256": share.agent.digest, "weight": share.weight, "strength": share.strength}


def _mixture_recipe(mixture: Mixture, description: str, minutes: float, n_trajectories: int) -> dict[str, Recipe]:
    draw, prepare = functools.partial(draw_from, mixture), functools.partial(fetch_agents, mixture)
    return {"pretrained": Recipe(draw, description, minutes, n_trajectories, mixture.parameters, prepare=prepare)}


def _interpolation_recipe(
    between: Interpolation, description: str, minutes: float, n_trajectories: int
) -> dict[str, Recipe]:
    draw = functools.partial(draw_between, between)

    def prepare() -> None:
        find_ends(between.ends)

    return {"pretrained": Recipe(draw, description, minutes, n_trajectories, between.parameters, prepare=prepare)}


def _lapses(
    task: str, agent: PretrainedAgent, ranges: dict[str, Range], spells: Spells, description: str, minutes: float
) -> dict[str, dict[str, Recipe]]:
    policies, prepare = functools.partial(draw_strengths, agent, ranges), functools.partial(find_agent, agent)
    parameters = {"agent": agent.name, "sha256": agent.digest, **ranges}
    return lapse_recipes(task, policies, spells, parameters, description, minutes, name="pretrained", prepare=prepare)


# Minutes: measured on two busy cores, HalfCheetahVelocity estimated.
RECIPES: dict[str, dict[str, Recipe]] = {
    "AntVelocity": _mixture_recipe(ANT, "public TRPO and ARS agents, weaker and stronger", 20, 640),
    **_lapses("AntVelocity", ANT_TRPO, ANT_LAPSE, Spells(60, costly=0.5, bold=0.6), "a public TRPO agent", minutes=15),
    "HalfCheetahVelocity": _mixture_recipe(HALF_CHEETAH, "a public SAC agent, weaker and stronger", 15, 600),
    "Walker2dVelocity": _interpolation_recipe(
        WALKER, "a public ARS agent and what a search for less cost made of it", 32, 640
    ),
}
