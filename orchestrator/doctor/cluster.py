"""A Ray cluster: every node is asked by a small actor on it, and all of them try one lease on the store."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.doctor.examination import Probe
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from orchestrator.doctor.node import Facts, clocks, clones, compare, count, devices_of_ray, facts
from orchestrator.doctor.packages import versions
from orchestrator.redact import redact
from orchestrator.run.executors.ray_start import RayUnreachableError, connect
from orchestrator.store import ClaimedError, StoreError, open_store
from orchestrator.store.object_medium import ObjectMedium
from orchestrator.store.posix_medium import PosixMedium
from orchestrator.store.process import Process, this_process
from orchestrator.texts import plain_text
from orchestrator.types import Artifact

#: Seconds for the connection, for the processes on all nodes to start and look around, and for each question.
_CONNECT, _LOOK, _ASK = 60.0, 120.0, 30.0
#: Rounds in which all nodes want one lease.
_ROUNDS = 5


def _medium(location: str) -> ObjectMedium | PosixMedium:
    return ObjectMedium(location) if "://" in location else PosixMedium(Path(location))


class _Node:
    """Runs on a node."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._held = contextlib.ExitStack()

    def facts(self, servers: Sequence[tuple[str, str | None]], pythons: Sequence[str]) -> Facts:
        return facts(servers, pythons)

    def now(self) -> float:
        return time.time()

    def gone(self, processes: Mapping[str, Process]) -> list[str]:
        return [label for label, process in processes.items() if process.gone()]

    def exchange(self, location: str, asked: Sequence[str], names: Mapping[str, str]) -> str:
        """Read what others wrote, and write what they are to read; returns what is wrong.

        Args:
            location: the folder or URI that all nodes are to share.
            asked: what to read.
            names: label of a node -> what it is to write.
        """
        try:
            medium = _medium(location)
            found = medium.read({each: each for each in asked})
            missing = [each for each in asked if found[each] != each.encode()]
            if missing:
                return f"does not see what {' and '.join(missing)} wrote"
            # Not where nothing was seen: a folder would be made that nobody deletes.
            if name := names.get(self._label):
                medium.create(name, name.encode())
        except StoreError as error:
            return str(error)
        return ""

    def take(self, location: str, number: int) -> bool | str:
        """Take a lease and keep it; returns whether it was free, or what is wrong."""
        # What an object store fetches is cached on the node.
        os.environ["SWEEP_CACHE"] = self._held.enter_context(tempfile.TemporaryDirectory(prefix="doctor-"))
        step = Artifact("doctor", f"{number:032}")
        try:
            self._held.enter_context(open_store(location).lease(step, secrets.token_hex(8)))
        except ClaimedError:
            return False
        except StoreError as error:
            return str(error)
        return True

    def release(self) -> None:
        self._held.close()


@contextlib.contextmanager
def cluster_probes(
    address: str | None,
    location: str,
    servers: Sequence[tuple[str, str | None]],
    exchange: str,
    pythons: Sequence[str] = (),
) -> Iterator[Sequence[Probe]]:
    """Give the probes of a cluster.

    Args:
        address: the cluster; None in a job of it, or where RAY_ADDRESS names it.
        location: the store that all nodes are to share.
        servers: endpoints that steps ask, each with the variable that holds its key.
        exchange: a place in that store that nobody has made yet; whoever named it deletes it afterwards.
        pythons: interpreters of other environments that steps run under.
    """
    cluster = _Cluster(address, location, servers, exchange, pythons)
    try:
        yield [
            Probe("connection", cluster.connect, _CONNECT + 5),
            Probe("nodes", cluster.look, _LOOK + 5),
            Probe("clocks", cluster.clocks, _ASK),
            Probe("processes", cluster.processes, _ASK),
            Probe("store", cluster.exchange, 2 * _ASK),
            Probe("one lease", cluster.leases, 2 * _ASK),
        ]
    finally:
        cluster.end()


