"""Which worker process holds which model: steps of one model follow each other where it is loaded already.

Pure bookkeeping without Ray: `start` and `end` make and stop a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.run.executors import Slot

#: Seconds after which a process that nobody gave anything to is ended.
IDLE_LIMIT = 60.0
#: The same if others wait for its resources. Not at once: the next step is often ready in a moment, and starting a
#: process and loading a model takes longer.
CROWDED_LIMIT = 1.0
#: Bundles that a process has at most: the one it runs, and the next, so that it need not wait for the driver.
_AHEAD = 2


@dataclass(eq=False, slots=True)
class Worker:
    """A process that keeps the model that it loaded last."""

    shape: Any
    """The resources that it holds."""
    process: Any
    model: str
    bundles: int = 0
    """Given to it and not ended yet."""
    idle_since: float = 0.0


class WarmWorkers:
    """The processes of one driver for steps that load a model."""

    def __init__(
        self, start: Callable[[Any], Any], end: Callable[[Any], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is started yet.

        Args:
            start: given a shape, starts a process.
            end: ends a process.
            clock: seconds.
        """
        self._start = start
        self._end = end
        self._clock = clock
        self.workers: list[Worker] = []

    def place(self, shape: Hashable, ready: Mapping[str, int], slots: int) -> Slot | None:
        """Where to run which model's next bundle; None while all are busy.

        A process goes on with its model as long as there is work for it. One that has none takes a model that nobody
        holds, and only when there is none helps another: that costs a load, but a core that waits costs more.

        Args:
            shape: the resources of the steps.
            ready: model -> how many of its steps could be run now.
            slots: how many such processes fit the cluster.
        """
        mine = [worker for worker in self.workers if worker.shape == shape]
        idle = [worker for worker in mine if not worker.bundles]
        for worker in idle:
            if worker.model in ready:
                return Slot(worker.model, worker)
        if idle or len(mine) < slots:
            held = {worker.model for worker in mine}
            new = next((model for model in ready if model not in held), None)
            most = max(ready, key=lambda model: ready[model])
            # A single step is sooner done by the process that holds its model.
            model = new or (most if ready[most] > 1 else None)
            if model:
                # Rather one more process than one that forgets a model which may be wanted again.
                free = None if len(mine) < slots else min(idle, key=lambda worker: worker.idle_since)
                return Slot(model, free)
        for worker in mine:
            if worker.model in ready and worker.bundles < _AHEAD:
                return Slot(worker.model, worker)
        return None

    def take(self, shape: Hashable, place: Slot) -> Worker:
        """The process at a place, started if there is none yet; it now has one bundle more."""
        assert place.model is not None, "only steps that load a model come here"
        worker: Worker | None = place.worker
        if worker is None:
            worker = Worker(shape, self._start(shape), place.model)
            self.workers.append(worker)
        worker.model = place.model
        worker.bundles += 1
        return worker

    def ended(self, worker: Worker) -> None:
        """A bundle came back."""
        worker.bundles -= 1
        worker.idle_since = self._clock()

    def lost(self, worker: Worker) -> None:
        """The process is gone."""
        if worker in self.workers:
            self.workers.remove(worker)

    def retire(self, crowded: bool) -> None:
        """End processes that have had nothing to do for a while; a short while if others wait for their resources."""
        limit = CROWDED_LIMIT if crowded else IDLE_LIMIT
        for worker in list(self.workers):
            if not worker.bundles and self._clock() - worker.idle_since > limit:
                self.workers.remove(worker)
                self._end(worker.process)
