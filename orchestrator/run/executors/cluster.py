"""The Ray cluster as one driver sees it: its nodes, the seats that the driver holds there, and the places it avoids."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]
from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from orchestrator.run.executors import ExecutorLostError, Place
from orchestrator.run.executors.nodes import Node, Nodes, Shape
from orchestrator.run.executors.ray_worker import WITHOUT_GPUS, probe
from orchestrator.run.executors.seats import Seat, Seats
from orchestrator.run.executors.share import Share
from orchestrator.types import Runtime

#: Seconds between looks at the cluster, and of them at its nodes.
_LOOK_EVERY, _CHECK_EVERY = 1.0, 10.0
#: Tasks of a shape in Ray's queue beyond those that can run, so that no core waits for the driver.
_QUEUED_AHEAD = 4
#: Seconds before a sick place is probed, doubled whenever it is found sick again, and their limit.
_PROBE_AFTER, _PROBE_LIMIT = 60.0, 3600.0
#: Where drivers write what they want, and a number of the form of that.
_BOARD = "alignment-sweeps-2/"
#: The label that Ray gives each node.
_NODE_LABEL = "ray.io/node-id"
#: The label of nodes of a cluster with an autoscaler: the type of node that they are.
_GROUP_LABEL = "ray.io/node-group"


@dataclass(slots=True)
class _Quarantine:
    name: str
    """Of the place, for people."""
    reason: str
    due: float
    """Monotonic time of the next probe."""
    probe: Any = None
    """The probe that runs."""


class Cluster:
    """The nodes of a cluster and what this driver has of them; GPU steps come before all others."""

    def __init__(self, weight: float = 1.0) -> None:
        """Read the nodes.

        Args:
            weight: the weight of this driver among those on the cluster.

        Raises:
            ExecutorLostError: this driver's node is dead.
        """
        self._address = ray.get_runtime_context().gcs_address
        self.seats = Seats(_make, remove_placement_group, _look)
        self._sick: dict[Place, _Quarantine] = {}
        self._pauses: dict[Place, float] = {}
        """Place that was sick -> seconds before the next probe there."""
        self._left: dict[str, tuple[str, str]] = {}
        """Name of a sick place whose seat was given back before a probe succeeded -> its node, and why it was sick."""
        self.tasks: Counter[Shape] = Counter()
        """Shape -> number of bundles without a seat that run as tasks."""
        self.share = Share(_Board(), ray.get_runtime_context().get_worker_id(), weight)
        self.wants_cpus = False
        """Whether steps without GPUs were ready since the last look."""
        self._wants_gpus = 0.0
        self._look_due = 0.0
        self.read()

    def look(self) -> None:
        """Look at the cluster, as often as is good: at its nodes, sick places and other drivers.

        Raises:
            ExecutorLostError: this driver's node is dead.
        """
        now = time.monotonic()
        self._look_due = now + _LOOK_EVERY
        if now > self._check_due or state.get_draining_nodes().keys() != self._draining:
            self.read()
        self.probe()
        busy = sum(shape.cpus * count for shape, count in self.tasks.items())
        wants = {"CPU": self.nodes.cpus if self.wants_cpus else busy, "GPU": self._wants_gpus}
        self.wants_cpus = False
        totals = {"CPU": self.nodes.cpus, "GPU": self.nodes.gpus}
        held = self.seats.gpus_held
        self.share.look(
            wants, totals, seats=self.seats.cpus_held, waiting=self.seats.cpus_awaited(self.nodes), gpus=held
        )
        self.seats.others = 0.0
        if self.share.allowed("GPU") is not None:
            # What a seat waits for in vain needs no cores: a GPU that somebody gives up comes with its own.
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self.seats.others = max(0.0, self.nodes.gpus - free.get("GPU", 0.0) - held)

    def read(self) -> None:
        """Read the living nodes: clusters grow and shrink.

        Raises:
            ExecutorLostError: this driver's node is dead.
        """
        self._check_due = time.monotonic() + _CHECK_EVERY
        living = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        mine = ray.get_runtime_context().get_node_id()
        if not any(node["NodeID"] == mine for node in living):
            # Its tasks would never end.
            raise ExecutorLostError("the Ray node of this driver is dead")
        self._draining = set(state.get_draining_nodes())
        self.nodes = Nodes(
            (Node(node["NodeID"], _shape(node["Resources"]), node["NodeID"] in self._draining) for node in living),
            _node_types(),
            # Nodes that an autoscaler did not start have no such label, nor has the head of a cluster without one.
            grows=any(_GROUP_LABEL in node["Labels"] for node in living),
        )
        if self.nodes.grows:
            self._ask_autoscaler()

    def _ask_autoscaler(self) -> None:
        """Note for which seats it has no type of node. Only it knows; what a cluster's launcher was given does not."""
        waiting = {seat.group.id.hex(): seat.shape for seat in self.seats.all if not seat.node}
        if not waiting:
            return
        with contextlib.suppress(RayError, RuntimeError):
            reply = GetClusterStatusReply.FromString(GcsClient(address=self._address).get_cluster_status())
            for request in reply.autoscaling_state.infeasible_gang_resource_requests:
                shape = waiting.get(request.details.partition(":")[0])
                if shape:
                    self.nodes.impossible.add(shape)

    def closes(self, seat: Seat) -> bool:
        """Tell whether a seat is on a node that gets no new work."""
        return seat.sick or seat.node == self.seats.clearing or seat.node not in {node.id for node in self.nodes.ready}

    def free_seats(self, shape: Shape) -> list[Seat]:
        """Return the seats of a shape that are free. A task at one whose node is being drained would wait for ever."""
        free = self.seats.free(shape)
        draining = state.get_draining_nodes() if free else {}
        if any(seat.node in draining for seat in free):
            # At the next look, not now: what was found so far is of the nodes as they were.
            self._check_due = 0.0
        return [seat for seat in free if seat.node not in draining]

    @property
    def due(self) -> bool:
        """Whether the last look was some time ago."""
        return time.monotonic() > self._look_due

    def reserve(self, demand: Mapping[Runtime, int], soon: Mapping[Runtime, int], running: Mapping[Shape, int]) -> None:
        """Keep a seat for each GPU step that could run now, as far as there are GPUs; for later ones on free cores.

        Args:
            demand: runtime -> number of bundles that are ready; the first come first.
            soon: runtime -> number of bundles that may be ready soon.
            running: shape -> number of bundles that have a seat.
        """
        wanted: Counter[Shape] = Counter()
        for runtime, bundles in demand.items():
            wanted[self.nodes.shape(runtime)] += bundles
        for shape, bundles in running.items():
            wanted[shape] += bundles
        # What is to make them ready needs cores itself.
        busy = sum(shape.cpus * bundles for each in (self.tasks, wanted) for shape, bundles in each.items())
        for runtime, bundles in soon.items():
            shape = self.nodes.shape(runtime)
            fits = min(bundles, max(0, int((self.nodes.cpus - busy) / shape.cpus + 1e-6)))
            wanted[shape] += fits
            busy += fits * shape.cpus
        self._wants_gpus = sum(shape.gpus * bundles for shape, bundles in wanted.items())
        if wanted or self.seats.all:
            self.seats.keep(+wanted, self.nodes, self.share.allowed("GPU"), self.share.owes)
        for seat in self.seats.all:
            # It may have been made since its node was found to be sick.
            seat.sick = seat.sick or (seat.node is not None and Place(seat.node, None) in self._sick)

    def slots(self, shape: Shape, idle: float) -> int:
        """Return how many bundles of a shape without GPUs may run at once.

        Args:
            shape: what each reserves.
            idle: cores of other processes that keep a model and need no seat.
        """
        had = idle + sum(each.cpus * bundles for each, bundles in self.tasks.items() if each != shape)
        room = int((self.nodes.cpus - self.seats.cpus(self.nodes) - had) / shape.cpus + 1e-6)
        return max(0, int(min(self.nodes.count(shape), room, self.share.room("CPU", shape.cpus, had))))

    def crowded(self, idle: float) -> bool:
        """Tell whether other work waits for what idle processes have.

        Args:
            idle: cores of processes that keep a model and need no seat, of those at work too.
        """
        if self.seats.cpus_awaited(self.nodes):
            return True
        had = idle + sum(shape.cpus * bundles for shape, bundles in self.tasks.items())
        allowed = self.share.allowed("CPU")
        room = self.nodes.cpus - self.seats.cpus(self.nodes)
        room = (room if allowed is None else min(room, allowed)) - had
        # Beside other drivers nothing is queued that would show that it waits.
        return room < 0 or (room < 1 and self.wants_cpus)

    @property
    def ahead(self) -> int:
        """How many more may be queued: none while a seat or another driver waits for the cores that they would take."""
        return 0 if self.seats.cpus_awaited(self.nodes) or self.share.allowed("CPU") is not None else _QUEUED_AHEAD

    def elsewhere(self, place: Place) -> bool:
        """Tell whether there is another place of the kind that gets work."""
        if place.seat is None:
            return any(node.id != place.node and not self._is_sick(Place(node.id, None)) for node in self.nodes.ready)
        mine = next((seat for seat in self.seats.all if seat.number == place.seat), None)
        if mine is None:
            return False
        sick = sum(seat.sick for seat in self.seats.all if seat.shape == mine.shape and seat is not mine)
        return self.nodes.grows or self.nodes.count(mine.shape) - sick > 1

    def quarantine(self, place: Place, reason: str) -> None:
        """Give a place no work until a probe succeeds there."""
        pause = self._pauses[place] = min(2 * self._pauses.get(place, _PROBE_AFTER / 2), _PROBE_LIMIT)
        self._sick[place] = _Quarantine(self._name(place), reason, time.monotonic() + pause)
        for seat in self._at(place):
            seat.sick = True

    def acquit(self, place: Place) -> None:
        """Give a place work again."""
        if self._sick.pop(place, None):
            for seat in self._at(place):
                seat.sick = self._is_sick(Place(place.node, seat.number))

    def probe(self) -> None:
        """Probe what is due, and what is all there is; give work again to a place where a probe succeeded."""
        for place, quarantine in list(self._sick.items()):
            if place.seat is not None and not self._at(place):
                # No step needs it any more, or its node went away.
                del self._sick[place]
                self._left[quarantine.name] = place.node, quarantine.reason
            elif quarantine.probe is None:
                if time.monotonic() >= quarantine.due or not self.elsewhere(place):
                    quarantine.probe = self._start_probe(place)
            elif ray.wait([quarantine.probe], timeout=0)[0]:
                quarantine.due = time.monotonic() + self._pauses[place]
                task, quarantine.probe = quarantine.probe, None
                with contextlib.suppress(RayError):
                    ray.get(task)
                    self.acquit(place)

    def sick(self) -> dict[str, str]:
        """Return the places that get no work -> why, for people; also those that no step needs any more."""
        living = {node.id for node in self.nodes.all}
        left = {name: reason for name, (node, reason) in self._left.items() if node in living}
        return left | {each.name: each.reason for each in self._sick.values()}

    def _name(self, place: Place) -> str:
        devices = {seat.device for seat in self._at(place)} if place.seat is not None else set()
        node = f"node {place.node[:8]}"
        return f"GPU {devices.pop() or '?'} of {node}" if devices else node

    def _at(self, place: Place) -> list[Seat]:
        return [seat for seat in self.seats.all if seat.node == place.node and place.seat in (None, seat.number)]

    def _is_sick(self, place: Place) -> bool:
        return place in self._sick or Place(place.node, None) in self._sick

    def _start_probe(self, place: Place) -> Any:
        strategy: Any = NodeAffinitySchedulingStrategy(place.node, soft=False)
        for seat in self._at(place):
            if place.seat is not None and not seat.taken:
                # A sick process that is still there would have the memory of its device.
                strategy = PlacementGroupSchedulingStrategy(seat.group, 0)
                return probe.options(scheduling_strategy=strategy, **seat.shape.options()).remote()
        if place.seat is not None:
            return None
        return probe.options(scheduling_strategy=strategy, num_cpus=0, runtime_env=WITHOUT_GPUS).remote()

    def avoiding(self, avoid: str | None = None) -> dict[str, Any]:
        """Return options of a task without a seat that keep it off sick nodes, and off one more."""
        ids = {place.node for place in self._sick if place.seat is None}
        ids |= {node for node in (avoid, self.seats.clearing) if node}
        living = {node.id for node in self.nodes.ready}
        if not ids & living or not living - ids:
            return {}
        return {"label_selector": {_NODE_LABEL: f"!in({','.join(sorted(ids & living))})"}}