class _Cluster:
    """The nodes of a cluster that answer."""

    def __init__(
        self,
        address: str | None,
        location: str,
        servers: Sequence[tuple[str, str | None]],
        exchange: str,
        pythons: Sequence[str],
    ) -> None:
        self._address = address
        self._location = location
        self._servers, self._pythons = list(servers), list(pythons)
        self._disconnect: Callable[[], None] | None = None
        self._actors: dict[str, Any] = {}
        self._facts: dict[str, Facts] = {}
        self._sharing = False
        self._exchange = exchange

    def connect(self) -> list[Finding]:
        """Connect to the cluster."""
        try:
            self._disconnect = connect(self._address)
        except RayUnreachableError as error:
            seen, _, remedy = str(error).removesuffix(" Nothing was run.").partition(". ")
            return [wrong("connection", plain_text(seen), remedy or "start a cluster (ray start --head)", last=True)]
        nodes = _nodes()
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        shown = f"Ray {ray.__version__}, {count(nodes)}, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
        if not total.get("CPU"):
            return [warning("connection", f"{shown}: no step can run", "start Ray on a node with cores")]
        return [ok("connection", shown)]

    def look(self) -> list[Finding]:
        """Start a process on every node, and compare what they tell."""
        here = {_label(each): each for each in _nodes()}
        remote = ray.remote(_Node)
        for label, each in here.items():
            where = NodeAffinitySchedulingStrategy(each["NodeID"], soft=False)
            self._actors[label] = remote.options(num_cpus=0, scheduling_strategy=where).remote(label)
        self._facts, trouble = self._ask("facts", self._servers, self._pythons, seconds=_LOOK)
        self._actors = {label: self._actors[label] for label in self._facts}
        findings = [
            wrong("nodes", f"{label} {reason}", "mend or remove that node; steps that run there are lost")
            for label, reason in trouble.items()
        ]
        if not self._facts:
            return [*findings, wrong("nodes", "no node answers", "look at Ray's logs: /tmp/ray/session_latest", True)]
        if not findings:
            findings.append(ok("nodes", f"all answer: {', '.join(self._facts)}"))
        promised = {label: here[label]["Resources"].get("GPU", 0.0) for label in self._facts}
        return [*findings, *compare(versions(), self._facts), devices_of_ray(self._facts, promised)]

    def clocks(self) -> list[Finding]:
        """Compare the clocks of all nodes with this one's."""
        offsets: dict[str, float] = {}
        for label, actor in self._actors.items():
            for _ in range(3):
                before = time.time()
                there = float(ray.get(actor.now.remote(), timeout=_ASK))
                after = time.time()
                offset = there - min(max(there, before), after)
                offsets[label] = min(offsets.get(label, offset), offset, key=abs)
        return [clocks(offsets)]

    def processes(self) -> list[Finding]:
        """Have every node look at living processes of those that seem to be on its machine."""
        living = {"the driver": this_process(), **{label: each.process for label, each in self._facts.items()}}
        gone, _ = self._ask("gone", living, seconds=_ASK)
        return [clones(self._facts, gone)]

    def exchange(self) -> list[Finding]:
        """Have every node read what the driver wrote, and the others what each node wrote."""
        medium = _medium(self._exchange)
        try:
            medium.create("the driver", b"the driver")
        except StoreError as error:
            return [
                wrong("store", f"the driver cannot write it: {redact(str(error))}", "see what is said of the store")
            ]
        names = {label: f"node-{number}" for number, label in enumerate(self._actors)}
        said, trouble = self._ask("exchange", self._exchange, ["the driver"], names, seconds=_ASK)
        sharing = [names[label] for label, reason in said.items() if not reason]
        again, more = self._ask("exchange", self._exchange, sharing, {}, seconds=_ASK)
        said = {label: said.get(label) or again.get(label, "") for label in names} | more | trouble
        found = medium.read({each: each for each in sharing})
        unseen = [label for label, name in names.items() if name in sharing and found[name] != name.encode()]
        bad = [f"{label} {reason}" for label, reason in said.items() if reason]
        bad += [f"the driver does not see what {label} wrote" for label in unseen]
        self._sharing = not bad
        if bad:
            remedy = "share one folder between all nodes, or give an object store and its credentials to each of them"
            return [wrong("store", f"{self._location}: {'; '.join(bad)}", remedy)]
        return [ok("store", f"{self._location}: the driver and {count(said)} see what each of them wrote")]

    def leases(self) -> list[Finding]:
        """Have all nodes want one lease at once, several times."""
        name, medium = "one lease", _medium(self._exchange)
        if not self._sharing:
            return [ok(name, "not tried, since not all nodes see the store")]
        if isinstance(medium, ObjectMedium) and not medium.conditional():
            return [ok(name, "not tried, since the store ignores conditions")]
        for number in range(_ROUNDS):
            taken, trouble = self._ask("take", self._exchange, number, seconds=_ASK)
            self._ask("release", seconds=_ASK)
            trouble |= {label: each for label, each in taken.items() if isinstance(each, str)}
            if trouble:
                told = "; ".join(f"{label}: {reason}" for label, reason in trouble.items())
                return [wrong(name, told, "see what is said of the store")]
            holders = [label for label, each in taken.items() if each is True]
            if len(holders) != 1:
                seen = f"{len(holders)} of {len(taken)} nodes that wanted one lease got it ({', '.join(holders)})"
                return [wrong(name, seen, "let only one driver use this store, or choose another")]
        return [ok(name, f"one at a time of {count(self._actors)} gets it, in each of {_ROUNDS} rounds")]

    def _ask(self, question: str, *given: Any, seconds: float) -> tuple[dict[str, Any], dict[str, str]]:
        """Ask all nodes at once; returns the answers, and why others gave none."""
        asked = {label: getattr(actor, question).remote(*given) for label, actor in self._actors.items()}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
        answers: dict[str, Any] = {}
        trouble: dict[str, str] = {}
        for label, reference in asked.items():
            try:
                answers[label] = ray.get(reference, timeout=0.1)
            except GetTimeoutError:
                trouble[label] = f"gave no answer in {seconds:g} s"
            except RayError as error:
                last = plain_text(str(error)).strip().splitlines()[-1:]
                trouble[label] = f"fails: {last[0] if last else type(error).__name__}"
        return answers, trouble

    def end(self) -> None:
        """End the processes on the nodes, and disconnect."""
        with contextlib.ExitStack() as ending:
            # The last one comes first; each comes although another fails.
            if self._disconnect:
                ending.callback(self._disconnect)
            for each in self._actors.values():
                ending.callback(ray.kill, each)


def _nodes() -> list[dict[str, Any]]:
    return [each for each in ray.nodes() if each["Alive"]]  # type: ignore[no-untyped-call]


def _label(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
