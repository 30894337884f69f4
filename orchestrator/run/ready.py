"""Tracks which steps can start now and in what order, and what the others wait for."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from orchestrator.plan.needed import priorities
from orchestrator.run.schedule import Schedule, State
from orchestrator.types import Runtime

#: How steps are run, and whether by worker processes that keep the model they load.
Kind = tuple[Runtime, bool]
#: States of a missing input that will not come any more.
_ENDED = (State.FAILED, State.BLOCKED)
#: Model -> a heap of priorities; None for steps that load no model.
Heaps = dict[str | None, list[int]]


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
        self._heaps: dict[str, dict[Kind, Heaps]] = {name: {} for name in self._plan.entries}
        """Entry -> kind -> heaps; kinds are separate because there may be room for one and not for another."""
        self._priorities = priorities(self._plan)
        self._steps = np.argsort(self._priorities)
        """Priority -> step."""

    def add(self, number: int) -> None:
        """Add a needed step, which is ready or waits for inputs."""
        states = self._schedule.states
        missing, hopeless = 0, False
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
        self._heaps[entry].clear()

    def kinds(self, entry: str) -> list[tuple[Kind, Heaps]]:
        """Return the ready steps of an entry by kind and model; the caller deletes heaps that it has emptied."""
        kinds = self._heaps[entry]
        for kind in [kind for kind, heaps in kinds.items() if not heaps]:
            del kinds[kind]
        return list(kinds.items())

    def __bool__(self) -> bool:
        """Tell whether a step is ready."""
        return any(heap for kinds in self._heaps.values() for heaps in kinds.values() for heap in heaps.values())

    def first(self, heap: list[int]) -> int:
        """Return the step at the top of a heap."""
        return int(self._steps[heap[0]])

    def _push(self, number: int) -> None:
        entry = self._plan.entry_of(number)
        if entry in self._schedule.broken:
            self._schedule.states[number] = State.BLOCKED
            self.block(number)
            return
        model, runtime = self._plan.model(number), self._runtime(number)
        # Without a GPU, steps that are done together share files in the page cache, which serves every process.
        keeps_model = model is not None and (runtime.gpus > 0 or not self._plan.stage(number).together)
        heaps = self._heaps[entry].setdefault((runtime, keeps_model), {})
        heapq.heappush(heaps.setdefault(model, []), int(self._priorities[number]))
