"""Settings: conversion, ranges, unknown names, precedence, fingerprints; grids and their expansion."""

import json

import pytest

from baselines.registry import METHODS
from safemil.config.errors import UserError
from safemil.config.overrides import ConfigError, dotted_fields, fingerprint, override, to_dict
from safemil.config.settings import EvaluationConfig, SafeMILConfig, SplitConfig
from tune.grids import GRIDS, PRESETS, Grid
from tune.trials import expand, packs, trial_from_dict, varying_axes


def test_text_becomes_the_field_s_type():
    config = override(
        SafeMILConfig(),
        {
            "cost_model.bag_size": "64",
            "cost_model.segment_length": "full",
            "cost_model.steps": "1e5",
            "policy.learning_rate": "1e-3",
            "policy.hidden": "128,64",
            "policy.normalize_observations": "false",
        },
    )
    assert (config.cost_model.bag_size, config.cost_model.segment_length, config.cost_model.steps) == (
        64,
        "full",
        100_000,
    )
    assert config.policy.learning_rate == 1e-3 and config.policy.hidden == (128, 64)
    assert config.policy.normalize_observations is False
    assert override(config, {"cost_model.segment_length": "25"}).cost_model.segment_length == 25


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cost_model.bag_size", "0", "cost_model.bag_size: bag_size=0: expected at least 1"),
        ("cost_model.bag_size", "many", "cost_model.bag_size: 'many': .*integer"),
        ("cost_model.bag_size", "2.5", "integer"),
        ("cost_model.bag_size", "true", "expected int"),
        ("cost_model.segment_length", "half", "'full'"),
        ("weights.kind", "expo", "exponential"),
        ("policy.batchsize", "3", "unknown setting 'policy.batchsize'; nearest: policy.batch_size"),
        ("cost_model.discount", "nan", "expected 0.0 to 1.0"),
        ("policy.hidden", "64,0", "expected at least 1"),
    ],
)
def test_refusals_name_the_setting_and_what_was_expected(name, value, message):
    with pytest.raises(ConfigError, match=message):
        override(SafeMILConfig(), {name: value})


def test_construction_checks_ranges_too():
    with pytest.raises(ConfigError, match="mixture=1.5: expected 0.0 to 1.0"):
        SplitConfig(mixture=1.5)


def test_every_setting_has_a_meaning_and_enters_the_fingerprint():
    config = SafeMILConfig()
    for method in METHODS.values():
        for section in (method.config(), SplitConfig(), EvaluationConfig()):
            assert all(field.metadata.get("doc") for field in dotted_fields(section).values())
    before = fingerprint(to_dict(config))
    assert fingerprint(to_dict(override(config, {"weights.beta": 0.7}))) != before
    assert fingerprint(to_dict(SafeMILConfig())) == before


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_expands_and_round_trips(name):
    for smoke in (False, True):
        trials = expand(GRIDS[name], smoke=smoke)
        assert len({trial.id for trial in trials}) == len(trials)
        for trial in trials[:: max(1, len(trials) // 20)]:
            assert trial_from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
        axes = set(varying_axes(trials))
        assert set(GRIDS[name].axes) <= axes


def test_paper_grid_is_the_paper_s():
    trials = expand(GRIDS["paper"])
    assert len({trial.task for trial in trials}) == 6 and {trial.seed for trial in trials} == {0, 1, 2, 3, 4}
    safemil = {trial.task: trial.config.cost_model for trial in trials if trial.method == "safemil"}
    assert {model.bag_size for model in safemil.values()} == {128}
    assert safemil["SwimmerVelocity"].segment_length == 5 and safemil["PointGoal1"].segment_length == 10


def test_precedence_default_preset_smoke_axis_command_line():
    grid = Grid("", tasks=("BallCircle",), seeds=(0,), preset="demo", axes={"cost_model.bag_size": (2, 4)})
    by_axis = expand(grid)
    assert [trial.config.cost_model.bag_size for trial in by_axis] == [2, 4]  # the axis beats the preset's 64
    assert by_axis[0].config.cost_model.steps == PRESETS["demo"]["cost_model.steps"]
    assert expand(grid, smoke=True)[0].config.cost_model.steps == PRESETS["smoke"]["cost_model.steps"]
    (alone,) = expand(grid, settings={"cost_model.bag_size": "128"})  # a value equal to the default still wins
    assert alone.config.cost_model.bag_size == 128


def test_a_preset_may_hold_what_is_for_one_method_alone():
    sizes = {
        trial.method: trial.config.cost_model.batch_size
        for trial in expand(GRIDS["paper"], tasks=["BallCircle"], methods=["ppl", "ppl-trex"], preset="study")
    }
    assert sizes == {"ppl": 128, "ppl-trex": 16}


def test_axes_and_settings_apply_where_a_method_has_them():
    trials = expand(GRIDS["bagsize"], tasks=["BallCircle"], methods=["safemil", "bc-all"], seeds=[0, 1])
    assert len([trial for trial in trials if trial.method == "bc-all"]) == 2  # no bag size, so no repeats
    assert len(packs(trials)) == 7 + 1
    assert expand(GRIDS["demo"], settings={"cost_model.bag_size": "8"})  # bc-all lacks it, safemil has it
    with pytest.raises(UserError, match="unknown setting 'cost_model.bag_sise'; nearest: cost_model.bag_size"):
        expand(GRIDS["demo"], settings={"cost_model.bag_sise": "8"})
    with pytest.raises(UserError, match="unknown setting 'cost_model.bag_size'.*methods: bc-all"):
        expand(GRIDS["demo"], methods=["bc-all"], settings={"cost_model.bag_size": "8"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ["BallCircl"]}, "BallCircle"),
        ({"methods": ["safemill"]}, "unknown method 'safemill'; nearest: safemil"),
        ({"preset": "papre"}, "unknown preset 'papre'"),
        ({"settings": {"split.mixture": "2"}}, "split.mixture|mixture=2"),
    ],
)
def test_mistakes_in_a_grid(arguments, message):
    with pytest.raises(UserError, match=message):
        expand(GRIDS["demo"], **arguments)
