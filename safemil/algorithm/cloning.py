"""Trajectories and step weights -> policy: weighted behaviour cloning of R replicas.

    min over pi of  E_{(s, a) ~ D_U} [ w(s, a) * loss(pi(s), a) ],   w with mean 1

Plain behaviour cloning is the same with unit weights. Rows are drawn uniformly and the loss is weighted, rather than
rows drawn by weight: the data order then is the same for every method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from safemil.config.overrides import ConfigError
from safemil.config.settings import PolicyConfig
from safemil.data.splits import Split
from safemil.nn.policies import Policy
from safemil.nn.streams import IndexTable, Streams, make_generators
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult, SnapshotRecorder
from safemil.training.loop import train
from safemil.training.objectives import Batch, Info, Loss, Objective
from safemil.training.transitions import Shifts, Transitions, set_normalizers


def make_policy(
    splits: Sequence[Split], config: PolicyConfig, context: FitContext, purpose: str = "policy network"
) -> Policy:
    """R freshly initialized policies that carry their split's observation statistics."""
    data = splits[0].trajectories
    generators = make_generators(context.seeds, purpose)
    policy = Policy(generators, data.observation_dim, data.action_dim, config.hidden, config.head).to(context.device)
    if config.normalize_observations:
        set_normalizers([policy.encoder], splits)
    return policy


def refuse_samples(config: PolicyConfig, method: str) -> None:
    """For methods that know no loss but their head's own.

    Raises:
        ConfigError: another is asked for.
    """
    if config.sampled:
        raise ConfigError(f"policy.sampled=true: {method} has no such loss; safemil, ppl and cloning do")


class SampleNumbers:
    """The uniform numbers of a batch with which actions are drawn where policy.sampled says so; else none."""

    def __init__(self, policy: Policy, config: PolicyConfig, seeds: Sequence[int], n_pairs: int) -> None:
        self.shape = (n_pairs, policy.shape["action_dim"] + 1) if config.sampled else None
        self.streams = Streams(seeds, "sampled actions", next(policy.parameters()).device)

    def draw(self, n_steps: int) -> Batch:
        """``(n_steps, R, n_pairs, action_dim + 1)``, under the name ``sampled``."""
        return {} if self.shape is None else {"sampled": self.streams.uniform(n_steps, *self.shape).float()}


def weighted_loss(losses: Tensor, weights: Tensor) -> Tensor:
    """Imitation losses and weights of pairs of D_U ``(R, n)`` -> ``(R,)``: how every method extracts its policy."""
    return (weights * losses).mean(1)


def cloning_objective(policy: Policy, config: PolicyConfig, loss: Loss, name: str = "policy") -> Objective:
    """An imitation loss of the policy with its optimizer."""
    return Objective(
        name,
        list(policy.parameters()),
        loss,
        config.learning_rate,
        schedule=config.schedule,
        weight_decay=config.weight_decay,
    )


class TransitionSampler:
    """Batches of single transitions from a set of rows per replica."""

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        steps: Transitions,
        seeds: Sequence[int],
        batch_size: int,
        purpose: str = "transitions",
    ) -> None:
        self.steps, self.batch_size = steps, batch_size
        device = steps.observations.device
        self.table = IndexTable(rows, device)
        self.streams, self.shifts = Streams(seeds, purpose, device), Shifts(steps, seeds, purpose)

    def draw(self, n_steps: int) -> Batch:
        """Rows ``(n_steps, R, batch_size)``."""
        rows = self.table.sample(self.streams.uniform(n_steps, self.batch_size))
        return {"rows": rows, **self.shifts.draw(n_steps, self.batch_size)}

    def prepare(self, drawn: Batch) -> Batch:
        """Rows -> observations and actions ``(R, batch_size, .)``."""
        observations, actions = self.steps(drawn["rows"], drawn.get(self.shifts.name))
        return {"observations": observations, "actions": actions, "rows": drawn["rows"]}


