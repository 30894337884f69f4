"""One history: drivers on a cluster run one sweep, much goes wrong, then nothing does any more; what must hold holds."""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import arithmetic
import pyarrow as pa
import pyarrow.parquet as pq
from bucket import Bucket, BucketMedium, BucketStore
from choices import Choices, Place, Seed
from cluster import ClusterExecutor, Nature, Worker, calm
from disk import REAL, Disk
from faults import Faults
from judge import Judge
from tracker import Tracker, WriterActor
from world import Actor, Lock, Node, Thread, World

from orchestrator import drive as drive_module
from orchestrator import pulse
from orchestrator.attempt import attempt as attempt_module
from orchestrator.attempt import bundle as bundle_module
from orchestrator.attempt import outage, stage_call
from orchestrator.attempt.process import Process as StepProcess
from orchestrator.attempt.request import Request
from orchestrator.code import code_commit, this_code
from orchestrator.events import Event, NothingToDo, Progressed
from orchestrator.run import loop
from orchestrator.run.executors import recovery
from orchestrator.run.retry import RETRIED
from orchestrator.run.schedule import State
from orchestrator.run.shutdown import Shutdown
from orchestrator.session import Session, open_session
from orchestrator.store import Store, StoreError, object_lease, posix_lease
from orchestrator.store import lease as lease_module
from orchestrator.store.errors import StoreAwayError
from orchestrator.store.lease import _renew_all
from orchestrator.store.posix import PosixStore
from orchestrator.store.process import Process
from orchestrator.store.records import parse_manifest
from orchestrator.tracking import publisher
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import CELL
from orchestrator.types import Artifact, Attempt, Outcome

#: The product's terms are as long as this share of what they are, so that less time need be simulated.
SCALE = 0.2
BEAT, TERM = SCALE * lease_module.BEAT, SCALE * lease_module.TERM
PATIENCE = SCALE * outage.PATIENCE
#: Seconds that the bad part of a history lasts at most, and that it may take from then on to end.
_BAD, _END = 240.0, 4000.0

#: What is compared of the final table.
COLUMNS = ("cell_id", "x", "y", "status", "error_class", "value", "key")

#: What a step does instead of its work, whoever computes it, and how it ends then.
ODD = {"raises": Outcome.FAILED, "exits": Outcome.FAILED, "leaves a pipe": Outcome.REJECTED}
#: The limits that a sweep may have.
LIMITS: tuple[Mapping[str, Any], ...] = ({}, {"running": 2}, {"failures": 1}, {"breaker": 1})
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


class Setting:
    """What all histories of a real process share: the plans, and a folder in memory."""

    def __init__(self) -> None:
        self.root = f"/dev/shm/simulation-{os.getpid()}"
        shutil.rmtree(self.root, ignore_errors=True)
        os.makedirs(f"{self.root}/sweep")
        file = Path(self.root, "sweep", "simulated.yaml")
        file.write_text(arithmetic.SWEEP)
        session = open_session(file, outputs=f"{self.root}/outputs", store=f"{self.root}/store")
        self.sessions = []
        for limits in LIMITS:
            spec = session.spec.model_copy(update={"limits": session.spec.limits.model_copy(update=dict(limits))})
            self.sessions.append(replace(session, spec=spec, plan=_with_spec(session.plan, spec)))
        self.disk = Disk(self.root)
        # Found out once per process, by way of other processes.
        self.code, self.commit = this_code(), code_commit()
        self.calm: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}


