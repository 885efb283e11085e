"""Splits: sizes, disjointness, bands, fallback, contamination, what a learner can reach."""

import dataclasses

import numpy as np
import pytest

from safemil.config.errors import UserError
from safemil.config.settings import SplitConfig
from safemil.data.splits import Split, SplitError, make_split, split_of_sets
from safemil.data.trajectories import Outcomes, Trajectories
from tests.conftest import toy_dataset, toy_splits


def dataset_with(costs, returns):
    """Two-step trajectories of given total cost and return."""
    n = len(costs)
    offsets = 2 * np.arange(n + 1)
    observations, actions = np.zeros((2 * n, 1), np.float32), np.zeros((2 * n, 1), np.float32)
    halves = [np.repeat(np.asarray(values, np.float32) / 2, 2) for values in (returns, costs)]
    return Trajectories(observations, actions, offsets), Outcomes(*halves, np.zeros(2 * n, bool), offsets)


def sets_of(split: Split):
    return [split.nonpreferred, split.nonpreferred_held_out, split.unlabeled, split.unlabeled_held_out]


def test_sizes_held_out_share_and_disjointness():
    ((split, labels),) = toy_splits(mixture=0.25)
    assert [len(part) for part in sets_of(split)] == [16, 4, 64, 16]
    everything = np.concatenate(sets_of(split))
    assert len(np.unique(everything)) == len(everything)
    d_n = np.concatenate(sets_of(split)[:2])
    d_u = np.concatenate(sets_of(split)[2:])
    assert labels.nonpreferred[d_n].all()
    assert labels.nonpreferred[d_u].sum() == 20  # a quarter of 80
    assert labels.preferred[d_u].sum() == 60


def test_bands_and_return_filter():
    costs = [10.0] * 8 + [50.0] * 4 + [100.0] * 8
    returns = list(range(8)) + [99.0] * 4 + list(range(8))
    config = SplitConfig(n_nonpreferred=2, n_unlabeled=4, held_out=0.0)
    split, labels = make_split(*dataset_with(costs, returns), config, seed=0)
    used = np.concatenate(sets_of(split))
    # Only the upper half by return of each band: 4..7 preferred, 16..19 non-preferred, none of the middle.
    assert set(used) <= {4, 5, 6, 7, 16, 17, 18, 19}
    assert labels.record["fallback"] is None
    assert labels.record["counts"] == {"preferred": {"band": 8, "pool": 4}, "nonpreferred": {"band": 8, "pool": 4}}


def test_return_filter_yields_where_the_band_needs_it():
    split, labels = make_split(
        *dataset_with([0.0] * 4 + [100.0] * 4, list(range(8))),
        SplitConfig(n_nonpreferred=2, n_unlabeled=4, held_out=0.0),
        seed=0,
    )
    assert labels.record["counts"]["nonpreferred"]["pool"] == 4  # 2 + 2 are needed, half would be 2
    assert len(np.concatenate(sets_of(split))) == 6


def test_thin_band_falls_back_to_quantiles_and_says_so():
    costs = np.linspace(0, 60, 40)  # nothing above 75
    split, labels = make_split(
        *dataset_with(costs, np.ones(40)), SplitConfig(n_nonpreferred=3, n_unlabeled=10, held_out=0.0), seed=0
    )
    assert "nonpreferred band has 0 of 8" in labels.record["fallback"]
    assert costs[labels.preferred].max() <= 15.01 and costs[labels.nonpreferred].min() >= 44.9
    assert labels.preferred.sum() == labels.nonpreferred.sum() == 10


def test_too_few_trajectories_is_a_clear_error():
    with pytest.raises(SplitError, match=r"nonpreferred band holds 3 trajectories, the split needs 22.*of 10 in all"):
        make_split(
            *dataset_with([0.0] * 7 + [100.0] * 3, np.ones(10)), SplitConfig(n_nonpreferred=20, n_unlabeled=4), seed=0
        )


def test_contamination_takes_the_best_preferred_trajectories():
    returns = np.concatenate([np.arange(40.0), np.zeros(40)])
    config = SplitConfig(n_nonpreferred=8, n_unlabeled=16, contamination=0.5, held_out=0.0)
    split, labels = make_split(*dataset_with([0.0] * 40 + [100.0] * 40, returns), config, seed=3)
    contaminants = split.nonpreferred[labels.preferred[split.nonpreferred]]
    assert set(contaminants) == {36, 37, 38, 39}
    assert not set(contaminants) & set(split.unlabeled)
    assert labels.preferred[split.unlabeled].sum() == 8