def clone(
    policy: Policy,
    rows: Sequence[np.ndarray],
    weights: Sequence[np.ndarray] | None,
    config: PolicyConfig,
    steps: Transitions,
    context: FitContext,
    *,
    held_out: Sequence[np.ndarray],
    held_out_weights: Sequence[np.ndarray] | None = None,
) -> SnapshotRecorder:
    """Train ``policy`` in place; returns the snapshots taken on the way, and how it ended.

    Args:
        rows: for each replica, the rows of the shared data to clone.
        weights: for each replica, the weight of each of those rows (mean 1), or None for plain cloning.
        held_out: rows whose unweighted loss is logged at every report.
        held_out_weights: of those rows, for the loss that the context's patience watches; None: unit weights.
    """
    table = None if weights is None else weight_table(rows, weights, steps)

    def loss(batch: Batch) -> tuple[Tensor, Info]:
        losses = policy.loss(batch["observations"], batch["actions"], batch.get("sampled"))
        return losses.mean(1) if table is None else weighted_loss(losses, table.gather(1, batch["rows"])), {}

    sampler = TransitionSampler(rows, steps, context.seeds, config.batch_size)
    numbers = SampleNumbers(policy, config, context.seeds, config.batch_size)
    validation = ValidationLoss(policy, held_out, steps)

    def log(stage: str, step: int, metrics: dict[str, np.ndarray]) -> None:
        context.log(stage, step, {**metrics, "held_out_loss": validation()})

    recorder = SnapshotRecorder(policy, config.steps, context.snapshots)
    objective = cloning_objective(policy, config, loss)
    logged = dataclasses.replace(context, log=log)
    watched = None
    if context.patience is not None:
        own = held_out_weights or [np.ones(len(indices)) for indices in held_out]
        watched = WeightedHeldOutLoss(policy, held_out, own, steps)
    recorder.ended = train(
        "policy",
        [objective],
        lambda n_steps: {**sampler.draw(n_steps), **numbers.draw(n_steps)},
        lambda drawn: {**drawn, **sampler.prepare(drawn)},
        logged,
        steps=config.steps,
        recorder=recorder,
        held_out=watched,
    )
    return recorder


def clone_trajectories(
    splits: Sequence[Split],
    chosen: Sequence[np.ndarray],
    config: PolicyConfig,
    steps: Transitions,
    context: FitContext,
    *,
    weights: Sequence[np.ndarray] | None = None,
    held_out_weights: Sequence[np.ndarray] | None = None,
    scorers: Sequence[nn.Module | None] | None = None,
) -> list[FitResult]:
    """The last stage of most methods: a fresh policy per replica that clones its own choice of trajectories.

    Args:
        chosen: for each replica the trajectories to clone.
        weights: for each replica the weight of each of their steps, or None.
        held_out_weights: for each replica those of D_U's held-out steps, or None.
        scorers: for each replica the network that ranked the steps, handed on with the policy.
    """
    data = splits[0].trajectories
    recorder = clone(
        make_policy(splits, config, context),
        [data.rows(indices) for indices in chosen],
        weights,
        config,
        steps,
        context,
        held_out=[data.rows(split.unlabeled_held_out) for split in splits],
        held_out_weights=held_out_weights,
    )
    return recorder.results(scorers, weights)


def weight_table(rows: Sequence[np.ndarray], weights: Sequence[np.ndarray], steps: Transitions) -> Tensor:
    """Weights laid out over all rows of the data, ``(R, n_steps)``, zero where a replica does not clone."""
    table = torch.zeros(len(rows), len(steps.observations))
    for replica, (own, values) in enumerate(zip(rows, weights, strict=True)):
        table[replica, torch.as_tensor(own)] = torch.as_tensor(values, dtype=torch.float32)
    return table.to(steps.observations.device)


def evenly_spaced(rows: Sequence[np.ndarray], steps: Transitions, most: int) -> tuple[Tensor, Tensor]:
    """Observations and actions of at most so many of each replica's rows, ``(R, n, .)``."""
    n = min(most, *map(len, rows))
    chosen = np.stack([own[np.linspace(0, len(own) - 1, n).astype(int)] for own in rows])
    return steps(torch.as_tensor(chosen, device=steps.observations.device))


class ValidationLoss:
    """Unweighted imitation loss on up to 2,000 evenly spaced held-out rows of each replica, ``(R,)``."""

    def __init__(self, policy: Policy, rows: Sequence[np.ndarray], steps: Transitions, most: int = 2_000) -> None:
        self.policy, self.batch = policy, evenly_spaced(rows, steps, most)

    @torch.no_grad()
    def __call__(self) -> np.ndarray:
        return self.policy.loss(*self.batch).mean(1).cpu().numpy()


class WeightedHeldOutLoss:
    """The same, weighted, and of a replica's own number of rows, whatever it is packed with.

    Args:
        weights: for each replica one of each of its rows.
    """

    def __init__(
        self,
        policy: Policy,
        rows: Sequence[np.ndarray],
        weights: Sequence[np.ndarray],
        steps: Transitions,
        most: int = 2_000,
    ) -> None:
        chosen = [np.linspace(0, len(own) - 1, min(most, len(own))).astype(int) for own in rows]
        shape = len(rows), max(map(len, chosen))
        padded, shares = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for replica, at in enumerate(chosen):
            padded[replica, : len(at)] = rows[replica][at]
            shares[replica, : len(at)] = weights[replica][at] / len(at)
        device = steps.observations.device
        self.policy, self.shares = policy, torch.as_tensor(shares, device=device)
        self.batch = steps(torch.as_tensor(padded, device=device))

    @torch.no_grad()
    def __call__(self) -> np.ndarray:
        return (self.policy.loss(*self.batch) * self.shares).sum(1).cpu().numpy()
