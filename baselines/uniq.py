"""UNIQ (NeurIPS 2025, OpenReview MYe8FiahWi): avoid what D_N does, by soft Q-learning on a reward from a density ratio.

    ratio   max over v  E_U[ log(1 - v) ] + E_N[ log v ],   tau = v / (1 - v) = d_N / d_U at best
    Q       min over Q  E_U[ tau x + psi(x) ],   x = Q(s, a) - g V(s'),   psi(x) = 0.1 x^2 - x
    V       min over V  E_U[ exp t - t - 1 ],   t = (Q(s, a) - V(s)) / beta
    policy  min over pi  E_U[ w * loss(pi(s), a) ],   w = exp((Q - V) / beta) with mean 1

Q's loss is a parabola in x whose lowest point is x = 5 (1 - tau): Q is fitted to 5 (1 - tau) + g V(s') by half the
squared error, which has the same optimum and a five times larger gradient (`literal` takes the form above). At V's
optimum V = beta log E_U[exp(Q / beta)], so E_U[w] = 1. beta -> infinity is bc-all, beta -> 0 the best action in D_U.
beta has no label-free criterion: it stays 5, other values are printed as a sensitivity (grid uniq-beta).

Differences from the paper, whose published code is of an earlier method (not used here): the ratio network has no early
stop but is the one of ten along the way with the lowest held-out loss, its output is clipped to [.05, .95] where tau is
read, not in its loss, and one draw of hidden units is dropped in a whole batch; tau at most 5 (`ratio_cap`); past t = 5
the exponential goes on as its tangent, so that V is never left without a gradient; Q and V first, then the policy with
cached weights, so that it is cloned by the code that clones every other; a trajectory's last step has no successor and
is left out of Q's loss (baselines/batches.py says why); networks of 256-256; policy and loss are those of every method
here (the paper's tanh-Gaussian: policy.head=tanh_gauss).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from baselines.batches import StepSampler, rows_with_successors
from baselines.critics import CriticConfig, TwinCritic, Value, critic_objective, follower
from baselines.discriminator import BestHeldOut, DiscriminatorConfig, logistic_loss
from safemil.algorithm.cloning import clone_trajectories, weight_table
from safemil.algorithm.weights import normalize, trajectory_means
from safemil.config.overrides import Settings, setting
from safemil.config.settings import PolicyConfig
from safemil.data.splits import Split
from safemil.evaluation.diagnostics import correlation
from safemil.nn.networks import StepScorer, extract_replica
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, score_rows
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info, Objective
from safemil.training.transitions import Transitions, set_normalizers

BONUS, CURVATURE = 5.0, 0.2  # r = 5 (1 - tau) and psi'' of psi(x) = 0.1 x^2 - x
OUTPUT_RANGE = (0.05, 0.95)  # of the ratio network, where tau is read: tau in [0.053, 19]
LARGEST_EXPONENT, LARGEST_WEIGHT, LARGEST_REWARD = 5.0, 100.0, 100.0
WIDTHS = (256, 256)  # of the ratio network


@dataclass(frozen=True)
class UNIQConfig(Settings):
    """Soft Q-learning away from a non-preferred set."""

    discriminator: DiscriminatorConfig = dataclasses.field(
        default_factory=lambda: DiscriminatorConfig(steps=100_000, batch_size=512, weight_decay=1e-4)
    )
    dropout: float = setting(0.5, "share of the ratio network's hidden units left out of an update", low=0.0, high=0.95)
    ratio_cap: float = setting(5.0, "largest tau; 19 is the clip of the ratio network alone", low=1.0)
    beta: float = setting(5.0, "temperature of V and of the weights", low=1e-3)
    literal: bool = setting(False, "Q's loss as in the paper instead of the squared error with the same optimum")
    critic: CriticConfig = dataclasses.field(default_factory=CriticConfig)
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)


def density_ratio(probabilities: Tensor, cap: float) -> Tensor:
    """tau = v / (1 - v), at most ``cap``."""
    return (probabilities / (1 - probabilities)).clamp(max=cap)


def reward(ratio: Tensor) -> Tensor:
    """r = 5 (1 - tau), at most 5."""
    return BONUS * (1 - ratio)


def q_loss(values: Tensor, rewards: Tensor, following: Tensor, *, literal: bool = False) -> Tensor:
    """Of Q(s, a), 5 (1 - tau) and g V(s'), elementwise; ``literal``: tau x + psi(x) of the paper."""
    if literal:
        x, ratio = values - following, 1 - rewards / BONUS
        return ratio * x + 0.5 * CURVATURE * x.square() - x
    return 0.5 * (values - rewards - following).square()


def scaled_advantage(values: Tensor, states: Tensor, beta: float) -> Tensor:
    """t = A = (Q - V) / beta, elementwise; of the two Q ``(2, ...)`` the smaller."""
    return (values.amin(0) - states) / beta


def kept_units(uniform: Tensor, dropout: float) -> Tensor:
    """Factors of hidden units: 0 for a share ``dropout``, with mean 1."""
    return (uniform >= dropout) / (1 - dropout)


def value_loss(exponents: Tensor) -> Tensor:
    """exp t - t - 1, elementwise; the exponential's tangent past t = 5."""
    bounded = exponents.clamp(max=LARGEST_EXPONENT)
    return bounded.exp() * (1 + exponents - bounded) - exponents - 1


def policy_weights(advantages: np.ndarray) -> np.ndarray:
    """exp(A), at most 100, with mean 1."""
    with np.errstate(over="ignore"):
        return normalize(np.minimum(np.exp(advantages.astype(np.float64)), LARGEST_WEIGHT))


class RatioNetwork(StepScorer):
    """v(s, a), the probability of D_N against D_U: the score of a step."""

    def read(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(super().read(outputs)).clamp(*OUTPUT_RANGE)

    def logits(self, observations: Tensor, actions: Tensor, units: Tensor | None = None) -> Tensor:
        """``(R, n)``; ``units`` are factors of the hidden units."""
        hidden = self.mlp.embed(self.inputs(observations, actions), units)
        return self.mlp.layers[-1](hidden).squeeze(-1)


def fit_ratio(
    splits: Sequence[Split], config: UNIQConfig, steps: Transitions, context: FitContext
) -> tuple[RatioNetwork, BestHeldOut]:
    """Logistic regression of D_N against D_U, as it was at the lowest held-out loss."""
    data, settings = splits[0].trajectories, config.discriminator
    generators = make_generators(context.seeds, "ratio network")
    network = RatioNetwork(generators, data.observation_dim, data.action_dim, WIDTHS).to(context.device)
    if config.policy.normalize_observations:
        set_normalizers([network.encoder], splits)
    sets = {name: [data.rows(getattr(split, name)) for split in splits] for name in ("nonpreferred", "unlabeled")}
    sampler = StepSampler(
        sets, steps, context.seeds, settings.batch_size, uniform={"dropped units": (len(WIDTHS), max(WIDTHS))}
    )

    def loss(batch: Batch) -> tuple[Tensor, Info]:
        units = kept_units(batch["dropped units"], config.dropout)
        logits = [network.logits(batch[f"{name}_observations"], batch[f"{name}_actions"], units) for name in sets]
        ratios = density_ratio(torch.sigmoid(logits[1].detach()).clamp(*OUTPUT_RANGE), config.ratio_cap)
        return logistic_loss(*logits), {"ratio_unlabeled": ratios.mean(1)}

    n_steps = max(1, settings.steps)
    objective = Objective(
        "discriminator",
        list(network.parameters()),
        loss,
        settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    best = BestHeldOut(network, network.logits, splits, steps, n_steps)
    train("discriminator", [objective], sampler.draw, sampler.prepare, context, steps=n_steps, recorder=best)
    best.put_back()
    return network, best


class Advantage(nn.Module):
    """A = (min of both Q - V) / beta of steps, ``(R, n)``."""

    def __init__(self, critic: TwinCritic, value: Value, beta: float) -> None:
        super().__init__()
        self.critic, self.value, self.beta = critic, value, beta

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        return scaled_advantage(self.critic(observations, actions), self.value(observations), self.beta)


def fit_advantage(
    splits: Sequence[Split], rewards: Tensor, config: UNIQConfig, steps: Transitions, context: FitContext
) -> Advantage:
    """Q and V on the same batches of D_U; ``rewards`` ``(R, n_steps)`` of all rows of the data."""
    data, settings, device = splits[0].trajectories, config.critic, context.device
    shape = data.observation_dim, data.action_dim, settings.hidden
    critic = TwinCritic(make_generators(context.seeds, "critic"), *shape).to(device)
    generators = make_generators(context.seeds, "value")
    value = Value(generators, data.observation_dim, settings.hidden, "torch").to(device)
    if config.policy.normalize_observations:
        set_normalizers([*critic.encoders, value.encoder], splits)
    slow = copy.deepcopy(critic).requires_grad_(False)
    sets = {"unlabeled": [rows_with_successors(data, split.unlabeled) for split in splits]}
    sampler = StepSampler(sets, steps, context.seeds, config.policy.batch_size, followed="unlabeled")
    largest = LARGEST_REWARD / (1 - settings.discount)

    def prepare(drawn: Batch) -> Batch:
        batch = sampler.prepare(drawn)
        return {**batch, "rewards": rewards.gather(1, batch["rows"])}

    def fit_critic(batch: Batch) -> tuple[Tensor, Info]:
        with torch.no_grad():
            following = settings.discount * value(batch["next_observations"]).clamp(-largest, largest)
        values = critic(batch["unlabeled_observations"], batch["unlabeled_actions"])
        losses = q_loss(values, batch["rewards"], following, literal=config.literal)
        return losses.mean(-1).sum(0), {"q": values.detach().mean((0, 2)), "reward": batch["rewards"].mean(1)}

    def fit_value(batch: Batch) -> tuple[Tensor, Info]:
        with torch.no_grad():
            goals = slow(batch["unlabeled_observations"], batch["unlabeled_actions"])
        exponents = scaled_advantage(goals, value(batch["unlabeled_observations"]), config.beta)
        clipped = (exponents.detach() > LARGEST_EXPONENT).float().mean(1)
        return value_loss(exponents).mean(1), {"exponent_clipped": clipped}

    objectives = [
        critic_objective("critic", critic, fit_critic, settings, [follower(critic, slow, settings)]),
        critic_objective("value", value, fit_value, settings),
    ]
    train("critic", objectives, sampler.draw, prepare, context, steps=settings.updates * config.policy.steps)
    return Advantage(critic, value, config.beta)


def fit(splits: Sequence[Split], config: UNIQConfig, context: FitContext) -> list[FitResult]:
    """The ratio, then Q and V, then weighted cloning of D_U."""
    data, steps = splits[0].trajectories, Transitions.from_splits(splits, context.device)
    rows = [data.rows(split.unlabeled) for split in splits]
    network, best = fit_ratio(splits, config, steps, context)
    ratios = [
        density_ratio(torch.tensor(own, dtype=torch.float64), config.ratio_cap)
        for own in score_rows(network, steps, rows)
    ]
    rewards = [reward(own).numpy() for own in ratios]
    advantage = fit_advantage(splits, weight_table(rows, rewards, steps), config, steps, context)
    every = [data.rows(np.concatenate([split.unlabeled, split.unlabeled_held_out])) for split in splits]
    scored = score_rows(advantage, steps, every)
    counts = [len(own) for own in rows]
    advantages = [own[:count] for own, count in zip(scored, counts, strict=True)]
    learned = clone_trajectories(
        splits,
        [split.unlabeled for split in splits],
        config.policy,
        steps,
        context,
        weights=[policy_weights(own) for own in advantages],
        held_out_weights=[policy_weights(own)[count:] for own, count in zip(scored, counts, strict=True)],
        scorers=[extract_replica(network, index) for index in range(len(splits))],
    )
    for own, split, ratio, values, loss in zip(learned, splits, ratios, advantages, best.losses, strict=True):
        lengths = data.lengths[split.unlabeled]
        totals = trajectory_means(reward(ratio).numpy(), lengths) * lengths
        exponentials = np.exp(np.minimum(values.astype(np.float64), np.log(LARGEST_WEIGHT)))
        own.extra |= {
            "ratio_mean": ratio.mean().item(),  # 1 at the optimum
            "ratio_capped": (ratio >= config.ratio_cap).double().mean().item(),
            "reward_length_correlation": correlation(totals, lengths),  # r's bonus of 5 a step pays for long episodes
            "ratio_held_out_loss": float(loss),
            "weight_mean": float(exponentials.mean()),  # of exp(A), before it is scaled to 1; 1 at the optimum
            "weight_capped": float((values > np.log(LARGEST_WEIGHT)).mean()),
        }
    return learned
