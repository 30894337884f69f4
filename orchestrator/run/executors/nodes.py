"""What the nodes of a Ray cluster have, and which of them can hold what steps ask for; free of Ray, but for reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from orchestrator.types import Runtime


class Shape(NamedTuple):
    """Resources of a node, or those that a bundle of steps reserves on one."""

    cpus: float
    gpus: float
    memory: float | None
    """Bytes; None reserves nothing."""

    def resources(self) -> dict[str, float]:
        """Return them by Ray's names."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0.0}
        return {name: amount for name, amount in named.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return them as options of a task or an actor."""
        options: dict[str, Any] = {"num_cpus": self.cpus}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.memory:
            options["memory"] = self.memory
        return options

    def times_in(self, node: Shape) -> int:
        """Return how often this shape fits a node of another."""
        pairs = [(self.cpus, node.cpus), (self.gpus, node.gpus), (self.memory or 0.0, node.memory or 0.0)]
        # The quotient of two floats may be a hair below a whole number: 0.3 GPUs three times.
        return min((math.floor(has / needs + 1e-6) for needs, has in pairs if needs), default=1)

    def __str__(self) -> str:
        amounts = [(self.cpus, "CPU"), (self.gpus, "GPU")]
        words = [
            f"{amount:g} {name}{'' if amount == 1 else 's'}" for amount, name in amounts if amount or name == "CPU"
        ]
        return ", ".join([*words, f"{self.memory / 2**30:.1f} GiB"] if self.memory else words)


class Node(NamedTuple):
    """A living node of a cluster."""

    id: str
    has: Shape
    draining: bool = False
    """Whether it will go soon, and takes no new work."""


class Nodes:
    """The nodes of a cluster that take work, and those that its autoscaler may add."""

    def __init__(self, nodes: Iterable[Node], types: Sequence[Shape] = (), grows: bool = False) -> None:
        """Take what was read of a cluster.

        Args:
            nodes: its living nodes.
            types: what the nodes have that its autoscaler may add, as far as that is known.
            grows: whether it may have an autoscaler.
        """
        self.all = tuple(nodes)
        self.ready = tuple(node for node in self.all if not node.draining)
        self.types = tuple(types)
        self.grows = grows
        self.impossible: set[Shape] = set()
        """Shapes that an autoscaler has no type of node for."""

    @property
    def cpus(self) -> float:
        """CPU cores in all, at least 1."""
        return max(1.0, sum(node.has.cpus for node in self.ready))

    @property
    def gpus(self) -> float:
        """GPUs in all."""
        return sum(node.has.gpus for node in self.ready)

    def shape(self, runtime: Runtime) -> Shape:
        """Return what steps with this runtime reserve.

        A laptop may have fewer cores than a step would like; there it still runs, only slower. With a node to itself
        it has all cores of the node with the most memory, of those that have the GPUs.
        """
        asked = Shape(runtime.cpus, runtime.gpus, runtime.memory)
        shapes = [*(node.has for node in self.ready), *self.types]
        # Of those that lack only cores; without any, what is asked for is to be told as it stands.
        able = [shape for shape in shapes if shape.cpus and Shape(0, asked.gpus, asked.memory).times_in(shape)]
        if not able:
            return asked
        if runtime.whole_node:
            largest = max(able, key=lambda shape: (shape.memory or 0.0, shape.cpus))
            return asked._replace(cpus=largest.cpus)
        return asked._replace(cpus=min(asked.cpus, max(shape.cpus for shape in able)))

    def count(self, shape: Shape) -> int:
        """Return how many of a shape the nodes hold at once."""
        return sum(shape.times_in(node.has) for node in self.ready)

    def holds(self, shape: Shape) -> bool:
        """Tell whether some node can hold a shape, or one that the autoscaler may add."""
        return any(shape.times_in(each) for each in (*(node.has for node in self.ready), *self.types))

    def ever(self, shape: Shape) -> bool:
        """Tell whether what was handed out with a shape may run: on a node that is being drained it goes on."""
        return any(shape.times_in(node.has) for node in self.all)

    def refuse(self, shape: Shape) -> str | None:
        """Return why a shape can never be placed; None if it can, or may be once there are more nodes."""
        if self.holds(shape) or (self.grows and shape not in self.impossible):
            return None
        if not any(node.has.cpus for node in self.ready):
            # A head without cores, whose nodes have yet to join.
            return None
        more = ", and the autoscaler has no such type of node" if self.grows else ""
        cores = "; with `device: cpu` under `runtime` it runs on cores" if shape.gpus else ""
        return f"a node with {shape} is needed, and there are {self}{more}{cores}"

    def part(self, shape: Shape) -> float:
        """Return the GPUs that a shape takes from others: it may need most of the other resources of a node.

        A node with 8 GPUs whose cores it takes all is no longer there for the other 7.
        """
        parts = [
            max(each.gpus / shape.times_in(each), shape.gpus)
            for each in (*(node.has for node in self.ready), *self.types)
            if each.gpus and shape.times_in(each)
        ]
        return min(parts, default=shape.gpus)

    def __str__(self) -> str:
        kinds: dict[str, int] = {}
        for node in self.ready:
            kinds[str(node.has)] = kinds.get(str(node.has), 0) + 1
        return "; ".join(f"{count} × ({kind})" for kind, count in kinds.items())
