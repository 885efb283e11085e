"""osrl-coptidice: COptiDICE, stationary distribution correction under a cost limit; an oracle, true rewards and costs.

No policy is evaluated; the data's steps are reweighted to those of the best policy (Lee et al., arXiv 2204.08957):

    w       ReLU(f'^-1(e / alpha)),  e = r - lambda c + g (1 - done) nu(s') - nu(s)      f: soft chi-square
    nu      min  (1 - g) E_start[nu] + E[w e - alpha f(w)]
    chi,tau an upper bound of the w-weighted cost within a KL ball of radius 0.01 around the data
    lambda  rises while that bound is above the threshold
    actor   max  E[ w log pi(a + noise | s + noise) ]                                    noise of 0.1 standard deviation

OSRL's `COptiDICE` with the settings of its script, 1e5 steps. Its own choices, kept:

- The likelihood is that of an un-squashed Gaussian, while evaluation acts by tanh(mean): actions shrink towards 0 (a
  step cloned as 1 is played as 0.76).
- The bound is a mean cost per step (w has mean 1), yet it is compared with the threshold K (1 - g^T) / ((1 - g) T) of a
  discounted sum, 1 / (1 - g) = 100 times too lax: with costs of 0 and 1 a step and K = 25, T = 1000 it stays below 2.5
  whatever the policy, lambda falls to 0, and the limit is without effect.

`osrl_faithful` false corrects both (baselines/osrl_corrections.py). Other differences: baselines/osrl_training.py; here
`done` ends cost backups too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from baselines.osrl_corrections import before_tanh
from baselines.osrl_networks import TransitionBatches, actor_policy, network_arguments, trainer_arguments
from baselines.osrl_settings import COptiDICEConfig
from baselines.osrl_training import Problem, Training, fit_seeds
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult


def weight_statistics(model: nn.Module, batches: TransitionBatches) -> dict[str, Tensor]:
    """Mean, largest and effective share of the weights w; lambda itself is among what OSRL reports."""
    observations, next_observations, _, rewards, costs, done, _ = batches.watched
    weights = model._optimal_w(observations, next_observations, rewards, costs, done)[3]
    share = weights.sum().square() / (len(weights) * weights.square().sum() + 1e-12)
    return {"weight_mean": weights.mean(), "weight_max": weights.max(), "weight_ess_share": share}


def build(problem: Problem, config: COptiDICEConfig) -> Training:
    """OSRL's model and trainer for one seed."""
    from osrl.algorithms import COptiDICE, COptiDICETrainer

    if not config.osrl_faithful:
        problem = replace(problem, dataset={**problem.dataset, "actions": before_tanh(problem.dataset["actions"])})
    batches = TransitionBatches(problem, config)
    model = COptiDICE(
        **network_arguments(problem, config),
        f_type=config.divergence,
        init_state_propotion=float(batches.initial_share),
        observations_std=batches.observation_std,
        actions_std=batches.action_std,
        alpha=config.alpha,
        cost_ub_epsilon=config.cost_margin,
        num_nu=config.critics,
        num_chi=config.critics,
    )
    if not config.osrl_faithful:
        model.qc_thres *= 1 - config.discount
    trainer = COptiDICETrainer(model, scalar_lr=config.multiplier_learning_rate, **trainer_arguments(problem, config))
    return Training(
        update=lambda: trainer.train_one_step(batches.draw()),
        policy=lambda: actor_policy(model, problem, config),
        watch=lambda: weight_statistics(model, batches),
    )


def fit(
    splits: Sequence[Split], config: COptiDICEConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """osrl-coptidice: COptiDICE on D_N and D_U with true rewards and costs."""
    return fit_seeds(build, splits, config, context, labels)
