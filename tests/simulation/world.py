"""Processes that live on one virtual clock in one real process, so that their history is one of the seed alone.

The product's code runs in greenlets, unaltered. Wherever it waits, or touches the store, the outputs or MLflow, it
stops, and the world decides who goes on, when, and with what answer. Whatever a process keeps in globals is swapped
with it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
from collections.abc import Callable
from typing import Any

from choices import Choices, Stream
from greenlet import getcurrent, greenlet

from orchestrator.attempt.outage import OUTAGE, Outage
from orchestrator.store import lease as lease_module
from orchestrator.store.process import Process


class Node:
    """A machine, or a container: what its processes have in common."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.wall = 0.0
        """Seconds by which its clock is ahead."""
        self.cut_off_until = -math.inf
        """When it reaches the store again."""
        self.lost = False


class Actor:
    """A simulated process."""

    def __init__(self, world: World, name: str, node: Node) -> None:
        self.world = world
        self.name = name
        self.node = node
        self.identity = Process(node.name, next(world.numbers), 1)
        self.stream: Stream = world.choices.stream(name)
        self.alive = True
        self.asleep_until = -math.inf
        self.pace = 1.0 + world.choices.stream(f"pace of {name}").below(8) / 2
        """How much slower it is than the others."""
        self.outage = vars(Outage())
        self.held: dict[str, Any] = {}
        """Token -> lease."""
        self.tokens: set[str] = set()
        """Tokens of all claims that it ever made."""
        self.facts: dict[Any, Any] = {}
        """What else it remembers."""
        self.threads: list[Thread] = []

    def __str__(self) -> str:
        return self.name


class Thread:
    """A thread of a simulated process."""

    def __init__(self, actor: Actor, function: Callable[[], object], hub: greenlet) -> None:
        self.actor = actor
        self.greenlet = greenlet(self._run, hub)
        self.turn = 0
        """Altered whenever it is to go on, so that what woke it is not taken for what will wake it next."""
        self.function = function
        self.error: BaseException | None = None
        self.ended = False
        self.returned: object = None

    def _run(self) -> None:
        try:
            self.returned = self.function()
        except BaseException as error:
            self.error = error
        self.ended = True


class World:
    """The clock, and who is next."""

    def __init__(self, choices: Choices, tell: Callable[[float, str, str], None] | None = None) -> None:
        """Start at 0 s, without processes.

        Args:
            choices: all that is not determined otherwise.
            tell: called with time, process and what it does, for people.
        """
        self.choices = choices
        self.now = 0.0
        self.hub = getcurrent()
        self.numbers = itertools.count(1001)
        self.drawn = random.Random(f"tokens {choices.seed[0]}")
        self.current: Thread | None = None
        self.operations = 0
        self.faults = True
        self._tell = tell
        self._queue: list[tuple[float, int, Thread, int]] = []
        self._serial = itertools.count()
        self._swapped: Actor | None = None

    @property
    def actor(self) -> Actor:
        """The process that acts."""
        assert self.current
        return self.current.actor

    @property
    def acts(self) -> bool:
        """Whether a simulated process is what runs now."""
        return self.current is not None and getcurrent() is self.current.greenlet

    def tell(self, text: str, actor: Actor | None = None) -> None:
        """Tell what happens."""
        if self._tell:
            self._tell(self.now, str(actor or (self.current.actor if self.current else "nature")), text)

    # --- threads

    def spawn(self, actor: Actor, function: Callable[[], object], delay: float = 0.0) -> Thread:
        """Start a thread."""
        thread = Thread(actor, function, self.hub)
        actor.threads.append(thread)
        self._wake(thread, self.now + delay)
        return thread

    def _wake(self, thread: Thread, when: float) -> None:
        heapq.heappush(self._queue, (when, next(self._serial), thread, thread.turn))

    def sleep(self, seconds: float) -> None:
        """Let the acting thread stand still."""
        thread = self.current
        assert thread, "only simulated threads sleep"
        assert getcurrent() is thread.greenlet, "only simulated threads sleep"
        until = self.now + max(seconds, 0.0)
        if thread.actor.alive and not (self._queue and self._queue[0][0] <= until):
            # Nobody else comes before.
            self.now = until
            return
        self._wake(thread, until)
        self.hub.switch()

    def notify(self, thread: Thread) -> None:
        """Wake a thread before its time."""
        if not thread.ended:
            self._wake(thread, self.now)

    def stop_for_ever(self) -> None:
        """Never go on: the process is dead."""
        while True:
            self.hub.switch()

    def kill(self, actor: Actor) -> None:
        """Kill a process, at once: nothing of it is cleaned up."""
        if actor.alive:
            actor.alive = False
            self.tell("is killed", actor)
            if self.acts and self.actor is actor:
                self.stop_for_ever()

    def run(self, done: Callable[[], bool], limit: float) -> bool:
        """Let all threads act, in the order of time, until something is done; False if it is not at the time limit."""
        while not done():
            if not self._queue or self._queue[0][0] > limit:
                return False
            when, _, thread, turn = heapq.heappop(self._queue)
            actor = thread.actor
            if turn != thread.turn or thread.ended or not actor.alive:
                continue
            if actor.asleep_until > when:
                if actor.asleep_until < math.inf:
                    self._wake(thread, actor.asleep_until)
                else:
                    actor.facts.setdefault("deferred", []).append(thread)
                continue
            self.now = max(self.now, when)
            thread.turn += 1
            self._enter(thread)
            thread.greenlet.switch()
            self.current = None
        return True

    def awake(self, actor: Actor) -> None:
        """Continue a process that was stopped."""
        actor.asleep_until = -math.inf
        for thread in actor.facts.pop("deferred", []):
            self._wake(thread, self.now)

    def _enter(self, thread: Thread) -> None:
        self.current = thread
        if self._swapped is not thread.actor:
            self._swapped = thread.actor
            OUTAGE.__dict__ = thread.actor.outage
            lease_module._held = thread.actor.held

    # --- what takes the place of the machine's

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now + (self.current.actor.node.wall if self.current else 0.0)

    def token_hex(self, count: int = 16) -> str:
        token = f"{self.drawn.getrandbits(8 * count):0{2 * count}x}"
        if self.current and count == 8:
            self.current.actor.tokens.add(token)
        return token

    def gone(self, process: Process) -> bool:
        """Tell what the acting process knows of another one."""
        if process.space != self.actor.identity.space:
            return False
        return not any(each.identity == process and each.alive for each in self.actors)

    actors: list[Actor]


class Lock:
    """A lock of simulated threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._held = False

    def acquire(self, blocking: bool = True) -> bool:
        while self._held:
            if not blocking:
                return False
            self._world.sleep(0.01)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def short(text: str) -> str:
    """Shorten the names of steps, and what is drawn at random, as far as people can tell them apart."""
    text = re.sub(r"sim_(\w+)/([0-9a-f]{4})[0-9a-f]{28}", r"\1 \2", text)
    return re.sub(r"([0-9a-f]{4})[0-9a-f]{12,28}", r"\1", text)
