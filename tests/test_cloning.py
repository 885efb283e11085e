"""Weighted cloning against least squares (T-MIL7, T-BC2), selection against OSRL (T-BC1), heads against densities."""

import numpy as np
import pytest
import torch
from torch import nn

from baselines.bc import safe_trajectories
from safemil.algorithm.cloning import clone, make_policy
from safemil.config.settings import PolicyConfig
from safemil.data.splits import HiddenLabels, Split
from safemil.data.trajectories import Outcomes, Trajectories
from safemil.nn import policies
from safemil.nn.policies import HEADS, Deterministic, Policy, gaussian_parameters, tanh_gaussian_log_prob
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from safemil.training.transitions import Transitions

NOTHING = np.array([], dtype=np.int64)


class Linear(Deterministic):
    """The deterministic head without its tanh."""

    def loss(self, output, actions):
        return (output - actions).square().sum(-1)

    def action(self, output):
        return output


def fit_policy(observations, actions, weights, **settings) -> Policy:
    data = Trajectories(observations.astype(np.float32), actions.astype(np.float32), np.array([0, len(observations)]))
    split = Split(data, NOTHING, np.array([0]), NOTHING, NOTHING)
    config = PolicyConfig(**{"hidden": (), "learning_rate": 0.05, "normalize_observations": False, **settings})
    policy = make_policy([split], config, FitContext())
    rows = [np.arange(len(observations))]
    steps = Transitions(data.observations, data.actions, "cpu")
    clone(policy, rows, None if weights is None else [weights], config, steps, FitContext(), held_out=rows)
    return policy


def test_mil7_one_state_converges_to_the_weighted_mean_action():
    actions = np.array([[-0.5], [0.1], [0.7]])
    weights = np.array([2.0, 0.7, 0.3])
    policy = fit_policy(np.zeros((3, 1)), actions, weights, steps=1500, batch_size=512)
    expected = (weights @ actions).item() / weights.sum()
    assert policy.act(np.zeros((1, 1), np.float32)).item() == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_bc2_linear_policy_converges_to_least_squares(monkeypatch, rng, weighted):
    monkeypatch.setitem(HEADS, "det", Linear())
    observations = rng.normal(size=(64, 3))
    actions = observations @ rng.normal(size=(3, 2)) * 0.2 + rng.normal(size=(64, 2)) * 0.1
    weights = rng.random(64) * 2 if weighted else np.ones(64)
    weights /= weights.mean()
    policy = fit_policy(observations, actions.clip(-1, 1), weights if weighted else None, steps=2500, batch_size=1024)
    design = np.concatenate([observations, np.ones((64, 1))], axis=1)
    root = np.sqrt(weights)[:, None]
    solution, *_ = np.linalg.lstsq(design * root, actions.clip(-1, 1) * root, rcond=None)
    layer = policy.mlp.layers[0]
    learned = torch.cat([layer.weight[0], layer.bias[0]]).detach().numpy()
    np.testing.assert_allclose(learned, solution, atol=5e-3)


def test_bc1_selection_equals_osrl(tmp_path):
    """Lengths 3, 4, 2, costs 1, 4, 1, limit 2: safe rows {0, 1, 2, 7, 8}; the limit itself is safe."""
    from osrl.common.dataset import process_bc_dataset

    lengths, total = np.array([3, 4, 2]), np.array([1.0, 4.0, 1.0])
    ends = np.cumsum(lengths) - 1
    costs = np.zeros(9, np.float32)
    costs[ends] = total
    expected = {"safe": [0, 1, 2, 7, 8], "risky": [3, 4, 5, 6], "boundary": []}
    for mode, rows in expected.items():
        dataset = {
            "observations": np.arange(9, dtype=np.float32)[:, None],
            "actions": np.zeros((9, 1), np.float32),
            "rewards": np.zeros(9, np.float32),
            "costs": costs.copy(),
            "terminals": np.zeros(9),
            "timeouts": np.isin(np.arange(9), ends).astype(float),
        }
        process_bc_dataset(dataset, cost_limit=2, gamma=1.0, bc_mode=mode)
        assert dataset["observations"][:, 0].astype(int).tolist() == rows
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    outcomes = Outcomes(np.zeros(9, np.float32), costs, np.zeros(9, bool), offsets)
    trajectories = Trajectories(np.zeros((9, 1), np.float32), np.zeros((9, 1), np.float32), offsets)
    for limit, kept in ((2.0, [0, 2]), (1.0, [0, 2]), (4.0, [0, 1, 2])):
        labels = HiddenLabels(outcomes, total < limit, total > limit, limit, {})
        safe = safe_trajectories(np.arange(3), labels)
        assert safe.tolist() == kept
        if limit == 2.0:
            assert trajectories.rows(safe).tolist() == expected["safe"]