class _Board:
    """Ray's key-value store, in which every driver has an entry."""

    def put(self, driver: str, text: str) -> None:
        _internal_kv_put(f"{_BOARD}{driver}", text, overwrite=True, namespace=_BOARD)

    def remove(self, driver: str) -> None:
        _internal_kv_del(f"{_BOARD}{driver}", namespace=_BOARD)

    def read(self) -> dict[str, str]:
        found = {key: _internal_kv_get(key, namespace=_BOARD) for key in _internal_kv_list(_BOARD, namespace=_BOARD)}
        return {key.decode().removeprefix(_BOARD): text.decode() for key, text in found.items() if text}


def _shape(resources: Mapping[str, float]) -> Shape:
    return Shape(*(float(resources.get(name, 0.0)) for name in ("CPU", "GPU", "memory")))


def _node_types() -> list[Shape]:
    """Return what the nodes have that an autoscaler may add; only some autoscalers tell (KubeRay's does)."""
    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [_shape(group.resources) for group in groups if group.max_count]


def _make(shape: Shape, off: str | None) -> Any:
    selector = [{_NODE_LABEL: f"!{off}"}] if off else None
    return placement_group([shape.resources()], bundle_label_selector=selector)


def _look(group: Any) -> str | None:
    """Return the node of a group. Not by `group.wait(0)`, which says now and then that a ready one is not."""
    found = placement_group_table(group)
    return found["bundles_to_node_id"][0] or None if found.get("state") == "CREATED" else None
