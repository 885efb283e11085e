"""How far a run is: a bar for each pack that trains, a line for each that is over. Lines alone without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

HEARTBEAT = 30.0  # seconds between lines where there is no terminal


class Board:
    """Shows the packs of a run; a context manager. All methods are called from the driver alone.

    Args:
        labels: pack id -> column -> text: task, method, the settings that vary, seeds.
    """

    def __init__(self, labels: dict[str, dict[str, str]], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.names = {pack: " ".join(label.values()) for pack, label in labels.items()}
        self.over = 0
        self.busy: dict[str, TaskID] = {}
        self.started: dict[str, float] = {}
        self.spoke = time.monotonic()
        columns = [TextColumn("{task.description}", markup=False), TextColumn("{task.fields[stage]}"), BarColumn(20)]
        columns += [MofNCompleteColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()]
        self.bars = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.all = self.bars.add_task("all packs", total=len(labels), stage="", loss="")

    def __enter__(self) -> Board:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def divide(self, packs: Sequence[str]) -> None:
        """The packs that are run, of which some are parts of those announced: ``PACK 1/2``."""
        whole = self.names
        self.names = {pack: ", part ".join([whole[pack.split()[0]], *pack.split()[1:]]) for pack in packs}
        self.bars.update(self.all, total=len(packs))

    def running(self, pack: str, stage: str = "", step: int = 0, total: int = 1, metrics: dict | None = None) -> None:
        """A pack has started, or says how far it is."""
        if pack not in self.busy:
            self.busy[pack] = self.bars.add_task(self.names[pack], stage="", loss="")
            self.started[pack] = time.monotonic()
        losses = [f"loss {value:.3f}" for name, value in (metrics or {}).items() if name.endswith("_loss")]
        self.bars.update(self.busy[pack], completed=step, total=max(1, total), stage=stage, loss=" ".join(losses[-1:]))
        if not self.console.is_terminal and time.monotonic() - self.spoke > HEARTBEAT:
            self.spoke = time.monotonic()
            parts = [task for task in self.bars.tasks if task.id != self.all]
            self._line("; ".join(f"{t.description}: {t.fields['stage']} {t.completed:g}/{t.total:g}" for t in parts))

    def waiting(self, pack: str) -> None:
        """A pack is not run here for now: another process is at work on it."""
        self.started.pop(pack, None)
        if pack in self.busy:
            self.bars.remove_task(self.busy.pop(pack))

    def finished(self, pack: str, rows: Sequence[dict[str, Any]]) -> None:
        """A pack is over; its rows say how it went."""
        ran = f"{time.monotonic() - self.started[pack]:.0f} s" if pack in self.started else "elsewhere"
        self.waiting(pack)
        self.over += 1
        self.bars.update(self.all, completed=self.over)
        failed = [row for row in rows if row["status"] != "ok"]
        if failed:
            self.say(f"failed {self.names[pack]}: {failed[0].get('reason', '')}", style="red")
        else:
            cost, value = mean_of(rows, "normalized_cost"), mean_of(rows, "normalized_return")
            self._line(f"{self.names[pack]}: cost {cost}, return {value} ({ran})")

    def say(self, text: str, style: str = "") -> None:
        """A line above the bars."""
        self.console.print(Text(text, style=style))

    def _line(self, text: str) -> None:
        self.say(f"[{self.over}/{len(self.names)}] {text}")


def mean_of(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """The mean over finished rows, as text."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return f"{sum(values) / len(values):.2f}" if values else ""
