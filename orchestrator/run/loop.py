"""The one scheduling loop: what is wanted and not committed is run, in dependency order, until nothing can be."""

from __future__ import annotations

import contextlib
import heapq
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.attempt.outcome import CodeChangedError
from orchestrator.attempt.request import Request, shares_work
from orchestrator.code import code_digest
from orchestrator.plan.needed import heights
from orchestrator.run.breaker import Breaker
from orchestrator.run.executors import Executor, Slot
from orchestrator.run.ready import ReadySteps
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.store.claims import PATIENCE
from orchestrator.types import Artifact, Attempt, Outcome, Runtime, Scalar

#: Outcomes that say nothing against the step itself; it is tried again, up to `runtime.attempts` times in one command.
_TRIED_AGAIN = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.IO_ERROR, Outcome.DAMAGED_INPUT})
#: A step whose node went away is tried again so often: a spot instance may be taken many times in a night.
_LOST_ALLOWED = 100
#: The second try of a step whose machine failed it waits so many seconds, each later one twice as long, up to …
_BACKOFF, _BACKOFF_LIMIT = 1.0, 60.0
#: A step that another driver computes is looked at again after so many seconds.
_LOOK_AGAIN = 2.0
#: A bundle has at most so many steps, so that what one dead process takes along stays small.
_BUNDLE_LIMIT = 64
#: Steps that are done together for less than their cost travel in bundles that take so many seconds.
_TOGETHER_SECONDS = 30.0
#: How an attempt ends that takes its process along.
_DEADLY = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT})


def run_plan(
    schedule: Schedule, store: Store, executor: Executor, code_commit: str, driver: str | None = None
) -> Iterator[Attempt | None]:
    """Run what is needed; yields every attempt as it ends, and None when nothing ended for a while.

    Steps high in the graph go first, since most waits for them. Small steps of one entry travel in bundles.
    Committing is the workers' business: this loop reads their outcomes, and a step is done when its worker says that
    it committed.

    Args:
        schedule: what is needed, and the state of every step.
        store: where artifacts go.
        executor: runs the steps.
        code_commit: what manifests and attempts say of the code.
        driver: names this run in the store, and no other one; drawn if not given.
    """
    return _Loop(schedule, store, executor, code_commit, driver or secrets.token_hex(8)).run()


