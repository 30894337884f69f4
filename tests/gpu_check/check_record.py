"""What checks find: each finding is written down at once, so that it survives a process that crashes later."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

#: Why a finding about a GPU is missing on a machine without one.
NO_DEVICE = "no CUDA device here"


class Outcome(StrEnum):
    """How something that was looked at turned out."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Figure:
    """A number that was measured."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    name: str
    outcome: Outcome
    note: str = ""
    """What was seen; why it failed or was skipped."""
    figures: tuple[Figure, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Record:
    """The findings of one check, a line of JSON each."""

    def __init__(self, file: Path, check: str) -> None:
        self._file = file
        self._check = check

    def ok(self, name: str, note: str = "", figures: Iterable[Figure] = ()) -> None:
        """Note that something is as it must be."""
        self._write(name, Outcome.OK, note, figures)

    def failed(self, name: str, why: str, figures: Iterable[Figure] = ()) -> None:
        """Note that something is not as it must be."""
        self._write(name, Outcome.FAILED, why, figures)

    def skipped(self, name: str, why: str) -> None:
        """Note that something was not looked at."""
        self._write(name, Outcome.SKIPPED, why)

    def expect(self, name: str, holds: bool, note: str, figures: Iterable[Figure] = ()) -> None:
        """Note whether something holds; `note` says what was seen beside what was expected."""
        self._write(name, Outcome.OK if holds else Outcome.FAILED, note, figures)

    def _write(self, name: str, outcome: Outcome, note: str, figures: Iterable[Figure] = ()) -> None:
        finding = Finding(self._check, name, outcome, note, tuple(figures))
        with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(finding.as_json()) + "\n")


def read_findings(file: Path) -> list[Finding]:
    """Read the findings of a check; none if it wrote none. A line that its process was writing when it died is left."""
    if not file.is_file():
        return []
    findings = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        figures = tuple(Figure(**each) for each in read.pop("figures"))
        findings.append(Finding(**read | {"outcome": Outcome(read["outcome"]), "figures": figures}))
    return findings
