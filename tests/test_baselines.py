"""Each baseline's closed-form proof: T-PPL, T-DW, T-SD1, T-SD2, T-DX; and the checks of their guards."""

import numpy as np
import pytest
import torch

from baselines import dexperts, discriminator, dwbc, oracle_cost, ppl, safedice
from baselines.ppl import PPLConfig
from safemil.algorithm import safemil as method
from safemil.algorithm.cloning import weighted_loss
from safemil.config.overrides import dotted_fields, override
from safemil.config.settings import CostModelConfig, PolicyConfig, SafeMILConfig, WeightsConfig
from safemil.nn.networks import StepScorer
from safemil.nn.streams import make_generators
from safemil.training.context import FitContext
from tests.conftest import toy_splits
from tests.test_methods import SMALL, actions_of, fit
from tune.grids import GRIDS
from tune.trials import expand

# The one-state example of algorithms: two actions, d_N = (.9, .1), d_P = (.2, .8), p = .5.
D_N, D_P, P = torch.tensor([0.9, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64), 0.5
D_U = (1 - P) * D_N + P * D_P


def minimize(loss, *shapes) -> list[torch.Tensor]:
    parameters = [torch.linspace(-1, 2, shape, dtype=torch.float64).requires_grad_(True) for shape in shapes]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(*parameters)
        value.backward()
        return value

    optimizer.step(closure)
    return [parameter.detach() for parameter in parameters]


def test_ppl_is_safemil_with_bags_of_one():
    """Bitwise: cost network and policy, under the same seed."""
    ((split, _),) = toy_splits()
    small = {name: value for name, value in SMALL.items() if name in dotted_fields(PPLConfig())}
    config = override(PPLConfig(), {**small, "cost_model.batch_size": 16})
    cost_model = override(CostModelConfig(bag_size=1, pairs=16), {"steps": 60, "hidden": (16,), "learning_rate": 1e-2})
    as_safemil = SafeMILConfig(
        cost_model=cost_model,
        weights=WeightsConfig(kind="linear-step"),
        policy=config.policy,
    )
    (first,) = ppl.fit([split], config, FitContext())
    (second,) = method.fit([split], as_safemil, FitContext())
    for mine, theirs in ((first.scorer, second.scorer), (first.policy, second.policy)):
        for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_dwbc_discriminator_and_weights_are_exact_at_the_right_prior():
    """d* = eta d_N / d_U = (.818, .111); (1 - d*) d_U is proportional to d_P."""

    def loss(logits):
        d = torch.sigmoid(logits)
        rows = [(share * 1000).round().long() for share in (D_N, D_U)]
        samples = [d.repeat_interleave(counts) for counts in rows]
        return dwbc.discriminator_loss(*samples, eta=1 - P)

    (logits,) = minimize(loss, 2)
    d = torch.sigmoid(logits)
    np.testing.assert_allclose(d, [0.818, 0.111], atol=1e-3)
    policy = dwbc.policy_weights(d) * D_U
    np.testing.assert_allclose(policy / policy.sum(), D_P, atol=1e-3)


def test_dwbc_original_weights():
    """Expert weight alpha - eta / (d (1 - d)) - 1: .94 at d = .1 and .9; D_U's weight is 0 below 1/2, 9 at .9."""
    d = torch.tensor([0.1, 0.5, 0.9])
    on_preferred, on_unlabeled = dwbc.original_weights(d, d, eta=0.5, alpha=7.5)
    np.testing.assert_allclose(on_preferred, [0.944, 4.5, 0.944], atol=1e-3)
    np.testing.assert_allclose(on_unlabeled, [0.0, 1.0, 9.0], rtol=1e-5)


def test_dwbc_reads_a_likelihood_that_acts_nowhere():
    """With the common head, log pi is a Gaussian's beside it, cloned plainly: no weight reaches it, nor does it act."""
    (first,), pairs = fit("dwbc", eta=0.3)
    (second,), _ = fit("dwbc", eta=0.9)
    assert first.policy.shape["head"] == "det" and first.scorer.policy.shape["head"] == "tanh_gauss"
    same = zip(first.scorer.policy.state_dict().values(), second.scorer.policy.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not np.allclose(actions_of(first, pairs), actions_of(second, pairs))
    data = pairs[0][0].trajectories
    batch = torch.tensor(data.observations[None, :99]), torch.tensor(data.actions[None, :99])
    before = first.scorer(*batch)
    for parameter in first.scorer.policy.parameters():
        parameter.zero_()
    assert not torch.equal(before, first.scorer(*batch))  # d does read it


def test_dwbc_s_own_head_is_its_own_likelihood():
    (learned,), _ = fit("dwbc", **{"policy.head": "tanh_gauss"})
    acting, read = learned.policy.state_dict(), learned.scorer.policy.state_dict()
    assert all(torch.equal(acting[name], read[name]) for name in acting)


def test_dwbc_likelihood_is_clipped_and_scaled():
    found = dwbc.likelihood_level(torch.tensor([-100.0, -60.0, -25.0, 10.0, 20.0]))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.0, 1.0])


