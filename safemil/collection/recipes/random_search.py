"""Augmented random search for linear policies (Mania, Guy and Recht 2018, arXiv 1803.07055, their V2-t).

Try random changes of the policy both ways, and step along the best ones in proportion to what they gained. In: weights
on normalized observations and a function that plays an episode with them. Out: by how much they are to be changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safemil.collection.recipes.networks import product

# weights (action_dim, observation_dim), seed -> score of one episode, its observations (n_steps, observation_dim)
Play = Callable[[np.ndarray, int], tuple[float, np.ndarray]]


class Normalizer:
    """Running mean and deviation of all observations seen."""

    def __init__(self, dim: int) -> None:
        self.count, self.mean, self.squares = 1e-3, np.zeros(dim), np.full(dim, 1e-3)

    def update(self, observations: np.ndarray) -> None:
        count = len(observations)
        shift = observations.mean(axis=0) - self.mean
        self.squares += ((observations - observations.mean(axis=0)) ** 2).sum(axis=0)
        self.squares += shift**2 * self.count * count / (self.count + count)
        self.mean += shift * count / (self.count + count)
        self.count += count

    def linear(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gains and offsets on raw observations of ``weights`` on normalized ones."""
        gains = weights / (np.sqrt(self.squares / self.count) + 1e-3)
        return gains, -product(np.ascontiguousarray(gains.T), self.mean)


def improvement(
    play: Play,
    weights: np.ndarray,
    rng: np.random.Generator,
    *,
    directions: int,
    kept: int,
    noise: float,
    step: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One iteration: by how much ``weights`` are to change, the scores (directions, 2), and all observations seen.

    Args:
        play: one episode; both ways of a direction are played from the same seed.
        directions: random changes tried, both ways.
        kept: the best of them that are followed.
        noise: standard deviation of a change, in units of normalized observations.
        step: size of the step, likewise.
    """
    # Single precision: a generator's rare far draws come from the C library's logarithm, which may differ in the last
    # bit from one processor to the next.
    tries = noise * rng.standard_normal((directions, *weights.shape)).astype(np.float32).astype(np.float64)
    scores, seen = np.empty((directions, 2)), []
    for index, change in enumerate(tries):
        seed = int(rng.integers(2**32))
        for side, sign in enumerate((1, -1)):
            scores[index, side], observations = play(weights + sign * change, seed)
            seen.append(observations)
    best = np.argsort(-scores.max(axis=1), kind="stable")[:kept]
    gained = scores[best, 0] - scores[best, 1]
    rate = step / noise / (kept * (scores[best].std() + 1e-6))
    return rate * (gained[:, None, None] * tries[best]).sum(axis=0), scores, np.concatenate(seen)


def walk(simulator: Any, gains: np.ndarray, offsets: np.ndarray, seed: int) -> tuple[float, float, np.ndarray]:
    """(return, cost, observations) of one episode of the policy clip(gains @ observation + offsets)."""
    observation, observations, return_, total, ended = simulator.reset(seed), [], 0.0, 0.0, False
    weights = np.ascontiguousarray(gains.T)
    while not ended:
        observations.append(observation)
        action = np.clip(product(weights, observation) + offsets, -1, 1).astype(np.float32)
        observation, reward, cost, terminated, truncated = simulator.step(action)
        return_, total, ended = return_ + reward, total + cost, terminated or truncated
    return return_, total, np.array(observations, dtype=np.float64)
