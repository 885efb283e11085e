"""OSRL's networks around transitions: batches for its trainers, arguments for its models, and policies out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.osrl_corrections import without_time_outs
from baselines.osrl_settings import BehaviorModelConfig, TransitionsConfig
from baselines.osrl_training import Problem
from safemil.nn.streams import BLOCK

WATCHED_ROWS = 2_000  # evenly spaced transitions on which values are watched


class TransitionBatches:
    """OSRL's ``TransitionDataset`` as tables on the device; batches are drawn from it uniformly, with replacement.

    A batch is (observations, next observations, actions, rewards, costs, done, is initial), in this order.
    """

    def __init__(self, problem: Problem, config: TransitionsConfig) -> None:
        from osrl.common import TransitionDataset

        source = TransitionDataset(dict(problem.dataset), config.reward_scale, config.cost_scale, state_init=True)
        if not config.osrl_faithful:
            source.dataset = without_time_outs(source.dataset)
        self.initial_share, self.observation_std, self.action_std = source.get_dataset_states()
        scales = {"rewards": np.float32(config.reward_scale), "costs": np.float32(config.cost_scale)}
        names = ("observations", "next_observations", "actions", "rewards", "costs", "done", "is_init")
        columns = [source.dataset[name] * scales.get(name, np.float32(1)) for name in names]
        self.columns = [torch.as_tensor(column, device=problem.device) for column in columns]
        self.generator, self.batch_size = problem.generator, config.policy.batch_size
        self.drawn: list[Tensor] = []
        n_rows = len(self.columns[0])
        spaced = torch.linspace(0, n_rows - 1, min(n_rows, WATCHED_ROWS)).long().to(problem.device)
        self.watched = self.at(spaced)

    def at(self, rows: Tensor) -> list[Tensor]:
        """The transitions in those rows."""
        return [column.index_select(0, rows) for column in self.columns]

    def draw(self) -> list[Tensor]:
        """The next batch."""
        if not self.drawn:
            rows = torch.randint(len(self.columns[0]), (BLOCK, self.batch_size), generator=self.generator)
            self.drawn = list(rows.to(self.columns[0].device))
        return self.at(self.drawn.pop())


def network_arguments(problem: Problem, config: TransitionsConfig) -> dict[str, Any]:
    """Keyword arguments of the four models that learn from transitions. Actions lie in [-1, 1]."""
    hidden = list(config.policy.hidden)
    return {
        "state_dim": problem.sizes["observation_dim"],
        "action_dim": problem.sizes["action_dim"],
        "max_action": 1.0,
        "episode_len": problem.horizon,
        "a_hidden_sizes": hidden,
        "c_hidden_sizes": hidden,
        "gamma": config.discount,
        "cost_limit": problem.cost_limit * config.cost_scale,
        "device": problem.device,
    }


def behavior_model_arguments(problem: Problem, config: BehaviorModelConfig) -> dict[str, Any]:
    """Keyword arguments of the three models with a VAE."""
    return {
        **network_arguments(problem, config),
        "num_q": config.critics,
        "num_qc": config.critics,
        "tau": config.target_rate,
        "sample_action_num": config.sampled_actions,
        "vae_hidden_sizes": config.vae_hidden,
        "beta": config.vae_prior,
    }


def trainer_arguments(problem: Problem, config: Any) -> dict[str, Any]:
    """Keyword arguments of the trainers of those four. ``env`` is for OSRL's own evaluation, which is not used."""
    return {
        "env": None,
        "logger": problem.logger,
        "actor_lr": config.actor_learning_rate,
        "critic_lr": config.critic_learning_rate,
        "reward_scale": config.reward_scale,
        "cost_scale": config.cost_scale,
        "device": problem.device,
    }


def cost_values(model: Any, batches: TransitionBatches, threshold: float) -> dict[str, Tensor]:
    """How the cost critic (its first network pair or ensemble) judges the data's own actions."""
    values = model.cost_critic.predict(batches.watched[0], batches.watched[2])[0]
    return {
        "cost_value": values.mean(),
        "cost_threshold": torch.tensor(threshold),
        "feasible_share": (values <= threshold).float().mean(),
    }


@contextmanager
def initialized_by(generator: torch.Generator) -> Iterator[None]:
    """Networks made within are a function of the generator, and torch's global one is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        yield


def frozen(policy: nn.Module, **networks: nn.Module) -> nn.Module:
    """``policy`` with copies of trained networks for its own of the same names, ready to act."""
    for name, network in networks.items():
        getattr(policy, name).load_state_dict(network.state_dict())
    return policy.requires_grad_(False).eval()


class ActorPolicy(nn.Module):
    """OSRL's tanh-Gaussian actor: acts by tanh(mean), as OSRL evaluates it. Observations are not normalized."""

    def __init__(
        self, generators: Sequence[torch.Generator], observation_dim: int, action_dim: int, hidden: Sequence[int]
    ) -> None:
        from osrl.common.net import SquashedGaussianMLPActor

        super().__init__()
        self.shape = {"observation_dim": observation_dim, "action_dim": action_dim, "hidden": list(hidden)}
        with initialized_by(generators[0]):
            self.actor = SquashedGaussianMLPActor(observation_dim, action_dim, list(hidden), nn.ReLU)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Evaluation actions, ``(n, observation_dim)`` -> ``(n, action_dim)``, float32."""
        batch = torch.tensor(observations, dtype=torch.float32)
        return self.actor(batch, deterministic=True, with_logprob=False)[0].numpy()


def actor_policy(model: Any, problem: Problem, config: TransitionsConfig) -> nn.Module:
    """The policy of a model whose actor is OSRL's tanh-Gaussian."""
    policy = ActorPolicy([problem.generator], **problem.sizes, hidden=config.policy.hidden)
    return frozen(policy, actor=model.actor)
