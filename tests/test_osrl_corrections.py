"""What `osrl_faithful` false corrects, each against a number; tests/test_osrl.py shows the same faults uncorrected."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines import osrl_coptidice, osrl_cpq
from baselines.osrl_networks import TransitionBatches
from baselines.osrl_settings import BCQLConfig, COptiDICEConfig, CPQConfig
from safemil.algorithm.discounting import discounted_length
from tests.test_osrl import BANDIT_OF, bandit_action, capture, costly_steps, one_step_of_cost, problem, small

CORRECTED = {"osrl_faithful": False}
learners = pytest.mark.parametrize("name", [name for name in BANDIT_OF if name != "osrl-cdt"])


@learners
def test_bandit_without_a_budget_takes_the_free_action(name):
    """With a discount too, under which OSRL's cost backups would never end; and osrl-cpq, which OSRL's fails."""
    assert bandit_action(name, 0.0, discount=0.9, **CORRECTED) < -0.25


@learners
def test_bandit_with_a_budget_takes_the_dear_action(name):
    assert bandit_action(name, 2.0, discount=0.9, **CORRECTED) > 0.25


def test_a_time_out_ends_nothing_and_its_step_is_left_out():
    batches = TransitionBatches(problem(), small(BCQLConfig(), **CORRECTED))
    assert batches.columns[0][:, 0].tolist() == [0, 1, 3, 4]  # rows 2 and 5 were cut off
    assert batches.columns[1][:, 0].tolist() == [1, 2, 3, 5]
    assert batches.columns[5].tolist() == [0, 0, 1, 0]
    assert batches.columns[6].tolist() == [1, 0, 1, 1]
    assert batches.initial_share == 0.75


def test_cost_backups_end_with_the_episode():
    assert one_step_of_cost(150, target_rate=0.2, sampled_actions=2, **CORRECTED) == pytest.approx(1.0, abs=0.1)


def corrected_cpq():
    models = []
    capture(osrl_cpq, small(CPQConfig(), **CORRECTED), models).update()
    return models[0], TransitionBatches(problem(), small(CPQConfig())).columns


def test_cpq_pushes_unlikely_actions_up_to_their_target():
    """A greater multiplier moves the cost critic, upwards; beyond the target it moves it no more."""
    trained, batch = corrected_cpq()

    def updated(log_multiplier: float, target: float) -> torch.nn.Module:
        model = deepcopy(trained)
        model.cost_critic_optim = torch.optim.SGD(model.cost_critic.parameters(), lr=1e-4)  # Adam takes signs alone
        model.log_alpha, model.qc_thres = torch.tensor(log_multiplier), target
        torch.manual_seed(0)
        model.cost_critic_loss(batch[0], batch[1], batch[2], batch[4], batch[5])
        return model.cost_critic

    def value(critic: torch.nn.Module) -> float:
        with torch.no_grad():
            return critic.predict(batch[0], torch.zeros(6, 1))[0].mean().item()

    assert value(updated(4.6, 1e3)) > value(updated(-5.0, 1e3))
    assert value(updated(4.6, -1e3)) == value(updated(-5.0, -1e3))


def test_cpq_judges_actions_within_their_bounds(monkeypatch):
    model, batch = corrected_cpq()
    seen = []
    original = model.vae.forward
    monkeypatch.setattr(
        model.vae, "forward", lambda states, actions: (seen.append(actions), original(states, actions))[1]
    )
    model.actor.log_std_layer.bias.data += 5.0  # a wide actor: before the tanh most actions are out of bounds
    model.cost_critic_loss(batch[0], batch[1], batch[2], batch[4], batch[5])
    assert 0.9 < seen[0].abs().max() <= 1


def test_cpq_finds_back_from_beyond_the_threshold():
    model, batch = corrected_cpq()
    model.setup_optimizers(1e-2, 1e-3, 1e-3, 1e-3)
    model.q_thres = -1e6

    def cost_value() -> float:
        with torch.no_grad():
            actions = model.actor(batch[0], True, False)[0]
            return model.cost_critic.predict(batch[0], actions)[0].mean().item()

    before = cost_value()
    for _ in range(50):
        model.actor_loss(batch[0])
    assert cost_value() < before - 1e-3


@pytest.mark.parametrize(("faithful", "played"), [(True, np.tanh(0.8)), (False, 0.8)])
def test_coptidice_plays_the_action_it_clones(faithful, played):
    known = problem()
    constant = replace(known, dataset={**known.dataset, "actions": np.full_like(known.dataset["actions"], 0.8)})
    settings = {"policy.batch_size": 64, "actor_learning_rate": 1e-2, "osrl_faithful": faithful}
    training = capture(osrl_coptidice, small(COptiDICEConfig(), **settings), [], constant)
    for _ in range(300):
        training.update()
    actions = training.policy().act(np.arange(6, dtype=np.float32)[:, None])
    assert actions.mean() == pytest.approx(played, abs=0.04)


def test_coptidice_holds_the_limit_where_every_step_costs():
    """Steps that cost 1 each against 25 in 1000: lambda rises; under OSRL's own threshold it falls."""
    models = []
    settings = {"policy.batch_size": 256, "multiplier_learning_rate": 1e-2, "critic_learning_rate": 1e-3}
    training = capture(osrl_coptidice, small(COptiDICEConfig(), **settings, **CORRECTED), models, costly_steps())
    before = torch.nn.functional.softplus(models[0].lmbda).item()
    for _ in range(60):
        training.update()
    assert models[0].qc_thres == pytest.approx(25 / 1000 * discounted_length(1000) / 100, rel=1e-6)
    assert torch.nn.functional.softplus(models[0].lmbda).item() > 1.25 * before
