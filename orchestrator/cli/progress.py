"""The live display of a run: per entry what is done, running, failed, and when it will be over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.explain.estimator import Estimator
from orchestrator.explain.eta import format_duration, format_eta_short, format_left
from orchestrator.explain.progress import progress_of
from orchestrator.plan.select import format_coords
from orchestrator.run.schedule import Schedule, State
from orchestrator.texts import plain_text
from orchestrator.types import Attempt, Outcome

#: Seconds between lines where there is no terminal to redraw, as in a Ray job's log.
_LINE_EVERY = 10.0
#: Seconds between two drawings of the table.
_DRAW_EVERY = 0.25
_BAR = 24
#: The states that have a column where a step is in one of them.
_SHOWN = (State.RUNNING, State.ELSEWHERE, State.FAILED, State.BLOCKED)


class Progress:
    """Shows a schedule while it is run; on a terminal as a live table, elsewhere as a line now and then."""

    def __init__(
        self, schedule: Schedule, console: Console, estimator: Estimator, may_come: Callable[[], int] = lambda: 0
    ) -> None:
        """Prepare to show a schedule, whose time left the estimator tells.

        Args:
            schedule: the steps.
            console: where to.
            estimator: tells the time left.
            may_come: tells how many cells the studies of a search may still add.
        """
        self._may_come = may_come
        self._schedule = schedule
        self._console = console
        self._estimator = estimator
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
                self._live.update(self.table(), refresh=True)
                self._live.stop()

    def advance(self, attempt: Attempt | None) -> None:
        """Say why an attempt that ended did not succeed, and redraw if it is time."""
        if attempt and attempt.outcome is not Outcome.SUCCEEDED:
            self._console.print(
                Text.assemble((str(attempt.outcome), "red"), plain_text(f" {self._step(attempt)}: {_reason(attempt)}"))
            )
        now = time.monotonic()
        if self._live and now - self._drawn > _DRAW_EVERY:
            self._drawn = now
            self._live.update(self.table(), refresh=True)
        elif not self._live and now - self._last_line > _LINE_EVERY:
            self._last_line = now
            self._console.print(Text(self._line()))

    def table(self) -> RenderableType:
        """Draw where each entry stands: a line of columns where the console is wide enough, else words that wrap."""
        counts = self._schedule.counts()
        left = {name: format_eta_short(eta) for name, eta in self._estimator.etas().items()}
        unlimited = self._console.options.update(max_width=10_000)
        for table in (_columns(counts, left, bar=True), _columns(counts, left, bar=False)):
            if Measurement.get(self._console, unlimited, table).maximum <= self._console.width:
                break
        else:
            table = _words(counts, left)
        left_of_all = format_left(self._estimator.eta(), self._may_come())
        line = f"{format_duration(time.monotonic() - self._started)}, {left_of_all}"
        # The console would cut it: it leaves wrapping to the terminal, and a live display may not.
        return Group(table, Text(line, no_wrap=False, overflow="fold"))

    def _line(self) -> str:
        progress = progress_of(self._schedule, self._estimator.eta(), self._may_come())
        return f"{format_duration(time.monotonic() - self._started)}  {progress}"

    def _step(self, attempt: Attempt) -> str:
        """Name a step as people do: by its entry and coordinates."""
        plan = self._schedule.plan
        number = plan.number(attempt.address)
        assert number is not None, "only steps of this plan are run"
        shard = f" shard {plan.shard[number] + 1} of {plan.size[number]}" if plan.size[number] > 1 else ""
        return f"{plan.entry_of(number)} {format_coords(plan.coords(number))}".strip() + shard


def _columns(counts: Mapping[str, Mapping[State, int]], left: Mapping[str, str], bar: bool) -> Table:
    """One column for each state that a step is in."""
    shown = [state for state in _SHOWN if any(each[state] for each in counts.values())]
    table = _table()
    if bar:
        table.add_column("", width=_BAR)
    for heading in ("done", *map(str, shown), "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, each in counts.items():
        total = max(sum(each.values()), 1)
        bars = [ProgressBar(total=total, completed=each[State.COMMITTED], width=_BAR)] if bar else []
        table.add_row(name, *bars, _done(each), *(_count(state, each[state]) for state in shown), left[name])
    return table


def _words(counts: Mapping[str, Mapping[State, int]], left: Mapping[str, str]) -> Table:
    """One column for all states: "32 running, 12 failed"."""
    table = _table()
    table.add_column("done", justify="right", overflow="fold")
    table.add_column("left", overflow="fold")
    table.add_column("now", overflow="fold")
    for name, each in counts.items():
        states = [_count(state, each[state], f" {state}") for state in _SHOWN if each[state]]
        table.add_row(name, _done(each), left[name], Text(", ").join(states))
    return table


def _table() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    # The name of an entry is never cut: where there is no room for it, it goes on in the next line.
    table.add_column("stage", overflow="fold")
    return table


def _done(counts: Mapping[State, int]) -> str:
    return f"{counts[State.COMMITTED]:,}/{sum(counts.values()):,}"


def _count(state: State, count: int, word: str = "") -> Text:
    return Text(f"{count:,}{word}", style="bold red" if state is State.FAILED else "") if count else Text()


def _reason(attempt: Attempt) -> str:
    """Say why a step did not succeed, on one line."""
    first = (attempt.error or "").partition("\n")[0][:160]
    # Elsewhere the class only repeats the outcome.
    return f"{attempt.error_class}: {first}" if attempt.outcome is Outcome.FAILED else first