def test_tanh_gaussian_density_integrates_to_one():
    actions = torch.linspace(-1 + 1e-6, 1 - 1e-6, 400_001, dtype=torch.float64)
    density = tanh_gaussian_log_prob(torch.tensor(0.4), torch.tensor(-0.5), actions).exp()
    assert torch.trapezoid(density, actions).item() == pytest.approx(1.0, abs=1e-4)


def test_tanh_gaussian_density_equals_torch_distributions():
    from torch.distributions import Normal, TanhTransform, TransformedDistribution

    mean, log_std, actions = (
        torch.tensor([0.3, -1.0]),
        torch.tensor([-0.2, 0.4]),
        torch.tensor([[0.5, -0.9], [0.0, 0.99]]),
    )
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform())
    torch.testing.assert_close(tanh_gaussian_log_prob(mean, log_std, actions), reference.log_prob(actions))


def test_mixture_with_one_certain_component_is_that_gaussian():
    output = torch.randn(1, 5, 2 * 4 + 2)
    output[..., :2] = torch.tensor([1e5, -1e5])  # whatever the densities, of which one may be e^-2000
    actions = torch.rand(1, 5, 2) - 0.5
    log_weights, mean, log_std = HEADS["mix2"].components(output)
    single = tanh_gaussian_log_prob(mean[..., 0, :], log_std[..., 0, :], actions).sum(-1)
    torch.testing.assert_close(HEADS["mix2"].log_prob(output, actions), single)
    np.testing.assert_allclose(HEADS["mix2"].action(output.numpy()), torch.tanh(mean[..., 0, :]).numpy(), rtol=1e-6)


def most_likely(head: str, output: torch.Tensor) -> torch.Tensor:
    """The action each head stands for, from its parameters as the loss reads them."""
    if head == "det":
        return torch.tanh(output)
    if head == "tanh_gauss":
        return torch.tanh(gaussian_parameters(output)[0])
    log_weights, mean, _ = HEADS["mix2"].components(output)
    return torch.tanh(torch.where((log_weights[..., :1] > log_weights[..., 1:]), mean[..., 0, :], mean[..., 1, :]))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("n", [1, 6])
def test_acting_in_numpy_is_the_forward_pass_of_the_same_parameters(head, n):
    policy, other = (Policy(make_generators([seed], "test"), 3, 2, (16, 8), head) for seed in (0, 1))
    policy.encoder.set_statistics(torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[2.0, 0.5, 1.0]]))
    observations = 3 * np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    policy.act(observations)
    policy.load_state_dict(other.state_dict())  # what acted once still acts by its present parameters
    with torch.no_grad():
        expected = most_likely(head, policy(torch.tensor(observations)[None]))[0]
    np.testing.assert_allclose(policy.act(observations), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert policy.act(observations).dtype == np.float32


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_finite_at_the_ends_of_the_action_range(head):
    policy = Policy(make_generators([0], "test"), 3, 2, (8,), head)
    loss = policy.loss(torch.zeros(1, 2, 3), torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    action = policy.act(np.zeros((4, 3), np.float32))
    assert action.shape == (4, 2) and np.abs(action).max() <= 1


def test_stacked_linear_is_r_ordinary_layers():
    from safemil.nn.layers import StackedMLP

    network = StackedMLP(make_generators([0, 1], "test"), (3, 4, 2), activation="relu")
    x = torch.randn(2, 5, 3)
    for r in range(2):
        first, last = network.layers
        hidden = torch.relu(x[r] @ first.weight[r] + first.bias[r])
        torch.testing.assert_close(network(x)[r], nn.functional.linear(hidden, last.weight[r].T, last.bias[r, 0]))


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_slopes_are_the_gradient_and_so_are_their_gradients(n_outputs):
    """Against autograd: differentiated once, and twice."""
    from safemil.nn.layers import StackedMLP
    from safemil.nn.networks import slopes

    network = StackedMLP(make_generators([0, 1], "test"), (3, 8, 8, n_outputs), initialization="he").double()
    x = torch.randn(2, 20, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    found = slopes(network, x.detach())
    torch.testing.assert_close(found, expected)

    def gradients(of):
        return torch.autograd.grad((of.norm(dim=-1) - 1).square().sum(), network.parameters(), materialize_grads=True)

    torch.testing.assert_close(gradients(found), gradients(expected))
    with pytest.raises(ValueError, match="ReLU"):
        slopes(StackedMLP(make_generators([0], "test"), (3, 8, 1), activation="elu"), x.detach())


def test_action_margin_is_what_the_heads_clip_to():
    assert policies.squash_inverse(torch.tensor(1.0)).item() == pytest.approx(np.arctanh(1 - 1e-6), rel=1e-2)
