"""The grids and presets as data: what each varies, for which tasks, methods and seeds. tune/trials.py expands them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baselines.registry import LABEL_LIMITED
from safemil.config.errors import unknown
from safemil.data.tasks import PAPER_TASKS

PRESETS: dict[str, dict[str, Any]] = {  # a method's name holds what is for that method alone
    "bench": {},  # the defaults of safemil/config/settings.py
    "paper": {
        "mode": "joint",
        "cost_model.pairs": 1,
        "cost_model.steps": 1_000_000,
        "cost_model.learning_rate": 1e-5,
        "cost_model.schedule": "constant",
        "policy.steps": 1_000_000,
        "policy.learning_rate": 1e-5,
        "policy.schedule": "linear",
        "policy.weight_decay": 0.01,
    },
    "author": {  # the first author's public research code, which is not the paper's: safemil alone differs from "paper"
        "cost_model.steps": 1_000_000,
        "cost_model.learning_rate": 1e-5,
        "cost_model.schedule": "constant",
        "policy.steps": 1_000_000,
        "policy.learning_rate": 1e-5,
        "policy.schedule": "constant",
        "policy.weight_decay": 0.01,
        "safemil": {
            "mode": "joint",
            "cost_model.pairs": 1,
            "policy.head": "mix2",
            "policy.sampled": True,
            "policy.normalize_observations": False,
        },
    },
    "study": {  # bench's rates; five seeds take one core one to seven minutes (SafeDICE longest), OSRL's 6 to 25
        "cost_model.steps": 1_500,
        "discriminator.steps": 1_500,
        "cost_model.pairs": 1,
        "policy.steps": 5_000,
        "policy.batch_size": 128,
        "evaluation.episodes": 20,
        "evaluation.checkpoints": 3,
        "evaluation.checkpoint_episodes": 5,
        "ppl-trex": {"cost_model.batch_size": 16},  # of 50 steps, times three networks
        "osrl-bcql": {"policy.batch_size": 64},  # and ten actions drawn for each
        "osrl-bearl": {"policy.batch_size": 64},
        "osrl-cpq": {"policy.batch_size": 64},
        "osrl-cdt": {"policy.batch_size": 16, "policy.steps": 4_000},  # of ten steps, four tokens each
    },
    "demo": {
        "cost_model.steps": 3_000,
        "discriminator.steps": 3_000,
        "cost_model.bag_size": 64,
        "cost_model.pairs": 1,
        "policy.steps": 5_000,
        "evaluation.episodes": 20,
        "evaluation.checkpoints": 4,
        "evaluation.checkpoint_episodes": 5,
    },
    "smoke": {
        "cost_model.steps": 100,
        "discriminator.steps": 100,
        "cost_model.pairs": 1,
        "policy.steps": 100,
        "policy.batch_size": 64,
        "evaluation.episodes": 2,
        "evaluation.checkpoints": 2,
        "evaluation.checkpoint_episodes": 1,
        "split.n_nonpreferred": 10,
        "split.n_unlabeled": 40,
    },
}


@dataclass(frozen=True)
class Grid:
    """Tasks x methods x seeds x axes x points. An axis applies to the methods that have its setting."""

    summary: str
    tasks: tuple[str, ...] = PAPER_TASKS
    methods: tuple[str, ...] = ("safemil",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    preset: str = "bench"
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    points: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)  # of each method, beside the axes
    tuned: bool = False  # take each method's stored settings (tune/tuning.py)


def combinations(fixed: Mapping[str, Any], **axes: tuple[Any, ...]) -> tuple[dict[str, Any], ...]:
    """Every combination of the axes (``__`` stands for the dot of a setting's name), each with ``fixed``."""
    names = [name.replace("__", ".") for name in axes]
    return tuple({**fixed, **dict(zip(names, values, strict=True))} for values in itertools.product(*axes.values()))


# Six settings each. bc-all has no score, so nothing to choose by. One episode, as no trial goes without; and one policy
# step where the score does not depend on the policy.
_NO_ROLLOUTS = {"evaluation.episodes": 1, "evaluation.checkpoints": 1}
_COST_ALONE = {**_NO_ROLLOUTS, "policy.steps": 1}
_COST_MODEL = {"cost_model__learning_rate": (1e-4, 3e-4, 1e-3), "cost_model__weight_decay": (0.0, 0.01)}
TUNING: dict[str, tuple[dict[str, Any], ...]] = {
    "safemil": combinations(_COST_ALONE, **_COST_MODEL),
    "ppl": combinations(_COST_ALONE, **_COST_MODEL),
    "ppl-trex": combinations(
        _COST_ALONE, cost_model__learning_rate=(3e-5, 1e-4, 3e-4), cost_model__segment_length=(25, 50)
    ),
    "dwbc": combinations(_NO_ROLLOUTS, eta=(0.3, 0.5, 0.7), period=(1, 10)),
    "safedice": combinations(
        _COST_ALONE, discriminator__learning_rate=(3e-5, 1e-4, 3e-4), gradient_penalty=(1.0, 10.0)
    ),
    "uniq": combinations(_COST_ALONE, discriminator__learning_rate=(3e-5, 1e-4, 3e-4), dropout=(0.0, 0.5)),
    "osil": combinations(_COST_ALONE, **_COST_MODEL),
    "dexperts": combinations(_NO_ROLLOUTS, policy__learning_rate=(1e-4, 3e-4, 1e-3), policy__weight_decay=(0.0, 0.01)),
}

_BY_BOTH_HEADS = ("bc-all", "dwbc", "safedice", "uniq", "osil")

SPARSITY_TASKS = tuple(f"PointCircle2@lapse{share}" for share in ("5", "10", "", "40", "80"))
# Everything that is collected for the study where DSRL's files are not there: `make data` (tune/data.py).
STUDY_TASKS = (
    *("BallCircle", "BallRun", "CarCircle", "CarRun", "SwimmerVelocity", "HalfCheetahVelocity"),
    *("PointCircle2", "PointGoal1", "PointButton1", "AntVelocity", "Walker2dVelocity"),
    *("BallCircle@lapse", "CarCircle@lapse", "SwimmerVelocity@lapse", "AntVelocity@lapse"),
    *SPARSITY_TASKS,
)

GRIDS: dict[str, Grid] = {
    "demo": Grid(
        "SafeMIL against cloning everything and against the oracle, in minutes on a laptop",
        tasks=("BallCircle",),
        methods=("safemil", "bc-all", "bc-safe"),
        seeds=(0, 1, 2),
        preset="demo",
    ),
    "paper": Grid(
        "the paper's main table: six tasks, every imitation method", methods=(*LABEL_LIMITED, "bc-safe"), tuned=True
    ),
    "tuning": Grid(
        "the same number of settings for each label-limited method, to be chosen by the label-free AUROC",
        methods=tuple(TUNING),
        seeds=(100, 101, 102),  # other splits than the ones that are reported
        points=TUNING,
    ),
    "ablation": Grid("cloning D_U alone beside SafeMIL: is D_U contaminated?", methods=("bc-all", "safemil")),
    "bagsize": Grid("bag size K", axes={"cost_model.bag_size": (1, 8, 16, 32, 64, 128, 256)}),
    "horizon": Grid("segment length H", axes={"cost_model.segment_length": (5, 10, 25, 50, 100, "full")}),
    "contamination": Grid(
        "share of D_N replaced by high-return preferred trajectories",
        axes={"split.contamination": (0.0, 0.25, 0.5, 0.75)},
    ),
    "oracle": Grid("learned against true cost", methods=("safemil", "oracle-cost", "bc-safe", "bc-all")),
    "weighting": Grid("cost to weight", axes={"weights.kind": ("hard", "linear", "exponential")}),
    "aggregator": Grid(
        "bag score from step costs",
        axes={"cost_model.aggregator": ("mean", "deepsets", "attention", "softmax", "noisy-or", "set-transformer")},
    ),
    "heterogeneity": Grid(
        "similar or mixed cost levels in D_N; bags drawn from it plainly, or equally from four clusters",
        axes={"split.cost_levels": ("mixed", "low", "middle", "high"), "cost_model.modes": (1, 4)},
    ),
    "size": Grid("|D_N|", axes={"split.n_nonpreferred": (5, 10, 25, 50, 100)}),
    "sparsity": Grid(
        "share of unsafe steps in the unsafe trajectories, 5 to 80 % (data of their own; lapse: 20 %)",
        tasks=SPARSITY_TASKS,
        methods=("safemil", "ppl", "bc-all", "bc-safe"),
    ),
    "heads": Grid(
        "the common head against the baselines' own, a tanh-Gaussian; the product of experts has no other",
        methods=(*_BY_BOTH_HEADS, "dexperts"),
        points={
            **dict.fromkeys(_BY_BOTH_HEADS, combinations({}, policy__head=("det", "tanh_gauss"))),
            "dexperts": ({"policy.head": "tanh_gauss"},),
        },
        tuned=True,
    ),
    "uniq-beta": Grid(
        "UNIQ's temperature, a sensitivity: no score chooses it",
        methods=("uniq",),
        axes={"beta": (1.0, 3.0, 5.0, 10.0, 20.0)},
    ),
    "osil-alpha": Grid(
        "the weight of OSIL's penalty, a sensitivity: no score chooses it",
        methods=("osil",),
        axes={"alpha": (0.25, 1.0, 2.5, 5.0)},
    ),
    "mixture": Grid("share of D_U that is non-preferred", axes={"split.mixture": (0.2, 0.5, 0.8, 0.9, 0.95)}),
}


def find_grid(name: str) -> Grid:
    """The grid of that name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    return GRIDS[name]
