"""What happened where and when, read from the trace that the stages of `placed` leave."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Span:
    """One call of a stage; times in Unix seconds."""

    sweep: str
    entry: str
    value: float
    label: str
    node: str
    device: str | None
    begin: float
    end: float | None = None
    """None while it runs, and for ever if its process was killed."""
    failed: bool = False

    @property
    def step(self) -> tuple[str, str, float, str]:
        """What is the same in each call for one step."""
        return self.sweep, self.entry, self.value, self.label

    def covers(self, time: float) -> bool:
        """Tell whether it ran then."""
        return self.begin <= time and (self.end is None or time < self.end)


def read_spans(trace: Path, entry: str | None = None, sweep: str | None = None) -> list[Span]:
    """The calls so far, of all entries or one, in order of their beginnings."""
    spans: list[Span] = []
    running: dict[int, Span] = {}
    for line in trace.read_text().splitlines() if trace.exists() else []:
        said = json.loads(line)
        event, time, process = said.pop("event"), said.pop("time"), said.pop("process")
        if event == "begin":
            running[process] = Span(**said, begin=time)
            spans.append(running[process])
        else:
            running[process].end, running[process].failed = time, event == "failure"
    wanted = [each for each in spans if entry in (None, each.entry) and sweep in (None, each.sweep)]
    return sorted(wanted, key=lambda each: each.begin)


def busy(spans: Iterable[Span], begin: float, end: float) -> float:
    """The mean number of calls at once between two times."""
    inside = (min(each.end or end, end) - max(each.begin, begin) for each in spans)
    return sum(max(each, 0.0) for each in inside) / (end - begin)


def at_once(spans: list[Span]) -> int:
    """The largest number of calls at once."""
    return max((sum(other.covers(each.begin) for other in spans) for each in spans), default=0)
