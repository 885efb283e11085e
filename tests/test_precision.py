"""Rounded products: where they are, where they are not, and that the same policies come out of them."""

import json

import numpy as np
import pytest
import torch

from safemil.config.errors import UserError
from safemil.nn import layers, precision
from safemil.nn.layers import StackedLinear, StackedMLP
from safemil.nn.streams import make_generators
from tests.test_capture import PACKED, VARIANTS
from tests.test_methods import actions_of, fit
from tune.prepare import open_run

WIDE = {"cost_model.hidden": (128, 128), "policy.hidden": (128, 128), "cost_model.bag_size": 16}
LONG = {"cost_model.steps": 300, "cost_model.learning_rate": 1e-3, "policy.learning_rate": 1e-3}
BATCH = {"policy.batch_size": 128, "policy.steps": 400}


@pytest.fixture(autouse=True)
def device_with_bfloat16(monkeypatch):
    """torch can multiply bfloat16 anywhere, if slowly."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: True)


def error_of(n_in: int, n_out: int) -> float:
    """Of a layer's output on random rows, relative to the exact one."""
    layer, rows = StackedLinear(2, n_in, n_out), torch.randn(2, 50, n_in)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
        exact = rows.double() @ layer.weight.double() + layer.bias.double()
        return ((layer(rows) - exact).norm() / exact.norm()).item()


def test_wide_products_are_rounded_in_training_and_nowhere_else():
    with precision.training_at("medium", "cpu"):
        assert 1e-3 < error_of(128, 256) < 1e-2  # bfloat16 keeps eight bits
        assert max(error_of(17, 256), error_of(256, 6), error_of(256, 1)) < 1e-5
    assert error_of(128, 256) < 1e-5


@pytest.mark.parametrize(("level", "able"), [("highest", True), ("high", True), ("medium", False)])
def test_nothing_is_rounded_unasked_or_where_the_device_cannot(level, able, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: able)
    with precision.training_at(level, "cpu"):
        assert error_of(128, 256) < 1e-5


def test_a_device_that_cannot_is_told_once_and_recorded_as_what_it_did(monkeypatch, caplog):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device_type: device_type == "cuda")
    precision._say_not_rounded.cache_clear()
    assert precision.in_effect("highest", "cpu") == "highest" and precision.in_effect("medium", "cuda") == "medium"
    assert not caplog.text
    with precision.training_at("medium", "cpu"), precision.training_at("medium", "cpu"):
        pass
    assert precision.in_effect("medium", "cpu") == "high"
    assert caplog.text.count("does not multiply bfloat16") == 1


def test_an_error_in_training_ends_the_rounding():
    with pytest.raises(RuntimeError, match="diverged"), precision.training_at("medium", "cpu"):
        raise RuntimeError("diverged")
    assert error_of(128, 256) < 1e-5 and torch.get_float32_matmul_precision() == "highest"


def test_a_rounded_layer_follows_its_weights():
    """Autocast's own cache would keep those of the first update."""
    layer, rows = StackedLinear(1, 128, 128), torch.ones(1, 1, 128)
    with precision.training_at("medium", "cpu"):
        assert layer(rows).abs().max() == 0
        with torch.no_grad():
            layer.weight.fill_(1.0)
        assert (layer(rows) == 128).all()


@pytest.mark.parametrize("activation", ["relu", "elu", "tanh"])
def test_gradients_of_a_rounded_network_point_the_same_way(activation):
    network = StackedMLP(make_generators([3], "rounded"), (17, 256, 256, 6), activation=activation)
    rows = torch.randn(1, 300, 17)
    exact = torch.autograd.grad(network(rows).sin().sum(), list(network.parameters()))
    with precision.training_at("medium", "cpu"):
        rounded = torch.autograd.grad(network(rows).sin().sum(), list(network.parameters()))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999
        assert not torch.equal(one, other)


@pytest.mark.parametrize(("method", "settings"), [("safemil", {}), ("safemil", {"mode": "joint"}), ("bc-all", {})])
def test_the_same_policy_comes_out(method, settings):
    """Actions differ far less between levels than between seeds, and so do the weights that chose them."""
    settings = {**WIDE, **LONG, **BATCH, **settings}
    rounded, pairs = fit(method, context={"precision": "medium"}, **settings)
    exact, _ = fit(method, **settings)
    other_seed, _ = fit(method, seeds=(1,), split_seeds=(0,), **settings)
    actions, reference, apart = (actions_of(own[0], pairs) for own in (rounded, exact, other_seed))
    difference = np.abs(actions - reference).mean()
    assert 0 < difference < min(0.02, 0.5 * np.abs(apart - reference).mean())
    if method == "safemil":
        assert np.corrcoef(rounded[0].weights, exact[0].weights)[0, 1] > 0.999


@pytest.mark.parametrize(("name", "settings"), PACKED + VARIANTS)
def test_every_method_and_variant_trains_rounded(name, settings, monkeypatch):
    """No product is given one factor in bfloat16 and the other in float32, and what comes out is float32."""
    monkeypatch.setattr(layers, "WIDE", 16)
    wide = {"cost_model.hidden": (16, 16), "policy.hidden": (16, 16)}
    (learned,), pairs = fit(name, context={"precision": "medium"}, **wide, **settings)
    assert np.isfinite(actions_of(learned, pairs)).all()
    assert all(own.dtype == torch.float32 for own in learned.policy.parameters())


def test_a_run_is_of_one_precision(tmp_path):
    open_run(tmp_path / "run", [], {"precision": "medium"}, join=False)
    open_run(tmp_path / "run", [], {"precision": "medium"}, join=True)
    with pytest.raises(UserError, match="begun with --precision medium, not highest"):
        open_run(tmp_path / "run", [], {"precision": "highest"}, join=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"trials": []}))  # of a version without levels
    open_run(tmp_path / "run", [], {"precision": "highest"}, join=True)