def test_every_label_limited_method_clones_by_the_same_loss():
    """One head, one loss, one budget by default; the product of experts needs two densities and keeps its own."""
    from baselines.registry import LABEL_LIMITED, METHODS

    common = {name: METHODS[name].config().policy for name in LABEL_LIMITED}
    assert common.pop("dexperts") == PolicyConfig(head="tanh_gauss")
    assert set(common.values()) == {PolicyConfig()} and PolicyConfig().head == "det"
    trials = expand(GRIDS["heads"], tasks=["BallCircle"], seeds=[0])
    heads = [(trial.method, trial.config.policy.head) for trial in trials]
    both = [(name, head) for name in ("bc-all", "dwbc", "safedice", "uniq", "osil") for head in ("det", "tanh_gauss")]
    assert heads == [*both, ("dexperts", "tanh_gauss")]
    losses, weights = torch.tensor([[1.0, 4.0]]), torch.tensor([[0.5, 1.5]])
    assert weighted_loss(losses, weights).tolist() == [3.25]


def test_safedice_discriminator_ratio_and_policy():
    """c = (.6207, .1818), alpha_max = .6111; with alpha = .5: e^r = (.3636, 1.7778), policy (.2, .8)."""

    def loss(logits):
        counts = [(share * 10_000).round().long() for share in (D_N, D_U)]
        return discriminator.logistic_loss(*(logits.repeat_interleave(own) for own in counts))

    (logits,) = minimize(loss, 2)
    np.testing.assert_allclose(torch.sigmoid(logits), [0.6207, 0.1818], atol=1e-4)
    assert safedice.largest_alpha(logits.numpy(), 0.0) == pytest.approx(0.6111, abs=1e-4)
    ratio = safedice.log_density_ratio(logits, torch.tensor(0.5)).exp()
    np.testing.assert_allclose(ratio, [0.3636, 1.7778], atol=1e-4)
    np.testing.assert_allclose(D_U * ratio, D_P, atol=1e-4)


def test_safedice_on_a_chain():
    """Two states, action = next state, discount .9: the value is constant, its loss 0, and the policy is pi_P."""
    discount, alpha, start = 0.9, 0.5, np.array([0.5, 0.5])
    policies = {"P": np.array([[0.8, 0.2], [0.7, 0.3]]), "N": np.array([[0.2, 0.8], [0.1, 0.9]])}
    occupancy = {}
    for name, policy in policies.items():
        states = np.linalg.solve(np.eye(2) - discount * policy.T, (1 - discount) * start)
        occupancy[name] = states[:, None] * policy
    unlabeled = alpha * occupancy["N"] + (1 - alpha) * occupancy["P"]
    logits = torch.tensor(np.log(occupancy["N"] / unlabeled))  # c = d_N / (d_N + d_U)
    assert safedice.largest_alpha(logits.numpy(), 0.0) == pytest.approx(0.5498, abs=1e-4)
    ratio = safedice.log_density_ratio(logits, torch.tensor(alpha, dtype=torch.float64))

    value, loss, policy = safedice_optimum(ratio, unlabeled, [0, 1], discount)
    assert abs(value[0] - value[1]) < 1e-5 and abs(loss) < 1e-9
    np.testing.assert_allclose(policy, policies["P"], atol=1e-5)


