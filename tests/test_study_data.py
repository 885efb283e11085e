"""`make data`: what is there and right is left alone, what is missing is collected, what differs is said."""

from __future__ import annotations

import pytest

from safemil.collection.recipes.table import find_recipe
from safemil.data.provenance import sha256
from safemil.data.tasks import find_task
from tests.conftest import write_ball_dataset
from tune import data
from tune.grids import GRIDS, STUDY_TASKS

pytestmark = pytest.mark.study
BALL = find_task("BallCircle")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path))
    monkeypatch.setattr(data, "CARDS", tmp_path / "cards")
    (tmp_path / "cards").mkdir()
    return tmp_path


def make_card(folder, path) -> None:
    (folder / "cards" / f"{path.stem}.md").write_text(f"# BallCircle: {path.stem}\n\nSHA-256 `{sha256(path)}`\n")


def test_every_task_of_the_study_can_be_collected_within_an_hour():
    for name in STUDY_TASKS:
        assert find_recipe(find_task(name)).minutes <= 60
    assert set(GRIDS["paper"].tasks) | set(GRIDS["sparsity"].tasks) <= set(STUDY_TASKS)


def test_a_right_file_is_left_alone_a_wrong_and_a_missing_one_are_told(folder, capsys, monkeypatch):
    def never(*arguments, **named):
        raise AssertionError("collected")

    monkeypatch.setattr(data, "collect", never)
    path = write_ball_dataset(folder)
    make_card(folder, path)
    assert data.main(["--tasks", "BallCircle"]) == 0
    assert f"ok  BallCircle             {path.name}: as on its card" in capsys.readouterr().out
    with path.open("ab") as file:
        file.write(b"!")
    assert data.main(["--tasks", "BallCircle", "BallRun", "--check"]) == 1
    wrong, missing, total = capsys.readouterr().out.splitlines()
    assert wrong.startswith("NOT BallCircle") and "on its card" in wrong and "--overwrite repeats it" in wrong
    assert missing == "NOT BallRun                missing (about 1 min to collect)" and total.startswith("0 of 2 in")
    assert data.main(["--tasks", "BallCircle"]) == 1  # not overwritten without being asked to


def test_what_is_missing_is_collected_and_compared(folder, capsys, monkeypatch):
    made = []

    def collect(task, **named):
        made.append(task.name)
        return write_ball_dataset(folder)

    monkeypatch.setattr(data, "collect", collect)
    assert data.main(["--tasks", "BallCircle"]) == 0
    assert "no card to compare it with" in capsys.readouterr().out
    make_card(folder, data.find(BALL))
    data.find(BALL).unlink()
    assert data.main(["--tasks", "BallCircle"]) == 0 and made == ["BallCircle"] * 2
    assert "collected in 0.0 min: as on its card" in capsys.readouterr().out
