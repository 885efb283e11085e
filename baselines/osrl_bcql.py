"""osrl-bcql: BCQ with a PID-controlled Lagrangian multiplier; an oracle that learns from true rewards and costs.

A VAE models the data's actions; an actor xi moves them by at most phi (Fujimoto et al., arXiv 1812.02900):

    act     a = clip(b + phi xi(s, b)),  b = decode(s, z)                            z ~ N(0, 1) clipped to +-0.5
    values  Q <- r + g (1 - done) max over a' [ l min_i Q_i + (1 - l) max_i Q_i ],   Q_c the same with c, never done
    actor   min  -min_i Q_i(s, a) + m (min_i Q_c,i(s, a) - threshold)                m = PID(mean Q_c - threshold)

OSRL's `BCQL` with the settings of its script. Its own choices, kept: the larger cost of the ten sampled actions is
backed up (pessimistic for costs), yet the smaller of two cost critics is compared with the threshold (optimistic);
evaluation decodes one random z a step, where BCQ takes the best of many. Here z is drawn from a generator seeded by the
episode, so that an episode can be repeated; outside an episode z is 0. Other differences: baselines/osrl_training.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from baselines.osrl_corrections import EndingCosts, corrected
from baselines.osrl_networks import (
    TransitionBatches,
    behavior_model_arguments,
    cost_values,
    frozen,
    initialized_by,
    trainer_arguments,
)
from baselines.osrl_settings import BCQLConfig
from baselines.osrl_training import Problem, Training, fit_seeds
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult

LATENT_CLIP = 0.5


class PerturbedPolicy(nn.Module):
    """OSRL's VAE and perturbation actor. Observations are not normalized."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        vae_hidden: int,
        perturbation: float,
    ) -> None:
        from osrl.common.net import VAE, MLPGaussianPerturbationActor

        super().__init__()
        sizes = {"observation_dim": observation_dim, "action_dim": action_dim}
        self.shape = {**sizes, "hidden": list(hidden), "vae_hidden": vae_hidden, "perturbation": perturbation}
        self.latents: torch.Generator | None = None  # within an episode
        with initialized_by(generators[0]):
            self.vae = VAE(observation_dim, action_dim, vae_hidden, 2 * action_dim, 1.0)
            self.actor = MLPGaussianPerturbationActor(
                observation_dim, action_dim, list(hidden), nn.Tanh, perturbation, 1.0
            )

    def begin_episode(self, seed: int) -> None:
        """Draw this episode's latents from its own seed."""
        self.latents = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """Evaluation actions, ``(n, observation_dim)`` -> ``(n, action_dim)``, float32."""
        batch = torch.tensor(observations, dtype=torch.float32)
        z = torch.zeros(len(batch), self.vae.latent_dim)
        if self.latents is not None:
            z = torch.randn(z.shape, generator=self.latents).clamp(-LATENT_CLIP, LATENT_CLIP)
        return self.actor(batch, self.vae.decode(batch, z)).numpy()


def build(problem: Problem, config: BCQLConfig) -> Training:
    """OSRL's model and trainer for one seed."""
    from osrl.algorithms import BCQL, BCQLTrainer

    batches = TransitionBatches(problem, config)
    kind = BCQL if config.osrl_faithful else corrected(BCQL, EndingCosts)
    model = kind(
        **behavior_model_arguments(problem, config),
        PID=list(config.pid),
        lmbda=config.pessimism,
        phi=config.perturbation,
    )
    trainer = BCQLTrainer(model, vae_lr=config.vae_learning_rate, **trainer_arguments(problem, config))

    def policy() -> nn.Module:
        fresh = PerturbedPolicy(
            [problem.generator],
            **problem.sizes,
            hidden=config.policy.hidden,
            vae_hidden=config.vae_hidden,
            perturbation=config.perturbation,
        )
        return frozen(fresh, vae=model.vae, actor=model.actor)

    return Training(
        update=lambda: trainer.train_one_step(*batches.draw()[:6]),
        policy=policy,
        watch=lambda: cost_values(model, batches, model.qc_thres),
    )


def fit(
    splits: Sequence[Split], config: BCQLConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """osrl-bcql: BCQ-Lagrangian on D_N and D_U with true rewards and costs."""
    return fit_seeds(build, splits, config, context, labels)