def safedice_optimum(ratio, unlabeled, starts, discount):
    """Value, its loss and the policy of a chain whose actions are the next states; ``starts``: a sample of s_0."""

    def gain(value):
        return safedice.advantages(ratio, value[:, None], value[None, :], discount).flatten()

    def loss(value):
        log_share = torch.tensor(np.log(unlabeled)).flatten()
        return safedice.value_loss(value[starts], gain(value), discount, log_share)

    (value,) = minimize(loss, 2)
    weights = safedice.policy_weights(gain(value)).reshape(2, 2).numpy() * unlabeled
    return value.numpy(), loss(value).item(), weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("alpha", "rise", "least", "policy"),
    [
        (0.5, 0.13575, -0.0027102, [[0.7797, 0.2203], [0.6737, 0.3263]]),
        (0.3, 0.15079, -0.0030143, [[0.7283, 0.2717], [0.3260, 0.6740]]),
    ],
)
def test_safedice_on_a_chain_whose_value_is_not_constant(alpha, rise, least, policy):
    """The same chain, of which the objective starts elsewhere; with nu(s) of the wrong sign it has no minimum."""
    discount, start = 0.9, np.array([0.5, 0.5])
    policies = np.array([[[0.8, 0.2], [0.7, 0.3]], [[0.2, 0.8], [0.1, 0.9]]])
    preferred, nonpreferred = (
        np.linalg.solve(np.eye(2) - discount * own.T, (1 - discount) * start)[:, None] * own for own in policies
    )
    unlabeled = 0.5 * preferred + 0.5 * nonpreferred
    logits = torch.tensor(np.log(nonpreferred / unlabeled))
    ratio = safedice.log_density_ratio(logits, torch.tensor(alpha, dtype=torch.float64))
    value, loss, found = safedice_optimum(ratio, unlabeled, [0] * 9 + [1], discount)
    assert value[1] - value[0] == pytest.approx(rise, abs=1e-4) and loss == pytest.approx(least, abs=1e-6)
    np.testing.assert_allclose(found, policy, atol=2e-4)


def test_safedice_penalty_by_hand():
    nonpreferred, unlabeled = torch.tensor([[[8.0], [4.0]]]), torch.tensor([[[0.0], [2.0]]])
    mix = torch.tensor([[[0.25, 0.5], [1.0, 0.25]]])
    points = safedice.interpolates(nonpreferred, unlabeled, mix)
    assert points.flatten().tolist() == [2.0, 3.0, 2.0, 1.5]
    slope = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])  # of norm 5 and 1
    assert safedice.gradient_penalty(slope).tolist() == [8.0]
    logits = torch.zeros(1, 3)
    found = safedice.discriminator_loss(logits, logits, slope, penalty=0.5)
    assert found.item() == pytest.approx(2 * np.log(2) + 0.5 * 8)
    gain = torch.zeros(1, 2)
    found = safedice.smoothed_value_loss(torch.full((1, 2), 3.0), gain, slope, discount=0.9, penalty=0.5)
    assert found.item() == pytest.approx(0.1 * 3 + 0.5 * (25 + 1) / 2)  # log E[exp 0] = 0
    standardized = safedice.standardized(torch.tensor([3.0, 7.0]), torch.tensor(3.0), torch.tensor(2.0))
    assert standardized.tolist() == [0.0, 2.0]
    ratio = torch.tensor([1.0, 3.0])
    assert safedice.standardized(ratio, torch.tensor(2.0), torch.tensor(0.5)).tolist() == [-2.0, 2.0]


def test_safedice_alpha_is_robust_to_one_confident_step():
    logits = np.full(5_000, 0.5)
    logits[0] = 20.0
    assert safedice.largest_alpha(logits, 0.0) == 0.0
    assert safedice.largest_alpha(logits, 0.001) == pytest.approx(np.exp(-0.5), abs=1e-4)


def test_safedice_ratio_is_finite_at_the_extremes():
    ratio = safedice.log_density_ratio(torch.tensor([-200.0, 0.0, 200.0]), torch.tensor(0.99))
    assert torch.isfinite(ratio).all()


def test_dexperts_product_of_gaussians():
    """s_U = 1, s_N = 2, m_U = 0, m_N = 1, a = .5: precision 1.375, mean -.0909; a = 0 is the base itself."""
    base = (torch.tensor([0.0]), torch.tensor([0.0]))
    anti = (torch.tensor([1.0]), torch.tensor([2.0]).log())
    mean, log_std, floored = dexperts.product(base, anti, 0.5)
    assert mean.item() == pytest.approx(-0.0909, abs=1e-4)
    assert torch.exp(-2 * log_std).item() == pytest.approx(1.375) and not floored.any()
    mean, log_std, _ = dexperts.product((torch.tensor([0.3]), torch.tensor([-0.7])), anti, 0.0)
    assert mean.item() == pytest.approx(0.3) and log_std.item() == pytest.approx(-0.7)


