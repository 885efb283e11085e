"""A stage that several trainings share is trained once, and none of them can tell."""

import dataclasses

import numpy as np
import pytest

from safemil.training import kept_stages
from safemil.training.checkpoint import TrainingCheckpoint
from safemil.training.context import KeptStages
from tests.test_methods import actions_of, fit
from tests.test_resuming import Killed, Records, keep

SEEDS = (0, 1)
CASES = [
    ("safemil", "weights.kind", ("hard", "linear")),
    ("ppl-trex", "beta", (0.6, 0.1)),
    ("osil", "alpha", (0.25, 2.5)),
]


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The stages that were really trained, in order."""
    stages: list[str] = []

    def counting(stage, *arguments, **options):
        stages.append(stage)
        return train(stage, *arguments, **options)

    train = kept_stages.train
    monkeypatch.setattr(kept_stages, "train", counting)
    return stages


def learn(name, kept, records=None, checkpoint=None, **settings):
    records = Records() if records is None else records
    context = {"log": records, "kept": kept, "checkpoint": checkpoint}
    learned, pairs = fit(name, SEEDS, context=context, **settings)
    return np.stack([actions_of(own, pairs) for own in learned]), list(records)


@pytest.mark.parametrize(("name", "setting", "values"), CASES)
def test_what_follows_a_shared_stage_is_as_if_it_had_been_trained(name, setting, values, tmp_path, trained):
    kept = KeptStages(tmp_path / "stages", "this data")
    for value in values:
        alone, reports = learn(name, None, **{setting: value})
        shared, reports_too = learn(name, kept, **{setting: value})
        np.testing.assert_array_equal(shared, alone)
        np.testing.assert_equal(reports_too, reports)
    assert len(trained) == len(values) + 1  # each alone, and one for all
    assert len(list(kept.folder.glob("*.pt"))) == 1


def test_whatever_defines_a_stage_parts_it(tmp_path, trained):
    kept = KeptStages(tmp_path, "this data")
    learn("safemil", kept)
    for settings in ({"cost_model.bag_size": 3}, {"cost_model.steps": 7}, {"policy.normalize_observations": False}):
        learn("safemil", kept, **settings)
    learn("safemil", dataclasses.replace(kept, defined_by="other data"))
    assert len(trained) == 5 == len(list(tmp_path.glob("*.pt")))


def test_a_damaged_file_is_trained_again(tmp_path, trained, caplog):
    kept = KeptStages(tmp_path, "this data")
    expected, _ = learn("safemil", kept)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(file.read_bytes()[:500])
    again, _ = learn("safemil", kept)
    np.testing.assert_array_equal(again, expected)
    assert len(trained) == 2 and "is damaged" in caplog.text


def test_a_training_killed_after_a_shared_stage_goes_on(tmp_path, trained):
    kept = KeptStages(tmp_path / "stages", "this data")
    expected, reports = learn("safemil", kept)
    path, records = tmp_path / "state.pt", Records()
    records.last = len(reports) * 3 // 4  # in the second stage; the first was taken over
    with pytest.raises(Killed):
        learn("safemil", kept, records, keep(path, records))
    records = Records()
    checkpoint = TrainingCheckpoint(path, "these trials", records, 0.0)
    assert len(records) >= len(reports) // 2
    actions, _ = learn("safemil", kept, records, checkpoint)
    np.testing.assert_array_equal(actions, expected)
    np.testing.assert_equal(list(records), reports)
