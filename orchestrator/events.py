"""What a run tells whoever watches it (`drive`), in the order in which it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from orchestrator.explain.estimator import Estimator
from orchestrator.tracking.publisher import Delivered
from orchestrator.types import Attempt


@dataclass(frozen=True, slots=True)
class DamageFound:
    """A finished artifact is damaged; it was set aside and is made again."""

    damage: str


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """All that was asked for is committed."""

    unfinished: int
    """Cells of the sweep that were not chosen and are not finished."""


@dataclass(frozen=True, slots=True)
class Started:
    """There are steps to run; the executor is being started."""

    cells: int
    steps: int


@dataclass(frozen=True, slots=True)
class LoopStarted:
    """The first steps are about to start. The session's schedule and the estimator are kept up to date from now on."""

    estimator: Estimator


@dataclass(frozen=True, slots=True)
class Progressed:
    """An attempt ended, or none did for half a second."""

    attempt: Attempt | None


@dataclass(frozen=True, slots=True)
class StageBroken:
    """The breaker stopped an entry."""

    entry: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """Steps wait since no node has what they ask for."""

    resources: str


@dataclass(frozen=True, slots=True)
class Troubled:
    """Something beside the steps fails, or works again; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True)
class MlflowDelayed:
    """MLflow, or the outbox, does not take what it is sent; it gets it later."""

    reason: str


@dataclass(frozen=True, slots=True)
class LoopEnded:
    """No step is running any more."""

    how: Literal["done", "stopped", "interrupted", "lost"]
    reason: str = ""
    """Why, if steps were stopped from starting or their executor is lost."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """MLflow has so many runs of those that it is to have; of 0 if they are not counted yet."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Published:
    """MLflow has what it takes."""

    delivered: Delivered
    runs: int
    """Runs that MLflow is to have; `delivered.left` of them wait."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over."""

    table: pa.Table
    """One row per cell of the sweep."""
    summary: pa.Table | None
    """The means that the sweep file asks for; None if no cell succeeded."""
    written: bool
    """Whether `results.parquet` holds the table."""
    exit_code: int
    ended_early: bool
    """By a signal."""


Event = (
    DamageFound | NothingToDo | Started | LoopStarted | Progressed | StageBroken | Unschedulable | Troubled
    | MlflowDelayed | LoopEnded | Publishing | Published | Finished
)  # fmt: skip
