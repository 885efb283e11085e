"""Metrics: the last stage before the tables. Episode returns, episode costs and scores come in, single numbers go out.

Statistics over runs and tasks are in safemil/evaluation/aggregates.py. Every estimator is one pure function of numpy
arrays. Metrics over episodes refuse empty or non-finite input (a NaN cost compared with a limit would otherwise count
as safe); rank statistics answer nan where they are not defined.

    returns, costs   (n_episodes,)   undiscounted sums of one trained policy, one entry per evaluation episode
"""

from __future__ import annotations

import math

import numpy as np


def normalized_return(returns: np.ndarray, return_min: float, return_max: float) -> float:
    """(mean R - R_min) / (R_max - R_min), not clipped, so it may exceed 1. Source: DSRL (Liu et al. 2023).

    With ``return_max`` set to a reference policy's mean return this is the paper's normalization (1 = the reference).
    nan when ``return_max`` does not lie above ``return_min``, as there is no scale then.
    """
    mean = float(_episodes(returns, "returns").mean())
    return (mean - return_min) / (return_max - return_min) if return_max > return_min else math.nan


def normalized_cost(costs: np.ndarray, cost_limit: float) -> float:
    """(mean C + eps) / (limit + eps), eps = 1 for a zero limit and 0 otherwise; safe means at most 1. Source: DSRL."""
    return scale_by_limit(float(_episodes(costs, "costs").mean()), cost_limit)


def scale_by_limit(cost: float, cost_limit: float) -> float:
    """Put one cost (a mean or a CVaR) on the scale where 1 is the limit; the formula of :func:`normalized_cost`."""
    if cost_limit < 0:
        raise ValueError(f"cost_limit is {cost_limit}, expected a number that is not negative")
    epsilon = 1.0 if cost_limit == 0 else 0.0
    return (cost + epsilon) / (cost_limit + epsilon)


def normalized_cost_reference(costs: np.ndarray, reference_cost: float) -> float:
    """mean C - C_ref: 0 is the reference policy's level, unscaled. Source: the first author's public code."""
    return float(_episodes(costs, "costs").mean()) - reference_cost


def cvar(costs: np.ndarray, alpha: float) -> float:
    """Mean cost of the worst ``alpha`` share of episodes, in raw cost units; the boundary episode counts by its share.

    With m = alpha n and k = floor(m) it is (sum of the k largest + (m - k) times the next one) / m, and the maximum for
    m < 1. Equals min over t of t + mean((C - t)+) / alpha (Rockafellar and Uryasev 2000), at any number of episodes.
    """
    worst_first = np.sort(_episodes(costs, "costs"))[::-1]
    # Rounded, because 0.07 * 100 is 7.000000000000001 in floating point.
    tail = round(_share(alpha) * len(worst_first), 9)
    if tail <= 1:
        return float(worst_first[0])
    whole = math.floor(tail)
    boundary = (tail - whole) * worst_first[whole] if tail > whole else 0.0
    return float((worst_first[:whole].sum() + boundary) / tail)


def cvar_floor(costs: np.ndarray, alpha: float) -> float:
    """Mean of the worst max(1, floor(alpha n)) episodes, raw cost units; for parity with SafeDICE's released code.

    The released slice without the ``max`` returns the mean of all episodes when floor(alpha n) is 0.
    """
    worst_first = np.sort(_episodes(costs, "costs"))[::-1]
    count = max(1, math.floor(round(_share(alpha) * len(worst_first), 9)))
    return float(worst_first[:count].mean())


def violation_rate(costs: np.ndarray, cost_limit: float) -> float:
    """Share of episodes whose cost exceeds the limit (strictly). Pass 0 for the share of episodes with any cost."""
    return float((_episodes(costs, "costs") > cost_limit).mean())


