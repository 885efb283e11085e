"""The live table of a run: what trains, how far it is, what has come out. Plain lines where there is no terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHOWN = 24  # rows of the live table: running packs first, then the newest results
HEARTBEAT = 30.0  # seconds between lines where there is no terminal


@dataclass
class PackState:
    """What is known of one pack."""

    label: dict[str, str]  # column -> text: task, method, the settings that vary, seeds
    status: str = "waiting"  # waiting, running, ok, failed
    stage: str = ""
    step: int = 0
    total: int = 1
    metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    started: float = math.nan
    ended: float = math.nan


def mean_of(rows: Sequence[dict[str, Any]], name: str) -> str:
    """The mean over finished rows, as text."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{sum(values) / len(values):.2f}" if values else ""


class Board:
    """Draws the packs of a run; a context manager. All methods are called from the driver alone."""

    def __init__(self, labels: dict[str, dict[str, str]], console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.packs = {pack: PackState(label) for pack, label in labels.items()}
        self.columns = list(dict.fromkeys(name for label in labels.values() for name in label))
        self.began = self.spoke = time.monotonic()
        self.live = Live(console=self.console, refresh_per_second=2, transient=True, get_renderable=self.render)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def running(self, pack: str, stage: str = "", step: int = 0, total: int = 1, metrics: dict | None = None) -> None:
        """A pack has started, or says how far it is."""
        state = self.packs[pack]
        if state.status != "running":
            state.status, state.started = "running", time.monotonic()
        state.stage, state.step, state.total = stage, step, max(1, total)
        state.metrics.update(metrics or {})
        self.heartbeat()

    def waiting(self, pack: str) -> None:
        """A pack is not run here for now: another process is at work on it."""
        self.packs[pack].status, self.packs[pack].started = "waiting", math.nan

    def say(self, text: str) -> None:
        """A line above the table."""
        self.console.print(text, highlight=False)

    def finished(self, pack: str, rows: Sequence[dict[str, Any]]) -> None:
        """A pack is over; its rows say how it went."""
        state = self.packs[pack]
        state.rows, state.ended = list(rows), time.monotonic()
        failed = [row for row in rows if row["status"] != "ok"]
        state.status = "failed" if failed else "ok"
        name = " ".join(state.label.values())
        if failed:
            self.console.print(f"[red]failed[/] {name}: {failed[0].get('reason', '')}", highlight=False)
        elif not self.console.is_terminal:
            cost, value = mean_of(rows, "normalized_cost"), mean_of(rows, "normalized_return")
            ran = "elsewhere" if math.isnan(state.started) else f"{state.ended - state.started:.0f} s"
            self.console.print(f"{self.counts()} {name}: cost {cost}, return {value} ({ran})", highlight=False)

    def counts(self) -> str:
        """How many packs are over."""
        over = sum(state.status in ("ok", "failed") for state in self.packs.values())
        return f"[{over}/{len(self.packs)}]".replace("[", "\\[")

    def heartbeat(self) -> None:
        """A line now and then for logs."""
        if not self.console.is_terminal and time.monotonic() - self.spoke > HEARTBEAT:
            self.spoke = time.monotonic()
            busy = [
                f"{' '.join(state.label.values())}: {state.stage} {state.step}/{state.total}"
                for state in self.packs.values()
                if state.status == "running"
            ]
            self.console.print(f"{self.counts()} {'; '.join(busy)}", highlight=False)

    def render(self) -> Group:
        """The table as it stands."""
        order = {"running": 0, "failed": 1, "ok": 2, "waiting": 3}
        states = sorted(self.packs.values(), key=lambda s: (order[s.status], -s.ended if s.ended == s.ended else 0))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in (*self.columns, "stage", "progress", "loss", "cost", "return", "AUROC", "time"):
            table.add_column(
                column, justify="right" if column in ("loss", "cost", "return", "AUROC", "time") else "left"
            )
        for state in states[:SHOWN]:
            table.add_row(*self._cells(state))
        over = sum(state.status in ("ok", "failed") for state in self.packs.values())
        failed = sum(state.status == "failed" for state in self.packs.values())
        elapsed = time.monotonic() - self.began
        summary = f"{over}/{len(self.packs)} packs, {failed} failed, {elapsed / 60:.1f} min"
        if over:
            summary += f", about {elapsed / over * (len(self.packs) - over) / 60:.0f} min to go"
        more = len(states) - SHOWN
        return Group(Text(summary + (f" ({more} more not shown)" if more > 0 else ""), style="bold"), table)

    def _cells(self, state: PackState) -> list[Any]:
        label = [state.label.get(column, "") for column in self.columns]
        if state.status == "running":
            loss = next((v for k, v in reversed(state.metrics.items()) if k.endswith("_loss")), math.nan)
            bar = ProgressBar(total=state.total, completed=state.step, width=20)
            seconds = f"{time.monotonic() - state.started:.0f} s"
            return [*label, state.stage, bar, "" if math.isnan(loss) else f"{loss:.3f}", "", "", "", seconds]
        style = {"failed": "red", "waiting": "dim"}.get(state.status, "")
        results = [mean_of(state.rows, name) for name in ("normalized_cost", "normalized_return", "auroc")]
        seconds = f"{state.ended - state.started:.0f} s" if state.ended == state.ended else ""
        return [Text(cell, style=style) for cell in (*label, state.status, "", "", *results, seconds)]
