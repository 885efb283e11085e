"""Trajectories and their true outcomes -> D_N and D_U for learners, hidden labels for metrics and oracles.

    all trajectories --(band by true cost, lower returns dropped)--> preferred pool, non-preferred pool
      non-preferred pool -> D_N (minus `contamination`) | D_U's non-preferred part (share `mixture`)
      preferred pool     -> D_U's preferred part        | D_N's contamination (its highest returns)
      `cost_levels` low, middle, high: D_N instead from a third of the non-preferred band, without D_U's part
    D_N, D_U --(20 % each)--> held out for validation

A ``Split`` holds observations, actions and trajectory indices: a learner cannot read what is not in it. The true
returns, costs and labels are in ``HiddenLabels``, which only metrics and methods declared oracles are given. The split
depends on its own seed and settings, never on the method.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.config.settings import SplitConfig
from safemil.data.trajectories import Outcomes, Trajectories

NONPREFERRED_COST = 3.0  # mix50: non-preferred trajectories cost more than this, in cost limits (75 at the usual limit)
FALLBACK_QUANTILE = 0.25  # where a band is too thin: bottom and top quarter by cost
COST_LEVELS = {"low": (0, 1 / 3), "middle": (1 / 3, 2 / 3), "high": (2 / 3, 1)}  # quantiles of the band's costs
UNION_COST_SHARE = 0.7  # `union`: D_N is drawn from trajectories of at least this share of the largest cost


class SplitError(UserError):
    """The dataset cannot give the split that was asked for."""


@dataclass(frozen=True, eq=False)
class Split:
    """What a learner receives. Each field but the first is a sorted array of trajectory indices, all disjoint."""

    trajectories: Trajectories
    nonpreferred: np.ndarray  # D_N to train on
    unlabeled: np.ndarray  # D_U to train on
    nonpreferred_held_out: np.ndarray
    unlabeled_held_out: np.ndarray

    def training_rows(self) -> np.ndarray:
        """Rows of D_N and D_U to train on, the ones that observation statistics are taken over."""
        return self.trajectories.rows(np.concatenate([self.nonpreferred, self.unlabeled]))


@dataclass(frozen=True, eq=False)
class HiddenLabels:
    """What no label-limited learner sees: true outcomes, the band of every trajectory, and how the split came about."""

    outcomes: Outcomes
    preferred: np.ndarray  # (n_trajectories,) bool: true cost in the preferred band
    nonpreferred: np.ndarray  # (n_trajectories,) bool: true cost in the non-preferred band
    cost_limit: float
    record: dict[str, Any]  # thresholds, fallback, counts; goes into config.json

    def evaluation_sets(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Non-preferred and preferred trajectories that training never used: held out, or outside both sets."""
        unused = np.ones(len(split.trajectories), dtype=bool)
        unused[split.nonpreferred] = unused[split.unlabeled] = False
        return np.flatnonzero(self.nonpreferred & unused), np.flatnonzero(self.preferred & unused)


def make_split(
    trajectories: Trajectories, outcomes: Outcomes, config: SplitConfig, seed: int
) -> tuple[Split, HiddenLabels]:
    """Draw D_N and D_U (algorithms of the public notes on the paper: `mix50`; follow-up work: `union`).

    Raises:
        SplitError: too few trajectories, with the counts found and wanted.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5111]))
    draw = _draw_union if config.protocol == "union" else _draw_mix50
    nonpreferred, unlabeled, labels = draw(outcomes, config, rng)
    split = Split(trajectories, *hold_out(nonpreferred, unlabeled, config.held_out, rng))
    return split, labels


def _draw_mix50(outcomes: Outcomes, config: SplitConfig, rng: np.random.Generator):
    n_contaminants = round(config.contamination * config.n_nonpreferred)
    n_mixed = round(config.mixture * config.n_unlabeled)
    wanted = {
        "preferred": config.n_unlabeled - n_mixed + n_contaminants,
        "nonpreferred": config.n_nonpreferred - n_contaminants + n_mixed,
    }
    costs, returns = outcomes.costs_total, outcomes.returns
    dear = NONPREFERRED_COST * config.cost_limit
    bands = {"preferred": costs < config.cost_limit, "nonpreferred": costs > dear}
    record: dict[str, Any] = {"protocol": "mix50", "fallback": None}
    record["thresholds"] = {"preferred_below": config.cost_limit, "nonpreferred_above": dear}
    if any(bands[name].sum() < wanted[name] for name in bands):
        low, high = np.quantile(costs, [FALLBACK_QUANTILE, 1 - FALLBACK_QUANTILE])
        thin = ", ".join(f"{name} band has {bands[name].sum()} of {wanted[name]}" for name in bands)
        bands = {"preferred": costs <= low, "nonpreferred": (costs >= high) & (costs > low)}
        record["fallback"] = f"cost quantiles {FALLBACK_QUANTILE:.0%}/{1 - FALLBACK_QUANTILE:.0%}: {thin}"
        record["thresholds"] = {"preferred_at_most": float(low), "nonpreferred_at_least": float(high)}
    for name, band in bands.items():
        if band.sum() < wanted[name]:
            raise SplitError(
                f"the dataset's {name} band holds {band.sum()} trajectories, the split needs {wanted[name]}"
                f" (of {len(costs)} in all); lower split.n_nonpreferred or split.n_unlabeled"
            )
    pools = {name: _high_return(np.flatnonzero(band), returns, wanted[name]) for name, band in bands.items()}
    record["counts"] = {name: {"band": int(bands[name].sum()), "pool": len(pools[name])} for name in bands}

    best_first = pools["preferred"][np.argsort(-returns[pools["preferred"]], kind="stable")]
    contaminants = best_first[:n_contaminants]
    safe = rng.choice(np.setdiff1d(pools["preferred"], contaminants), config.n_unlabeled - n_mixed, replace=False)
    unsafe = rng.permutation(pools["nonpreferred"])[: wanted["nonpreferred"]]
    n_true = config.n_nonpreferred - n_contaminants
    true, mixed = unsafe[:n_true], unsafe[n_true:]
    if config.cost_levels != "mixed":
        true = _of_one_level(np.setdiff1d(np.flatnonzero(bands["nonpreferred"]), mixed), outcomes, config, n_true, rng)
    levels = costs[true] if n_true else np.zeros(1)
    record["nonpreferred_costs"] = {"mean": float(levels.mean()), "std": float(levels.std())}
    labels = HiddenLabels(outcomes, bands["preferred"], bands["nonpreferred"], config.cost_limit, record)
    return np.concatenate([true, contaminants]), np.concatenate([mixed, safe]), labels


def _of_one_level(
    band: np.ndarray, outcomes: Outcomes, config: SplitConfig, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """So many of the band's trajectories from one third of its costs; draws nothing from ``rng`` itself."""
    costs = outcomes.costs_total[band]
    low, high = np.quantile(costs, COST_LEVELS[config.cost_levels])
    level = band[(costs >= low) & (costs <= high)]
    if len(level) < wanted:
        raise SplitError(
            f"split.cost_levels={config.cost_levels}: {len(level)} trajectories of the non-preferred band cost"
            f" {low:g} to {high:g} and are not in D_U, the split needs {wanted}; lower split.n_nonpreferred"
        )
    return rng.spawn(1)[0].choice(_high_return(level, outcomes.returns, wanted), wanted, replace=False)