def auroc(scores_positive: np.ndarray, scores_negative: np.ndarray) -> float:
    """P(positive score > negative score) + half P(equal), over all pairs; inputs (n_positive,) and (n_negative,).

    The Mann-Whitney U statistic divided by n_positive * n_negative. nan when a side is empty or a score is nan.
    """
    positive, negative = np.asarray(scores_positive, float).ravel(), np.asarray(scores_negative, float).ravel()
    if len(positive) == 0 or len(negative) == 0 or np.isnan(positive).any() or np.isnan(negative).any():
        return math.nan
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def auroc_interval(area: float, n_positive: int, n_negative: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval (95 % by default) of an ``auroc`` of so many scores, independent of each other.

    Newcombe's method 5 (Statistics in Medicine 25, 2006): all areas from which ``area`` lies at most z of their own
    standard errors away, these as Hanley and McNeil give them, with the mean of both sample sizes. Unlike a bootstrap
    or DeLong's interval it has a width where the samples are separated perfectly, as few often are by chance.
    """
    if math.isnan(area) or min(n_positive, n_negative) < 1:
        return math.nan, math.nan
    more = (n_positive + n_negative) / 2 - 1

    def tolerable(candidate: float) -> bool:
        spread = candidate * (1 - candidate) / (n_positive * n_negative)
        spread *= 1 + more * (1 - candidate) / (2 - candidate) + more * candidate / (1 + candidate)
        return abs(area - candidate) <= z * math.sqrt(spread)

    def limit(end: float) -> float:
        inside, outside = area, end
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if tolerable(middle) else (inside, middle)
        return inside

    return limit(0.0), limit(1.0)


def preferred_share_bound(auroc_unlabeled: float) -> float:
    """Lower bound on the preferred share p of D_U from AUROC(D_N against D_U): 2 AUROC - 1, never below 0.

    Holds where the non-preferred part of D_U resembles D_N: perfect separation then gives an AUROC of (1 + p) / 2.
    """
    return max(0.0, 2.0 * auroc_unlabeled - 1.0) if not math.isnan(auroc_unlabeled) else math.nan


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman rank correlation of two (n,) arrays, ties at their mean rank; nan for n < 2, a constant side, a nan."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    if len(x) != len(y):
        raise ValueError(f"spearman compares {len(x)} values with {len(y)}; both arrays need the same length")
    if len(x) < 2 or np.isnan(x).any() or np.isnan(y).any():
        return math.nan
    rank_x, rank_y = _mean_ranks(x), _mean_ranks(y)
    rank_x, rank_y = rank_x - rank_x.mean(), rank_y - rank_y.mean()
    scale = math.sqrt((rank_x**2).sum() * (rank_y**2).sum())
    return float((rank_x * rank_y).sum() / scale) if scale > 0 else math.nan


def mil_loss_floor(
    preferred_share: float, score_scale: float, bag_size: int | None = None, total_variation: float = 1.0
) -> float:
    """Lowest MIL loss a cost model can reach; the ceiling, at a constant cost, is log 2.

    ``score_scale`` is G_H (safemil/algorithm/discounting.py; 1 where scores are divided by it). Without a ``bag_size``
    this is the limit of large bags, softplus(-p G_H TV). With one it is the mean over the number of preferred items in
    an unlabeled bag, Binomial(K, p), which is what perfect separation costs at that K and lies above the limit.
    """
    gap = score_scale * total_variation
    if bag_size is None:
        return float(np.logaddexp(0.0, -_share(preferred_share, zero=True) * gap))
    preferred_items = np.arange(bag_size + 1)
    weights = _binomial(bag_size, _share(preferred_share, zero=True))
    return float((weights * np.logaddexp(0.0, -preferred_items / bag_size * gap)).sum())


def _binomial(n: int, share: float) -> np.ndarray:
    """Probabilities (n + 1,) of 0..n successes, through logarithms so that n = 256 does not overflow."""
    if share in (0.0, 1.0):
        return np.eye(n + 1)[n if share else 0]
    log_factorials = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    log_choices = log_factorials[n] - log_factorials - log_factorials[::-1]
    successes = np.arange(n + 1)
    return np.exp(log_choices + successes * math.log(share) + (n - successes) * math.log1p(-share))


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..n (n,), tied values sharing the mean of their ranks."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2.0)[group]


def _episodes(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} has shape {values.shape}, expected a filled vector (n,)")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{name}: {bad} of {len(values)} entries are not finite, expected none")
    return values


def _share(value: float, zero: bool = False) -> float:
    if not (0 <= value <= 1) or (value == 0 and not zero):
        raise ValueError(f"got the share {value}, expected a number between 0 and 1")
    return float(value)
