"""The live display of a run: per entry what is done, running, failed, and when it will be over."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.explain.eta import Pace, spell_left, spell_seconds
from orchestrator.plan.select import spell_coords
from orchestrator.run.schedule import Schedule, State
from orchestrator.types import Attempt, Outcome

#: Seconds between lines where there is no terminal to redraw, as in a Ray job's log.
_LINE_EVERY = 10.0


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
        with contextlib.suppress(OSError):
            if self._live:
                self._live.update(self._table(), refresh=True)
                self._live.stop()

    def advance(self, attempt: Attempt | None) -> None:
        """Take in an attempt that ended, and redraw if it is time; a sweep does not end with its terminal."""
        if attempt and attempt.outcome is Outcome.SUCCEEDED:
            self._pace.ended(attempt.entry, self._schedule.likeness.kind(self._number(attempt)), attempt.seconds)
        with contextlib.suppress(OSError):
            self._show(attempt)

    def _number(self, attempt: Attempt) -> int:
        number = self._schedule.plan.number(attempt.address)
        assert number is not None, "only steps of this plan are run"
        return number

    def _show(self, attempt: Attempt | None) -> None:
        if attempt and attempt.outcome is not Outcome.SUCCEEDED:
            step = self._step(self._number(attempt))
            self._console.print(f"[red]{attempt.outcome}[/]", Text(f"{step}: {_reason(attempt)}"))
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
            f"running: {', '.join(busy) or 'nothing'}, {self._eta()}"
        )

    def _table(self) -> Group:
        counts, ahead = self._schedule.counts(), self._schedule.ahead()
        table = Table(box=None, padding=(0, 1))
        table.add_column("stage")
        table.add_column("", width=24)
        for name in ("done", "running", "elsewhere", "failed", "blocked", "left"):
            table.add_column(name, justify="right")
        for name, each in counts.items():
            total = sum(each.values())
            left = self._pace.left({name: ahead[name]})
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
        return Group(table, Text(f" {elapsed}, {self._eta()}"))

    def _step(self, number: int) -> str:
        """A step as people name it."""
        plan = self._schedule.plan
        shard = f" shard {plan.shard[number] + 1} of {plan.size[number]}" if plan.size[number] > 1 else ""
        return f"{plan.entry_of(number)} {spell_coords(plan.coords(number))}".strip() + shard

    def _eta(self) -> str:
        return spell_left(self._pace.left(self._schedule.ahead()))


def _reason(attempt: Attempt) -> str:
    """Why a step did not succeed, on one line."""
    first = (attempt.error or "").partition("\n")[0][:160]
    # Elsewhere the class only repeats the outcome.
    return f"{attempt.error_class}: {first}" if attempt.outcome is Outcome.FAILED else first