class _Loop:
    def __init__(self, schedule: Schedule, store: Store, executor: Executor, code_commit: str, driver: str) -> None:
        self.schedule = schedule
        self.plan = schedule.plan
        self.store = store
        self.executor = executor
        self.code_commit = code_commit
        self.modules = self.plan.spec.modules
        self.code = code_digest(self.modules)
        self.breaker = Breaker(self.plan.spec.limits.breaker)
        self.ready = ReadySteps(schedule, self._runtime)
        self.resting: list[tuple[float, int]] = []
        """A heap of steps that are tried again later: (when, step)."""
        self.alone: set[int] = set()
        """Steps that took their process with them, and are given one of their own."""
        self.out_of_memory_count: Counter[int] = Counter()
        """Step -> how often it ran out of memory."""
        self.tries: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()
        numbers = np.flatnonzero(schedule.needed).tolist()
        histories = store.histories([self.plan.address(number) for number in numbers])
        self.earlier = Counter({address: len(history) for address, history in histories.items()})
        """How many tries earlier commands made."""
        self.pace: dict[str, float] = {}
        """Entry -> seconds that its steps take, a moving average."""
        self.ruled = {name: self.plan.spec.runtime_axes(name) for name in self.plan.entries}
        self.runtimes: dict[tuple[Scalar | None, ...], Runtime] = {}
        """What `_runtime` found, by entry and the coordinates that its rules speak of."""
        self.driver = driver
        self.claims: dict[int, tuple[str, float]] = {}
        """Steps that other drivers hold -> their claim, and since when it is the same."""
        self.running = 0
        self.failures = 0
        self.started = time.monotonic()
        self.gpu_seconds = 0.0
        self.order = self._entries_in_order(numbers)
        for number in numbers:
            self.ready.add(number)

    def run(self) -> Iterator[Attempt | None]:
        while True:
            self._wake()
            self._submit()
            if not self.running:
                if not self.resting or self.schedule.stopped:
                    return
                time.sleep(max(0.0, min(0.5, self.resting[0][0] - time.monotonic())))
                yield None
                continue
            ended = self.executor.wait(0.5)
            for each in ended:
                self.running -= len(each.requests)
                tried = {attempt.address for attempt in each.attempts}
                shared = shares_work(each.requests) and any(one.outcome in _DEADLY for one in each.attempts)
                for request in each.requests:
                    if request.step.address not in tried:
                        number = self._number(request.step.address)
                        if shared:
                            self.alone.add(number)
                        self._return(number)
                for attempt in each.attempts:
                    if attempt.outcome is Outcome.CLAIMED:
                        self._wait_for_other(attempt)
                        continue
                    shared_failure = shared and attempt.outcome in _DEADLY and len(tried) < len(each.requests)
                    self._settle(attempt, len(each.requests), shared_failure)
                    yield attempt
            if not ended:
                yield None

    def _wake(self) -> None:
        while self.resting and self.resting[0][0] <= time.monotonic():
            _, number = heapq.heappop(self.resting)
            self.schedule.states[number] = State.PENDING
            self.ready.add(number)

    # --- submitting

    def _submit(self) -> None:
        limits = self.plan.spec.limits
        self.schedule.stopped = self.schedule.stopped or self._spent()
        if self.schedule.stopped:
            return
        for name in self.order:
            for (runtime, keeps), models in self.ready.kinds(name):
                while models:
                    free = None if limits.running is None else limits.running - self.running
                    if free is not None and free <= 0:
                        return
                    ready = {each: len(heap) for each, heap in models.items() if each and keeps}
                    place = self.executor.place(runtime, ready)
                    if place is None:
                        break
                    model = place.model if keeps else next(iter(models))
                    heap = models[model]
                    size = self._bundle_size(name, runtime, heap, sum(len(each) for each in models.values()))
                    self._start(self._take(heap, runtime, size if free is None else min(size, free)), place)
                    if not heap:
                        del models[model]

    def _start(self, bundle: list[Request], place: Slot) -> None:
        for request in bundle:
            number = self._number(request.step.address)
            self.schedule.states[number] = State.RUNNING
            self.tries[number] += 1
        self.running += len(bundle)
        self.executor.submit(bundle, place)

    def _entries_in_order(self, numbers: list[int]) -> list[str]:
        """What uses GPUs first, then what most other work waits for, directly or not."""
        firsts = {self.plan.entry_of(number): number for number in reversed(numbers)}
        gpus = {name: self._runtime(first).gpus for name, first in firsts.items()}
        height = heights(self.plan)
        return sorted(self.plan.entries, key=lambda name: (not gpus.get(name), -height[name]))

    def _spent(self) -> str | None:
        """Which budget of the sweep is used up, if any."""
        limits = self.plan.spec.limits
        if limits.failures is not None and self.failures >= limits.failures:
            return f"{self.failures} steps failed, which is the sweep's limit (limits.failures)"
        if limits.wall is not None and time.monotonic() - self.started >= limits.wall:
            return f"{limits.wall:g} s have passed, which is the sweep's limit (limits.wall)"
        if limits.gpu_hours is not None and self.gpu_seconds >= 3600 * limits.gpu_hours:
            hours = self.gpu_seconds / 3600
            return f"{hours:.2f} GPU-hours were used, of {limits.gpu_hours:g} allowed (limits.gpu_hours)"
        return None

    def _take(self, heap: list[int], runtime: Runtime, size: int) -> list[Request]:
        """The next bundle of a heap."""
        bundle: list[Request] = []
        while heap and len(bundle) < size:
            number = self.ready.first(heap)
            if bundle and number in self.alone:
                break
            heapq.heappop(heap)
            bundle.append(self._request(number, runtime))
            if number in self.alone:
                break
        return bundle

    def _bundle_size(self, name: str, runtime: Runtime, heap: list[int], ready: int) -> int:
        """As many steps as fill `bundle_seconds` at the entry's pace, but all slots are to have something to do.

        Args:
            name: the entry.
            runtime: of the steps.
            heap: from which the bundle is taken.
            ready: how many steps there are in this and in like heaps.
        """
        pace = self.pace.get(name)
        if pace is None or not self.executor.bundle_seconds:
            return 1
        fair = math.ceil(ready / (2 * self.executor.slots(runtime)))
        together = self.plan.stage(self.ready.first(heap)).together
        seconds = _TOGETHER_SECONDS if together else self.executor.bundle_seconds
        return max(1, min(int(seconds / max(pace, 1e-6)), fair, _BUNDLE_LIMIT))

    def _request(self, number: int, runtime: Runtime) -> Request:
        step = self.plan.step(number)
        return Request(
            step=step,
            number=self.earlier[step.address] + self.tries[number] + 1,
            runtime=runtime,
            store=self.store.location,
            code_commit=self.code_commit,
            driver=self.driver,
            stale=self._stale(number),
            code=self.code,
            modules=self.modules,
            account=f"{self.plan.spec.name}/{step.entry}",
        )

    def _runtime(self, number: int) -> Runtime:
        name = self.plan.entry_of(number)
        axes = self.ruled[name]
        coords = self.plan.coords(number) if axes else {}
        at = (name, *(coords.get(axis) for axis in axes))
        found = self.runtimes.get(at)
        if found is None:
            found = self.runtimes[at] = self.plan.spec.runtime_of(name, coords)
        times = self.out_of_memory_count.get(number, 0)
        return _with_more_memory(found, times) if times else found

    # --- what ended

    def _settle(self, attempt: Attempt, neighbours: int, shared_failure: bool) -> None:
        """Note how an attempt ended; in a shared failure it may be a neighbour that took the process along."""
        number = self._number(attempt.address)
        self.gpu_seconds += attempt.seconds * self._runtime(number).gpus
        if attempt.outcome is Outcome.SUCCEEDED:
            self.schedule.states[number] = State.COMMITTED
            before = self.pace.get(attempt.entry, attempt.seconds)
            self.pace[attempt.entry] = 0.8 * before + 0.2 * attempt.seconds
            self.breaker.succeeded(attempt.entry)
            self.ready.commit(number)
            return
        if self._may_try_again(number, attempt, shared_failure):
            # Where a damaged input cannot be set aside now, whoever reads it finds it once more.
            with contextlib.suppress(StoreError):
                for damaged in attempt.damaged:
                    self._make_again(self._number(damaged))
            if neighbours > 1:
                self.alone.add(number)
            if attempt.outcome is Outcome.OUT_OF_MEMORY:
                self.out_of_memory_count[number] += 1
            self._return(number, attempt)
            return
        self.failures += 1
        if attempt.outcome is Outcome.STORE_ERROR or attempt.error_class == CodeChangedError.__name__:
            self.schedule.stopped = f"{attempt.error}"
        reason = self.breaker.failed(attempt)
        if reason:
            self._stop_entry(attempt.entry, reason)
        self.schedule.states[number] = State.FAILED
        self.ready.block(number)

    def _stop_entry(self, name: str, reason: str) -> None:
        """Start no further step of an entry, nor what waits for those."""
        self.schedule.broken[name] = reason
        self.ready.drop(name)
        entry = self.plan.by_entry[name]
        for number in range(entry.first, entry.last):
            if self.schedule.states[number] == State.PENDING and self.schedule.needed[number]:
                self.schedule.states[number] = State.BLOCKED
                self.ready.block(number)

    def _may_try_again(self, number: int, attempt: Attempt, shared_failure: bool) -> bool:
        if attempt.outcome is Outcome.LOST or shared_failure:
            self.tries[number] -= 1
            self.earlier[attempt.address] += 1
            self.lost[number] += 1
            return self.lost[number] < _LOST_ALLOWED
        return attempt.outcome in _TRIED_AGAIN and self.tries[number] < self._runtime(number).attempts

    def _return(self, number: int, attempt: Attempt | None = None) -> None:
        """Put a step back: at once if it was not even begun, else after a while."""
        self.schedule.states[number] = State.PENDING
        if attempt is None:
            self.tries[number] -= 1
            self.ready.add(number)
            return
        if attempt.outcome is Outcome.DAMAGED_INPUT and not self._stands(attempt.damaged):
            self.ready.add(number)
            return
        times = max(self.tries[number], self.lost[number])
        pause = min(_BACKOFF * 2 ** (times - 1), _BACKOFF_LIMIT)
        heapq.heappush(self.resting, (time.monotonic() + pause, number))

    def _wait_for_other(self, attempt: Attempt) -> None:
        """Another driver computes the step: look again later, and notice if that driver shows no life."""
        number, holder = self._number(attempt.address), attempt.holder or ""
        if self.claims.get(number, ("", 0.0))[0] != holder:
            self.claims[number] = (holder, time.monotonic())
        self.schedule.states[number] = State.ELSEWHERE
        self.tries[number] -= 1
        heapq.heappush(self.resting, (time.monotonic() + _LOOK_AGAIN, number))

    def _stale(self, number: int) -> str | None:
        holder, since = self.claims.get(number, ("", 0.0))
        return holder if holder and time.monotonic() - since > PATIENCE else None

    def _make_again(self, number: int) -> None:
        """Set a damaged input aside and run its step once more, with whatever that needs."""
        states = self.schedule.states
        if states[number] != State.COMMITTED:
            return
        address = self.plan.address(number)
        self.store.discard(address)
        states[number] = State.PENDING
        self.schedule.needed[number] = True
        parents = list(self.plan.parents(number))
        on_disk = {self.plan.address(parent) for parent in parents}
        # A number that is taken is no harm, and an input that is not there is found missing by whoever reads it.
        with contextlib.suppress(StoreError):
            self.earlier.update({each: len(history) for each, history in self.store.histories([address]).items()})
            on_disk = self.store.committed({each.stage for each in on_disk})
        for parent in parents:
            # What lay above finished work was not looked at so far.
            if states[parent] == State.UNNEEDED:
                states[parent] = State.COMMITTED
                if self.plan.address(parent) not in on_disk:
                    with contextlib.suppress(StoreError):
                        self._make_again(parent)
        self.ready.add(number)

    def _stands(self, damaged: Sequence[Artifact]) -> bool:
        """Whether some damaged inputs could not be set aside."""
        return any(self.schedule.states[self._number(each)] == State.COMMITTED for each in damaged)

    def _number(self, address: Artifact) -> int:
        number = self.plan.number(address)
        assert number is not None, "only steps of this plan are run"
        return number


def _with_more_memory(runtime: Runtime, times: int) -> Runtime:
    """How a step is run that ran out of memory so often: with more of it where the sweep allows that, else alone."""
    gpus = float(math.ceil(runtime.gpus))
    if runtime.memory and runtime.memory_limit and runtime.memory < runtime.memory_limit:
        return replace(runtime, gpus=gpus, memory=min(runtime.memory * 2**times, runtime.memory_limit))
    return replace(runtime, gpus=gpus, whole_node=True)