def sets_at(levels: str, seed: int = 0, **settings):
    costs = np.concatenate([np.zeros(60), 100 + np.arange(90.0)])
    config = SplitConfig(cost_levels=levels, n_nonpreferred=10, n_unlabeled=20, **settings)
    return costs, *make_split(*dataset_with(costs, np.arange(150) % 7), config, seed=seed)


@pytest.mark.parametrize(("levels", "low", "high"), [("low", 100, 130), ("middle", 129, 160), ("high", 159, 189)])
def test_cost_levels_are_thirds_of_the_band_and_leave_d_u_as_it_is(levels, low, high):
    _, mixed, plain = sets_at("mixed")
    costs, split, labels = sets_at(levels)
    d_n = np.concatenate([split.nonpreferred, split.nonpreferred_held_out])
    assert len(d_n) == 10 and costs[d_n].min() >= low and costs[d_n].max() <= high
    np.testing.assert_array_equal(split.unlabeled, mixed.unlabeled)
    np.testing.assert_array_equal(split.unlabeled_held_out, mixed.unlabeled_held_out)
    assert labels.record["nonpreferred_costs"] == {"mean": costs[d_n].mean(), "std": pytest.approx(costs[d_n].std())}
    assert labels.record["nonpreferred_costs"]["std"] < 0.7 * plain.record["nonpreferred_costs"]["std"]
    _, again, _ = sets_at(levels)
    np.testing.assert_array_equal(again.nonpreferred, split.nonpreferred)
    assert not set(d_n) & set(np.concatenate([split.unlabeled, split.unlabeled_held_out]))


def test_cost_levels_with_contamination():
    costs, split, labels = sets_at("high", contamination=0.5, held_out=0.0)
    assert (costs[split.nonpreferred] == 0).sum() == 5
    assert labels.record["nonpreferred_costs"]["mean"] > 159


def test_too_thin_a_level_is_a_clear_error():
    with pytest.raises(SplitError, match=r"cost_levels=high: \d+ trajectories .* the split needs 30"):
        make_split(
            *dataset_with([0.0] * 40 + list(100.0 + np.arange(50)), np.ones(90)),
            SplitConfig(cost_levels="high", n_nonpreferred=30, n_unlabeled=20),
            seed=0,
        )
    with pytest.raises(SplitError, match=r"split.cost_levels are defined for split.protocol=mix50"):
        sets_at("low", protocol="union")


def test_union_protocol():
    costs = np.arange(40.0)
    config = SplitConfig(protocol="union", n_nonpreferred=4, held_out=0.0)
    split, _ = make_split(*dataset_with(costs, costs), config, seed=0)
    # Lower-return half dropped (0..19), D_N from cost >= 0.7 * 39 = 27.3, D_U everything else that is left.
    assert split.nonpreferred.min() >= 28
    assert sorted(np.concatenate([split.nonpreferred, split.unlabeled])) == list(range(20, 40))


def test_seed_decides_and_nothing_else():
    (first, _), (again, _) = toy_splits([3]) + toy_splits([3])
    ((other, _),) = toy_splits([4])
    assert all(np.array_equal(a, b) for a, b in zip(sets_of(first), sets_of(again), strict=True))
    assert not np.array_equal(first.nonpreferred, other.nonpreferred)


def test_a_split_holds_no_outcome():
    """By construction: what a learner is handed has observations, actions and indices, nothing more."""
    ((split, labels),) = toy_splits()
    assert {field.name for field in dataclasses.fields(split.trajectories)} == {"observations", "actions", "offsets"}
    assert {field.name for field in dataclasses.fields(split)} == {
        "trajectories",
        "nonpreferred",
        "unlabeled",
        "nonpreferred_held_out",
        "unlabeled_held_out",
    }
    assert not any(value is labels.outcomes for value in vars(split).values())


def test_evaluation_sets_are_unseen():
    ((split, labels),) = toy_splits()
    nonpreferred, preferred = labels.evaluation_sets(split)
    seen = np.concatenate([split.nonpreferred, split.unlabeled])
    assert not set(seen) & set(np.concatenate([nonpreferred, preferred]))
    assert set(split.nonpreferred_held_out) <= set(nonpreferred)
    assert len(preferred) > 0


def split_of(costs, returns=None, seed=0, **settings):
    """A split without held-out trajectories; returns are all alike unless given."""
    dataset = dataset_with(costs, np.ones(len(costs)) if returns is None else returns)
    return make_split(*dataset, SplitConfig(**{"held_out": 0.0, "mixture": 0.5, **settings}), seed)


