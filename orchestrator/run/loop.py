"""The one scheduling loop: it runs all needed steps in dependency order, until none is left that can run."""

from __future__ import annotations

import contextlib
import heapq
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.attempt.outage import OUTAGE
from orchestrator.attempt.outcome import NOT_THE_PLACE
from orchestrator.attempt.request import Request, shares_work
from orchestrator.code import this_code
from orchestrator.run.breaker import Breaker
from orchestrator.run.executors import Executor, Place, Slot
from orchestrator.run.health import Health
from orchestrator.run.order import Order
from orchestrator.run.ready import Queue, ReadySteps
from orchestrator.run.retry import FRESH, Again, Failed, StopSweep, Tries, Wait, begin, decide, elsewhere, not_begun
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store, StoreError
from orchestrator.store.errors import StoreAwayError
from orchestrator.store.lease import TERM, Stillness
from orchestrator.types import Artifact, Attempt, Manifest, Outcome, Runtime, Scalar

#: Outcomes of attempts that take their process with them.
_DEADLY = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT})
#: Seconds before a step that died at a place is offered to another again.
_POLL_PLACES = 1.0
#: States of a step whose output may be asked for, and is not being made.
_NOT_MADE = (State.COMMITTED, State.UNNEEDED)
#: Outcomes that a sick device or node may be the cause of, whatever the error is called.
_PERHAPS_THE_PLACE = frozenset({Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.IO_ERROR})


def run_plan(
    schedule: Schedule,
    store: Store,
    executor: Executor,
    code_commit: str,
    driver: str | None = None,
    grow: Callable[[], Sequence[int]] = tuple,
) -> Iterator[Attempt | None]:
    """Run all needed steps; yield every attempt as it ends, and None when none has ended for half a second.

    Cells are finished early and evenly (`orchestrator.run.order`). Small steps of one entry are bundled.
    Workers commit artifacts; the loop only reads their outcomes.

    Args:
        schedule: the needed steps, and the state of every step, which is updated.
        store: where artifacts are committed.
        executor: runs the steps.
        code_commit: the commit that manifests and attempts record.
        driver: unique id of this run in the store; drawn at random if None.
        grow: called whenever attempts have ended; returns the steps that the schedule was given since, which are run
            too. Without it the schedule is all there is.

    Raises:
        ExecutorLostError: the executor can run nothing any more.
        StoreError: the histories of earlier attempts cannot be read; or, when all running steps have ended, the store
            was away for too long or takes no writes.
    """
    return _Loop(schedule, store, executor, code_commit, driver or secrets.token_hex(8), grow).run()


