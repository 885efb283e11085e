"""What a training reports on its way: one bar over all of its stages, and the rows of curves.csv."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.atomic import atomic_write

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} updates [{elapsed} so far, {left} {remaining}]{postfix}"


class Progress:
    """One bar on a terminal, elsewhere nothing.

    Args:
        most: updates of each stage, in their order, the most that each may take.
        fixed: whether each takes all of them, so that the time left is an estimate and not a bound.
    """

    def __init__(self, most: Mapping[str, int], *, fixed: bool) -> None:
        self.most, self.left = dict(most), "left:" if fixed else "left at most:"
        self.done: dict[str, int] = {}
        self.bar: Any = None

    def __call__(self, stage: str, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A report of a training loop."""
        self.done[stage] = step
        stages = list(self.most)
        before, following = stages[: stages.index(stage)], stages[stages.index(stage) :]
        at = sum(self.done.get(name, 0) for name in before)  # a stage may have ended early
        total = at + sum(self.most[name] for name in following)
        words = f"training {stage.replace('_', ' ')}"
        if self.bar is None:
            self.bar = self._begin(at + step, total, words)
        self.bar.total = total
        self.bar.set_description_str(words, refresh=False)
        losses = [values.mean() for name, values in metrics.items() if name.endswith("_loss")]
        self.bar.set_postfix_str(f"loss {losses[0]:.3f}" if losses else "", refresh=False)
        self.bar.update(at + step - self.bar.n)

    def _begin(self, done: int, total: int, words: str) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=words,
            total=total,
            initial=done,
            bar_format=BAR.replace("{left}", self.left),
            file=sys.stderr,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


class Curves:
    """Every report, as rows that a checkpoint can keep: ``[stage, step, {metric: one number a replica}]``."""

    def __init__(self, progress: Progress) -> None:
        self.rows: list[list[Any]] = []
        self.progress = progress

    def __call__(self, stage: str, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A report of a training loop."""
        self.rows.append([stage, step, {name: [float(value) for value in own] for name, own in metrics.items()}])
        self.progress(stage, step, metrics)

    def write(self, path: Path, replica: int) -> None:
        """One replica's rows as csv."""
        names = list(dict.fromkeys(name for _, _, metrics in self.rows for name in metrics))
        rows = [
            [stage, step, *(f"{metrics[name][replica]:.6g}" if name in metrics else "" for name in names)]
            for stage, step, metrics in self.rows
        ]
        write_csv(path, ["stage", "step", *names], rows)


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """A table, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