def test_the_limits_of_the_bands_belong_to_neither():
    # Exactly as many as are needed: 2 of cost below 25, and 2 + 2 of cost above 75. 25 and 75 are in no band.
    split, labels = split_of([24.5, 0, 25, 75, 75.5, 76, 80, 90], n_nonpreferred=2, n_unlabeled=4)
    assert labels.record["fallback"] is None
    assert np.flatnonzero(labels.preferred).tolist() == [0, 1]
    assert np.flatnonzero(labels.nonpreferred).tolist() == [4, 5, 6, 7]
    assert sorted(np.concatenate(sets_of(split))) == [0, 1, 4, 5, 6, 7]


def test_contamination_moves_what_each_band_must_give():
    # D_N: 8, of them 4 contaminants; D_U: 16, half preferred. So 4 + 8 of each band, and each holds just these 12.
    split, labels = split_of([0.0] * 12 + [100.0] * 12, n_nonpreferred=8, n_unlabeled=16, contamination=0.5)
    assert labels.record["counts"] == {name: {"band": 12, "pool": 12} for name in ("preferred", "nonpreferred")}
    assert labels.record["fallback"] is None
    assert (len(split.nonpreferred), len(split.unlabeled)) == (8, 16)
    assert labels.preferred[split.nonpreferred].sum() == 4 and labels.preferred[split.unlabeled].sum() == 8


@pytest.mark.parametrize(("level", "first"), [("low", 4), ("middle", 8), ("high", 12)])
def test_a_cost_level_is_a_third_of_the_band_with_both_its_ends(level, first):
    # Costs 101 .. 113: the thirds end at 105 and 109. All five of the level are needed, though they return least.
    costs = np.concatenate([np.zeros(4), 101 + np.arange(13.0)])
    members = np.arange(first, first + 5)
    returns = np.ones(17)
    returns[members] = 0
    split, _ = split_of(costs, returns, n_nonpreferred=5, n_unlabeled=4, mixture=0, cost_levels=level)
    assert split.nonpreferred.tolist() == members.tolist()


def test_fallback_bands_hold_the_quantiles_themselves():
    # 0, 5, .. 60: the quarters end at 15 and 45.
    _, labels = split_of(5.0 * np.arange(13), n_nonpreferred=2, n_unlabeled=4)
    assert np.flatnonzero(labels.preferred).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(labels.nonpreferred).tolist() == [9, 10, 11, 12]
    # Both quantiles are 10: what costs 10 is preferred alone.
    _, labels = split_of([0.0] + [10.0] * 8 + [20.0] * 2, n_nonpreferred=2, n_unlabeled=4, mixture=0)
    assert labels.preferred.sum() == 9 and np.flatnonzero(labels.nonpreferred).tolist() == [9, 10]


def union_split(costs):
    """A split by the union protocol with 3 in D_N; as many trajectories again, with lower returns, cost 25."""
    returns = np.repeat([1.0, 0.0], len(costs))
    return split_of([*costs, *[25.0] * len(costs)], returns, protocol="union", n_nonpreferred=3)


def test_union_takes_d_n_from_seven_tenths_of_the_largest_cost_on():
    split, labels = union_split([100.0, 70.0, 70.0, 69.0, 0.0, 0.0, 0.0])
    assert split.nonpreferred.tolist() == [0, 1, 2] and split.unlabeled.tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(labels.nonpreferred).tolist() == [0, 1, 2]
    assert np.flatnonzero(labels.preferred).tolist() == [4, 5, 6]  # 25 is the limit itself
    with pytest.raises(SplitError, match="2 trajectories cost at least 70.0, the split needs 3"):
        union_split([100.0, 70.0, 69.0, 69.0, 0.0, 0.0, 0.0])
    with pytest.raises(SplitError, match="3 trajectories cost at least 70.0"):  # D_U would be less than four
        union_split([100.0, 70.0, 70.0, 69.0, 0.0, 0.0])


def test_splits_and_labels_cannot_be_changed_and_are_told_apart_by_identity():
    ((split, labels),) = toy_splits()
    for value, name in ((split, "unlabeled"), (labels, "preferred")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
        assert value != dataclasses.replace(value)


@pytest.mark.parametrize("held_out", [0.0, -0.1, 1.0])
def test_something_of_ones_own_data_must_be_held_out(held_out):
    data, _ = toy_dataset(6)
    with pytest.raises(UserError, match=f"held_out={held_out:g}: expected a share above 0"):
        split_of_sets(data, data, seed=0, held_out=held_out)
