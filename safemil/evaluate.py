"""Evaluate a trained policy in the simulator: a checkpoint comes in, a table of its return and its cost goes out.

    python -m safemil.evaluate results/demo/trials/BallCircle-safemil-s0-3f9a1c2b
    python -m safemil.evaluate policy.safetensors --episodes 50 --workers 8 --csv episodes.csv
    python -m safemil.evaluate policy.safetensors --episodes 5 --video ball.mp4

The checkpoint is a trial's folder or its policy.safetensors. Episode i starts alike for every policy evaluated under
the same seed, and the number of workers changes nothing. Exit codes: 0; 1 if an episode could not be played; 2 for bad
usage.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safemil.config.atomic import atomic_write, check_writable
from safemil.config.errors import UserError, entry_point
from safemil.data.tasks import Task, find_task
from safemil.evaluation import metrics
from safemil.nn.checkpoints import load_metadata, load_policy, locate
from safemil.simulation.rollouts import Episode, RolloutError, evaluate_policies
from safemil.simulation.simulators import make
from safemil.simulation.video import check_video_path, record
from safemil.simulation.worker_pool import usable_cores


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    options = _parse(arguments)
    checkpoint = locate(options.checkpoint)
    task = _task_of(checkpoint, options.task)
    cost_limit = task.cost_limit if options.cost_limit is None else options.cost_limit
    _check(options, task, cost_limit)
    try:
        episodes = _evaluate(checkpoint, task, options)
        print(summary(episodes, task, cost_limit))
        if options.csv:
            _write_csv(options.csv, episodes)
            print(f"episodes: {options.csv}")
        if options.video:
            shown = range(min(options.video_episodes, options.episodes))
            record(load_policy(checkpoint), task, shown, options.seed, options.video, cost_limit)
            print(f"video: {options.video}")
    except RolloutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def summary(episodes: Sequence[Episode], task: Task, cost_limit: float) -> str:
    """The table printed for ``episodes``: raw figures, and those normalized by DSRL's rules."""
    returns = np.array([episode.return_ for episode in episodes])
    costs = np.array([episode.cost for episode in episodes])
    worst = metrics.cvar(costs, 0.2)
    rows = [
        ("return", returns.mean(), returns.std(), metrics.normalized_return(returns, task.return_min, task.return_max)),
        ("cost", costs.mean(), costs.std(), metrics.normalized_cost(costs, cost_limit)),
        ("cost, worst 20 %", worst, None, metrics.scale_by_limit(worst, cost_limit)),
    ]
    lines = [f"{task.name}: {len(episodes)} episodes", f"{'':18}{'mean':>10}{'std':>10}{'normalized':>12}"]
    for name, mean, spread, normalized in rows:
        lines.append(f"{name:18}{mean:10.2f}{'' if spread is None else f'{spread:.2f}':>10}{normalized:12.3f}")
    violations = metrics.violation_rate(costs, cost_limit)
    ended = np.mean([episode.terminated for episode in episodes])
    lines += [
        f"episodes above the cost limit of {cost_limit:g}: {violations:.0%}; ended before their time: {ended:.0%}",
        f"normalized: return 0 at {task.return_min:.4g} and 1 at {task.return_max:.4g} (DSRL), cost 1 at the limit",
    ]
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m safemil.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a trial's folder or a policy.safetensors")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="how many to play (default 20)")
    parser.add_argument("--task", metavar="T", help="default: the task the checkpoint was trained on")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the evaluation seed (default 0)")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: one per core)")
    parser.add_argument("--cost-limit", type=float, metavar="L", help="default: the task's, 25")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per episode")
    parser.add_argument("--video", type=Path, metavar="FILE", help="draw the first episodes into an .mp4 or a .gif")
    parser.add_argument("--video-episodes", type=int, default=1, metavar="N", help="how many of them (default 1)")
    options = parser.parse_args(arguments)
    if options.workers is None:
        options.workers = usable_cores()
    return options


def _task_of(checkpoint: Path, asked: str | None) -> Task:
    described = load_metadata(checkpoint)
    name = asked or described.get("task")
    if name is None:
        raise UserError(f"{checkpoint.with_suffix('.json')} names no task: add --task T")
    task = find_task(name)
    shape = described["policy"]["shape"]
    size = shape["observation_dim"]  # a list of an image's, in json
    trained = {"observation_dim": tuple(size) if isinstance(size, list) else size, "action_dim": shape["action_dim"]}
    if trained != {size: getattr(task, size) for size in trained}:
        raise UserError(
            f"{checkpoint} maps {trained['observation_dim']} observations to {trained['action_dim']} actions,"
            f" {task.name} has {task.observation_dim} and {task.action_dim}: it was trained on another task"
        )
    return task


def _check(options: argparse.Namespace, task: Task, cost_limit: float) -> None:
    """Everything that would fail later fails here, before the first episode."""
    least = {"episodes": 1, "workers": 1, "video_episodes": 1, "seed": 0}
    for name, minimum in least.items():
        if getattr(options, name) < minimum:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected at least {minimum}")
    if not 0 <= cost_limit < float("inf"):
        raise UserError(f"--cost-limit is {cost_limit}, expected a number that is not negative")
    if options.csv:
        if not options.csv.parent.is_dir():
            raise UserError(f"{options.csv}: there is no folder {options.csv.parent}; make it first")
        check_writable(options.csv)
    if options.video:
        check_video_path(options.video)
        check_writable(options.video)
        make(task, render=True).close()


def _evaluate(checkpoint: Path, task: Task, options: argparse.Namespace) -> list[Episode]:
    from tqdm import tqdm

    with tqdm(total=options.episodes, desc=task.name, unit="episode", disable=None, leave=False) as bar:
        played = evaluate_policies(
            [checkpoint],
            task,
            episodes=options.episodes,
            evaluation_seed=options.seed,
            workers=options.workers,
            on_episode=lambda *_: bar.update(),
        )
    return played[checkpoint]


def _write_csv(path: Path, episodes: Sequence[Episode]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, episodes[0].row())
        writer.writeheader()
        writer.writerows(episode.row() for episode in episodes)


if __name__ == "__main__":
    sys.exit(main())
