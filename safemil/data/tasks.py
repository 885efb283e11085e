"""The registry: every task of the suite, one row each. First stage: a name comes in, a ``Task`` goes out.

Facts only, so it imports nothing heavy. Names are DSRL's, without prefix and suffix ("BallCircle" for
"OfflineBallCircle-v0"). Reference returns, costs, episode lengths and file names are those of DSRL 0.1.0
(``dsrl/infos.py``, https://github.com/liuzuxin/DSRL); dimensions are those of the simulators' spaces. Actions of
every task lie in [-1, 1].

A task may have variants, "BallCircle@lapse": the same simulator, other data, which are always collected. They are tasks
of their own everywhere. In those of ``lapse`` a cautious behavior turns reckless in spells, so that risk is a part of
each trajectory and shares its states with safe behavior. The number in "PointCircle2@lapse10" is the share of unsafe
steps, in percent, in an unsafe trajectory.

The suite's own tasks go beyond DSRL: manipulation, several agents, pixels. Their data are always collected too, and
their reference numbers are those of the dataset that ``python -m safemil.collect`` gives; BallCirclePixels has
BallCircle's.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace

from safemil.config.errors import UserError

FAMILIES = ("bullet", "velocity", "navigation", "manipulation", "team", "turns", "pixels")


@dataclass(frozen=True)
class Task:
    """One task: its simulator, the size of its spaces, its dataset file and the reference numbers for normalization."""

    name: str  # "BallCircle", the name used everywhere in the suite
    environment_id: str  # gymnasium id, registered by dsrl; of the suite's own tasks a name of the same form
    family: str  # which simulator, see safemil/simulation/simulators.py
    horizon: int  # steps after which an episode is cut
    observation_dim: int | tuple[int, int, int]  # of a vector, or height, width and channels of an image
    action_dim: int
    file_name: str  # DSRL's dataset file; empty where data are always collected
    return_min: float  # DSRL's reference returns: the lowest and the highest in its dataset
    return_max: float
    cost_max: float  # the highest episode cost in DSRL's dataset
    n_trajectories: int  # trajectories in DSRL's dataset
    segment_length: int  # H: 5 for velocity and bullet, 10 for navigation
    cost_limit: float = 25.0  # an episode with a higher cost violates the constraint
    variant: str = ""  # "lapse"; of DSRL's own tasks none

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"task {self.name}: family is {self.family!r}, expected one of {', '.join(FAMILIES)}")
        for field in ("horizon", "observation_dim", "action_dim", "n_trajectories", "segment_length"):
            value = getattr(self, field)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise UserError(f"task {self.name}: {field} is {value}, expected at least 1")
        if not self.return_min < self.return_max:
            raise UserError(f"task {self.name}: return_min {self.return_min} is not below return_max {self.return_max}")

    @property
    def file_stem(self) -> str:
        """What the names of this task's dataset files start with: "SafetyBallCircle-v0"."""
        return self.environment_id.replace(f"Offline{self.base}", f"Safety{self.name}", 1)

    @property
    def step_bytes(self) -> int:
        """What a step takes in memory: observation, action, reward and cost."""
        size = self.observation_dim
        return (4 * size if isinstance(size, int) else math.prod(size)) + 4 * (self.action_dim + 2)

    @property
    def base(self) -> str:
        """The name of the task it is a variant of, else its own."""
        return self.name.removesuffix(f"@{self.variant}")


# family, what follows the name in environment ids and file names, segment length H
BULLET = ("bullet", "-v0", 5)
VELOCITY = ("velocity", "Gymnasium-v1", 5)
NAVIGATION = ("navigation", "Gymnasium-v0", 10)


def _row(
    name: str,
    group: tuple[str, str, int],
    horizon: int,
    observation_dim: int,
    action_dim: int,
    return_min: float,
    return_max: float,
    cost_max: float,
    file_cost: int,
    n_trajectories: int,
) -> Task:
    """A ``Task`` from a row of the table. ``file_cost`` is the maximum cost as it stands in the file name."""
    family, suffix, segment_length = group
    return Task(
        name=name,
        environment_id=f"Offline{name}{suffix}",
        family=family,
        horizon=horizon,
        observation_dim=observation_dim,
        action_dim=action_dim,
        file_name=f"Safety{name}{suffix}-{file_cost}-{n_trajectories}.hdf5",
        return_min=return_min,
        return_max=return_max,
        cost_max=cost_max,
        n_trajectories=n_trajectories,
        segment_length=segment_length,
    )