def _draw_union(outcomes: Outcomes, config: SplitConfig, rng: np.random.Generator):
    if config.contamination or config.cost_levels != "mixed":
        raise SplitError("split.contamination and split.cost_levels are defined for split.protocol=mix50 alone")
    costs = outcomes.costs_total
    kept = _high_return(np.arange(len(costs)), outcomes.returns, 0)
    threshold = UNION_COST_SHARE * costs[kept].max()
    candidates = kept[costs[kept] >= threshold]
    if len(candidates) < config.n_nonpreferred or len(kept) - config.n_nonpreferred < 4:
        raise SplitError(
            f"{len(candidates)} trajectories cost at least {threshold:.1f}, the split needs {config.n_nonpreferred};"
            " lower split.n_nonpreferred"
        )
    chosen = rng.choice(candidates, config.n_nonpreferred, replace=False)
    record = {"protocol": "union", "fallback": None, "thresholds": {"nonpreferred_at_least": float(threshold)}}
    labels = HiddenLabels(outcomes, costs < config.cost_limit, costs >= threshold, config.cost_limit, record)
    return chosen, np.setdiff1d(kept, chosen), labels


def _high_return(band: np.ndarray, returns: np.ndarray, wanted: int) -> np.ndarray:
    """The band without its lower-return half, or without as much of it as ``wanted`` allows. Sorted indices."""
    keep = max(math.ceil(len(band) / 2), wanted)
    return np.sort(band[np.argsort(-returns[band], kind="stable")][:keep])


def hold_out(nonpreferred: np.ndarray, unlabeled: np.ndarray, share: float, rng: np.random.Generator):
    """D_N, D_U -> (train N, train U, held-out N, held-out U), each sorted so that order tells nothing."""
    train, held_out = [], []
    for indices in (nonpreferred, unlabeled):
        shuffled = rng.permutation(indices)
        n_held_out = round(share * len(indices))
        train.append(np.sort(shuffled[n_held_out:]))
        held_out.append(np.sort(shuffled[:n_held_out]))
    return *train, *held_out


def split_of_sets(non_preferred: Trajectories, unlabeled: Trajectories, *, seed: int, held_out: float) -> Split:
    """D_N and D_U as one set of trajectories, D_N first, a share of each held out.

    Raises:
        UserError: a set of which nothing could be held out, or sets that cannot be of one task.
    """
    if not 0 < held_out < 1:
        raise UserError(f"held_out={held_out:g}: expected a share above 0 and below 1, to check the result on")
    fewest = next(n for n in itertools.count(2) if round(held_out * n) >= 1)
    for name, part in (("non-preferred", non_preferred), ("unlabeled", unlabeled)):
        if len(part) < fewest:
            found = "is 1 trajectory" if len(part) == 1 else f"are {len(part)} trajectories"
            raise UserError(
                f"there {found} in the {name} set; at least {fewest} are needed, as {held_out:.0%} are held out"
                " to check the result on"
            )
    for name in ("observation_dim", "action_dim"):
        if getattr(non_preferred, name) != getattr(unlabeled, name):
            raise UserError(
                f"non-preferred trajectories have {name} {getattr(non_preferred, name)}, unlabeled ones"
                f" {getattr(unlabeled, name)}; both must come from the same task"
            )
    data = Trajectories(
        np.concatenate([non_preferred.observations, unlabeled.observations]),
        np.concatenate([non_preferred.actions, unlabeled.actions]),
        np.concatenate([non_preferred.offsets, non_preferred.offsets[-1] + unlabeled.offsets[1:]]),
    )
    indices, n_bad = np.arange(len(data)), len(non_preferred)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5111]))
    return Split(data, *hold_out(indices[:n_bad], indices[n_bad:], held_out, rng))
