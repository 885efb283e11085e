"""Film strips of trained policies: a run's folder comes in, RUN/film_strips/*.png go out, which its report then shows.

    python analysis/film_strips.py results/demo
    python analysis/film_strips.py results/paper --task BallRun --methods safemil bc-all --frames 8

The evaluation episode of median cost of the first seed of each method, drawn at evenly spaced steps, red where the step
costs. Needs the trials' checkpoints and a simulator that can draw; a strip that is there is kept,
so a report is made anew without either. Exit codes: 0; 1 if the simulator cannot draw; 2 for bad usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import numpy as np
    import pandas as pd

    from analysis import labels
    from analysis.load import load_run
    from analysis.trial_rows import read_json
    from safemil.config.errors import UserError, entry_point
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing}; install this project first: pip install -e . (make demo and make test do it)")

FRAME_WIDTH, GAP = 240, 4  # pixels
METHODS = ("safemil", "bc-all")  # the safe policy and the unsafe one


def draw_strips(folder: Path, task: str | None = None, methods: Sequence[str] = METHODS, frames: int = 6) -> list[Path]:
    """Draw what is not drawn yet; returns the strips of the chosen trials.

    Raises:
        UserError: the run has no trial folders, or no trial of the task and methods.
        RolloutError: an episode cannot be played or drawn.
    """
    run = load_run(folder)
    task = task or sorted(run.trials["task"].unique())[0]
    rows = run.trials[run.trials["task"] == task].sort_values("seed", kind="stable").drop_duplicates("method")
    trials = rows[rows["method"].isin(methods)].to_dict("records")
    if not run.has_folders or not trials:
        raise UserError(f"{folder}: no trial folder of {task} with {' or '.join(methods)}; nothing to draw")
    strips = []
    for trial in trials:
        path = folder / "film_strips" / f"{task}-{methods.index(trial['method'])}-{trial['method']}.png"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            _draw(folder / "trials" / trial["trial_id"], trial, path, frames)
        strips.append(path)
    return sorted(strips)


def _draw(trial_folder: Path, trial: dict, path: Path, frames: int) -> None:
    """Play the evaluation episode of median cost of a trial, write its strip and, beside it, what it shows."""
    from PIL import Image

    from safemil.data.tasks import find_task
    from safemil.nn.checkpoints import load_policy
    from safemil.simulation.rollouts import Episode, one_torch_thread, play
    from safemil.simulation.simulators import make
    from safemil.simulation.video import annotate

    task = find_task(trial["task"])
    seed = ((read_json(trial_folder / "config.json") or {}).get("evaluation") or {}).get("seed", 0)
    episodes = pd.read_csv(trial_folder / "episodes.csv").drop_duplicates("index", keep="last")
    median = episodes.sort_values(["cost", "index"]).iloc[(len(episodes) - 1) // 2]
    index, length = int(median["index"]), int(median["length"])
    wanted = set(np.linspace(1, length, frames + 1).round().astype(int)[1:].tolist())
    drawn: list[np.ndarray] = []
    cost_before = 0.0

    def on_step(episode: Episode) -> None:
        nonlocal cost_before
        if episode.length in wanted:
            image = Image.fromarray(np.ascontiguousarray(simulator.render()))
            small = np.asarray(image.resize((FRAME_WIDTH, round(image.height * FRAME_WIDTH / image.width))))
            caption = f"step {episode.length}   cost {episode.cost:g}"
            drawn.append(annotate(small, caption, episode.cost > cost_before))
        cost_before = episode.cost

    with make(task, render=True) as simulator, one_torch_thread():
        episode = play(load_policy(trial_folder), simulator, index, seed, on_step)
    framed = [np.pad(frame, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for frame in drawn]
    strip = Image.fromarray(np.concatenate(framed, axis=1)[:, :-GAP]).quantize(256)
    caption = (
        f"{task.name}, {labels.method_label(trial['method'])} ({trial['trial_id']}): evaluation episode {index} (of"
        f" median cost), return {episode.return_:.0f}, cost {episode.cost:g} (limit {trial['cost_limit']:g}). Red: the"
        " step costs."
    )
    path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    strip.save(path, optimize=True)


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("analysis/film_strips.py", description=__doc__, formatter_class=keep_lines)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, such as results/demo")
    parser.add_argument("--task", metavar="T", help="default: the run's first")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="M", help=f"default: {' '.join(METHODS)}")
    parser.add_argument("--frames", type=int, default=6, metavar="N", help="frames of a strip (default 6)")
    options = parser.parse_args(arguments)
    from safemil.simulation.rollouts import RolloutError

    try:
        for path in draw_strips(options.run, options.task, options.methods, options.frames):
            print(f"film strip: {path}")
    except RolloutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
