"""Tracks which steps can start now and in what order, and what the others wait for."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from orchestrator.plan.needed import priorities, turns
from orchestrator.run.schedule import Schedule, State
from orchestrator.types import Runtime

#: States of a missing input that will not come any more.
_ENDED = (State.FAILED, State.BLOCKED)
#: CPUs, GPUs, bytes of memory, and whether a node is taken whole.
Resources = tuple[float, float, int | None, bool]


@dataclass(eq=False, slots=True)
class Queue:
    """Ready steps of one entry that are run alike and load the same model; it is dropped when it is empty."""

    entry: str
    runtime: Runtime
    model: str | None
    """None if they load none."""
    warm: bool
    """Whether worker processes run them that keep the model which they load."""
    heap: list[int] = field(default_factory=list)
    """Priorities of its steps."""
    since: int = 0
    """Number of bundles that had been begun when its first step came, or when it was last served."""

    @property
    def resources(self) -> Resources:
        """What each of its bundles takes."""
        return (self.runtime.cpus, self.runtime.gpus, self.runtime.memory, self.runtime.whole_node)


class ReadySteps:
    """The needed steps of a schedule, ready or waiting; steps are numbers, as in the plan."""

    def __init__(self, schedule: Schedule, runtime: Callable[[int], Runtime]) -> None:
        """Start without steps.

        Args:
            schedule: the state of every step; steps that can never run become blocked there.
            runtime: returns the runtime of a step.
        """
        self._schedule = schedule
        self._plan = schedule.plan
        self._runtime = runtime
        self._waiting: dict[int, int] = {}
        """Needed step -> number of inputs that it waits for."""
        self._dependants: dict[tuple[int, int], list[int]] = {}
        """An input (its first step, its number of steps) -> the steps that wait for it."""
        self._gathering: dict[int, tuple[int, int]] = {}
        """First step of a group that an input reads whole -> (size, number of missing steps)."""
        self.tasks: dict[str, dict[Runtime, dict[str | None, Queue]]] = {name: {} for name in self._plan.entries}
        """Entry -> runtime -> model -> the queue of steps that any process may run."""
        self.warm: dict[Resources, dict[str, dict[tuple[str, Runtime], Queue]]] = {}
        """Resources -> model -> the queues of all entries, whose steps one process runs without loading it again."""
        self.changes: Counter[Resources] = Counter()
        """Resources -> how often `warm` has changed there."""
        self.counts = dict.fromkeys(self._plan.entries, 0)
        """Entry -> number of its ready steps."""
        self.begun = {True: 0, False: 0}
        """Whether GPUs are used -> number of bundles that were begun."""
        self._priorities = priorities(self._plan)
        self._steps = np.argsort(self._priorities)
        """Priority -> step."""
        self._turns = turns(self._plan, schedule.cells)

    def add(self, number: int, after: Iterable[int] = ()) -> None:
        """Add a needed step, which is ready or waits for inputs.

        Args:
            number: the step.
            after: steps that it waits for beside its inputs, since these refer to what they make.
        """
        states = self._schedule.states
        missing, hopeless = 0, False
        for each in after:
            if states[each] != State.COMMITTED:
                hopeless = hopeless or states[each] in _ENDED
                missing += 1
                self._dependants.setdefault((each, 1), []).append(number)
        for feed in self._plan.feeds(number):
            if feed.size == 1:
                if states[feed.first] == State.COMMITTED:
                    continue
                hopeless = hopeless or states[feed.first] in _ENDED
            else:
                left = feed.size - states.count(State.COMMITTED, feed.first, feed.first + feed.size)
                if not left:
                    continue
                self._gathering[feed.first] = (feed.size, left)
                hopeless = hopeless or any(states.count(each, feed.first, feed.first + feed.size) for each in _ENDED)
            missing += 1
            self._dependants.setdefault((feed.first, feed.size), []).append(number)
        self._waiting[number] = missing
        if not missing:
            self._push(number)
        elif hopeless:
            # A step that is tried again, after an input of it was damaged and can not be made again.
            states[number] = State.BLOCKED
            self.block(number)

    def commit(self, number: int) -> None:
        """Make the steps ready that waited only for this one, which is committed now."""
        arrived = [(number, 1)]
        first = number - int(self._plan.shard[number])
        if first in self._gathering:
            size, left = self._gathering[first]
            self._gathering[first] = (size, left - 1)
            if left == 1:
                del self._gathering[first]
                arrived.append((first, size))
        for feed in arrived:
            for child in self._dependants.pop(feed, ()):
                self._waiting[child] -= 1
                if not self._waiting[child] and self._schedule.states[child] == State.PENDING:
                    self._push(child)

    def block(self, number: int) -> None:
        """Mark all steps as blocked that wait for this one, directly or not."""
        frontier = [number]
        while frontier:
            each = frontier.pop()
            first = each - int(self._plan.shard[each])
            feeds = {(each, 1), (first, int(self._plan.size[first]))}
            for child in (child for feed in feeds for child in self._dependants.get(feed, ())):
                if self._schedule.states[child] == State.PENDING:
                    self._schedule.states[child] = State.BLOCKED
                    frontier.append(child)

    def drop(self, entry: str) -> None:
        """Remove the ready steps of an entry."""
        warm = (queue for models in self.warm.values() for queues in models.values() for queue in queues.values())
        for queue in [queue for queue in warm if queue.entry == entry]:
            queue.heap.clear()
            self._drop_empty(queue)
        self.tasks[entry].clear()
        self.counts[entry] = 0

    def __bool__(self) -> bool:
        """Tell whether a step is ready."""
        return any(self.counts.values())

    def runtime(self, number: int) -> Runtime:
        """Return the runtime of a step."""
        return self._runtime(number)

    def first(self, queue: Queue) -> int:
        """Return the first step of a queue."""
        return int(self._steps[queue.heap[0]])

    def turn(self, queue: Queue) -> int:
        """Return the turn of the first step of a queue (`orchestrator.plan.needed.turns`)."""
        return int(self._turns[self.first(queue)])

    def pop(self, queue: Queue) -> int:
        """Remove and return the first step of a queue."""
        number = int(self._steps[heapq.heappop(queue.heap)])
        self.counts[queue.entry] -= 1
        self.changes[queue.resources] += queue.warm
        return number

    def served(self, queue: Queue) -> None:
        """Note that a bundle was taken from a queue."""
        on_gpus = queue.runtime.gpus > 0
        self.begun[on_gpus] += 1
        queue.since = self.begun[on_gpus]
        if not queue.heap:
            self._drop_empty(queue)

    def _drop_empty(self, queue: Queue) -> None:
        if not queue.warm:
            del self.tasks[queue.entry][queue.runtime][queue.model]
            return
        assert queue.model is not None, "only steps that load a model go to processes that keep it"
        self.changes[queue.resources] += 1
        models = self.warm[queue.resources]
        del models[queue.model][queue.entry, queue.runtime]
        if not models[queue.model]:
            del models[queue.model]

    def _push(self, number: int) -> None:
        entry = self._plan.entry_of(number)
        if entry in self._schedule.broken:
            self._schedule.states[number] = State.BLOCKED
            self.block(number)
            return
        model, runtime = self._plan.model(number), self._runtime(number)
        # Without a GPU, steps that are done together share files in the page cache, which serves every process.
        warm = model is not None and (runtime.gpus > 0 or not self._plan.stage(number).together)
        new = Queue(entry, runtime, model, warm, since=self.begun[runtime.gpus > 0])
        if warm and model is not None:
            queues = self.warm.setdefault(new.resources, {}).setdefault(model, {})
            queue = queues.setdefault((entry, runtime), new)
        else:
            queue = self.tasks[entry].setdefault(runtime, {}).setdefault(model, new)
        heapq.heappush(queue.heap, int(self._priorities[number]))
        self.counts[entry] += 1
        self.changes[new.resources] += warm
