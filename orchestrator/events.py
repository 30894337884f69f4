"""The events of a run, which `drive` reports in the order in which they happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from orchestrator.explain.estimator import Estimator
from orchestrator.explain.other_code import OtherCode
from orchestrator.results.study_watch import StudyWatch
from orchestrator.search.trial import Study
from orchestrator.tracking.publisher import Delivered
from orchestrator.types import Attempt


@dataclass(frozen=True, slots=True)
class DamageFound:
    """A committed artifact is damaged; it was set aside and is made again."""

    damage: str
    """The artifact and what is wrong with it, for people."""


@dataclass(frozen=True, slots=True)
class MadeByOtherCode:
    """Committed steps have today's version, but other code made them."""

    found: OtherCode


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """All requested steps are committed already."""

    unfinished: int
    """Number of cells that were not chosen and are not finished."""


@dataclass(frozen=True, slots=True)
class Started:
    """There are steps to run; the executor is being started."""

    cells: int
    """Number of chosen cells."""
    steps: int
    """Number of steps to run."""
    studies: int = 0
    """Number of studies of a search that are not finished."""
    may_come: int = 0
    """Number of cells that these may add at most."""


@dataclass(frozen=True, slots=True)
class LoopStarted:
    """The first steps are about to start; the session's schedule and the estimator are up to date from now on."""

    estimator: Estimator
    watch: StudyWatch
    """Tells which studies of a search are not finished."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """An attempt ended, or none did for half a second."""

    attempt: Attempt | None
    """The attempt that ended; None if there is none."""


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """All trials of a study have ended."""

    study: Study


@dataclass(frozen=True, slots=True)
class StageBroken:
    """The breaker stopped an entry."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """Steps wait because no node has the resources that they request."""

    resources: str
    """The requested resources, e.g. "4 CPUs, 1 GPUs"."""


@dataclass(frozen=True, slots=True)
class Troubled:
    """Something other than a step fails, or works again; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True)
class MlflowDelayed:
    """Publishing to MLflow or writing the outbox fails; it is tried again later."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """No further step is started; those that run go on."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoopEnded:
    """The loop ended: no step is running any more."""

    how: Literal["done", "stopped", "interrupted", "lost"]
    reason: str = ""
    """Reason why no further steps were started or why the executor was lost; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """MLflow has `done` of `total` runs; the total is 0 until they are counted."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Published:
    """Publishing to MLflow ended, completely or not."""

    delivered: Delivered
    runs: int
    """Number of runs in all; `delivered.left` of them are not published yet."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over."""

    table: pa.Table
    """One row per cell of the sweep."""
    summary: pa.Table | None
    """The means that the sweep file asks for, of a search the best trials; None if there are none."""
    written: bool
    """Whether `results.parquet` holds the table."""
    exit_code: int
    ended_early: bool
    """Whether a signal ended the run."""
    studies: Sequence[Study] = ()
    """The chosen studies of a search, as they are now."""


Event = (
    DamageFound | MadeByOtherCode | NothingToDo | Started | LoopStarted | Progressed | StudyEnded | StageBroken
    | Unschedulable | Troubled | MlflowDelayed | Stopping | LoopEnded | Publishing | Published | Finished
)  # fmt: skip


def warning(event: Event) -> str | None:
    """Return what people should know of an event although the run goes on: a sentence, or None."""
    match event:
        case DamageFound(damage):
            return f"{damage}; it is made again"
        case StageBroken(_, reason):
            return reason
        case Unschedulable(resources):
            return f"no node of the cluster has {resources}; steps wait until one joins"
        case Troubled(message):
            return message
        case MlflowDelayed(reason):
            return f"{reason}; the sweep goes on, MLflow gets its runs later"
    return None
