"""What an examination finds: one fact, whether it is as a sweep needs it, and what to do if not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How good or bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """A sweep runs; something is slower, unsafer or less than it could be."""
    WRONG = "wrong"
    """A sweep fails, or what is promised of it does not hold."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact."""

    name: str
    """What was looked at, in a word or two."""
    state: State
    seen: str
    """What was seen there."""
    remedy: str = ""
    """What to do about it; empty if it is ok."""
    last: bool = False
    """Whether nothing else can be looked at where this was found."""


def ok(name: str, seen: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(name, State.OK, seen)


def warning(name: str, seen: str, remedy: str) -> Finding:
    """Return a finding with which a sweep runs, though not as well as it could."""
    return Finding(name, State.WARNING, seen, remedy)


def wrong(name: str, seen: str, remedy: str, last: bool = False) -> Finding:
    """Return a finding with which a sweep does not run, or not as promised."""
    return Finding(name, State.WRONG, seen, remedy, last)
