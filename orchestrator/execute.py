"""The one scheduling loop: what is wanted and not committed is run, in dependency order, until nothing can be."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

from orchestrator.attempt import Request
from orchestrator.executors import Executor
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.types import Artifact, Attempt, Outcome, Step

#: Outcomes that say nothing against the step itself; it is tried again, up to `runtime.attempts` times in one command.
_TRIED_AGAIN = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.DAMAGED_INPUT})


class State(StrEnum):
    """Where a step stands."""

    COMMITTED = "committed"
    PENDING = "pending"
    RUNNING = "running"
    """Handed to the executor."""
    FAILED = "failed"
    BLOCKED = "blocked"
    """A step that it waits for has failed."""


class Schedule:
    """The state of every step that a plan needs, derived from one listing of the store.

    A step is needed when it is not committed and a target, or another needed step, asks for it: what lies above a
    committed artifact is not looked at, even if it is gone.
    """

    def __init__(self, plan: Plan, store: Store, chosen: Plan | None = None) -> None:
        """Derive the states.

        Args:
            plan: the whole sweep.
            store: where to look, once per stage.
            chosen: the part of the plan that is to be run (`Plan.select`); all of it when left out.
        """
        self.plan = plan
        self.chosen = chosen or plan
        self.committed = store.committed({step.stage for step in plan.steps.values()}) & plan.steps.keys()
        self.states: dict[Artifact, State] = {}
        self.needed: dict[Artifact, Step] = {}
        self.stopped: str | None = None
        """Why no further steps were started, if so."""
        self.derive()

    def derive(self) -> None:
        """(Re)compute what is needed from what is committed."""
        missing = needed_steps(self.plan, self.committed)
        self.states = dict.fromkeys(self.committed, State.COMMITTED) | dict.fromkeys(missing, State.PENDING)
        self.needed = missing if self.chosen is self.plan else needed_steps(self.chosen, self.committed)

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return not self.needed

    def state(self, address: Artifact) -> State:
        """A step that is neither committed nor needed lies above a finished one, and counts as committed."""
        return self.states.get(address, State.COMMITTED)

    def counts(self) -> dict[str, Counter[State]]:
        """Per entry, how many of the chosen steps are in each state."""
        counted: dict[str, Counter[State]] = {name: Counter() for name in self.plan.entries}
        for address, step in self.chosen.steps.items():
            counted[step.entry][self.state(address)] += 1
        return counted


def needed_steps(plan: Plan, committed: set[Artifact]) -> dict[Artifact, Step]:
    """The steps to run, each after those it reads."""
    wanted = {artifact for cell in plan.cells for artifact in plan.targets_of(cell)} - committed
    frontier = list(wanted)
    # Thousands of steps share one tuple of shards; each is looked through once.
    seen: set[int] = set()
    while frontier:
        for group in plan.steps[frontier.pop()].inputs.values():
            if id(group) not in seen:
                seen.add(id(group))
                missing = [parent for parent in group if parent not in committed and parent not in wanted]
                wanted.update(missing)
                frontier += missing
    return {address: step for address, step in plan.steps.items() if address in wanted}


def run_plan(schedule: Schedule, store: Store, executor: Executor, code_commit: str) -> Iterator[Attempt | None]:
    """Run what is needed; yields every attempt as it ends, and None when nothing ended for a while.

    Steps high in the graph go first, since most waits for them. Committing is the workers' business: this loop reads
    their outcomes, and a step is done when its worker says that it committed.
    """
    return _Loop(schedule, store, executor, code_commit).run()


class _Loop:
    def __init__(self, schedule: Schedule, store: Store, executor: Executor, code_commit: str) -> None:
        self.schedule = schedule
        self.plan = schedule.plan
        self.store = store
        self.executor = executor
        self.code_commit = code_commit
        self.rank = {address: index for index, address in enumerate(self.plan.steps)}
        self.waiting: dict[Artifact, int] = {}
        """Needed step -> how many of its inputs are still missing."""
        self.children: dict[Artifact, list[Artifact]] = {}
        self.ready: dict[str, list[tuple[int, Artifact]]] = {name: [] for name in self.plan.entries}
        """Per entry a heap: entries differ in resources, so a full one must not hold up the others."""
        self.tries: Counter[Artifact] = Counter()
        self.earlier = Counter(
            {address: len(each) for address, each in store.histories(schedule.needed.keys()).items()}
        )
        """How many tries earlier commands made."""
        self.running = 0
        self.failures = 0
        for address in schedule.needed:
            self._await_inputs(address)

    def run(self) -> Iterator[Attempt | None]:
        while True:
            self._submit()
            if not self.running:
                return
            ended = self.executor.wait(0.5)
            for attempt in ended:
                self.running -= 1
                self._settle(attempt)
                yield attempt
            if not ended:
                yield None

    def _await_inputs(self, address: Artifact) -> None:
        missing = [
            parent
            for parent in set(self.plan.steps[address].parents())
            if self.schedule.states[parent] is not State.COMMITTED
        ]
        self.waiting[address] = len(missing)
        for parent in missing:
            self.children.setdefault(parent, []).append(address)
        if not missing:
            heapq.heappush(self.ready[self.plan.steps[address].entry], (self.rank[address], address))

    def _submit(self) -> None:
        limits = self.plan.spec.limits
        if limits.failures is not None and self.failures >= limits.failures:
            self.schedule.stopped = f"{self.failures} steps failed, which is the sweep's limit (limits.failures)"
        if self.schedule.stopped:
            return
        for name in self.plan.entries:
            heap = self.ready[name]
            while heap:
                if limits.running is not None and self.running >= limits.running:
                    return
                step = self.plan.steps[heap[0][1]]
                request = Request(
                    step=step,
                    number=self.earlier[step.address] + self.tries[step.address] + 1,
                    runtime=self.plan.spec.runtime_of(step.entry, step.coords),
                    store=self.store.location,
                    code_commit=self.code_commit,
                )
                if not self.executor.has_room(request):
                    break
                heapq.heappop(heap)
                self.schedule.states[step.address] = State.RUNNING
                self.tries[step.address] += 1
                self.running += 1
                self.executor.submit(request)

    def _settle(self, attempt: Attempt) -> None:
        address = attempt.address
        step = self.plan.steps[address]
        if attempt.outcome is Outcome.SUCCEEDED:
            self.schedule.states[address] = State.COMMITTED
            for child in self.children.pop(address, ()):
                self.waiting[child] -= 1
                if not self.waiting[child] and self.schedule.states[child] is State.PENDING:
                    heapq.heappush(self.ready[self.plan.steps[child].entry], (self.rank[child], child))
            return
        allowed = self.plan.spec.runtime_of(step.entry, step.coords).attempts
        if attempt.outcome in _TRIED_AGAIN and self.tries[address] < allowed:
            for damaged in attempt.damaged:
                self._make_again(damaged)
            self.schedule.states[address] = State.PENDING
            self._await_inputs(address)
            return
        self.failures += 1
        if attempt.outcome is Outcome.STORE_ERROR:
            self.schedule.stopped = f"{attempt.error}"
        self.schedule.states[address] = State.FAILED
        self._block(address)

    def _make_again(self, address: Artifact) -> None:
        """Set a damaged input aside and run its step once more, with whatever that needs."""
        if self.schedule.states.get(address) is not State.COMMITTED:
            return
        self.store.discard(address)
        self.schedule.committed.discard(address)
        self.schedule.states[address] = State.PENDING
        self.schedule.needed[address] = self.plan.steps[address]
        self.earlier.update({each: len(history) for each, history in self.store.histories([address]).items()})
        on_disk = self.store.committed({parent.stage for parent in self.plan.steps[address].parents()})
        for parent in self.plan.steps[address].parents():
            if parent in on_disk:
                self.schedule.states.setdefault(parent, State.COMMITTED)
            elif parent not in self.schedule.states:
                self.schedule.states[parent] = State.COMMITTED
                self._make_again(parent)
        self._await_inputs(address)

    def _block(self, address: Artifact) -> None:
        frontier = [address]
        while frontier:
            for child in self.children.pop(frontier.pop(), ()):
                if self.schedule.states[child] is State.PENDING:
                    self.schedule.states[child] = State.BLOCKED
                    frontier.append(child)
