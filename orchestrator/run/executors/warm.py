"""Tracks which worker process holds which model, so that steps of a model run where it is loaded already.

Pure bookkeeping without Ray: `start` and `end` start and stop a process.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.run.executors import NO_TURNS, Slot

#: Seconds after which an idle process is ended.
IDLE_LIMIT = 60.0
#: The same if other steps wait for its resources. Not 0: the next step is often ready in a moment, and starting a
#: process and loading a model takes longer.
CROWDED_LIMIT = 1.0
#: Maximal bundles per process: the one it runs, and the next, so that it need not wait for the driver.
_BUNDLES = 2
#: Bundles for each process, with one more, for which that one loads a model, even if it drops one that it has work for.
#: Measured in `decisions/0022-depth-where-it-is-free.md`.
WORTH_A_LOAD = 12


@dataclass(eq=False, slots=True)
class Worker:
    """A process that keeps the model that it loaded last."""

    shape: Any
    """Resources that it holds."""
    process: Any
    """Handle of the process, as `start` returned it."""
    model: str
    bundles: int = 0
    """Bundles that it was given and that have not ended."""
    idle_since: float = 0.0
    """Time of the clock, in seconds."""


class WarmWorkers:
    """The processes of one driver for steps that load a model."""

    def __init__(
        self, start: Callable[[Any], Any], end: Callable[[Any], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without processes.

        Args:
            start: starts a process with the resources of a shape.
            end: ends a process.
            clock: returns the time in seconds.
        """
        self._start = start
        self._end = end
        self._clock = clock
        self.workers: list[Worker] = []

    def find_slot(
        self, shape: Hashable, ready: Mapping[str, int], slots: int, turns: Mapping[str, int] = NO_TURNS
    ) -> Slot | None:
        """Choose a process and a model for the next bundle; return None while all processes are busy.

        A process continues with its model as long as there is work for it, unless enough of an earlier turn waits to be
        worth a load. If there is none, it takes the first model in turn that is worth one; then any that no process
        holds, and only then one of another process: loading it again costs less than an idle core.

        Args:
            shape: the resources of the steps.
            ready: model -> number of bundles that its ready steps make, in the order in which models are wanted.
            slots: number of such processes that fit the cluster.
            turns: model -> turn of its first ready step.
        """
        mine = [worker for worker in self.workers if worker.shape == shape]
        idle = [worker for worker in mine if not worker.bundles]
        held = Counter(worker.model for worker in mine)
        # Of the same turn first what no process holds.
        worth = sorted(
            (
                model
                for model in ready
                if ready[model] >= WORTH_A_LOAD * (held[model] + 1) and (turns or not held[model])
            ),
            key=lambda model: (turns.get(model, 0), held[model]),
        )

        def goes_on(worker: Worker) -> bool:
            own = turns.get(worker.model, 0)
            return worker.model in ready and not any(turns.get(model, 0) < own for model in worth)

        for worker in idle:
            if goes_on(worker):
                return Slot(worker.model, worker)
        if idle or len(mine) < slots:
            new = next(iter(worth), None) or next((model for model in ready if not held[model]), None)
            most = max(ready, key=lambda model: ready[model])
            # A single bundle ends sooner on the process that holds its model.
            model = new or (most if ready[most] > 1 else None)
            if model:
                # Better one more process than one that drops a model which may be needed again.
                free = None if len(mine) < slots else min(idle, key=lambda worker: worker.idle_since)
                return Slot(model, free)
        for worker in mine:
            if goes_on(worker) and worker.bundles < _BUNDLES:
                return Slot(worker.model, worker)
        return None

    def take(self, shape: Hashable, slot: Slot) -> Worker:
        """Count one more bundle for the process of a slot and return it; start it if there is none."""
        assert slot.model is not None, "only steps that load a model come here"
        worker: Worker | None = slot.worker
        if worker is None:
            worker = Worker(shape, self._start(shape), slot.model)
            self.workers.append(worker)
        worker.model = slot.model
        worker.bundles += 1
        return worker

    def ended(self, worker: Worker) -> None:
        """Note that a bundle of a process ended."""
        worker.bundles -= 1
        worker.idle_since = self._clock()

    def lost(self, worker: Worker) -> None:
        """Remove a process that died or was ended."""
        if worker in self.workers:
            self.workers.remove(worker)

    def retire(self, crowded: bool) -> None:
        """End processes that have been idle for `IDLE_LIMIT` seconds, for `CROWDED_LIMIT` if others need resources."""
        limit = CROWDED_LIMIT if crowded else IDLE_LIMIT
        for worker in list(self.workers):
            if not worker.bundles and self._clock() - worker.idle_since > limit:
                self.workers.remove(worker)
                self._end(worker.process)
