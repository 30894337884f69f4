"""MLflow in memory: a third backend beside its database and its server, and the process that writes to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faults import Faults
from world import Actor, Thread, World

from orchestrator.tracking import writer
from orchestrator.tracking.backend import Found, found_by_tags, tags_of
from orchestrator.tracking.experiment import Experiment
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.publisher import Delivered
from orchestrator.tracking.runs import Run
from orchestrator.tracking.sync import Sync

if TYPE_CHECKING:
    from history import History


@dataclass
class Stored:
    """A run that MLflow has."""

    tags: dict[str, str]
    metrics: dict[str, float]
    status: str


class Tracker:
    """The runs of one experiment. It answers as slowly, and as badly, as the faults have it."""

    batch = 3

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.runs: dict[str, Stored] = {}
        self._ids = itertools.count(1)

    def _act(self, what, do, critical=False):  # type: ignore[no-untyped-def]
        def broken(_: float = 0.0) -> Exception:
            return ConnectionError("MLflow does not answer")

        return self.faults.act("mlflow", what, do, broken, broken, critical)

    def find(self, ids: Sequence[str] | None) -> list[Found]:
        def do() -> list[Found]:
            found = [found_by_tags(run, each.status, each.tags) for run, each in self.runs.items()]
            return [each for each in found if ids is None or each.id in ids]

        return self._act("asks MLflow for runs", do)  # type: ignore[no-any-return]

    def write(self, runs: Sequence[tuple[Run, str | None]]) -> Iterator[tuple[Run, str | Exception]]:
        for run, parent in runs:
            id_ = f"run{next(self._ids)}"

            def begin(id_: str = id_, run: Run = run, parent: str | None = parent) -> None:
                self.runs[id_] = Stored(tags_of(run, parent), dict(run.metrics), "RUNNING")

            def end(id_: str = id_) -> None:
                self.runs[id_].status = "FINISHED"

            try:
                self._act(f"begins {run.id} in MLflow", begin, True)
                self._act(f"ends {run.id} in MLflow", end, True)
            except ConnectionError as error:
                yield run, error
            else:
                yield run, id_

    def delete(self, runs: Sequence[str]) -> None:
        for run in runs:
            self._act(f"deletes {run} of MLflow", lambda run=run: self.runs.pop(run, None))

    # --- what of the client is used

    def set_terminated(self, run: str, status: str) -> None:
        self._act(f"ends {run} in MLflow", lambda: setattr(self.runs[run], "status", status))


class TrackerSync(Sync):
    """A synchronisation with that."""

    def __init__(self, history: History, outbox: Outbox, experiment: Experiment) -> None:
        super().__init__(outbox, experiment, lambda done, total: None)
        self.tracker = history.tracker

    def _open(self, rebuild: bool) -> tuple[str, int]:
        self.client = self._backend = self.tracker
        self.tracker.find([])
        return "simulated", 1

    def _still_there(self) -> bool:
        return all(each.run in self.tracker.runs for each in list(self.sent.runs.values())[-1:])

    def conclude(self) -> None:
        """Make the parents; means and pages are beside what is simulated."""
        below = {run.group[:length] for run in self._runs.values() for length in range(len(run.group) + 1)}
        self.parents(below | {()})


class Ending:
    """An event that a process waits for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        until = self._world.now + seconds
        while not self._set and self._world.now < until:
            self._world.sleep(min(0.5, until - self._world.now))
        return self._set


class WriterActor:
    """The process that writes to it, as the driver sees it; stands for `publisher._WriterProcess`."""

    history: History

    def __init__(self, outbox: Outbox, experiment: Experiment, niceness: int) -> None:
        history = self.history
        driver = history.world.actor
        self.delivered = Delivered()
        self.done = self.total = 0
        self.log = "writer.log"
        self.last_report = history.world.now
        self._ending = Ending(history.world)
        count = driver.facts["writers"] = driver.facts.get("writers", 0) + 1
        self.actor = Actor(history.world, f"writer {count} of {driver}", driver.node)
        history.actors.append(self.actor)
        driver.facts.setdefault("children", []).append(self.actor)
        self._sync = TrackerSync(history, Outbox(outbox.folder), experiment)
        self._thread: Thread = history.world.spawn(
            self.actor, lambda: writer.write(self._sync, self._ending, self._report), 1.0
        )

    @property
    def ended(self) -> bool:
        return self._thread.ended or not self.actor.alive

    @property
    def exit_code(self) -> int | None:
        if not self.ended:
            return None
        return -9 if not self.actor.alive else int(self._thread.returned or 0)  # type: ignore[call-overload]

    def end(self, experiment: Experiment) -> None:
        self.last_report = self.actor.world.now
        self._ending.set()

    def receive(self) -> None:
        pass

    def _report(self, **facts: Any) -> None:
        if "error" in facts:
            self.delivered.error = facts["error"]
            return
        self.last_report = self.actor.world.now
        if "synced" in facts:
            self.delivered = Delivered(**facts["synced"])
        else:
            self.delivered.error = None

    def kill(self) -> None:
        if not self.ended:
            self.actor.world.kill(self.actor)
