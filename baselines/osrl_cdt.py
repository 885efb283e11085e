"""osrl-cdt: constrained decision transformer; an oracle that learns from, and is prompted with, true rewards and costs.

A causal transformer over the last ten steps clones actions given what is still to come (Liu et al., arXiv 2302.07351):

    tokens  return to go, cost to go (as 50 - cost), observation, action; each plus an embedding of its time step
    loss    -log N(a | mean, std) - entropy, weighted so that entropy meets -action_dim
            + 0.02 cross-entropy of whether the step costs
    act     mean, clipped to +-1; return and cost received are subtracted from the targets as the episode goes

OSRL's `CDT`, `CDTTrainer` and `SequenceDataset` with the settings of its script. Its own choices, kept: trajectories
are drawn in proportion to 70 - cost, those beyond 70 never (uniformly where all are beyond); the actor is an
un-squashed Gaussian. Differences, besides those of baselines/osrl_training.py:

- No augmentation. OSRL's script adds 20 % of relabeled trajectories within return bounds set by hand for each task.
- The prompt is the cost limit, and `target_quantile` of the training returns within that limit (of the least cost where
  none is); OSRL's is set by hand for each task, e.g. at cost 20: 2800 Ant- and Walker2dVelocity, 160 SwimmerVelocity,
  45 PointCircle2, 30 PointGoal1, 40 PointButton1. `target_return` sets it.
- The cost head has two classes; costs above 1, on which OSRL's loss fails, count as 1 for it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.osrl_networks import frozen, initialized_by
from baselines.osrl_settings import CDTConfig
from baselines.osrl_training import Problem, Training, fit_seeds
from safemil.data.splits import HiddenLabels, Split
from safemil.nn.streams import BLOCK
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult

SAMPLING_COST = 70.0  # OSRL draws a trajectory in proportion to this minus its cost


class SequenceBatches:
    """OSRL's ``SequenceDataset`` as tables on the device, and pieces of ``context`` steps drawn from it.

    Trajectories lie one after the other, each followed by ``context`` - 1 rows of zeros, which pad a piece that begins
    near its end. A batch: states, actions, returns to go, costs to go, time steps, mask, episode costs, costs.
    """

    def __init__(self, problem: Problem, config: CDTConfig) -> None:
        from osrl.common import SequenceDataset

        arguments = {"seq_len": config.context, "reward_scale": config.reward_scale, "cost_scale": config.cost_scale}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it prints
            source = SequenceDataset(problem.dataset, **arguments)
        trajectories = source.dataset
        self.config, self.generator = config, problem.generator
        lengths = torch.tensor([len(own["rewards"]) for own in trajectories])
        self.probabilities = sampling_probabilities(trajectories, config)
        scales = {"returns": config.reward_scale, "cost_returns": config.cost_scale}
        gap = config.context - 1

        def table(name: str) -> Tensor:
            padded = [np.pad(own[name], [(0, gap)] + [(0, 0)] * (own[name].ndim - 1)) for own in trajectories]
            values = np.concatenate(padded) * np.float32(scales.get(name, 1))
            return torch.as_tensor(values, device=problem.device)

        self.tables = [table(name) for name in ("observations", "actions", "returns", "cost_returns")]
        self.costs = (table("costs") > 0).float()
        self.lengths = lengths.to(problem.device)
        self.first_rows = torch.cumsum(self.lengths + gap, 0) - self.lengths - gap
        self.drawn: list[tuple[Tensor, Tensor]] = []

    def at(self, trajectories: Tensor, starts: Tensor) -> list[Tensor]:
        """The pieces that begin at the steps ``starts`` of ``trajectories``, both ``(n,)``."""
        time_steps = starts.unsqueeze(1) + torch.arange(self.config.context, device=starts.device)
        first = self.first_rows[trajectories].unsqueeze(1)
        pieces = [table[first + time_steps] for table in self.tables]
        mask = (time_steps < self.lengths[trajectories].unsqueeze(1)).float()
        return [*pieces, time_steps, mask, self.tables[3][first.squeeze(1)], self.costs[first + time_steps]]

    def draw(self) -> list[Tensor]:
        """The next batch."""
        if not self.drawn:
            size = BLOCK * self.config.policy.batch_size
            chosen = torch.multinomial(self.probabilities, size, replacement=True, generator=self.generator)
            uniform = torch.rand(size, generator=self.generator, dtype=torch.float64).to(self.lengths.device)
            chosen = chosen.to(self.lengths.device)
            starts = (uniform * self.lengths[chosen]).long()
            self.drawn = list(zip(chosen.view(BLOCK, -1), starts.view(BLOCK, -1), strict=True))
        return self.at(*self.drawn.pop())


def sampling_probabilities(trajectories: Sequence[dict[str, np.ndarray]], config: CDTConfig) -> Tensor:
    """How likely each trajectory is drawn."""
    from osrl.common.dataset import compute_cost_sample_prob

    cheap = min(own["cost_returns"][0] for own in trajectories) < SAMPLING_COST
    if not (config.cost_sampling and cheap):
        return torch.full((len(trajectories),), 1 / len(trajectories), dtype=torch.float64)
    return torch.tensor(compute_cost_sample_prob(trajectories, lambda cost: SAMPLING_COST - cost), dtype=torch.float64)


def target_return(problem: Problem, config: CDTConfig) -> float:
    """The undiscounted return asked for in evaluation."""
    if config.target_return != "data":
        return float(config.target_return)
    ends = np.flatnonzero(problem.dataset["terminals"] | problem.dataset["timeouts"]) + 1
    starts = np.concatenate([[0], ends[:-1]])
    returns, costs = (np.add.reduceat(problem.dataset[key], starts, dtype=np.float64) for key in ("rewards", "costs"))
    safe = costs <= max(problem.cost_limit, costs.min())
    return float(np.quantile(returns[safe], config.target_quantile))


class PromptedPolicy(nn.Module):
    """OSRL's transformer with its targets and, within an episode, the steps it remembers.

    Outside an episode each observation is taken for the first of one.
    """

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: int,
        action_dim: int,
        targets: tuple[float, float],
        scales: tuple[float, float],
        **transformer: Any,
    ) -> None:
        super().__init__()
        sizes = {"observation_dim": observation_dim, "action_dim": action_dim}
        self.shape: dict[str, Any] = {**sizes, "targets": list(targets), "scales": list(scales), **transformer}
        with initialized_by(generators[0]):
            self.transformer = make_transformer(state_dim=observation_dim, action_dim=action_dim, **transformer)
        self._restart(playing=False)

    def _restart(self, playing: bool) -> None:
        self.playing, self.step = playing, 0
        self.past: dict[str, Tensor] = {}
        self.to_go = [target * scale for target, scale in zip(self.shape["targets"], self.shape["scales"], strict=True)]

    def begin_episode(self, seed: int) -> None:
        """Forget the last episode and ask for the targets again."""
        self._restart(playing=True)

    def observe(self, reward: float, cost: float) -> None:
        """Subtract what the last action brought from what is still asked for."""
        received = zip(self.to_go, (reward, cost), self.shape["scales"], strict=True)
        self.to_go = [left - value * scale for left, value, scale in received]
        self.step += 1

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Evaluation actions, ``(n, observation_dim)`` -> ``(n, action_dim)``, float32; n is 1 within an episode."""
        states = torch.tensor(observations, dtype=torch.float32).unsqueeze(1)
        time_step = min(self.step, self.transformer.episode_len - 1)
        tokens = {
            "states": states,
            "actions": torch.zeros(len(states), 1, self.transformer.action_dim),  # not yet known, and not attended to
            "returns_to_go": torch.full((len(states), 1), self.to_go[0]),
            "costs_to_go": torch.full((len(states), 1), self.to_go[1]),
            "time_steps": torch.full((len(states), 1), time_step),
        }
        if self.past:
            context = self.transformer.seq_len
            tokens = {name: torch.cat([self.past[name], new], 1)[:, -context:] for name, new in tokens.items()}
        actions = self.transformer(**tokens)[0].mean[:, -1].clamp(-1.0, 1.0)
        if self.playing:
            tokens["actions"][:, -1] = actions
            self.past = tokens
        return actions.numpy()


