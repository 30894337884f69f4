"""Where steps run: `inline` in this process, `ray_cluster` on Ray. One contract suite holds both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.attempt.request import Request
from orchestrator.types import Attempt, Runtime


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one more bundle."""

    model: str | None = None
    """Which of the models that were offered is to be worked on; None if the steps load none."""
    worker: Any = None
    """The executor's own note of where that is."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a bundle."""

    requests: tuple[Request, ...]
    attempts: tuple[Attempt, ...]
    """The tries that were made; a step without one was not begun, since a neighbour took the process with it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a sweep stands, in numbers."""

    steps: Mapping[str, Mapping[str, int]]
    """Entry -> state -> how many steps."""
    cells: Mapping[str, int]
    """Status -> how many cells."""
    failures: Mapping[tuple[str, str], int]
    """(Entry, error class) -> how many steps ended like that and were not made good since."""


class ExecutorLostError(Exception):
    """What runs the steps is gone for good; what was committed is kept, and the same command goes on."""


class Executor(Protocol):
    """Runs bundles of attempts; keeps no truth."""

    cpus: float
    """CPU cores there are, for estimates."""
    bundle_seconds: float
    """How long a bundle of small steps should take, so that starting it costs little; 0 runs each step alone."""

    def slots(self, runtime: Runtime) -> int:
        """How many bundles of this kind can run at once."""

    def place(self, runtime: Runtime, ready: Mapping[str, int]) -> Slot | None:
        """Where one more bundle would keep the machines busy without piling up work; None if nowhere.

        Args:
            runtime: of the steps.
            ready: model -> how many steps that load it could be run now; empty for steps that load none.
        """

    def submit(self, requests: Sequence[Request], place: Slot) -> None:
        """Start a bundle where `place` said, or queue it; its steps have the same runtime and load the same model."""

    def wait(self, seconds: float) -> list[Ended]:
        """Bundles that ended, after waiting up to `seconds` for the first. Never raises for what a step did.

        Raises:
            ExecutorLostError: nothing can end any more.
        """

    def unschedulable(self) -> str | None:
        """What steps under way ask for and no machine has, so that they wait for one that does; None if nothing."""

    def usage(self) -> Mapping[str, tuple[float, float]]:
        """What is reserved of the machines: CPU, GPU, memory (bytes) -> (in use, in all); empty if nobody counts."""

    def publish(self, sweep: str, standing: Snapshot) -> None:
        """Show a cluster's monitoring where a sweep stands."""

    def stop(self) -> None:
        """Abandon what is running; the steps stay uncommitted and the same command runs them again."""
