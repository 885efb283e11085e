"""What `osrl_faithful` false changes: OSRL's classes, with those of their steps corrected that are at fault.

All four that learn from transitions:

- Only a terminal ends a backup, not a time-out. What follows a time-out is not in the data, so its step is left out.
- Cost backups end where those of rewards do (osrl-coptidice's already did).

osrl-cpq:

- Q_c of unlikely actions is pushed up with a gradient, on the critic itself. The push stops at 1.5 q: OSRL's, which the
  multiplier alone would hold back, goes on beyond and takes the likely actions along.
- Those actions are taken after the tanh, and averaged alone, without a zero for each likely one.
- Where the actor's action is beyond the threshold, Q_c is lowered; where it is within, Q is raised as before. This and
  the stop of the push are ours, not CPQ's paper's; a two-action bandit in the tests decided for them.

osrl-coptidice:

- The likelihood is that of the squashed action: of its inverse tanh, but for a constant.
- The cost limit is a mean per step, as is the bound that is compared with it: the threshold times 1 - g.

osrl-cdt has no such variant. That a step costs or not is all its cost head can tell; an auxiliary loss of weight 0.02
reads it and nothing else, and costs to go are the true ones. Kept for all: how a limit becomes a threshold, and that
the smaller of two cost critics is compared with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

UNLIKELY_SHARE = 0.25  # of the actor's actions, those that the VAE finds least likely: OSRL's


def without_time_outs(dataset: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Transitions under OSRL's keys, less those that a time-out cut off; of the others only terminals are done."""
    kept = ~dataset["timeouts"]
    return {name: values[kept] for name, values in {**dataset, "done": dataset["terminals"].astype(np.float32)}.items()}


def before_tanh(actions: np.ndarray) -> np.ndarray:
    """Inverse tanh of actions, those at the bounds moved inside by 1e-6."""
    return np.arctanh(np.clip(actions, -1 + 1e-6, 1 - 1e-6)).astype(np.float32)


def corrected(model: type, *steps: type) -> type:
    """OSRL's class with some of its steps replaced by those of ``steps``."""
    return type(f"Corrected{model.__name__}", (*steps, model), {})


class EndingCosts:
    """Cost backups that end with the episode: there the discount is 0."""

    gamma: float | Tensor

    def cost_critic_loss(
        self, observations: Tensor, next_observations: Tensor, actions: Tensor, costs: Tensor, done: Tensor
    ) -> Any:
        discount, self.gamma = self.gamma, self.gamma * (1 - done)
        try:
            return super().cost_critic_loss(observations, next_observations, actions, costs, done)
        finally:
            self.gamma = discount


class ConstraintsPenalized:
    """CPQ's cost critic with its push on unlikely actions, and an actor that finds back within the threshold."""

    def cost_critic_loss(
        self, observations: Tensor, next_observations: Tensor, actions: Tensor, costs: Tensor, done: Tensor
    ) -> Any:
        with torch.no_grad():
            next_actions, _ = self._actor_forward(next_observations)
            following, _ = self.cost_critic_old.predict(next_observations, next_actions)
            backup = costs + self.gamma * (1 - done) * following
            repeated = observations.repeat(self.sample_action_num, 1)
            sampled, _ = self._actor_forward(repeated)
            _, mean, std = self.vae(repeated, sampled)
            divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean(1)
            unlikely = divergence >= torch.quantile(divergence, 1 - UNLIKELY_SHARE)
        missing = self.qc_thres - self.cost_critic.predict(repeated[unlikely], sampled[unlikely])[0]
        _, values = self.cost_critic.predict(observations, actions)
        loss = self.cost_critic.loss(backup, values) + self.log_alpha.exp() * missing.clamp(min=0).mean()
        descend(self.cost_critic_optim, loss)
        rise = self.alpha_lr * self.log_alpha.exp() * missing.mean().detach()
        self.log_alpha = (self.log_alpha + rise).clamp(-5.0, 5.0)
        return loss, {"loss/cost_critic_loss": loss.item(), "loss/alpha_value": self.log_alpha.exp().item()}

    def actor_loss(self, observations: Tensor) -> Any:
        actions, _ = self._actor_forward(observations)
        value, _ = self.critic.predict(observations, actions)
        excess = self.cost_critic.predict(observations, actions)[0] - self.q_thres
        loss = torch.where(excess <= 0, -value, excess).mean()
        descend(self.actor_optim, loss)
        return loss, {"loss/actor_loss": loss.item()}


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step. Gradients of other networks are dropped: each optimizer of OSRL's zeroes its own first."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
