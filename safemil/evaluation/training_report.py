"""The page and the picture beside a policy trained on one's own data: report.md and scores.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safemil.config.atomic import atomic_write
from safemil.config.errors import printable
from safemil.data.splits import Split
from safemil.evaluation.findings import Findings, in_words
from safemil.training.fit_result import FitResult

COLORS = {"unlabeled": "#2a9d8f", "non-preferred": "#b3261e"}
MOST_SUSPICIOUS = 10
PICTURE = "scores.png"


def write_report(
    folder: Path,
    learned: FitResult,
    split: Split,
    findings: Findings,
    *,
    sources: Sequence[Path],
    settings: Sequence[str],
) -> Path:
    """Write report.md and, where matplotlib is installed, its picture into ``folder``; the path of the page.

    Args:
        sources: the files that D_N and D_U came from.
        settings: what was set on the command line, as typed.
    """
    try:
        draw(findings, folder / PICTURE)
        picture = f"![Scores of the trajectories]({PICTURE})"
    except ImportError:
        picture = "There is no picture of the scores, as matplotlib is not installed: `pip install matplotlib`."
    page = folder / "report.md"
    with atomic_write(page) as temporary:
        temporary.write_text(_page(learned, split, findings, picture, sources, settings), encoding="utf-8")
    return page


def _page(
    learned: FitResult, split: Split, findings: Findings, picture: str, sources: Sequence[Path], settings: Sequence[str]
) -> str:
    data, nonpreferred = split.trajectories, len(findings.nonpreferred_scores)
    steps = [int(data.lengths[:nonpreferred].sum()), int(data.lengths[nonpreferred:].sum())]
    counts = [nonpreferred, len(findings.scores)]
    rows = [
        f"| {name} | `{printable(source)}` | {count} | {n_steps} | {count - out} | {out} |"
        for name, source, count, n_steps, out in zip(
            ("non-preferred (known bad)", "unlabeled"), sources, counts, steps, findings.held_out, strict=True
        )
    ]
    riskiest = np.argsort(-findings.scores, kind="stable")[:MOST_SUSPICIOUS]
    suspicious = [
        f"| {index} | {findings.scores[index]:.3f} | {_weight(findings.weights[index])} |" for index in riskiest
    ]
    parts = [
        "# A policy from non-preferred and unlabeled trajectories",
        "## Data",
        "| set | file | trajectories | steps | trained on | held out |\n|---|---|---|---|---|---|\n" + "\n".join(rows),
        f"{data.observation_size} in an observation, {data.action_dim} numbers in an action.",
        "## Does the score tell bad from good?",
        *in_words(findings),
        picture,
        *(f"**Warning:** {warning}." for warning in findings.warnings),
        "## Training",
        _training(learned.extra),
        "Set on the command line: " + (", ".join(f"`{printable(text)}`" for text in settings) or "nothing") + ".",
        "## The most suspicious unlabeled trajectories",
        "| trajectory | mean predicted cost | weight in cloning |\n|---|---|---|\n" + "\n".join(suspicious),
        "Trajectories are counted from 0 in the order of the file. Look at a few of them: if they are harmless, the"
        " score has learned something else than you meant. All are in predicted_costs.csv, the safest first; the"
        " average weight is 1, and those held out have none.",
        "## How to use the policy",
        "```python\nfrom safemil import SafeMIL, load_policy\n\n"
        'policy = load_policy("this folder")\n'
        "actions = policy.act(observations)  # (n, observation_dim) -> (n, action_dim) in [-1, 1]\n"
        'costs = SafeMIL.load("this folder").cost(observations, actions)  # of each step, in (0, 1)\n```',
    ]
    return "\n\n".join(parts) + "\n"


def _weight(value: float) -> str:
    return "held out" if np.isnan(value) else f"{value:.2f}"


def _training(extra: dict[str, float]) -> str:
    """A row for each stage that ended by its held-out loss."""
    stages = [stage for stage in ("cost_model", "policy") if f"{stage}_updates" in extra]
    if not stages:
        return "A fixed number of updates; losses are in curves.csv."
    rows = [
        f"| {stage.replace('_', ' ')} | {extra[f'{stage}_updates']:.0f} | {extra[f'{stage}_updates_kept']:.0f}"
        f" | {extra[f'{stage}_held_out_first']:.3g} | {extra[f'{stage}_held_out_lowest']:.3g} |"
        for stage in stages
    ]
    head = "| | updates | kept after | held-out loss, untrained | kept |\n|---|---|---|---|---|\n"
    said = "Training ended when the loss on held-out trajectories had stopped falling; kept is where it was lowest."
    return head + "\n".join(rows) + f"\n\n{said} All losses are in curves.csv."


def draw(findings: Findings, path: Path) -> None:
    """Histograms of both sets' trajectory scores, and the weight of each cloned trajectory against its score.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    scores = {"unlabeled": findings.scores, "non-preferred": findings.nonpreferred_scores}
    every = np.concatenate(list(scores.values()))
    edges = np.linspace(every.min(), max(every.max(), every.min() + 1e-3), 31)
    for name, own in scores.items():
        shares = np.full(len(own), 100 / len(own))
        above.hist(own, edges, weights=shares, color=COLORS[name], alpha=0.65, label=f"{name} ({len(own)})")
    if findings.border is not None:
        above.axvline(findings.border, color="black", linewidth=0.8, linestyle="--", label="between the two groups")
    above.set(ylabel="% of the set")
    above.legend(fontsize=8)
    cloned = ~np.isnan(findings.weights)
    below.scatter(findings.scores[cloned], findings.weights[cloned], s=10, color=COLORS["unlabeled"], linewidths=0)
    below.set(xlabel="mean predicted cost of the trajectory", ylabel="weight in cloning", ylim=(0, None))
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
