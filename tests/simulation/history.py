"""One history: drivers run one sweep, much goes wrong, then nothing does any more; and what must hold is checked."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from bucket import Bucket, BucketMedium, BucketStore
from choices import Choices, Place, Seed
from cluster import ClusterExecutor, Nature, calm
from faults import Faults
from judge import Judge
from machine import BEAT, installed
from setting import LIMITS, Setting
from studies import check_studies
from tracker import Tracker
from world import Actor, Node, Thread, World, short

from orchestrator import drive as drive_module
from orchestrator.attempt.request import Request
from orchestrator.events import Event, NothingToDo, Progressed
from orchestrator.run.retry import RETRIED
from orchestrator.run.schedule import State
from orchestrator.session import Session
from orchestrator.store import Store, StoreError
from orchestrator.store.errors import StoreAwayError
from orchestrator.store.lease import _renew_all
from orchestrator.store.posix import PosixStore
from orchestrator.store.records import parse_manifest
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import CELL
from orchestrator.types import Artifact, Attempt, Outcome

#: Seconds that the bad part of a history lasts at most, and that it may take from then on to end.
_BAD, _END = 240.0, 4000.0

#: What is compared of the final table.
COLUMNS = ("cell_id", "x", "y", "status", "error_class", "value", "key")

#: What a step does instead of its work, whoever computes it, and how it ends then.
ODD = {"raises": Outcome.FAILED, "exits": Outcome.FAILED, "leaves a pipe": Outcome.REJECTED}
#: Keys of `ODD` by step, of which each history has one.
_TROUBLES: tuple[Mapping[str, str], ...] = (
    {}, {}, {}, {"source of 2": "raises"}, {"source of 1": "exits"}, {"double of 2": "leaves a pipe"},
    {"total of 2 and 10": "exits", "total of 4 and 20": "raises"}, {"double of 1": "raises", "double of 2": "exits"},
)  # fmt: skip


@dataclass
class Found:
    """What came of a history."""

    seed: Seed
    broken: list[str]
    operations: int
    seconds: float
    """Of simulated time."""
    effective: dict[Place, float]
    seen: set[tuple[object, ...]]
    counts: Counter[str]
    story: list[str] = field(default_factory=list)


class History:
    """One history."""

    def __init__(
        self, setting: Setting, seed: Seed, kept: Mapping[Place, float] | None = None, telling: bool = False
    ) -> None:
        self.setting = setting
        self.choices = Choices(seed, kept)
        self.story: list[str] = []
        self.world = World(self.choices, self._tell if telling else None)
        self.actors: list[Actor] = []
        self.world.actors = self.actors
        self.faults = Faults(self.world)
        self.judge = Judge(self.world)
        self.tracker = Tracker(self.faults)
        self.bucket = Bucket(self.faults, self.judge)
        chooses = self.choices.stream("history")
        self.objects = bool(chooses.below(2))
        self.trouble = _TROUBLES[chooses.below(len(_TROUBLES))]
        self.limits = LIMITS[chooses.below(len(LIMITS))]
        self.searches = not self.choices.stream("sweep").below(4)
        """Whether the sweep is a search, whose plan grows."""
        self.passing = chooses.below(3)
        """Whether steps may crash, or run out of memory, and be well when they are tried again."""
        # Two containers may have one host name.
        self.nodes = [Node("alpha", "host"), Node("beta", "host"), Node("gamma", "other")]
        self.nature: Actor | None = None
        self.executors: list[ClusterExecutor] = []
        self.drivers: list[Actor] = []
        self.threads: dict[Actor, Thread] = {}
        self.tries: dict[tuple[Actor, Artifact], list[Outcome]] = {}
        self.computed: Counter[Artifact] = Counter()
        self.names: dict[Artifact, str] = {}
        self.locks: dict[str, Actor] = {}

    def _tell(self, now: float, who: str, what: str) -> None:
        self.story.append(f"{who} · {now:.1f} s · {short(what)}")

    # --- running

    def run(self) -> Found:
        with installed(self), contextlib.suppress(_BrokenError):
            self._live()
        judge = self.judge
        return Found(
            self.choices.seed, judge.broken, self.world.operations, self.world.now, self.choices.effective,
            {*judge.seen, *self.faults.seen},
            judge.counts, self.story,
        )  # fmt: skip

    def _live(self) -> None:
        world = self.world
        chooses = self.choices.stream("drivers")
        self.nature = Actor(world, "nature", self.nodes[0])
        world.spawn(self.nature, Nature(self).run)
        for number in range(2 + chooses.below(2)):
            self.start_driver(float(chooses.below(8)), self.nodes[number % 2 if number < 2 else 2])
        world.run(lambda: self._settled() or bool(self.judge.broken), _BAD)
        self._stop_if_broken()
        world.tell("from here on nothing goes wrong any more", self.nature)
        calm(self.faults, self.actors)
        if not world.run(lambda: self._settled() or bool(self.judge.broken), world.now + _END):
            left = ", ".join(map(str, self.living_drivers()))
            self.judge.demand(bool(self.judge.broken), f"{left} never ends")
        self._stop_if_broken()
        self.limits = LIMITS[0]
        last = self._finish("the last driver")
        self._check_table(last)
        check_studies(self, last)
        before, rotten = self.computed.copy(), set(self.judge.rotten)
        after = self._finish("the driver after it")
        idle = after.facts.get("idle") or self.trouble or rotten
        self.judge.demand(bool(idle), "the driver after the last one finds something to do")
        good = [each for each in self.computed - before if each in self.judge.made and each not in rotten]
        self.judge.demand(not good, f"{len(good)} steps are computed once more, though nothing was missing")
        self._check_tracker()

    def _stop_if_broken(self) -> None:
        if self.judge.broken:
            raise _BrokenError

    def _finish(self, name: str) -> Actor:
        """Run a driver to its end, while nothing goes wrong."""
        driver = self.start_driver(0.0, self.nodes[0], name)
        over = self.world.run(lambda: self.threads[driver].ended or bool(self.judge.broken), self.world.now + _END)
        self.judge.demand(over or bool(self.judge.broken), f"{name} never ends")
        self._stop_if_broken()
        return driver

    def _settled(self) -> bool:
        return not self.living_drivers()

    def living_drivers(self) -> list[Actor]:
        return [each for each in self.drivers if each.alive and not self.threads[each].ended]

    # --- drivers

    def start_driver(self, delay: float, node: Node, name: str | None = None) -> Actor:
        driver = Actor(self.world, name or f"driver {len(self.drivers) + 1}", node)
        self.actors.append(driver)
        self.drivers.append(driver)
        self.threads[driver] = self.world.spawn(driver, lambda: self._drive(driver), delay)
        return driver

    def _drive(self, driver: Actor) -> None:
        session = self.setting.session(self.limits, self.searches)
        session.__dict__["store"] = self.store_of(driver)
        driver.facts["session"] = session
        self.world.tell("starts")
        try:
            code = drive_module.drive(session, tracking_uri="simulated://mlflow", on_event=self._heard)
        except StoreError as error:
            self.world.tell(f"ends with 2: {str(error).partition(' (')[0]}")
            hurt = self.world.faults or self.world.now - driver.facts.get("hurt", -math.inf) < 60
            self.judge.demand(hurt, f"{driver} ends with an error though nothing went wrong: {error}")
            beside = [line for line in str(error).splitlines() if "/outputs/" in line and "the table" not in line]
            self.judge.demand(not beside, f"what is beside the steps ends {driver}: {beside}")
            code = 2
        except BaseException as error:
            self.judge.demand(False, f"{driver} ends with {type(error).__name__}: {error}")
            raise
        self.world.tell(f"ends with {code}")
        if code in (0, 1):
            left = session.schedule.codes[session.schedule.needed]
            waiting = [str(State(each)) for each in left if each in (State.PENDING, State.RUNNING, State.ELSEWHERE)]
            stopped = session.schedule.stopped is not None
            self.judge.demand(not waiting or stopped, f"{driver} ends, and leaves steps {waiting}")

    def _heard(self, event: Event) -> None:
        driver = self.world.actor
        if isinstance(event, NothingToDo):
            driver.facts["idle"] = True
        if isinstance(event, Progressed) and event.attempt:
            attempt = event.attempt
            self.world.tell(f"hears: {attempt.entry} {attempt.address.key[:4]} {attempt.outcome}")
            self.judge.reported(attempt)
            foreign = attempt.driver not in ("", driver.facts.get("driver"))
            self.judge.demand(not foreign, f"{driver} takes an attempt of {attempt.driver} for its own")
            self._count(driver, attempt)

    def _count(self, driver: Actor, attempt: Attempt) -> None:
        """Check that no step is tried more often than it may be, and that each attempt ends as what it was."""
        if attempt.outcome in (Outcome.LOST, Outcome.CLAIMED):
            return
        tries = self.tries.setdefault((driver, attempt.address), [])
        if attempt.outcome is Outcome.SUCCEEDED:
            tries.clear()
            return
        tries.append(attempt.outcome)
        allowed = 3
        self.judge.demand(
            len(tries) <= allowed, f"{driver} tries {attempt.entry} {len(tries)} times, of {allowed} allowed"
        )
        away = attempt.error_class == StoreAwayError.__name__
        self.judge.demand(
            attempt.outcome is not Outcome.STORE_ERROR or away,
            f"the step {attempt.entry} stops the sweep, though the store takes whatever is written: {attempt.error}",
        )
        odd = self.trouble.get(self.names.get(attempt.address, ""))
        self.judge.demand(
            attempt.outcome in RETRIED or away or (odd is not None and attempt.outcome is ODD[odd]),
            f"a step that {odd or 'does its work'} ends as {attempt.outcome}: {attempt.error}",
        )

    def submitted(self, executor: ClusterExecutor, requests: Sequence[Request]) -> None:
        """Check the limits of a driver that starts a bundle."""
        session: Session = executor.driver.facts["session"]
        executor.driver.facts["driver"] = requests[0].driver
        limits = session.spec.limits
        running = sum(len(each) for each in executor._running()) + len(requests)
        if limits.running is not None:
            self.judge.demand(running <= limits.running, f"{running} steps run, of {limits.running} allowed")
        failed = int((session.schedule.codes == State.FAILED).sum())
        if limits.failures is not None:
            self.judge.demand(failed < limits.failures, f"steps are started after {failed} failures")
        for request in requests:
            self.judge.demand(request.step.entry not in session.schedule.broken, "a step of a broken entry is started")

    def kill_driver(self, driver: Actor) -> None:
        """Kill a driver; its cluster ends its workers, but for those that it cannot reach."""
        self.world.kill(driver)
        for child in driver.facts.get("children", ()):
            self.world.kill(child)
        for executor in self.executors:
            if executor.driver is driver:
                executor.kill_workers()

    def some_node(self, driver: Actor) -> Node:
        fit = [node for node in self.nodes if not node.lost]
        return fit[driver.stream.below(len(fit))]

    def replace_node(self, node: Node) -> None:
        """A new machine comes in the place of a lost one; it may have the same host name."""
        self.nodes[self.nodes.index(node)] = Node(f"{node.name}2", node.host)

    # --- what steps do

    def work(self, name: str, out: Path, value: float) -> None:
        """Compute a step: two files, one after the other, which say who made them."""
        world, actor = self.world, self.world.actor
        bundle: Sequence[Request] = actor.facts.get("bundle", ())
        address = next((each.step.address for each in bundle if each.step.address.key in str(out)), None)
        assert address
        self.names[address] = name
        self.computed[address] += 1
        world.tell(f"computes the {name}")
        world.sleep(0.3 + actor.pace * 0.4)
        odd = self.trouble.get(name)
        if odd == "raises":
            raise RuntimeError(f"the {name} cannot be")
        if odd == "exits":
            raise SystemExit(3)
        maker = str(next(world.numbers))
        self.setting.disk.write(str(out), "value", f"{value!r} {maker}")
        if odd == "leaves a pipe":
            os.mkfifo(out / "pipe")
        if world.faults and self.passing:
            chosen = actor.stream.rare(0.08 * self.passing)
            if chosen is not None:
                actor.facts["starved"] = chosen > 0.5
                world.tell(f"the {name} {'runs out of memory' if chosen > 0.5 else 'crashes'}")
                world.kill(actor)
        world.sleep(0.3 + actor.pace * 0.4)
        self.setting.disk.write(str(out), "again", f"{value!r} {maker}")

    # --- places

    def store_of(self, actor: Actor) -> Store:
        store = actor.facts.get("store")
        if store is None:
            if self.objects:
                cache = Path(self.setting.root, "nodes", actor.node.name)
                store = BucketStore(BucketMedium(self.bucket), cache)
            else:
                store = PosixStore(Path(self.setting.root, "store"))
            actor.facts["store"] = store
        return store  # type: ignore[no-any-return]

    def files_of(self, address: Artifact) -> dict[str, bytes] | None:
        """Read a committed artifact behind everybody's back."""
        if self.objects:
            content = self.bucket.objects.get(f"manifests/{address.stage}/{address.key}.json")
            if content is None:
                return None
            manifest = parse_manifest(address, content)
            folder = f"artifacts/{address.stage}/{address.key}/{manifest.upload}"
            return {name: self.bucket.objects.get(f"{folder}/{name}", b"") for name in manifest.files}
        place = Path(self.setting.root, "store", "artifacts", address.stage, address.key)
        try:
            return {name: (place / name).read_bytes() for name in ("value", "again")}
        except OSError:
            return None

    def damage(self, address: Artifact) -> bool:
        """Alter a committed file."""
        if self.objects:
            content = self.bucket.objects.get(f"manifests/{address.stage}/{address.key}.json")
            if content is None:
                return False
            manifest = parse_manifest(address, content)
            path = f"artifacts/{address.stage}/{address.key}/{manifest.upload}/value"
            self.bucket.objects[path] = b"rotten"
        else:
            place = Path(self.setting.root, "store", "artifacts", address.stage, address.key, "value")
            with contextlib.suppress(OSError):
                place.chmod(0o644)
                place.write_text("rotten")
        self.judge.rotten.add(address)
        return True

    # --- in the end

    def _check_table(self, driver: Actor) -> None:
        path = f"{self.setting.root}/outputs/sweeps/simulated/results.parquet"
        columns = (*COLUMNS, *(("trial", "add") if self.searches else ()))
        rows = [{name: row.get(name) for name in columns} for row in pq.read_table(path).to_pylist()]
        rotten = bool(self.judge.rotten)
        expected = self._expected(rows)
        if rows != expected and not rotten:
            for row, right in zip(rows, expected, strict=True):
                if row != right:
                    self.judge.demand(False, f"the table says {row}, a calm run {right}")
                    break
        for address in self.judge.committed:
            files = self.files_of(address)
            if address in self.judge.rotten:
                continue
            self.judge.demand(files is not None, f"{address.stage}/{address.key} was committed, and is lost")
            self.judge.demand(
                not files or len({*files.values()}) == 1,
                f"{address.stage}/{address.key} has parts of two attempts: {files}",
            )

    def _expected(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Work out what a calm run finds, from the definition of the sweep."""
        expected = []
        for row in rows:
            x, y = row["x"], row["y"]
            if self.searches:
                y += self.setting.suggested[row["trial"]]
            steps = [f"source of {x}", f"double of {x}", f"total of {2 * x} and {y}"]
            odd = next((number for number, name in enumerate(steps) if name in self.trouble), None)
            kind = self.trouble[steps[odd]] if odd is not None else None
            error = {"raises": "RuntimeError", "exits": "SystemExit", "leaves a pipe": "rejected"}.get(kind or "")
            status = "succeeded" if odd is None else "failed" if odd == 2 else "blocked"
            value = 2.0 * x + y if odd is None else None
            expected.append({**row, "status": status, "error_class": error, "value": value})
        return expected

    def _check_tracker(self) -> None:
        outbox = Outbox(Path(self.setting.root, "outputs", "sweeps", "simulated", "outbox"))
        outbox.follow()
        shown = Counter(each.tags[CELL] for each in self.tracker.runs.values() if CELL in each.tags)
        twice = [name for name, count in shown.items() if count > 1]
        self.judge.demand(not twice, f"MLflow has {twice} more than once")
        cells = {id_ for id_ in outbox.digests if ":" not in id_}
        self.judge.demand(set(shown) == cells, f"MLflow has {len(shown)} cells of {len(cells)}")

    def start_heartbeat(self, actor: Actor) -> None:
        def beat() -> None:
            while True:
                self.world.sleep(BEAT)
                _renew_all()

        self.world.spawn(actor, beat, 0.5)
        self.actors += [actor] if actor not in self.actors else []


class _BrokenError(Exception):
    """What must not happen did."""
