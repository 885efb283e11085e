"""Dataset cards: what they say of crafted files whose faults are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from safemil import datasets
from safemil.collection.assessment import assess, recorded_clones
from safemil.collection.cloning_check import Clones
from safemil.data.card import data_faults, make_card, markdown
from safemil.data.card_figure import write_card
from safemil.data.hdf5 import save
from safemil.data.provenance import sha256
from safemil.data.tasks import find_task
from safemil.data.trajectories import DatasetError, Outcomes, Trajectories
from safemil.evaluation.difficulty import feature_floor, measure, step_ceiling, untrained_floor

TASK = find_task("BallCircle")
N, LENGTH = 600, 5


def make(rng, costs, returns, lengths=None) -> tuple[Trajectories, Outcomes]:
    """Trajectories of random observations and actions with these costs and returns, both paid at the last step."""
    lengths = np.full(len(costs), LENGTH) if lengths is None else lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    last = offsets[1:] - 1
    rewards, step_costs = np.zeros(offsets[-1]), np.zeros(offsets[-1])
    rewards[last], step_costs[last] = returns, costs
    trajectories = Trajectories(rng.normal(size=(offsets[-1], 8)), rng.uniform(-1, 1, (offsets[-1], 2)), offsets)
    return trajectories, Outcomes(rewards, step_costs, np.zeros(offsets[-1], bool), offsets)


@pytest.fixture
def sound(rng):
    """Half of the trajectories cost 0, half 100; returns from 200 to 800 on both sides."""
    return make(rng, np.tile([0.0, 100.0], N // 2), np.linspace(200, 800, N))


def card_of(tmp_path, trajectories, outcomes, **attributes):
    path = tmp_path / "SafetyBallCircle-v0-100-600.hdf5"
    save(path, trajectories, outcomes, attributes)
    return make_card(path, TASK)


class TestWarnings:
    def test_a_sound_dataset_has_none(self, tmp_path, sound):
        card = card_of(tmp_path, *sound)
        assert card.warnings == () and card.split_error == ""
        assert {name: int(band.sum()) for name, band in card.bands().items()} == {
            "preferred": 300,
            "between": 0,
            "non-preferred": 300,
        }
        page = markdown(card, None)
        assert "|\n\nDefault split (mix50)" in page and page.count("No warnings.") == 1  # not a row of the table

    def test_thin_band(self, tmp_path, rng):
        costs = np.array([0.0] * 120 + [50.0] * 80 + [100.0] * 400)
        (fault,) = card_of(tmp_path, *make(rng, costs, np.resize([300.0, 500.0], N))).warnings
        assert fault == "thin band: 120 preferred, of which the split takes 100"

    @pytest.mark.parametrize(
        ("n_unsafe", "thin"), [(225, []), (224, ["thin band: 224 nonpreferred, of which the split"])]
    )
    def test_a_band_needs_half_as_much_again_as_the_split_takes(self, tmp_path, rng, n_unsafe, thin):
        costs = np.array([0.0] * 300 + [100.0] * n_unsafe)  # the split takes 50 + 100 of the latter
        faults = card_of(tmp_path, *make(rng, costs, np.resize([300.0, 500.0], len(costs)))).warnings
        assert [fault[: len(start)] for fault, start in zip(faults, thin, strict=True)] == thin

    def test_fallback_and_no_split_at_all(self, tmp_path, rng):
        costs = np.linspace(10, 70, N)
        faults = card_of(tmp_path, *make(rng, costs, np.resize([300.0, 500.0], N))).warnings
        assert faults[0].startswith("the default split falls back on cost quantiles 25%/75%: preferred band has 150")
        assert faults[1] == "no trajectory above a cost of 75"
        card = card_of(tmp_path, *make(rng, np.linspace(0, 100, 20), np.linspace(200, 800, 20)))
        assert card.labels is None and card.warnings[0].startswith("the default split cannot be made: the dataset's")
        assert "Default split" not in markdown(card, None)

    def test_bands_without_a_split_leave_out_both_limits(self, tmp_path, rng):
        card = card_of(tmp_path, *make(rng, np.array([0, 24, 25, 75, 76.0]), np.linspace(200, 800, 5)))
        assert [np.flatnonzero(band).tolist() for band in card.bands().values()] == [[0, 1], [2, 3], [4]]

    def test_low_returns_on_one_side(self, tmp_path, rng):
        costs = np.tile([0.0, 100.0], N // 2)
        (fault,) = card_of(tmp_path, *make(rng, costs, np.where(costs > 0, 600.0, 20.0))).warnings
        assert fault.startswith("no high returns below a cost of 25: the better half has 20.0 on average, 600.0 above")

    def test_length_shortcut(self, tmp_path, rng):
        costs = np.tile([0.0, 100.0], N // 2)
        lengths = np.where(costs > 0, 4, 8)
        (fault,) = card_of(tmp_path, *make(rng, costs, np.linspace(200, 800, N), lengths)).warnings
        assert fault == "length shortcut: length and cost correlate by -1.00"
        lengths = np.where(costs > 0, 5, 4)  # one step is enough
        assert data_faults(*make(rng, costs, np.linspace(200, 800, N), lengths), TASK) == [
            "length shortcut: length and cost correlate by 1.00"
        ]
        costs = np.zeros(N)  # all alike: nothing to correlate
        assert data_faults(*make(rng, costs, costs, lengths), TASK) == ["no trajectory above a cost of 75"]

    def test_duplicates_and_constant_trajectories(self, sound):
        trajectories, outcomes = sound
        observations, actions = trajectories.observations.copy(), trajectories.actions.copy()
        observations[LENGTH : 2 * LENGTH], actions[LENGTH : 2 * LENGTH] = observations[:LENGTH], actions[:LENGTH]
        actions[10 * LENGTH : 11 * LENGTH] = [0.5, -0.2]
        observations[12 * LENGTH : 13 * LENGTH] = np.arange(8)
        faulty = dataclasses.replace(trajectories, observations=observations, actions=actions)
        assert data_faults(faulty, outcomes, TASK) == [
            "1 duplicate trajectories",
            "2 trajectories with constant actions or observations",
        ]

    @pytest.mark.parametrize(("length", "n_constant"), [(1, 0), (2, N)])
    def test_a_single_step_is_not_constant(self, rng, length, n_constant):
        costs = np.tile([0.0, 100.0], N // 2)
        trajectories, outcomes = make(rng, costs, np.linspace(200, 800, N), np.full(N, length))
        still = dataclasses.replace(trajectories, actions=np.zeros_like(trajectories.actions))
        faults = [f"{n_constant} trajectories with constant actions or observations"] if n_constant else []
        assert data_faults(still, outcomes, TASK) == faults


class TestDifficulty:
    """Trajectories of five steps whose bands are told by what is put into them."""

    def test_a_feature_that_tells_the_bands_apart_is_found(self, rng):
        trajectories, outcomes = make(rng, np.tile([0.0, 100.0], 100), np.linspace(200, 800, 200))
        unsafe = outcomes.costs_total > 0
        assert feature_floor(trajectories, ~unsafe, unsafe)[0] < 0.65  # random ones do not, but for chance
        actions = trajectories.actions.copy()
        actions[:, 1] += 4 * np.repeat(unsafe, LENGTH)
        shifted = dataclasses.replace(trajectories, actions=actions)
        floor, which = feature_floor(shifted, ~unsafe, unsafe)
        assert floor == pytest.approx(1.0, abs=0.01) and which == TASK.observation_dim + 1
        low, high = (untrained_floor(data, ~unsafe, unsafe) for data in (trajectories, shifted))
        assert low < 0.65 < 0.8 < high
        difficulty = measure(shifted, outcomes, ~unsafe, unsafe)
        assert difficulty.feature == "action 1" and difficulty.unsafe_share == 1 / LENGTH
        assert difficulty.faults[0].startswith("trajectory AUROC is trivial here: the mean of action 1 reaches")

    def test_a_floor_counts_whichever_way_round_and_does_not_see_the_length(self, rng):
        trajectories, outcomes = make(rng, np.tile([0.0, 100.0], 50), np.arange(100.0), np.tile([2, 9], 50))
        unsafe = outcomes.costs_total > 0
        observations = np.ones_like(trajectories.observations)
        observations[:, 0] -= np.repeat(unsafe, trajectories.lengths)
        constant = dataclasses.replace(trajectories, observations=observations, actions=0 * trajectories.actions)
        assert feature_floor(constant, ~unsafe, unsafe) == (1.0, 0)
        alike = dataclasses.replace(constant, observations=np.ones_like(observations))
        assert feature_floor(alike, ~unsafe, unsafe)[0] == 0.5

    def test_the_ceiling_is_what_the_true_labels_allow(self, rng):
        """Steps cost where an observation exceeds 1: all to be learned; or by chance: nothing to be learned."""
        trajectories, _ = make(rng, np.zeros(400), np.zeros(400))
        assert step_ceiling(trajectories, trajectories.observations[:, 2] > 1) > 0.97
        assert abs(step_ceiling(trajectories, rng.random(trajectories.n_steps) < 0.3) - 0.5) < 0.1
        assert np.isnan(step_ceiling(trajectories, np.zeros(trajectories.n_steps, bool)))

    def test_clones_that_show_nothing_to_learn_are_named(self):
        sound = Clones((1.2, 1.1), (500.0, 500.0), (0.5, 1.4), (400.0, 400.0))
        assert sound.faults == []
        first, second = Clones((0.9, 1.0), (1.0, 1.0), (1.5, 0.8), (1.0, 1.0)).faults
        assert "cloning all of D_U keeps the limit (cost 0.95)" in first and "breaks the limit (cost 1.15)" in second


class TestPage:
    @pytest.mark.study
    def test_the_record_is_read_by_tables_and_keeps_what_cloning_made_of_the_same_file(self, tmp_path, sound):
        import pandas as pd

        from analysis.dataset_records import dataset_warnings

        path = tmp_path / "SafetyBallCircle-v0-100-600.hdf5"
        save(path, *sound, {})
        clones = Clones((0.5,), (1.0,), (0.1,), (2.0,))
        page = assess(path, TASK, tmp_path, lambda *arguments, workers: clones)
        assert "| cost of clones of all of D_U" in page.read_text() and "- Warning: cloning all" in page.read_text()
        trials = pd.DataFrame({"dataset_sha256": [sha256(path), "other"]})
        (line,) = dataset_warnings(trials, tmp_path)
        assert line.startswith("Data of BallCircle: cloning all of D_U keeps the limit (cost 0.50)")
        assert dataset_warnings(trials.tail(1), tmp_path) == []
        assess(path, TASK, tmp_path)  # without cloning: what is recorded of this very file stays
        assert dataset_warnings(trials, tmp_path) == [line]
        assert recorded_clones(page.with_suffix(".json"), sha256(path)) == clones
        assert recorded_clones(page.with_suffix(".json"), "another file") is None

    @pytest.mark.study
    def test_page_and_picture(self, tmp_path, sound):
        path = tmp_path / "SafetyBallCircle-v0-100-600.hdf5"
        recipes = {"collected_by": "safemil.collect", "recipe": "a+b", "seed": 0, "recipes": '{"a": 200, "b": 400}'}
        save(path, *sound, recipes)
        page = write_card(make_card(path, TASK), tmp_path / "cards")
        text = page.read_text()
        assert "600 trajectories, 3000 steps, collected (recipe a+b, seed 0)." in text
        assert "| preferred | 300 | 0 to 0 | 200.0 to 799.0 |" in text
        assert "| a | 200 |" in text and "| b | 400 |" in text
        assert sha256(path) in text
        picture = page.with_suffix(".png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) < 150_000

    @pytest.mark.study
    def test_command_line(self, tmp_path, sound, capsys):
        path = tmp_path / "mine.hdf5"
        save(path, *sound, {})
        assert datasets.main(["card", str(path)]) == 2
        assert "does not say which task it is of; add --task TASK" in capsys.readouterr().err
        assert datasets.main(["card", str(path), "--task", "BallCircle", "--output", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'mine.md'}\n"

    def test_needs_outcomes(self, tmp_path, sound):
        path = tmp_path / "bare.hdf5"
        save(path, sound[0], None, {})
        with pytest.raises(DatasetError, match="a card needs 'rewards' and 'costs'"):
            make_card(path, TASK)
