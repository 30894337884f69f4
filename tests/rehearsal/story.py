"""What happened in a rehearsal, as it was seen, and its telling in Markdown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

#: Who takes memory, in the order of the report.
KINDS = ("driver", "MLflow writer", "workers", "Ray")
#: Lines of the table of memory.
LINES = 15


class Look(NamedTuple):
    """One look at a job that runs."""

    when: float
    """Unix time in seconds."""
    submission: int
    done: float | None
    """Share of the steps that is committed, as the driver told last; None before it told any."""
    finished: int
    """Cells, likewise."""
    memory: dict[str, tuple[int, int]]
    """Kind of process -> how many, and their resident bytes."""


class Submission(NamedTuple):
    """One job, from the command to its end."""

    number: int
    started: float
    """Unix time in seconds, as `ended`."""
    ended: float
    stopped: bool
    code: int
    """Exit code of the command."""
    said: str


@dataclass
class Story:
    """A rehearsal."""

    outputs: Path
    few: bool
    """Whether it is of some cells only."""
    looks: list[Look] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    package: tuple[int, int] = (0, 0)
    """Files, and their bytes, that Ray took of the working directory."""

    def look(self, number: int, done: float | None, finished: int, memory: dict[str, tuple[int, int]]) -> None:
        """Note what is to be seen now."""
        self.looks.append(Look(time.time(), number, done, finished, memory))

    def ended(self, number: int, started: float, stopped: bool, code: int, said: str) -> None:
        """Note the end of a job."""
        self.submissions.append(Submission(number, started, time.time(), stopped, code, said))

    @property
    def working(self) -> list[Submission]:
        """The submissions that had something to do: all but the last."""
        return self.submissions[:-1]

    @property
    def seconds(self) -> float:
        """From the first command to the end of the last that had something to do."""
        return self.working[-1].ended - self.working[0].started


class Finding(NamedTuple):
    """One thing that must be so."""

    what: str
    right: bool
    seen: str


def report(story: Story, findings: Sequence[Finding], curve: Sequence[tuple[str, float]]) -> str:
    """Tell a rehearsal in Markdown.

    Args:
        story: what happened.
        findings: what was checked.
        curve: (which finished cell, share of the time at which it finished).
    """
    wrong = sum(not each.right for each in findings)
    what = "36 of the 12,960 cells" if story.few else "12,960 cells"
    lines = [
        "# full.yaml, rehearsed",
        "",
        f"Written by `make rehearse-full` on {time.strftime('%d %B %Y')}: {what} of `sweeps/full.yaml` by",
        f"`ray job submit`, with tiny random models and two logical GPUs on {os.cpu_count()} cores"
        f" (Python {platform.python_version()}).",
        f"{story.seconds / 60:.1f} minutes;"
        f" {f'{wrong} of {len(findings)} checks failed' if wrong else f'all {len(findings)} checks passed'}.",
        "",
        "| check | | seen |",
        "|---|---|---|",
        *(f"| {each.what} | {'ok' if each.right else '**wrong**'} | {each.seen} |" for each in findings),
        "",
        "| submission | minutes | ended |",
        "|---|---|---|",
        *(
            f"| {each.number} | {(each.ended - each.started) / 60:.1f} | "
            f"{'by `ray job stop`, ' if each.stopped else ''}exit code {each.code} |"
            for each in story.submissions
        ),
        "",
        "| finished cells | share of the time from the first step on |",
        "|---|---|",
        *(f"| {which} | {share:.0%} |" for which, share in curve),
        "",
        "Resident memory in MB (shared pages are counted in every process), and how many workers there were:",
        "",
        f"| minutes | submission | steps | cells | {' | '.join(KINDS)} |",
        f"|---|---|---|---|{'---|' * len(KINDS)}",
        *(_memory_line(look, story.submissions[0].started) for look in _spread(story.looks)),
        "",
    ]
    return "\n".join(lines)


def _spread(looks: Sequence[Look]) -> list[Look]:
    if len(looks) <= LINES:
        return list(looks)
    return [looks[round(number * (len(looks) - 1) / (LINES - 1))] for number in range(LINES)]


def _memory_line(look: Look, start: float) -> str:
    taken = []
    for kind in KINDS:
        count, resident = look.memory.get(kind, (0, 0))
        taken.append(f"{resident / 1e6:.0f}{f' ({count})' if kind == 'workers' else ''}" if count else "")
    done = "" if look.done is None else f"{look.done:.0%}"
    finished = "" if look.done is None else f"{look.finished:,}"
    return f"| {(look.when - start) / 60:.1f} | {look.submission} | {done} | {finished} | {' | '.join(taken)} |"
