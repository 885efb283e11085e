"""osrl-bearl: BEAR with a PID-controlled Lagrangian multiplier; an oracle that learns from true rewards and costs.

The actor stays near the VAE of the data's actions by a bound on their discrepancy (Kumar et al., arXiv 1906.00949):

    values  as osrl-bcql's, with a' from the actor's target copy
    actor   min  -min_i Q_i(s, a) + alpha (MMD - 0.05) + m (min_i Q_c,i(s, a) - threshold)        m as osrl-bcql's
    alpha   log alpha += rate alpha (MMD - 0.05), clipped to +-5
    MMD     sqrt(k(x, x') + k(y, y') - 2 k(x, y) + 1e-6), k of width 50, x and y ten actions of each before the tanh

OSRL's `BEARL` with the settings of its script (3e5 steps, policy updated from the first). Its own choices, kept: those
of osrl-bcql; actions are compared before the tanh, where the VAE's are unbounded; sigma = 50 makes the discrepancy of
any two actions small, so the bound holds loosely. Evaluation: tanh(mean). Others: baselines/osrl_training.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.osrl_corrections import EndingCosts, corrected
from baselines.osrl_networks import (
    TransitionBatches,
    actor_policy,
    behavior_model_arguments,
    cost_values,
    trainer_arguments,
)
from baselines.osrl_settings import BEARLConfig
from baselines.osrl_training import Problem, Training, fit_seeds
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult


def build(problem: Problem, config: BEARLConfig) -> Training:
    """OSRL's model and trainer for one seed."""
    from osrl.algorithms import BEARL, BEARLTrainer

    batches = TransitionBatches(problem, config)
    kind = BEARL if config.osrl_faithful else corrected(BEARL, EndingCosts)
    model = kind(
        **behavior_model_arguments(problem, config),
        PID=list(config.pid),
        lmbda=config.pessimism,
        kernel=config.kernel,
        mmd_sigma=config.kernel_width,
        target_mmd_thresh=config.mmd_limit,
        num_samples_mmd_match=config.mmd_samples,
        start_update_policy_step=0,
    )
    trainer = BEARLTrainer(
        model,
        vae_lr=config.vae_learning_rate,
        alpha_lr=config.mmd_learning_rate,
        **trainer_arguments(problem, config),
    )
    return Training(
        update=lambda: trainer.train_one_step(*batches.draw()[:6]),
        policy=lambda: actor_policy(model, problem, config),
        watch=lambda: cost_values(model, batches, model.qc_thres),
    )


def fit(
    splits: Sequence[Split], config: BEARLConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """osrl-bearl: BEAR-Lagrangian on D_N and D_U with true rewards and costs."""
    return fit_seeds(build, splits, config, context, labels)
