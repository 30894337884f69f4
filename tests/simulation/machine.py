"""What takes the place of the machine: clock, randomness, identity, locks, threads, and the other processes.

The functions of the standard library themselves are replaced, so the product needs no switch for it; where the product
keeps what belongs to a process (its lease heartbeat, its capture of output, its signals), that is left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest import mock

import arithmetic
from cluster import ClusterExecutor
from tracker import WriterActor
from world import Lock

from orchestrator import drive as drive_module
from orchestrator import pulse
from orchestrator.attempt import attempt as attempt_module
from orchestrator.attempt import bundle as bundle_module
from orchestrator.attempt import outage, stage_call
from orchestrator.attempt.process import Process as StepProcess
from orchestrator.run import loop
from orchestrator.run.executors import recovery
from orchestrator.run.shutdown import Shutdown
from orchestrator.store import lease as lease_module
from orchestrator.store import posix_lease
from orchestrator.store.process import Process
from orchestrator.tracking import publisher
from orchestrator.tracking.outbox import Outbox

if TYPE_CHECKING:
    from history import History

#: The product's terms are as long as this share of what they are, so that less time need be simulated.
SCALE = 0.2
BEAT, TERM = SCALE * lease_module.BEAT, SCALE * lease_module.TERM
PATIENCE = SCALE * outage.PATIENCE

#: What is kept for the rest of the real process.
GRAVEYARD: list[object] = []
_PSUTIL = SimpleNamespace(
    virtual_memory=lambda: SimpleNamespace(total=1, available=1), cpu_count=lambda: 1, cpu_percent=lambda: 0.0
)


@contextlib.contextmanager
def installed(history: History) -> Iterator[None]:
    """Have the product's code meet a simulated machine, for the time of a context."""
    world, setting = history.world, history.setting
    for name in ("store", "outputs", "nodes"):
        shutil.rmtree(f"{setting.root}/{name}", ignore_errors=True)
    random.seed(history.choices.seed[0])

    class ShutdownInSimulation(Shutdown):
        def __enter__(self) -> Shutdown:
            world.actor.facts["shutdown"] = self
            return self

        def __exit__(self, *_: object) -> None:
            world.actor.facts.pop("shutdown", None)

    WriterActor.history = history
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
        patch(drive_module, "HEARTBEAT_EVERY", 20.0), patch(outage, "PATIENCE", PATIENCE),
        patch(attempt_module, "store_at", lambda _: history.store_of(world.actor)),
        patch(bundle_module, "store_at", lambda _: history.store_of(world.actor)),
        patch(recovery, "open_store", lambda _: history.store_of(world.actor)),
        patch(bundle_module, "sealed_bundle", nullcontext), patch(bundle_module, "same_folder", nullcontext),
        patch(bundle_module.signals, "watched", nullcontext), patch(stage_call, "sealed", nullcontext),
        patch(StepProcess, "capturing", lambda *_: nullcontext()), patch(StepProcess, "prepare", lambda *_: None),
        patch(drive_module, "refuse_edited_stages", lambda _: None),
        # Optuna's own copy of the studies, and its figures, are beside what is simulated, and take long.
        patch(drive_module.Mirror, "update"), patch(drive_module.Mirror, "tick"), patch(drive_module.Mirror, "check"),
        patch(publisher, "draw"),
        patch(drive_module, "shortcomings", lambda _: []),
        patch(drive_module, "Shutdown", ShutdownInSimulation),
        patch(drive_module, "choose_executor", lambda *_: ClusterExecutor(history, world.actor)),
        patch(publisher, "_WriterProcess", WriterActor),
        patch(Outbox, "locked", lambda outbox: locked(history, outbox.folder)),
        patch(pulse, "psutil", _PSUTIL), patch(arithmetic, "WORK", history.work),
    ]  # fmt: skip
    for each in patches:
        each.start()
    setting.disk.faults, setting.disk.judge = history.faults, history.judge
    try:
        yield
    finally:
        setting.disk.faults = setting.disk.judge = None
        for each in reversed(patches):
            each.stop()
        for actor in history.actors:
            for lease in list(actor.held.values()):
                if lease.descriptor is not None:
                    with contextlib.suppress(OSError):
                        os.close(lease.descriptor)
        # Greenlets that are collected run their `finally`, of which nothing is left to be said.
        GRAVEYARD.append([history.actors, history.threads, history.world])


@contextlib.contextmanager
def locked(history: History, folder: Path) -> Iterator[None]:
    """Hold the lock of whoever talks to MLflow; a process that dies gives it back."""
    name = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    while name in history.locks and history.locks[name].alive:
        history.world.sleep(0.2)
    history.locks[name] = history.world.actor
    try:
        yield
    finally:
        history.locks.pop(name, None)
