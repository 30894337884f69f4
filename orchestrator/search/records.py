"""What is recorded of a study, so that it can be made anew: its suggestions, what its sampler was told, its verdicts.

<store>/studies/<id>/study.json                what is searched for; for people, and to notice an edited search
<store>/studies/<id>/earlier.json              results that the study was told before its first trial
<store>/studies/<id>/<number>.json             a `Suggestion`: the values of a trial
<store>/studies/<id>/<number>.<step>.json      a `Verdict` of the pruner, after so many repetitions

Each is created exclusively and never changed, so that of two drivers with one study the slower takes what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.types import Scalar

#: How a trial ended, as its sampler is told.
Ended = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Told:
    """What a sampler is told of a trial that ended."""

    number: int
    state: Ended
    objectives: tuple[float, ...] = ()
    """One number for each metric of the objective, in its own direction; may be infinite where `null: worst` says so.
    Empty where the trial failed."""
    excesses: tuple[float, ...] = ()
    """By how much each constraint is broken; at most 0 where it is kept."""
    steps: tuple[float, ...] = ()
    """What the pruner was told after each repetition; empty without a pruner."""
    why: str = ""
    """The outcome or error class of a failed trial."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A result of another sweep that a study is told before its first trial."""

    values: Mapping[str, Scalar]
    objectives: tuple[float, ...]
    excesses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The values of a trial, and what its sampler was told before it beyond what earlier suggestions say."""

    number: int
    values: Mapping[str, Scalar]
    """Field -> the chosen value; of choices the label. Fields that do not exist in this trial are left out."""
    told: tuple[Told, ...] = ()
    """In order of the numbers."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Optuna's system attributes of the trial, which some samplers need to go on."""
    origin: str = ""
    """`defaults` or `start` where the sweep file asked for the trial; empty where the sampler did."""
    made: float = 0.0
    """When it was suggested, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pruner said of a trial after some of its repetitions."""

    number: int
    step: int
    """How many repetitions were known, less one."""
    prune: bool
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Optuna's system attributes of the trial that changed by it."""
