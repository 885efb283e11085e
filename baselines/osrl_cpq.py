"""osrl-cpq: constraints-penalized Q-learning; an oracle that learns from true rewards and costs.

Reward is worth something only where the cost value Q_c is within the threshold q (Xu et al., arXiv 2107.09003):

    values  Q <- r + g (1 - done) 1[Q_c(s', a') <= q] Q(s', a'),   Q_c <- c + g Q_c(s', a')   a' from the actor
    unlike  Q_c of the actor's actions that the VAE finds unlikely (top quarter of KL) is pushed up to 1.5 q
    actor   max  1[Q_c(s, a) <= q] Q(s, a)

OSRL's `CPQ` with the settings of its script. Its own choices, kept, each a fault against the paper:

- The push on unlikely actions is computed under no_grad, on the target critic: it changes the reported loss and its
  multiplier, and no network. So Q_c is plain Q-evaluation here.
- Unlikely actions are sampled before the tanh, outside [-1, 1].
- The smaller of two cost critics is compared with q (optimistic); the paper takes one.

The paper's own trait: where every action is beyond q the actor has no gradient at all, and nothing moves it to where it
would be within. `osrl_faithful` false corrects all but the third (baselines/osrl_corrections.py). Evaluation:
tanh(mean). Other differences: baselines/osrl_training.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.osrl_corrections import ConstraintsPenalized, corrected
from baselines.osrl_networks import (
    TransitionBatches,
    actor_policy,
    behavior_model_arguments,
    cost_values,
    trainer_arguments,
)
from baselines.osrl_settings import CPQConfig
from baselines.osrl_training import Problem, Training, fit_seeds
from safemil.data.splits import HiddenLabels, Split
from safemil.training.context import FitContext
from safemil.training.fit_result import FitResult


def build(problem: Problem, config: CPQConfig) -> Training:
    """OSRL's model and trainer for one seed. OSRL calls the threshold ``q_thres`` and 1.5 times it ``qc_thres``."""
    from osrl.algorithms import CPQ, CPQTrainer

    batches = TransitionBatches(problem, config)
    kind = CPQ if config.osrl_faithful else corrected(CPQ, ConstraintsPenalized)
    model = kind(**behavior_model_arguments(problem, config), qc_scalar=config.ood_target)
    trainer = CPQTrainer(
        model,
        vae_lr=config.vae_learning_rate,
        alpha_lr=config.ood_learning_rate,
        **trainer_arguments(problem, config),
    )
    return Training(
        update=lambda: trainer.train_one_step(*batches.draw()[:6]),
        policy=lambda: actor_policy(model, problem, config),
        watch=lambda: cost_values(model, batches, model.q_thres),
    )


def fit(
    splits: Sequence[Split], config: CPQConfig, context: FitContext, labels: Sequence[HiddenLabels]
) -> list[FitResult]:
    """osrl-cpq: constraints-penalized Q-learning on D_N and D_U with true rewards and costs."""
    return fit_seeds(build, splits, config, context, labels)
