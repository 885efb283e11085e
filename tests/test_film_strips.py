"""Film strips of trained policies: drawn once, of the very episodes that were evaluated, then shown by the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import film_strips, report
from safemil.data.tasks import find_task
from safemil.nn.checkpoints import load_policy, save
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from safemil.simulation.rollouts import roll_out
from tests.fabricated_run import small_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run on BallRun whose trials have real, untrained policies and real episodes."""
    task = find_task("BallRun")
    folder = small_run(tmp_path / "run", tasks=("BallRun",), methods=("safemil", "bc-all"), seeds=(0,), points=1)
    for number, trial in enumerate(sorted((folder / "trials").iterdir())):
        policy = Policy(make_generators([number], "policy"), task.observation_dim, task.action_dim, (16,))
        save(trial, policy, task="BallRun")
        episodes = roll_out(load_policy(trial), task, [0, 1, 2], 3)
        pd.DataFrame([episode.row() for episode in episodes]).to_csv(trial / "episodes.csv", index=False)
        (trial / "config.json").write_text(json.dumps({"evaluation": {"seed": 3}}))
    return folder


@pytest.mark.slow
def test_strips_are_of_the_evaluated_episode_and_drawn_once(run, monkeypatch):
    strips = film_strips.draw_strips(run, frames=3)
    assert [path.name for path in strips] == ["BallRun-0-safemil.png", "BallRun-1-bc-all.png"]
    for path, method in zip(strips, film_strips.METHODS, strict=True):
        frames = np.asarray(Image.open(path).convert("RGB"))
        assert frames.shape[1] == 3 * film_strips.FRAME_WIDTH + 2 * film_strips.GAP
        assert frames[30:].std() > 10, "a picture, not one color"
        episodes = pd.read_csv(run / "trials" / f"BallRun-{method}-s0-default" / "episodes.csv")
        median = episodes.sort_values(["cost", "index"]).iloc[1]
        said = path.with_suffix(".txt").read_text()
        assert f"evaluation episode {median['index']:.0f} (of median cost)" in said
        assert f"return {median['return']:.0f}, cost {median['cost']:g} " in said
    before = [path.stat().st_mtime_ns for path in strips]
    monkeypatch.setattr(film_strips, "_draw", lambda *_: pytest.fail("drawn again"))
    assert film_strips.main([str(run)]) == 0
    assert [path.stat().st_mtime_ns for path in strips] == before
    page = report.build_report(run).read_text()
    assert 'id="film-strips"' in page and "BallRun, SafeMIL (BallRun-safemil-s0-default): evaluation episode" in page


def test_nothing_to_draw_is_one_line(tmp_path, capsys):
    folder = small_run(tmp_path / "run", methods=("safemil",), seeds=(0,), points=1)
    assert film_strips.main([str(folder), "--task", "CarRun"]) == 2
    assert "no trial folder of CarRun with safemil or bc-all; nothing to draw" in capsys.readouterr().err
