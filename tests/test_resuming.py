"""A training that is interrupted and resumed equals one that was not, bit for bit, at whatever moment it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safemil.training.checkpoint import TrainingCheckpoint
from tests.test_methods import actions_of, fit

DIFFERING = [
    "safemil",
    "ppl-trex",
    "dwbc",
    "safedice",
    "uniq",
    "osil",
    "dexperts",
    "bc-all",
]  # the others train as one of these does


class Killed(BaseException):
    """Stands for a signal; not an Exception, so that nothing handles it."""


class Records(list):
    """What is logged; ``Killed`` is raised at the report after the ``last`` one."""

    last = 10**9

    def __call__(self, stage, step, metrics) -> None:
        if len(self) >= self.last:
            raise Killed
        self.append([stage, step, {name: [float(value) for value in values] for name, values in metrics.items()}])


def fit_with(checkpoint, records, name, **settings):
    """The toy fit of the contract test, logged into ``records``."""
    return fit(name, seeds=(0, 1), context={"log": records, "checkpoint": checkpoint}, **settings)


def keep(path, records, **options) -> TrainingCheckpoint:
    return TrainingCheckpoint(path, "these trials", records, **{"interval": 0.0, **options})


@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in DIFFERING), ("safemil", {"mode": "joint"})])
def test_resumed_equals_undisturbed(name, settings, tmp_path):
    undisturbed = Records()
    expected, pairs = fit_with(None, undisturbed, name, **settings)
    path = tmp_path / "state.pt"
    for last in (len(undisturbed) // 5, len(undisturbed) * 3 // 4):  # in the first stage, and in the last one
        records = Records()
        records.last = last
        with pytest.raises(Killed):
            fit_with(keep(path, records), records, name, **settings)
    records = Records()
    checkpoint = keep(path, records)
    assert len(records) >= len(undisturbed) // 2  # the first part is not trained again
    learned, _ = fit_with(checkpoint, records, name, **settings)
    np.testing.assert_equal(list(records), list(undisturbed))
    for own, other in zip(learned, expected, strict=True):
        assert [step for step, _ in own.snapshots] == [step for step, _ in other.snapshots]
        for (_, mine), (_, theirs) in zip(own.snapshots, other.snapshots, strict=True):
            for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
                assert torch.equal(a, b)
        np.testing.assert_array_equal(actions_of(own, pairs), actions_of(other, pairs))
        if own.scorer is not None:
            data = pairs[0][0].trajectories
            batch = data.observations[:50], data.actions[:50]
            np.testing.assert_array_equal(own.score_steps(*batch), other.score_steps(*batch))


def test_state_of_other_trials_or_a_damaged_file_is_not_used(tmp_path, caplog):
    path, records = tmp_path / "state.pt", Records()
    records.last = 30
    with pytest.raises(Killed):
        fit_with(keep(path, records), records, "bc-all")
    assert TrainingCheckpoint(path, "these trials", []).found and not TrainingCheckpoint(path, "others", []).found
    path.write_bytes(path.read_bytes()[:1000])
    assert not TrainingCheckpoint(path, "these trials", []).found and "starts from zero" in caplog.text


def test_written_only_when_it_is_time_and_whole_or_not_at_all(tmp_path, monkeypatch):
    path, records = tmp_path / "state.pt", Records()
    fit_with(keep(path, records, interval=3600.0), records, "bc-all")
    assert not path.exists()

    def full_disk(file, content):
        file.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        fit_with(keep(path, Records()), Records(), "bc-all")
    assert not list(tmp_path.iterdir())


def test_forgetting_takes_what_a_killed_process_of_another_machine_left_half_written(tmp_path):
    checkpoint, left = keep(tmp_path / "state.pt", Records()), tmp_path / ".state.pt~another-node~7.tmp"
    left.write_bytes(b"half")
    checkpoint.write()
    assert left.exists()  # it may be alive, for all that is known here
    checkpoint.delete()
    assert not list(tmp_path.iterdir())