# name, group, horizon, observation_dim, action_dim, return_min, return_max, cost_max, cost in file name, trajectories
_TABLE = (
    _row("BallCircle", BULLET, 200, 8, 2, 0.38312244415283203, 881.46337890625, 80.0, 80, 886),
    _row("BallRun", BULLET, 100, 7, 2, 26.339754104614258, 1327.445556640625, 80.0, 80, 940),
    _row("CarCircle", BULLET, 300, 8, 2, 3.484419822692871, 534.3060913085938, 100.0, 100, 1450),
    _row("CarRun", BULLET, 200, 7, 2, 204.28726196289062, 574.6533203125, 40.0, 40, 651),
    _row("DroneCircle", BULLET, 300, 18, 4, 207.794189453125, 996.38916015625, 100.0, 100, 1923),
    _row("DroneRun", BULLET, 200, 17, 4, 10.557029724121094, 682.8330078125, 140.0, 140, 1990),
    _row("AntCircle", BULLET, 500, 34, 8, 0.0177031010389328, 460.7091979980469, 200.0, 200, 5728),
    _row("AntRun", BULLET, 200, 33, 8, 0.001767391717990563, 955.4818725585938, 150.0, 150, 1816),
    _row("AntVelocity", VELOCITY, 1000, 27, 8, 6.1519012451171875, 2976.276611328125, 250.0, 250, 2249),
    _row("HalfCheetahVelocity", VELOCITY, 1000, 17, 6, 5.7509765625, 2806.93310546875, 250.0, 250, 2495),
    _row("HopperVelocity", VELOCITY, 1000, 11, 3, 37.05154800415039, 1911.396728515625, 250.0, 250, 2240),
    _row("SwimmerVelocity", VELOCITY, 1000, 8, 2, 0.07114458084106445, 238.95831298828125, 200.0, 200, 1686),
    _row("Walker2dVelocity", VELOCITY, 1000, 17, 6, 18.668498992919922, 3418.223876953125, 300.0, 300, 2729),
    _row("PointCircle1", NAVIGATION, 500, 28, 2, 20.067626953125, 61.72819519042969, 200.0, 200, 1098),
    _row("PointCircle2", NAVIGATION, 500, 28, 2, 20.478347778320312, 54.02184295654297, 299.0, 300, 895),
    _row("PointGoal1", NAVIGATION, 1000, 60, 2, 0.01196012764197707, 30.071114857340543, 100.0, 100, 2022),
    _row("PointGoal2", NAVIGATION, 1000, 60, 2, 0.002616959830266108, 27.717709787852737, 200.0, 200, 3442),
    _row("PointButton1", NAVIGATION, 1000, 76, 2, 0.008822109034937853, 41.19301568767707, 200.0, 200, 2268),
    _row("PointButton2", NAVIGATION, 1000, 76, 2, 0.014114166087574098, 42.8985953616709, 250.0, 250, 3288),
    _row("PointPush1", NAVIGATION, 1000, 76, 2, 0.0014001545292344209, 16.518654299293367, 150.0, 150, 2379),
    _row("PointPush2", NAVIGATION, 1000, 76, 2, 0.0012438183001730607, 14.691039145644403, 200.0, 200, 3242),
    _row("CarCircle1", NAVIGATION, 500, 40, 2, 8.037073135375977, 24.94155502319336, 250.0, 250, 1271),
    _row("CarCircle2", NAVIGATION, 500, 40, 2, 5.113386154174805, 25.950098037719727, 398.0, 400, 940),
    _row("CarGoal1", NAVIGATION, 1000, 72, 2, 0.012232819540852091, 39.907809198384705, 120.0, 120, 1671),
    _row("CarGoal2", NAVIGATION, 1000, 72, 2, 0.001032874531954775, 28.902897990056502, 200.0, 200, 4105),
    _row("CarButton1", NAVIGATION, 1000, 88, 2, 0.0028926206826067613, 44.420003345738984, 250.0, 250, 2656),
    _row("CarButton2", NAVIGATION, 1000, 88, 2, 0.001767391717990563, 41.99513815522894, 300.0, 300, 3755),
    _row("CarPush1", NAVIGATION, 1000, 88, 2, 0.013700173533941762, 16.304467598905237, 200.0, 200, 2871),
    _row("CarPush2", NAVIGATION, 1000, 88, 2, 0.00029391133526335267, 15.141648491514314, 250.0, 250, 4407),
)


