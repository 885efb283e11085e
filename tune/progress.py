"""The live table of a run: what trains, how far it is, what has come out. Plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHOWN = 24  # rows of the live table: running packs first, then the newest results
HEARTBEAT = 30.0  # seconds between lines where there is no terminal
ORDER = ("running", "failed", "ok", "waiting")
RESULTS = {"cost": "normalized_cost", "return": "normalized_return", "AUROC": "auroc"}  # column -> of the rows


@dataclass
class PackState:
    """What is known of one pack."""

    label: dict[str, str]  # column -> text: task, method, the settings that vary, seeds
    status: str = "waiting"  # waiting, running, ok, failed
    stage: str = ""
    step: int = 0
    total: int = 1
    loss: str = ""  # the newest reported
    rows: Sequence[dict[str, Any]] = ()
    started: float | None = None
    ended: float | None = None

    @property
    def name(self) -> str:
        """Its label as a line."""
        return " ".join(self.label.values())

    @property
    def seconds(self) -> str:
        """How long it has run; empty where it has not run here."""
        if self.started is None:
            return ""
        return f"{(time.monotonic() if self.ended is None else self.ended) - self.started:.0f} s"

    def mean(self, metric: str) -> str:
        """The mean over its finished rows."""
        values = [row[metric] for row in self.rows if row.get(metric) is not None]
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
        for name, value in (metrics or {}).items():
            state.loss = f"{value:.3f}" if name.endswith("_loss") else state.loss
        if not self.console.is_terminal and time.monotonic() - self.spoke > HEARTBEAT:
            self.spoke = time.monotonic()
            busy = [state for state in self.packs.values() if state.status == "running"]
            self.line("; ".join(f"{state.name}: {state.stage} {state.step}/{state.total}" for state in busy))

    def waiting(self, pack: str) -> None:
        """A pack is not run here for now: another process is at work on it."""
        self.packs[pack].status, self.packs[pack].started = "waiting", None

    def say(self, text: str) -> None:
        """A line above the table."""
        self.console.print(text, highlight=False, markup=False)

    def finished(self, pack: str, rows: Sequence[dict[str, Any]]) -> None:
        """A pack is over; its rows say how it went."""
        state = self.packs[pack]
        state.rows, state.ended = list(rows), time.monotonic()
        failed = [row for row in rows if row["status"] != "ok"]
        state.status = "failed" if failed else "ok"
        if failed:
            self.say(f"failed {state.name}: {failed[0].get('reason', '')}")
        elif not self.console.is_terminal:
            cost, value = state.mean("normalized_cost"), state.mean("normalized_return")
            self.line(f"{state.name}: cost {cost}, return {value} ({state.seconds or 'elsewhere'})")

    def count(self, *statuses: str) -> int:
        """How many packs have one of these."""
        return sum(state.status in statuses for state in self.packs.values())

    def line(self, text: str) -> None:
        """A line that begins with how many packs are over."""
        self.say(f"[{self.count('ok', 'failed')}/{len(self.packs)}] {text}")

    def render(self) -> Group:
        """The table as it stands."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in (*self.columns, "stage", "progress"):
            table.add_column(column)
        for column in ("loss", *RESULTS, "time"):
            table.add_column(column, justify="right")
        states = sorted(self.packs.values(), key=lambda state: (ORDER.index(state.status), -(state.ended or 0.0)))
        for state in states[:SHOWN]:
            running = state.status == "running"
            style = {"failed": "red", "waiting": "dim"}.get(state.status, "")
            bar = ProgressBar(total=state.total, completed=state.step, width=20) if running else ""
            cells = [
                *(state.label.get(column, "") for column in self.columns),
                state.stage if running else state.status,
            ]
            results = [state.loss if running else "", *map(state.mean, RESULTS.values()), state.seconds]
            table.add_row(*(Text(c, style=style) for c in cells), bar, *(Text(c, style=style) for c in results))
        over, elapsed = self.count("ok", "failed"), (time.monotonic() - self.began) / 60
        summary = f"{over}/{len(self.packs)} packs, {self.count('failed')} failed, {elapsed:.1f} min"
        if over:
            summary += f", about {elapsed / over * (len(self.packs) - over):.0f} min to go"
        if len(states) > SHOWN:
            summary += f" ({len(states) - SHOWN} more not shown)"
        return Group(Text(summary, style="bold"), table)
