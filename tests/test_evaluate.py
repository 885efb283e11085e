"""`python -m safemil.evaluate`: the table, the csv, the video, and one line for every mistake."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from safemil import evaluate
from safemil.data.tasks import TASKS
from safemil.evaluate import main, summary
from safemil.nn.checkpoints import save
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from safemil.simulation import video
from safemil.simulation.rollouts import Episode, roll_out

RUN = TASKS["BallRun"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    policy = Policy(make_generators([0], "policy"), RUN.observation_dim, RUN.action_dim, (16,))
    return save(tmp_path / "trial", policy, task="BallRun")


def forward(observations: np.ndarray) -> np.ndarray:
    return np.array([[1.0, 0.0]])


def test_the_table_on_a_case_worked_by_hand() -> None:
    task = replace(RUN, return_min=0.0, return_max=200.0)
    episodes = [Episode(i, i, 100.0, cost, 100, i == 0) for i, cost in enumerate([0.0, 10.0, 20.0, 30.0, 90.0])]

    lines = summary(episodes, task, cost_limit=20.0).splitlines()

    assert lines[0] == "BallRun: 5 episodes"
    assert lines[2].split() == ["return", "100.00", "0.00", "0.500"]
    assert lines[3].split()[:2] == ["cost", "30.00"] and lines[3].split()[-1] == "1.500"
    assert lines[4].split()[-2:] == ["90.00", "4.500"]  # the worst one of five
    assert lines[5] == "episodes above the cost limit of 20: 40%; ended before their time: 20%"


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_the_episodes(checkpoint: Path, tmp_path: Path, capsys) -> None:
    rows_file = tmp_path / "episodes.csv"

    code = main([str(checkpoint.parent), "--episodes", "3", "--workers", "1", "--seed", "5", "--csv", str(rows_file)])

    assert code == 0
    assert "BallRun: 3 episodes" in capsys.readouterr().out
    with open(rows_file, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "seed", "return", "cost", "length", "terminated"]
    assert [row["index"] for row in rows] == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg forgets its pipes
@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_video_shows_an_episode_that_moves(ending: str, tmp_path: Path) -> None:
    import imageio.v2 as imageio

    task, path = replace(RUN, horizon=6), tmp_path / f"run.{ending}"

    episodes = video.record(forward, task, [0, 1], 3, path, cost_limit=25.0)

    assert episodes == roll_out(forward, task, [0, 1], 3)
    frames = np.stack([frame[..., :3] for frame in imageio.mimread(path, memtest=False)]).astype(float)
    assert len(frames) == 12
    scenes = frames[:, video.STRIP_HEIGHT :]
    assert scenes.std(axis=(1, 2, 3)).min() > 10  # none is black or blank
    assert np.abs(scenes[0] - scenes[5]).mean() > 1  # and they change
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_frame_that_costs_is_marked() -> None:
    grey = np.full((96, 128, 3), 100, np.uint8)

    plain, marked = video.annotate(grey, "", costs=False), video.annotate(grey, "", costs=True)

    assert (plain[-1, -1] == 100).all()
    assert tuple(marked[-1, -1]) == video.RED
    assert (plain[60, 60] == marked[60, 60]).all()
    assert (video.annotate(grey, "cost 3", costs=False)[: video.STRIP_HEIGHT] == 255).any()


DRAW_MUJOCO = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from safemil.simulation import video
from safemil.config.errors import UserError
from safemil.data.tasks import TASKS
try:
    task = replace(TASKS["PointCircle2"], horizon=3)
    video.record(lambda observations: np.ones((1, 2)), task, [0, 1], 0, Path(sys.argv[1]), 25.0)
except UserError as error:
    sys.exit(f"cannot draw: {error}")
"""


@pytest.mark.slow
def test_mujoco_draws_more_than_one_episode(tmp_path: Path) -> None:
    """In a process of its own, because mujoco chooses its OpenGL when it is imported."""
    import imageio.v2 as imageio

    path = tmp_path / "circle.gif"
    done = subprocess.run([sys.executable, "-c", DRAW_MUJOCO, path], capture_output=True, text=True, timeout=200)
    if "cannot draw" in done.stderr:
        pytest.skip(done.stderr.strip())

    assert done.returncode == 0, done.stderr
    frames = np.stack([frame[..., :3] for frame in imageio.mimread(path, memtest=False)]).astype(float)
    assert frames[:, video.STRIP_HEIGHT :].std(axis=(1, 2, 3)).min() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no checkpoint at nowhere"),
        (["{}", "--task", "BalRun"], "unknown task 'BalRun': did you mean BallRun"),
        (["{}", "--task", "BallCircle"], "maps 7 observations to 2 actions, BallCircle has 8 and 2"),
        (["{}", "--episodes", "0"], "--episodes is 0, expected at least 1"),
        (["{}", "--workers", "-1"], "--workers is -1"),
        (["{}", "--cost-limit", "nan"], "--cost-limit is nan"),
        (["{}", "--video", "run.avi"], "run.avi: a video's name ends in .mp4 or .gif, found '.avi'"),
        (["{}", "--video", "no/run.mp4"], "there is no folder no"),
        (["{}", "--csv", "no/run.csv"], "there is no folder no"),
        (["{}", "--csv", "/proc"], "a folder lies where a file should be"),
        (["{}", "--csv", "/proc/run.csv"], "/proc"),
        (["{}", "--video", "/proc/run.gif"], "/proc"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str, checkpoint: Path, capsys) -> None:
    code = main([argument.format(checkpoint) for argument in arguments])

    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith("error: ") and told.count("\n") == 1
    assert message in told


def test_a_checkpoint_without_a_task_asks_for_it(tmp_path: Path, capsys) -> None:
    path = save(tmp_path, Policy(make_generators([0], "policy"), RUN.observation_dim, RUN.action_dim, (16,)))

    assert main([str(path)]) == 2
    assert "policy.json names no task: add --task T" in capsys.readouterr().err


@pytest.mark.slow
def test_a_policy_that_diverged_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    policy = Policy(make_generators([0], "policy"), RUN.observation_dim, RUN.action_dim, (16,))
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    save(tmp_path, policy, task="BallRun")

    assert main([str(tmp_path), "--episodes", "1", "--workers", "1"]) == 1
    assert "BallRun, episode 0" in capsys.readouterr().err


def test_help_shows_examples(capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])

    assert left.value.code == 0
    assert "python -m safemil.evaluate results/demo/trials/" in capsys.readouterr().out
    assert evaluate.__doc__ is not None
