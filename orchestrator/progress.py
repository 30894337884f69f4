"""The live display of a run: per entry what is done, running, failed, and when it will be over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.pace import Pace, spell_left, spell_seconds
from orchestrator.schedule import Schedule, State
from orchestrator.types import Attempt, Outcome

#: Seconds between lines where there is no terminal to redraw, as in a Ray job's log.
_LINE_EVERY = 10.0
_AHEAD = (State.PENDING, State.RUNNING, State.ELSEWHERE)


class Progress:
    """Shows a schedule while it is run; on a terminal as a live table, elsewhere as a line now and then."""

    def __init__(self, schedule: Schedule, console: Console, pace: Pace) -> None:
        """Show a schedule that goes on at a pace."""
        self._schedule = schedule
        self._console = console
        self._pace = pace
        self._started = time.monotonic()
        self._last_line = 0.0
        self._drawn = 0.0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def advance(self, attempt: Attempt | None) -> None:
        """Take in an attempt that ended, and redraw if it is time."""
        if attempt and attempt.outcome is Outcome.SUCCEEDED:
            self._pace.ended(attempt.entry, attempt.seconds)
        if attempt and attempt.outcome is not Outcome.SUCCEEDED:
            reason = f"{attempt.error_class}: {(attempt.error or '').splitlines()[0][:160]}"
            self._console.print(f"[red]{attempt.outcome}[/] {attempt.entry} {attempt.address.key[:8]} ", Text(reason))
        now = time.monotonic()
        if self._live and now - self._drawn > 0.25:
            self._drawn = now
            self._live.update(self._table(), refresh=True)
        elif not self._live and now - self._last_line > _LINE_EVERY:
            self._last_line = now
            self._console.print(self._line(), highlight=False)

    def _line(self) -> str:
        counts = self._schedule.counts()
        total = sum(sum(each.values()) for each in counts.values())
        done = sum(each[State.COMMITTED] for each in counts.values())
        failed = sum(each[State.FAILED] for each in counts.values())
        busy = [f"{name} {each[State.RUNNING]}" for name, each in counts.items() if each[State.RUNNING]]
        elsewhere = sum(each[State.ELSEWHERE] for each in counts.values())
        busy += [f"{elsewhere} by another driver"] if elsewhere else []
        return (
            f"{spell_seconds(time.monotonic() - self._started)}  {done}/{total} steps done, {failed} failed, "
            f"running: {', '.join(busy) or 'nothing'}, {self._eta(counts)}"
        )

    def _table(self) -> Group:
        counts = self._schedule.counts()
        table = Table(box=None, padding=(0, 1))
        table.add_column("stage")
        table.add_column("", width=24)
        for name in ("done", "running", "elsewhere", "failed", "blocked", "left"):
            table.add_column(name, justify="right")
        for name, each in counts.items():
            total = sum(each.values())
            left = self._pace.left({name: _ahead(each)})
            failed = Text(str(each[State.FAILED]), style="bold red" if each[State.FAILED] else "dim")
            table.add_row(
                name,
                ProgressBar(total=max(total, 1), completed=each[State.COMMITTED], width=24),
                f"{each[State.COMMITTED]}/{total}",
                str(each[State.RUNNING] or ""),
                str(each[State.ELSEWHERE] or ""),
                failed if each[State.FAILED] else "",
                str(each[State.BLOCKED] or ""),
                "?" if left.unknown else spell_seconds(left.high) if left.high else "",
            )
        elapsed = spell_seconds(time.monotonic() - self._started)
        return Group(table, Text(f" {elapsed}, about {self._eta(counts)}"))

    def _eta(self, counts: Mapping[str, Mapping[State, int]]) -> str:
        return spell_left(self._pace.left({name: _ahead(each) for name, each in counts.items()}))


def _ahead(counts: Mapping[State, int]) -> int:
    return sum(counts[state] for state in _AHEAD)