class _Loop:
    def __init__(
        self,
        schedule: Schedule,
        store: Store,
        executor: Executor,
        code_commit: str,
        driver: str,
        grow: Callable[[], Sequence[int]],
    ) -> None:
        self.schedule = schedule
        self.plan = schedule.plan
        self.store = store
        self.executor = executor
        self.code_commit = code_commit
        self.code = this_code()
        self.breaker = Breaker(self.plan.spec.limits.breaker)
        self.health = Health()
        self.ready = ReadySteps(schedule, self._runtime)
        self.backoff: list[tuple[float, int]] = []
        """Heap of steps to try again later: (monotonic time, step)."""
        self.tries: dict[int, Tries] = {}
        """Step -> the attempts of this command at it, where there are any."""
        numbers = np.flatnonzero(schedule.needed).tolist()
        histories = OUTAGE.endure(lambda: store.histories([self.plan.address(number) for number in numbers]))
        self.earlier = Counter({address: len(history) for address, history in histories.items()})
        """Artifact -> attempts on record that `tries` does not count, for numbering the next one."""
        self.mean_seconds: dict[str, float] = {}
        """Entry -> moving average of the seconds that its steps take."""
        self.rule_axes = {name: self.plan.spec.runtime_axes(name) for name in self.plan.entries}
        self.runtimes: dict[tuple[Scalar | None, ...], Runtime] = {}
        """Cache of `_runtime`, by entry and its coordinates on the axes that its rules name."""
        self.driver = driver
        self.grow = grow
        self.stillness = Stillness()
        self.stale: dict[int, str] = {}
        """Step that another driver computed -> its claim, which has expired."""
        self.running = 0
        self.failures = 0
        self.store_error: str | None = None
        """Why no step can be committed any more."""
        self.started = time.monotonic()
        self.gpu_seconds = 0.0
        # Steps of an entry that has none yet may come.
        firsts = {name: entry.first for name, entry in self.plan.by_entry.items() if entry.steps}
        firsts |= {self.plan.entry_of(number): number for number in reversed(numbers)}
        runtimes = {name: self._runtime(first) for name, first in firsts.items()}
        self.order = Order(schedule, self.ready, executor, self.mean_seconds, runtimes)
        for number in numbers:
            self.ready.add(number)

    def run(self) -> Iterator[Attempt | None]:
        while True:
            self._requeue_due()
            if not self.schedule.stopped:
                for number in self.grow():
                    self.ready.add(number)
            self._submit()
            if not self.running and (self.schedule.stopped or not self.ready):
                if not self.backoff or self.schedule.stopped:
                    break
                time.sleep(max(0.0, min(0.5, self.backoff[0][0] - time.monotonic())))
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
                        self.tries[number] = not_begun(self.tries[number], shared)
                        self.schedule.states[number] = State.PENDING
                        self.ready.add(number)
                for attempt in map(self._judge, each.attempts):
                    shared_failure = shared and attempt.outcome in _DEADLY and len(tried) < len(each.requests)
                    self._settle(attempt, len(each.requests), shared_failure, each.place)
                    if attempt.outcome is not Outcome.CLAIMED and not _met_outage(attempt):
                        yield attempt
            if not ended:
                yield None
        if self.store_error:
            raise StoreError(self.store_error)

    def _requeue_due(self) -> None:
        while self.backoff and self.backoff[0][0] <= time.monotonic():
            _, number = heapq.heappop(self.backoff)
            self.schedule.states[number] = State.PENDING
            self.ready.add(number)

    # --- submitting

    def _submit(self) -> None:
        limits = self.plan.spec.limits
        self.schedule.stopped = self.schedule.stopped or self._exhausted_limit()
        if self.schedule.stopped:
            return
        self.executor.reserve(self.order.demand(self.health.first), self.order.soon())
        while True:
            free = None if limits.running is None else limits.running - self.running
            if free is not None and free <= 0:
                return
            found = self.order.next(busy=self.running > 0)
            if found is None:
                return
            queue, slot, size = found
            bundle = self._take(queue, size if free is None else min(size, free), slot.place)
            self.ready.served(queue)
            if bundle:
                self._start(bundle, slot)

    def _start(self, bundle: list[Request], slot: Slot) -> None:
        for request in bundle:
            number = self._number(request.step.address)
            self.schedule.states[number] = State.RUNNING
            self.tries[number] = begin(self.tries.get(number, FRESH))
        self.running += len(bundle)
        died = self.health.first.get(self._number(bundle[0].step.address))
        self.executor.submit(bundle, replace(slot, avoid=died.node) if died and slot.place is None else slot)

    def _exhausted_limit(self) -> str | None:
        """Return which limit of the sweep is reached; None if none is."""
        limits = self.plan.spec.limits
        if limits.failures is not None and self.failures >= limits.failures:
            return f"{self.failures} steps failed, which is the sweep's limit (limits.failures)"
        if limits.wall is not None and time.monotonic() - self.started >= limits.wall:
            return f"{limits.wall:g} s have passed, which is the sweep's limit (limits.wall)"
        if limits.gpu_hours is not None and self.gpu_seconds >= 3600 * limits.gpu_hours:
            hours = self.gpu_seconds / 3600
            return f"{hours:.2f} GPU-hours were used, of {limits.gpu_hours:g} allowed (limits.gpu_hours)"
        return None

    def _take(self, queue: Queue, size: int, place: Place | None) -> list[Request]:
        """Take the next bundle from a queue; steps that died at the place wait for another, which may be busy."""
        bundle: list[Request] = []
        while queue.heap and len(bundle) < size:
            number = self.ready.first(queue)
            if place and self.health.first.get(number) == place and self.executor.elsewhere(place):
                heapq.heappush(self.backoff, (time.monotonic() + _POLL_PLACES, self.ready.pop(queue)))
                continue
            alone = self.tries.get(number, FRESH).alone
            if bundle and alone:
                break
            bundle.append(self._request(self.ready.pop(queue), queue.runtime))
            if alone:
                break
        return bundle

    def _request(self, number: int, runtime: Runtime) -> Request:
        step = self.plan.step(number)
        return Request(
            step=step,
            number=self.earlier[step.address] + self.tries.get(number, FRESH).made + 1,
            runtime=runtime,
            store=self.store.location,
            code_commit=self.code_commit,
            driver=self.driver,
            stale_claim=self.stale.pop(number, None),
            code=self.code,
            account=f"{self.plan.spec.name}/{step.entry}",
        )

    def _runtime(self, number: int) -> Runtime:
        name = self.plan.entry_of(number)
        axes = self.rule_axes[name]
        coords = self.plan.coords(number) if axes else {}
        at = (name, *(coords.get(axis) for axis in axes))
        found = self.runtimes.get(at)
        if found is None:
            found = self.runtimes[at] = self.plan.spec.runtime_of(name, coords)
        times = self.tries.get(number, FRESH).out_of_memory
        return _with_more_memory(found, times) if times else found

    # --- ended bundles

    def _judge(self, attempt: Attempt) -> Attempt:
        """Where the store answers, what gave up waiting for it met a fault of its own machine: others may do better."""
        if _met_outage(attempt) and OUTAGE.look(lambda: self.store.manifests([attempt.address])):
            return replace(attempt, outcome=Outcome.IO_ERROR, error_class=Outcome.IO_ERROR.value, unrecorded=True)
        return attempt

    def _settle(self, attempt: Attempt, neighbours: int, shared_failure: bool, place: Place | None) -> None:
        """Decide what follows from an attempt; in a shared failure, another step of the bundle may be the cause."""
        number = self._number(attempt.address)
        self.gpu_seconds += attempt.seconds * self._runtime(number).gpus
        if attempt.outcome is Outcome.SUCCEEDED:
            self.schedule.states[number] = State.COMMITTED
            before = self.mean_seconds.get(attempt.entry, attempt.seconds)
            self.mean_seconds[attempt.entry] = 0.8 * before + 0.2 * attempt.seconds
            self.breaker.succeeded(attempt.entry)
            self.ready.commit(number)
            if place:
                self.health.succeeded(place)
            return
        if (
            place
            and not shared_failure
            and attempt.outcome in _PERHAPS_THE_PLACE
            and self._elsewhere(number, attempt, place)
        ):
            self.tries[number] = elsewhere(self.tries[number], neighbours)
            self.schedule.states[number] = State.PENDING
            self.ready.add(number)
            return
        allowed = self._runtime(number).attempts
        decision = decide(self.tries[number], attempt, allowed, neighbours, shared_failure)
        self.tries[number] = decision.tries
        match decision:
            case Wait(_, pause):
                self._wait_for_other(number, attempt.holder or "", pause)
            case Again(_, pause):
                self._try_again(number, attempt, pause)
            case StopSweep(_, reason):
                self.schedule.stopped = reason
                if attempt.outcome is Outcome.STORE_ERROR:
                    self.store_error = reason
                if _met_outage(attempt):
                    self.schedule.states[number] = State.PENDING
                else:
                    self._fail(number, attempt)
            case Failed():
                self._fail(number, attempt)

    def _elsewhere(self, number: int, attempt: Attempt, place: Place) -> bool:
        """Tell whether a step that died is to be tried at another place first, since this one may be sick."""
        if number in self.health.first:
            # Here too: then it is the step.
            first = self.health.acquit(number)
            for where in (first, Place(first.node, None)):
                if not self.health.verdict(where):
                    self.executor.acquit(where)
            return False
        if not self.executor.elsewhere(place) or attempt.error_class in NOT_THE_PLACE:
            return False
        self.health.died(place, number, f"{attempt.entry}, {(attempt.error or attempt.outcome).splitlines()[0][:200]}")
        for where in (Place(place.node, None), place):
            reason = self.health.verdict(where)
            if reason and self.executor.elsewhere(where):
                self.executor.quarantine(where, reason)
                break
        return True

    def _fail(self, number: int, attempt: Attempt) -> None:
        self.failures += 1
        reason = self.breaker.failed(attempt)
        if reason:
            self._stop_entry(attempt.entry, reason)
        self.schedule.states[number] = State.FAILED
        self.ready.block(number)

    def _stop_entry(self, name: str, reason: str) -> None:
        """Block the pending steps of an entry, and all that wait for them."""
        self.schedule.broken[name] = reason
        self.ready.drop(name)
        entry = self.plan.by_entry[name]
        for number in range(entry.first, entry.last):
            if self.schedule.states[number] == State.PENDING and self.schedule.needed[number]:
                self.schedule.states[number] = State.BLOCKED
                self.ready.block(number)

    def _try_again(self, number: int, attempt: Attempt, pause: float) -> None:
        """Queue a step again: at once if its damaged inputs are recomputed, else after a pause."""
        # A damaged input that could not be set aside is found again by its next reader.
        damaged = [each for each in map(self.plan.number, attempt.damaged) if each is not None]
        with contextlib.suppress(StoreError):
            for each in damaged:
                self._recompute(each)
        self.schedule.states[number] = State.PENDING
        if damaged and all(self.schedule.states[each] not in _NOT_MADE for each in damaged):
            self.ready.add(number, after=[each for each in damaged if each != number])
        else:
            heapq.heappush(self.backoff, (time.monotonic() + pause, number))

    def _wait_for_other(self, number: int, holder: str, pause: float) -> None:
        """Look again later at a step that another driver computes; if its claim has expired, it is evicted then."""
        if self.stillness.seconds(number, holder) >= TERM:
            self.stale[number] = holder
        self.schedule.states[number] = State.ELSEWHERE
        heapq.heappush(self.backoff, (time.monotonic() + pause, number))

    def _recompute(self, number: int) -> None:
        """Run the step of a damaged artifact again, which was set aside, with all missing steps that this one reads."""
        states = self.schedule.states
        address = self.plan.address(number)
        if states[number] not in _NOT_MADE:
            return
        if isinstance(self.store.manifests([address])[address], Manifest):
            # It could not be set aside, or another driver has made it again.
            states[number] = State.COMMITTED
            return
        states[number] = State.PENDING
        self.schedule.needed[number] = True
        parents = list(self.plan.parents(number))
        on_disk = {self.plan.address(parent) for parent in parents}
        # Without an answer: an attempt number used twice does no harm, and a reader notices a missing input.
        with contextlib.suppress(StoreError):
            self.earlier.update({each: len(history) for each, history in self.store.histories([address]).items()})
            on_disk = self.store.committed({each.stage for each in on_disk})
        for parent in parents:
            # The inputs of finished work were not looked at so far.
            if states[parent] == State.UNNEEDED:
                states[parent] = State.COMMITTED
                if self.plan.address(parent) not in on_disk:
                    with contextlib.suppress(StoreError):
                        self._recompute(parent)
        self.ready.add(number)

    def _number(self, address: Artifact) -> int:
        number = self.plan.number(address)
        assert number is not None, "only steps of this plan are run"
        return number


def _met_outage(attempt: Attempt) -> bool:
    """Tell whether an attempt gave up because the store was away for too long; then the step has not failed."""
    return attempt.outcome is Outcome.STORE_ERROR and attempt.error_class == StoreAwayError.__name__


def _with_more_memory(runtime: Runtime, times: int) -> Runtime:
    """Return the runtime of a step that ran out of memory `times` times.

    It gets more memory if the sweep allows that, else a node to itself; and a GPU to itself, and all memory of that.
    """
    gpus = float(math.ceil(runtime.gpus))
    runtime = replace(runtime, gpu_memory=None)
    if runtime.memory and runtime.memory_limit and runtime.memory < runtime.memory_limit:
        return replace(runtime, gpus=gpus, memory=min(runtime.memory * 2**times, runtime.memory_limit))
    return replace(runtime, gpus=gpus, whole_node=True)