def make_transformer(*, dropout: float = 0.0, **arguments: Any) -> Any:
    """OSRL's ``CDT`` in the form of its training script."""
    from osrl.algorithms import CDT

    return CDT(
        **arguments,
        max_action=1.0,
        attention_dropout=dropout,
        residual_dropout=dropout,
        embedding_dropout=dropout,
        use_rew=True,
        use_cost=True,
        cost_transform=True,
        stochastic=True,
        target_entropy=-arguments["action_dim"],
    )


def build(problem: Problem, config: CDTConfig) -> Training:
    """OSRL's model and trainer for one seed."""
    from osrl.algorithms import CDTTrainer

    batches = SequenceBatches(problem, config)
    transformer: dict[str, Any] = {
        "episode_len": problem.horizon,
        "seq_len": config.context,
        "embedding_dim": config.embedding,
        "num_layers": config.layers,
        "num_heads": config.heads,
    }
    sizes = {"state_dim": problem.sizes["observation_dim"], "action_dim": problem.sizes["action_dim"]}
    model = make_transformer(dropout=config.dropout, **sizes, **transformer).to(problem.device)
    trainer = CDTTrainer(
        model,
        env=None,
        logger=problem.logger,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        clip_grad=config.gradient_clip,
        lr_warmup_steps=config.warmup_steps,
        reward_scale=config.reward_scale,
        cost_scale=config.cost_scale,
        loss_cost_weight=config.cost_head_weight,
        device=problem.device,
    )
    arguments: dict[str, Any] = {
        **problem.sizes,
        **transformer,
        "targets": (target_return(problem, config), problem.cost_limit),
        "scales": (config.reward_scale, config.cost_scale),
    }

    def policy() -> nn.Module:
        return frozen(PromptedPolicy([problem.generator], **arguments), transformer=model)

    return Training(update=lambda: trainer.train_one_step(*batches.draw()), policy=policy)


def fit(
    splits: Sequence[Split], config: CDTConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """osrl-cdt: a constrained decision transformer of D_N and D_U with true rewards and costs."""
    return fit_seeds(build, splits, config, context, labels)