def _with_spec(plan: Any, spec: Any) -> Any:
    import copy

    changed = copy.copy(plan)
    changed.spec = spec
    return changed


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
        self.session = setting.sessions[LIMITS.index(self.limits)]
        self.passing = chooses.below(3)
        """Whether steps may crash, or run out of memory, and be well when they are tried again."""
        # Two containers may have one host name.
        self.nodes = [Node("alpha", "host"), Node("beta", "host"), Node("gamma", "other")]
        self.nature: Actor | None = None
        self.executors: list[ClusterExecutor] = []
        self.drivers: list[Actor] = []
        self.threads: dict[Actor, Thread] = {}
        self.terminated: set[Actor] = set()
        self.tries: dict[tuple[Actor, Artifact], list[Outcome]] = {}
        self.computed: Counter[Artifact] = Counter()
        self.names: dict[Artifact, str] = {}
        self.locks: dict[str, Actor] = {}

    def _tell(self, now: float, who: str, what: str) -> None:
        self.story.append(f"{who} · {now:.1f} s · {_short(what)}")

    # --- running

    def run(self) -> Found:
        with self._installed():
            with contextlib.suppress(_BrokenError):
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
        self.session = self.setting.sessions[0]
        last = self._finish("the last driver")
        self._check_table(last)
        before, rotten = self.computed.copy(), set(self.judge.rotten)
        self._finish("the driver after it")
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
        session = replace(self.session)
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
        driver.facts["code"] = code
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
            self._count(driver, attempt)

    def _count(self, driver: Actor, attempt: Attempt) -> None:
        """Check that no step is tried more often than it may be, and none is given up too early."""
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
        """Kill a driver; its cluster ends its workers, but for those that it can not reach."""
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
            chosen = actor.stream.rare(0.06)
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
            return {name: _slurp(f"{place}/{name}") for name in ("value", "again")}
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
            path = f"{self.setting.root}/store/artifacts/{address.stage}/{address.key}/value"
            with contextlib.suppress(OSError):
                os.chmod(path, 0o644)
                with open(path, "w") as stream:
                    stream.write("rotten")
        self.judge.rotten.add(address)
        return True

    # --- in the end

    def _check_table(self, driver: Actor) -> None:
        path = f"{self.setting.root}/outputs/sweeps/simulated/results.parquet"
        rows = [{name: row.get(name) for name in COLUMNS} for row in pq.read_table(path).to_pylist()]
        rotten = bool(self.judge.rotten)
        expected = self.setting.calm.get(tuple(self.trouble.items()))
        if expected is None:
            self.setting.calm[tuple(self.trouble.items())] = expected = self._expected(rows)
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

    # --- what takes the place of the machine

    def lock(self, folder: Path) -> Any:
        @contextlib.contextmanager
        def locked() -> Iterator[None]:
            name = str(folder)
            folder.mkdir(parents=True, exist_ok=True)
            while name in self.locks and self.locks[name].alive:
                self.world.sleep(0.2)
            self.locks[name] = self.world.actor
            try:
                yield
            finally:
                self.locks.pop(name, None)

        return locked()

    def start_heartbeat(self, actor: Actor) -> None:
        def beat() -> None:
            while True:
                self.world.sleep(BEAT)
                _renew_all()

        self.world.spawn(actor, beat, 0.5)
        if actor not in self.actors:
            self.actors.append(actor)

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        world, setting = self.world, self.setting
        for name in ("store", "outputs", "nodes"):
            shutil.rmtree(f"{setting.root}/{name}", ignore_errors=True)
        random.seed(self.choices.seed[0])
        history = self

        class ShutdownInSimulation(Shutdown):
            def __enter__(self) -> Shutdown:
                world.actor.facts["shutdown"] = self
                return self

            def __exit__(self, *_: object) -> None:
                world.actor.facts.pop("shutdown", None)

        WriterActor.history = self
        patch = mock.patch.object
        patches = [
            patch(time, "monotonic", world.monotonic), patch(time, "perf_counter", world.monotonic),
            patch(time, "time", world.time), patch(time, "sleep", world.sleep),
            patch(secrets, "token_hex", world.token_hex),
            patch(lease_module, "threading", SimpleNamespace(Lock=lambda: Lock(world))),
            patch(lease_module, "this_process", lambda: world.actor.identity),
            patch(lease_module, "_host", lambda: world.actor.node.host),
            patch(lease_module.heartbeat, "start"), patch(Process, "gone", lambda each: world.gone(each)),
            patch(lease_module, "BEAT", BEAT), patch(posix_lease, "TERM", TERM), patch(lease_module, "TERM", TERM),
            patch(loop, "this_code", lambda: setting.code), patch(drive_module, "code_commit", lambda: setting.commit),
            patch(loop, "TERM", TERM), patch(drive_module, "BEAT", BEAT),
            patch(drive_module, "HEARTBEAT_EVERY", 10.0), patch(outage, "PATIENCE", PATIENCE),
            patch(attempt_module, "store_at", lambda _: history.store_of(world.actor)),
            patch(bundle_module, "store_at", lambda _: history.store_of(world.actor)),
            patch(recovery, "open_store", lambda _: history.store_of(world.actor)),
            patch(bundle_module, "sealed_bundle", nullcontext), patch(bundle_module, "same_folder", nullcontext),
            patch(bundle_module.signals, "watched", nullcontext), patch(stage_call, "sealed", nullcontext),
            patch(StepProcess, "capturing", lambda *_: nullcontext()), patch(StepProcess, "prepare", lambda *_: None),
            patch(drive_module, "_refuse_edited_stages", lambda _: None),
            patch(drive_module, "Shutdown", ShutdownInSimulation),
            patch(drive_module, "_executor", lambda *_: ClusterExecutor(history, world.actor)),
            patch(publisher, "_WriterProcess", WriterActor),
            patch(Outbox, "locked", lambda outbox: history.lock(outbox.folder)),
            patch(pulse, "psutil", _PSUTIL), patch(arithmetic, "WORK", self.work),
        ]  # fmt: skip
        for each in patches:
            each.start()
        setting.disk.faults, setting.disk.judge = self.faults, self.judge
        try:
            yield
        finally:
            setting.disk.faults = setting.disk.judge = None
            for each in reversed(patches):
                each.stop()
            for actor in self.actors:
                for lease in list(actor.held.values()):
                    if lease.descriptor is not None:
                        with contextlib.suppress(OSError):
                            os.close(lease.descriptor)
            # Greenlets that are collected run their `finally`, of which nothing is left to be said.
            GRAVEYARD.append([self.actors, self.threads, self.world])


def _short(text: str) -> str:
    """Shorten the names of steps, and what is drawn at random, as far as people can tell them apart."""
    text = re.sub(r"sim_(\w+)/([0-9a-f]{4})[0-9a-f]{28}", r"\1 \2", text)
    return re.sub(r"([0-9a-f]{4})[0-9a-f]{12,28}", r"\1", text)


#: What is kept for the rest of the real process.
GRAVEYARD: list[object] = []
_PSUTIL = SimpleNamespace(
    virtual_memory=lambda: SimpleNamespace(total=1, available=1), cpu_count=lambda: 1, cpu_percent=lambda: 0.0
)


class _BrokenError(Exception):
    """What must not happen did."""


def _slurp(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
