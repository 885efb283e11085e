"""Rounded products: where they are, where they are not, and that the same policies come out of them."""

import json

import numpy as np
import pytest
import torch

from safemil.config.errors import UserError
from safemil.nn import precision
from safemil.nn.layers import StackedMLP, linear
from safemil.nn.streams import make_generators
from tests.test_methods import actions_of, fit
from tune.prepare import open_run

WIDE = {"cost_model.hidden": (128, 128), "policy.hidden": (128, 128), "cost_model.bag_size": 16}
LONG = {"cost_model.steps": 300, "cost_model.learning_rate": 1e-3, "policy.learning_rate": 1e-3}
BATCH = {"policy.batch_size": 128, "policy.steps": 400}


@pytest.fixture
def medium(monkeypatch):
    """Level medium on a device that multiplies bfloat16 (torch can anywhere, if slowly)."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: True)
    set_level("medium")


def set_level(level: str) -> None:
    """Of our layers: torch itself rounds nothing, which at ``medium`` it does where a CPU has AMX."""
    torch.set_float32_matmul_precision(level)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def layer(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A layer's output before its bias, which is 1."""
    return linear(*precision.rounded(x, weight), torch.ones(len(x), 1, weight.shape[2])) - 1


def error_of(x: torch.Tensor, weight: torch.Tensor) -> float:
    exact = x.double() @ weight.double()
    return ((layer(x, weight) - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("n_replicas", [1, 3])
def test_wide_products_are_rounded_in_training_and_nowhere_else(medium, n_replicas):
    x, weight = torch.randn(n_replicas, 200, 128), torch.randn(n_replicas, 128, 256)
    narrow = torch.randn(n_replicas, 128, 6)
    with precision.in_training("cpu"):
        assert layer(x, weight).dtype == torch.float32
        assert 1e-3 < error_of(x, weight) < 1e-2  # bfloat16 keeps eight bits
        assert error_of(x, narrow) < 1e-5
        assert error_of(x[:, :100], weight) < 1e-5  # too few rows
    assert error_of(x, weight) < 1e-5


@pytest.mark.parametrize(("level", "able"), [("highest", True), ("high", True), ("medium", False)])
def test_nothing_is_rounded_unasked_or_where_the_device_cannot(level, able, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: able)
    set_level(level)
    with precision.in_training("cpu"):
        assert error_of(torch.randn(1, 200, 128), torch.randn(1, 128, 256)) < 1e-5


def test_a_device_that_cannot_is_told_once_and_recorded_as_what_it_did(monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: device_type == "cuda")
    precision._say_not_rounded.cache_clear()
    assert precision.in_effect("highest", "cpu") == "highest" and precision.in_effect("medium", "cuda") == "medium"
    assert not caplog.text
    torch.set_float32_matmul_precision("medium")
    with precision.in_training("cpu"), precision.in_training("cpu"):
        pass
    assert precision.in_effect("medium", "cpu") == "high"
    assert caplog.text.count("does not multiply bfloat16") == 1


@pytest.mark.parametrize("n_out", [1, 2, 6, 8, 12, 24, 40])
@pytest.mark.parametrize("n_replicas", [1, 3])
def test_a_layer_of_any_width_is_a_product_and_a_bias(n_replicas, n_out):
    assert error_of(torch.randn(n_replicas, 50, 30), torch.randn(n_replicas, 30, n_out)) < 1e-5


def test_an_error_in_training_ends_the_rounding(medium):
    with pytest.raises(RuntimeError, match="diverged"), precision.in_training("cpu"):
        raise RuntimeError("diverged")
    assert error_of(torch.randn(1, 200, 128), torch.randn(1, 128, 256)) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "elu", "tanh"])
def test_gradients_of_a_rounded_network_point_the_same_way(medium, activation):
    network = StackedMLP(make_generators([3], "rounded"), (17, 256, 256, 6), activation=activation)
    rows = torch.randn(1, 300, 17)
    exact = torch.autograd.grad(network(rows).sin().sum(), list(network.parameters()))
    with precision.in_training("cpu"):
        rounded = torch.autograd.grad(network(rows).sin().sum(), list(network.parameters()))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999
        assert not torch.equal(one, other)


@pytest.mark.parametrize(("method", "settings"), [("safemil", {}), ("safemil", {"mode": "joint"}), ("bc-all", {})])
def test_the_same_policy_comes_out(medium, method, settings):
    """Actions differ far less between levels than between seeds, and so do the weights that chose them."""
    settings = {**WIDE, **LONG, **BATCH, **settings}
    rounded, pairs = fit(method, **settings)
    torch.set_float32_matmul_precision("highest")
    exact, _ = fit(method, **settings)
    other_seed, _ = fit(method, seeds=(1,), split_seeds=(0,), **settings)
    actions, reference, apart = (actions_of(own[0], pairs) for own in (rounded, exact, other_seed))
    difference = np.abs(actions - reference).mean()
    assert 0 < difference < min(0.02, 0.5 * np.abs(apart - reference).mean())
    if method == "safemil":
        assert np.corrcoef(rounded[0].weights, exact[0].weights)[0, 1] > 0.999


def test_a_run_is_of_one_precision(tmp_path):
    open_run(tmp_path / "run", [], {"precision": "medium"}, join=False)
    open_run(tmp_path / "run", [], {"precision": "medium"}, join=True)
    with pytest.raises(UserError, match="begun with --precision medium, not highest"):
        open_run(tmp_path / "run", [], {"precision": "highest"}, join=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"trials": []}))  # of a version without levels
    open_run(tmp_path / "run", [], {"precision": "highest"}, join=True)
