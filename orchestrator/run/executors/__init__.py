"""Executors run steps: `inline` in this process, `child` in one beside it, `ray_cluster` on Ray; one suite for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from orchestrator.attempt.request import Request
from orchestrator.types import Attempt, Runtime

#: Where no step is wanted before others.
NO_TURNS: Mapping[str, int] = MappingProxyType({})


class Place(NamedTuple):
    """Where steps run, as far as one place may be sick while another is not."""

    node: str
    """Id of the node."""
    seat: int | None
    """Number of the seat there, which has a device to itself; None for steps that use no GPU."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one more bundle."""

    model: str | None = None
    """The model whose steps the bundle is to have; None if the steps load none."""
    worker: Any = None
    """The worker process that is to run it, in a form of the executor's own."""
    place: Place | None = None
    """Where it runs, if that is known before."""
    avoid: str | None = None
    """Id of a node that it is to keep away from, if its place is not known before."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A bundle that ended, with its attempts."""

    requests: tuple[Request, ...]
    attempts: tuple[Attempt, ...]
    """The attempts that were made; a step without one was not begun, because another ended the process."""
    place: Place | None = None
    """Where they were made, if that is known and there are others."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a sweep in numbers."""

    steps: Mapping[str, Mapping[str, int]]
    """Entry -> state -> number of steps."""
    cells: Mapping[str, int]
    """Status -> number of cells."""
    failures: Mapping[tuple[str, str], int]
    """(Entry, error class) -> number of steps whose last attempt failed like that."""


class ExecutorLostError(Exception):
    """The executor can run nothing any more; committed artifacts are kept, and the same command goes on."""


class Executor(Protocol):
    """The interface of executors, which run bundles of steps; only the store knows which steps are done."""

    bundle_seconds: float
    """Seconds that a bundle of small steps should take, so that starting it costs little; 0 runs each step alone."""

    @property
    def cpus(self) -> float:
        """CPU cores in all, for estimates."""

    def reserve(self, demand: Mapping[Runtime, int], soon: Mapping[Runtime, int]) -> None:
        """Keep room for steps that use GPUs, before slots are asked for: other steps must not take their cores.

        Args:
            demand: runtime -> number of bundles that are ready; the first come first.
            soon: runtime -> number of steps that may be ready when what runs now has ended.
        """

    def elsewhere(self, place: Place) -> bool:
        """Tell whether steps that ran at a place can run at another that is not sick."""

    def quarantine(self, place: Place, reason: str) -> None:
        """Give a place no more work until a probe succeeds there, or it is acquitted."""

    def acquit(self, place: Place) -> None:
        """Give a place work again."""

    def sick(self) -> Mapping[str, str]:
        """Return the places that get no work, as people call them -> why."""

    def slots(self, runtime: Runtime) -> int:
        """Return how many bundles with this runtime can run at once."""

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: Mapping[str, int] = NO_TURNS) -> Slot | None:
        """Find room for one more bundle, to keep the machines busy without long queues; return None if there is none.

        Args:
            runtime: how the steps are run.
            ready: model -> number of bundles that the ready steps make which load it, in the order in which models are
                wanted; empty for steps that need no process that keeps its model.
            turns: model -> turn of the first of these steps (`orchestrator.plan.needed.turns`).
        """

    def submit(self, requests: Sequence[Request], slot: Slot) -> None:
        """Start or queue a bundle in a slot; its steps have the same runtime and load the same model.

        Where the place of the slot is unknown, the bundle keeps away from the node that `slot.avoid` names.
        """

    def wait(self, seconds: float) -> list[Ended]:
        """Wait up to `seconds` for a bundle to end; return all that ended. Errors of steps are never raised.

        Raises:
            ExecutorLostError: no bundle can end any more.
        """

    def unschedulable(self) -> str | None:
        """Return the resources that submitted steps request and no machine has; None if all can be scheduled."""

    def silent(self) -> list[str]:
        """Return a sentence on each step that was found to hang since the last call."""

    def usage(self) -> Mapping[str, tuple[float, float]]:
        """Return the reserved resources: CPU, GPU, memory (bytes) -> (in use, total); empty if unknown."""

    def publish(self, sweep: str, snapshot: Snapshot) -> None:
        """Publish the progress of a sweep to the cluster's monitoring."""

    def stop(self) -> None:
        """Abandon the running steps; they stay uncommitted, and the same command runs them again."""


class Unwatched:
    """What executors have in common beside which no monitoring runs."""

    def unschedulable(self) -> str | None:
        """Return None: every step can run."""
        return None

    def silent(self) -> list[str]:
        """Return []: nobody watches the steps."""
        return []

    def usage(self) -> Mapping[str, tuple[float, float]]:
        """Return {}: nothing is reserved."""
        return {}

    def publish(self, sweep: str, snapshot: Snapshot) -> None:
        """Do nothing: there is no monitoring."""


class OnePlace(Unwatched):
    """What executors have in common for which no place is sick while another is not."""

    def reserve(self, demand: Mapping[Runtime, int], soon: Mapping[Runtime, int]) -> None:
        """Do nothing: there is one place, for one step after another."""

    def elsewhere(self, place: Place) -> bool:
        """Return False: there is one place."""
        return False

    def quarantine(self, place: Place, reason: str) -> None:
        """Do nothing: there is one place."""

    def acquit(self, place: Place) -> None:
        """Do nothing: no place is ever sick."""

    def sick(self) -> Mapping[str, str]:
        """Return {}: there is one place."""
        return {}