def test_dexperts_precision_stays_positive():
    narrow = (torch.tensor([0.5]), torch.tensor([-5.0]))
    mean, log_std, floored = dexperts.product((torch.tensor([0.0]), torch.tensor([0.0])), narrow, 1.0)
    assert floored.all() and torch.isfinite(mean).all() and torch.isfinite(log_std).all()


def test_dexperts_chooses_the_strength_that_prefers_d_u_and_scores_by_the_gap():
    """Against the definition, on the policies and held-out sets themselves."""
    (learned,), pairs = fit("dexperts", **{"policy.steps": 300})
    data, split = pairs[0][0].trajectories, pairs[0][0]
    batches = {
        name: (torch.tensor(data.observations[rows])[None], torch.tensor(data.actions[rows])[None])
        for name, rows in (("N", data.rows(split.nonpreferred_held_out)), ("U", data.rows(split.unlabeled_held_out)))
    }
    base, anti = learned.policy.base, learned.policy.anti

    def gap(strength):
        policy = dexperts.ProductPolicy([], base, anti, strength)
        return (policy.log_prob(*batches["U"]).mean() - policy.log_prob(*batches["N"]).mean()).item()

    gaps = {strength: gap(strength) for strength in dexperts.STRENGTHS}
    assert learned.extra["strength"] == max(gaps, key=gaps.__getitem__) and len(set(gaps.values())) == 4
    on_n, on_u = (learned.scorer(*batches[name]).mean().item() for name in "NU")
    assert on_n > on_u  # higher is riskier
    expected = anti.log_prob(*batches["N"]) - base.log_prob(*batches["N"])
    torch.testing.assert_close(learned.scorer(*batches["N"]), expected)


def test_trex_weights_and_ensemble_by_hand():
    np.testing.assert_allclose(
        ppl.trex_weights(np.array([0.0, 1.0, 1.0]), 0.5) * (1 + 2 * np.exp(-2)) / 3, [1, np.exp(-2), np.exp(-2)]
    )
    np.testing.assert_allclose(
        ppl.standardize(np.array([1.0, 3.0, 5.0])), np.array([-2, 0, 2]) / (8 / 3) ** 0.5, rtol=1e-5
    )
    networks = [StepScorer(make_generators([seed], "test"), 3, 2, (8,)) for seed in (0, 1)]
    ensemble = ppl.Ensemble.of(
        networks, [np.array([1.0, 3.0]), np.array([-2.0, 6.0])]
    )  # means 2 and 2, spreads 1 and 4
    batch = torch.randn(1, 5, 3), torch.randn(1, 5, 2)
    expected = ((networks[0](*batch) - 2) / 1 + (networks[1](*batch) - 2) / 4) / 2
    torch.testing.assert_close(ensemble(*batch), expected, atol=1e-5, rtol=1e-4)


def test_dexperts_moves_away_from_the_anti_expert():
    settings = {"policy.steps": 400, "policy.head": "tanh_gauss"}
    (none,), pairs = fit("dexperts", **settings, strength=0.0)
    (some,), _ = fit("dexperts", **settings, strength=0.5)
    observations = pairs[0][0].trajectories.observations[:200]
    assert some.policy.act(observations)[:, 0].mean() < none.policy.act(observations)[:, 0].mean()


def test_oracle_cost_hard_weights_are_bc_safe_s_choice():
    ((split, labels),) = toy_splits()
    weights = oracle_cost.true_weights(split, labels, WeightsConfig(kind="hard"))
    kept = np.repeat(
        labels.outcomes.costs_total[split.unlabeled] <= labels.cost_limit, split.trajectories.lengths[split.unlabeled]
    )
    np.testing.assert_array_equal(weights > 0, kept)


def test_adding_a_method_takes_one_file_and_one_line(tmp_path, monkeypatch):
    """A toy method that always answers zero, found through the table like any other."""
    (tmp_path / "always_zero.py").write_text(
        "from baselines.bc import BCConfig, fit as clone\n"
        "def fit(splits, config, context):\n"
        "    learned = clone(splits, config, context)\n"
        "    for own in learned:\n"
        "        [parameter.zero_() for parameter in own.policy.parameters()]\n"
        "    return learned\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from baselines.registry import METHODS, Method

    line = Method("always_zero:fit", "BCConfig", "label-limited", "nothing", "Zero", "#7a7a7a", "x", "answers zero")
    monkeypatch.setitem(METHODS, "always-zero", line)
    (learned,), pairs = fit("always-zero")
    assert (learned.policy.act(pairs[0][0].trajectories.observations[:5]) == 0).all()
