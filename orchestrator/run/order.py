"""Decides which ready steps are started next: cells are finished early and evenly, as far as that costs nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.plan.needed import heights
from orchestrator.run.executors import Executor, Slot
from orchestrator.run.ready import Queue, ReadySteps, Resources
from orchestrator.run.schedule import Schedule, State
from orchestrator.types import Runtime

#: Maximal number of steps in a bundle, so that a dying process takes few of them with it.
_BUNDLE_LIMIT = 64
#: Seconds that a bundle of steps takes that cost less together than one by one.
_TOGETHER_SECONDS = 30.0
#: Bundles per slot that are preferred to steps that do not fill one.
_PATIENCE = 4
#: One in so many GPUs makes models while the others have work with those that there are.
_MAKERS = 4


@dataclass(frozen=True, slots=True)
class _Offer:
    """The work for processes that keep their model; models are in their turn."""

    changes: int
    """Number of changes that the queues had gone through."""
    firsts: Mapping[str, Queue]
    """Model -> the queue of its first step."""
    bundles: Mapping[str, int]
    """Model -> number of bundles that its steps make."""
    turns: Mapping[str, int]
    """Model -> turn of its first step."""
    nearest: Mapping[int, int]
    """Distance to a target -> turn of the first step that is so far."""


class Order:
    """Chooses the next bundle: those nearest to a target go first, where that loses neither bundles nor loaded models.

    GPUs are given work before cores are; while none is ready for them, cores make it so. Of steps that any process may
    run, those nearest to a target are taken, since they finish cells. But small steps are bundled, and where few have
    become ready they wait until they fill a bundle, until others were preferred for long, or until nothing else is
    ready. Steps that load a model are offered in their turn, those of all entries together, to processes that keep the
    model.
    """

    def __init__(
        self,
        schedule: Schedule,
        ready: ReadySteps,
        executor: Executor,
        mean_seconds: Mapping[str, float],
        runtimes: Mapping[str, Runtime],
    ) -> None:
        """Take over what the order depends on; all but the runtimes changes while steps are run.

        Args:
            schedule: the state of every step.
            ready: the steps to choose from.
            executor: tells where there is room.
            mean_seconds: entry -> seconds that its steps take; those without a finished step are left out.
            runtimes: entry -> the runtime of one of its steps.
        """
        self._schedule = schedule
        self._ready = ready
        self._executor = executor
        self._mean_seconds = mean_seconds
        self._runtimes = runtimes
        self._height = heights(schedule.plan)
        self._offers: dict[Resources, _Offer] = {}
        self._nearest_first = sorted(schedule.plan.entries, key=lambda name: self._height[name])
        self._feeders = {
            name: {source.entry for source in schedule.plan.by_entry[name].sources}
            for name, runtime in runtimes.items()
            if runtime.gpus
        }
        """Entry that uses GPUs -> the entries that it reads."""
        self._upstream: set[str] = set()
        """Entries without GPUs that steps on GPUs wait for."""
        for name in reversed(schedule.plan.entries):
            if name in self._feeders or name in self._upstream:
                sources = {source.entry for source in schedule.plan.by_entry[name].sources}
                self._upstream |= sources - self._feeders.keys()

    def next(self, busy: bool) -> tuple[Queue, Slot, int] | None:
        """Return the queue to serve next, a slot, and how many steps to bundle; None if there is no room or no step.

        Args:
            busy: whether steps are running; if none is, no step waits for others to fill a bundle.
        """
        found = (
            self._next_task(True, busy, self._hasty())
            or self._next_warm(True)
            or self._next_task(True, busy)
            or self._next_warm(False)
            or self._next_task(False, busy)
        )
        return (*found, self._bundle_size(found[0])) if found else None

    def demand(self, died: Collection[int] = ()) -> dict[Runtime, int]:
        """Return the bundles for GPUs that are ready, by runtime; the first come first.

        Args:
            died: steps that are to be tried again where they did not die.
        """
        demand: Counter[Runtime] = Counter()
        hasty = self._hasty()
        later: Counter[Runtime] = Counter()
        for name in self._nearest_first:
            for runtime, queues in self._ready.tasks[name].items():
                if runtime.gpus:
                    bundles = sum(math.ceil(len(queue.heap) / self._full_bundle(queue)) for queue in queues.values())
                    (later if name in hasty else demand)[runtime] += bundles
        for resources, models in self._ready.warm.items():
            if models and resources[1]:
                offer = self._offer(resources)
                demand[next(iter(offer.firsts.values())).runtime] += sum(offer.bundles.values())
        for runtime, bundles in later.items():
            demand[runtime] += bundles
        for number in died:
            if self._schedule.states[number] == State.PENDING:
                # The place where it died is no place for it.
                demand[self._ready.runtime(number)] += 1
        return {runtime: bundles for runtime, bundles in demand.items() if bundles and runtime.gpus}

    def soon(self) -> dict[Runtime, int]:
        """Return the steps for GPUs, by runtime, that what runs now may make ready."""
        soon: Counter[Runtime] = Counter()
        states = self._schedule.states
        for name, feeders in self._feeders.items():
            entries = [self._schedule.plan.by_entry[feeder] for feeder in feeders]
            running = sum(states.count(State.RUNNING, entry.first, entry.last) for entry in entries)
            if running:
                entry = self._schedule.plan.by_entry[name]
                soon[self._runtimes[name]] += min(running, states.count(State.PENDING, entry.first, entry.last))
        return {runtime: bundles for runtime, bundles in soon.items() if bundles}

    def _next_task(self, on_gpus: bool, busy: bool, hasty: Collection[str] = ()) -> tuple[Queue, Slot] | None:
        few: list[tuple[Queue, Slot]] = []
        crowded = False
        first: Collection[str] = ()
        if not on_gpus:
            starving = not any(self._ready.counts[name] for name in self._feeders)
            first = {*(self._upstream if starving else ()), *filter(self._are_last, self._nearest_first)}
        for name in sorted(self._nearest_first, key=lambda name: name not in first) if first else self._nearest_first:
            for runtime, queues in self._ready.tasks[name].items():
                if not queues or bool(runtime.gpus) is not on_gpus or name in hasty:
                    continue
                slot = self._executor.find_slot(runtime, {})
                if slot is None:
                    crowded = True
                    continue
                in_turn = sorted(queues.values(), key=self._ready.turn)
                queue = next((queue for queue in in_turn if name in first or self._fills_bundle(queue)), None)
                if queue:
                    return queue, slot
                few.append((in_turn[0], slot))
        return few[0] if few and not (crowded and busy) else None

    def _are_last(self, name: str) -> bool:
        """Tell whether all steps of an entry that are left are ready and can run at once, and others wait for them.

        Begun last of all, one of them and what waits for it would leave all other cores without work.
        """
        ready = self._ready.counts[name]
        if not (ready and self._height[name] and 1 < self._executor.slots(self._runtimes[name]) >= ready):
            return False
        steps = self._schedule.plan.by_entry[name].steps
        left = self._schedule.needed[steps.start : steps.stop] & (
            self._schedule.codes[steps.start : steps.stop] == State.PENDING
        )
        return int(left.sum()) == ready

    def _hasty(self) -> set[str]:
        """Return the entries whose steps should leave GPUs to work with models that there are.

        Training a model is one long step for one GPU, and what is done with the model can be shared by all of them.
        Begun in its turn, the last training would have all others wait; begun first, all would hold up the first cells.
        """
        nearest = [self._offer(resources).nearest.items() for resources in self._ready.warm if resources[1]]
        found: set[str] = set()
        running, slots = 0, 1
        for name, kinds in self._ready.tasks.items():
            on_gpus = {runtime: queues for runtime, queues in kinds.items() if runtime.gpus}
            if not on_gpus:
                continue
            entry = self._schedule.plan.by_entry[name]
            running += self._schedule.states.count(State.RUNNING, entry.first, entry.last)
            slots = max(slots, *map(self._executor.slots, on_gpus))
            turn = min((self._ready.turn(queue) for queues in on_gpus.values() for queue in queues.values()), default=0)
            if any(height < self._height[name] and first < turn for each in nearest for height, first in each):
                found.add(name)
        return found if running >= slots // _MAKERS else set()

    def _next_warm(self, on_gpus: bool) -> tuple[Queue, Slot] | None:
        for resources, models in self._ready.warm.items():
            if not models or bool(resources[1]) is not on_gpus:
                continue
            offer = self._offer(resources)
            slot = self._executor.find_slot(next(iter(offer.firsts.values())).runtime, offer.bundles, offer.turns)
            if slot:
                assert slot.model is not None, "it was asked for a model"
                return offer.firsts[slot.model], slot
        return None

    def _offer(self, resources: Resources) -> _Offer:
        """Return the work for processes with some resources; it is made anew where steps have come or gone since."""
        found = self._offers.get(resources)
        changes = self._ready.changes[resources]
        if found is None or found.changes != changes:
            found = self._offers[resources] = self._make_offer(resources, changes)
        return found

    def _make_offer(self, resources: Resources, changes: int) -> _Offer:
        models = self._ready.warm[resources]
        in_turn = sorted(
            ((min(queues.values(), key=self._turn), model) for model, queues in models.items()),
            key=lambda each: self._turn(each[0]),
        )
        nearest: dict[int, int] = {}
        for queue in (queue for queues in models.values() for queue in queues.values()):
            turn, height = self._ready.turn(queue), self._height[queue.entry]
            nearest[height] = min(turn, nearest.get(height, turn))
        return _Offer(
            changes,
            firsts={model: queue for queue, model in in_turn},
            bundles={
                model: sum(math.ceil(len(each.heap) / self._full_bundle(each)) for each in models[model].values())
                for _, model in in_turn
            },
            turns={model: self._ready.turn(queue) for queue, model in in_turn},
            nearest=nearest,
        )

    def _turn(self, queue: Queue) -> tuple[int, int]:
        """Return by what queues are sorted: the turn, and where that is the same, the distance to a target."""
        return self._ready.turn(queue), -self._height[queue.entry]

    # --- bundles

    def _fills_bundle(self, queue: Queue) -> bool:
        """Tell whether its steps fill a bundle, or have waited while many others were preferred."""
        return len(queue.heap) >= self._full_bundle(queue) or self._rounds(queue) >= _PATIENCE

    def _rounds(self, queue: Queue) -> float:
        """Return how many bundles each slot was given since a queue got its first step, or was last served."""
        passed = self._ready.begun[queue.runtime.gpus > 0] - queue.since
        return passed / self._executor.slots(queue.runtime)

    def _full_bundle(self, queue: Queue) -> int:
        """Return how many steps fill `bundle_seconds`; 1 while nobody knows how long one takes."""
        mean_seconds = self._mean_seconds.get(queue.entry)
        if mean_seconds is None or not self._executor.bundle_seconds:
            return 1
        together = self._schedule.plan.stage(self._ready.first(queue)).together
        seconds = _TOGETHER_SECONDS if together else self._executor.bundle_seconds
        return max(1, min(int(seconds / max(mean_seconds, 1e-6)), _BUNDLE_LIMIT))

    def _bundle_size(self, queue: Queue) -> int:
        """Return how many steps to take: they fill a bundle, but no more than leave work for all other slots."""
        full = self._full_bundle(queue)
        if full == 1:
            return 1
        mine = self._work(queue.entry, 1)
        whole = sum(
            self._work(name, count)
            for name, count in self._ready.counts.items()
            if count and bool(self._runtimes[name].gpus) is bool(queue.runtime.gpus)
        )
        return max(1, min(full, math.ceil(whole / mine / (2 * self._executor.slots(queue.runtime)))))

    def _work(self, name: str, steps: int) -> float:
        """Return the seconds that some steps of an entry keep a core or GPU busy; 0 if nobody knows."""
        runtime = self._runtimes[name]
        return steps * max(self._mean_seconds.get(name, 0.0), 1e-6) * (runtime.gpus or runtime.cpus)