def _own(
    name: str,
    family: str,
    sizes: tuple[int, int | tuple[int, int, int], int],
    segment_length: int,
    returns: tuple[float, float],
    cost_max: float,
    n_trajectories: int,
) -> Task:
    """One of the suite's own tasks; ``sizes`` are horizon, observation_dim and action_dim."""
    return Task(
        name,
        f"Offline{name}-v0",
        family,
        *sizes,
        file_name="",
        return_min=returns[0],
        return_max=returns[1],
        cost_max=cost_max,
        n_trajectories=n_trajectories,
        segment_length=segment_length,
    )


# name, family, (horizon, observation_dim, action_dim), H, (return_min, return_max), cost_max, trajectories
# PandaPush's returns and cost are of the first 468 episodes of a collection that is not finished: provisional.
_OWN = (
    _own("PandaPush", "manipulation", (300, 22, 3), 10, (-4.3, 30.7), 172.0, 700),
    _own("SimpleSpread", "team", (200, 54, 6), 5, (88.1, 499.6), 200.0, 700),
    _own("BallCirclePixels", "pixels", (200, (64, 64, 2), 2), 5, (0.38312244415283203, 881.46337890625), 80.0, 520),
    _own("SimpleSpread@shared", "turns", (600, 18, 2), 15, (88.1, 499.6), 200.0, 700),
)

# The share of unsafe steps (percent) in an unsafe trajectory of "TASK@lapse", then those of "TASK@lapse5" and so on.
# A ball is beyond its line for at most 56 % of an episode, a car for 46 %; the swimmer is too fast for 53 %, the ant
# for 50 %.
LAPSES: dict[str, tuple[int, ...]] = {
    "BallCircle": (20, 5, 10, 40),
    "CarCircle": (20, 5, 10),
    "PointCircle2": (20, 5, 10, 40, 80),
    "SwimmerVelocity": (10, 5, 20, 40),
    "AntVelocity": (10, 5, 20, 40),
}
UNSAFE_COST = 4.0  # what an unsafe trajectory of a variant costs on average, in cost limits


def _variants(task: Task) -> list[Task]:
    """The task's variants. The cost limit goes with the share of unsafe steps, so that all are equally unsafe."""
    shares = LAPSES.get(task.name, ())
    names = [f"lapse{share}" if share != shares[0] else "lapse" for share in shares]
    return [
        replace(
            task,
            name=f"{task.name}@{variant}",
            variant=variant,
            file_name="",
            cost_limit=share / 100 * task.horizon / UNSAFE_COST,
        )
        for variant, share in zip(names, shares, strict=True)
    ]


TASKS: dict[str, Task] = {
    task.name: task for task in (*_TABLE, *_OWN, *(variant for row in _TABLE for variant in _variants(row)))
}

# The six tasks of the SafeMIL paper (arXiv 2511.08136).
PAPER_TASKS = ("Walker2dVelocity", "SwimmerVelocity", "AntVelocity", "PointCircle2", "PointGoal1", "PointButton1")


def find_task(name: str) -> Task:
    """The task called ``name``. Raises ``UserError`` naming the nearest valid names when there is none."""
    if name in TASKS:
        return TASKS[name]
    nearest = nearest_names(name)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"valid names: {' '.join(TASKS)}"
    raise UserError(f"unknown task {name!r}: {hint}")


def parse_file_name(name: str) -> tuple[Task | None, int]:
    """The task and the number of trajectories that a dataset file's name tells; (None, 0) for another kind of name."""
    match = re.fullmatch(r"(Safety.+)-\d+-(\d+)\.hdf5", name)  # stem, maximum cost, number of trajectories
    task = next((task for task in TASKS.values() if match and task.file_stem == match[1]), None)
    return (task, int(match[2])) if task and match else (None, 0)


def nearest_names(name: str, limit: int = 3) -> list[str]:
    """Up to ``limit`` task names that resemble ``name``, best first; case and DSRL's prefix and suffix are ignored."""
    bare = name.strip().removeprefix("Offline").removeprefix("Safety").split("-v")[0].removesuffix("Gymnasium").lower()
    spelled = {task.lower(): task for task in TASKS}
    if bare in spelled:
        return [spelled[bare]]
    return [spelled[match] for match in difflib.get_close_matches(bare, spelled, n=limit, cutoff=0.6)]
