"""Examines several subjects at once, each in a thread of its own, and waits for none of them for ever.

A mount whose server is gone holds a process in the kernel, where no signal reaches it. So whatever may hang is looked
at in a daemon thread, and a probe without an answer is a finding like others.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic

from orchestrator.doctor.finding import Finding, wrong
from orchestrator.redact import redact

#: Seconds that a probe has, unless it says otherwise.
PATIENCE = 10.0
#: Seconds after which it is told what is waited for.
SLOW = 5.0
#: Seconds that probes have to delete what they wrote, once nobody waits for them any more.
_CLEANING = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """Looks at one thing."""

    name: str
    look: Callable[[], Iterable[Finding | Probe]]
    """Finds something. What looks at several things itself may yield a probe to tell at which it looks now."""
    patience: float = PATIENCE
    """Seconds without any answer after which it is given up."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined by several probes, one after the other."""

    title: str
    begin: Callable[[], AbstractContextManager[Sequence[Probe]]]
    """What gives the probes, and deletes in the end what they wrote."""
    end: Callable[[], None] = lambda: None
    """What ends a probe that hangs, where something can."""


class Examination:
    """The examination of one subject, in a thread."""

    def __init__(self, subject: Subject) -> None:
        """Begin it."""
        self.title = subject.title
        self._subject = subject
        self._news: queue.SimpleQueue[Probe | Finding | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._examine, name=f"doctor: {self.title}", daemon=True)
        self._thread.start()

    def _examine(self) -> None:
        try:
            with self._subject.begin() as probes:
                for probe in probes:
                    if self._stopped.is_set():
                        break
                    self._news.put(probe)
                    last = False
                    for each in look(probe):
                        self._news.put(each)
                        last |= isinstance(each, Finding) and each.last
                    if last:
                        break
        except Exception as error:
            self._news.put(_failed("examination", error))
        finally:
            self._news.put(None)

    def findings(self, waiting: Callable[[str], None]) -> Iterator[Finding]:
        """Yield what is found, as it is found; called once per probe with what it is if that is slow."""
        probe, begun, told = Probe(self.title, lambda: ()), monotonic(), False
        while True:
            patience = probe.patience if told else min(SLOW, probe.patience)
            try:
                news = self._news.get(timeout=max(0.0, begun + patience - monotonic()))
            except queue.Empty:
                if patience < probe.patience:
                    told = True
                    waiting(f"{self.title}: {probe.name}")
                    continue
                self.stop()
                yield wrong(
                    probe.name,
                    f"no answer in {probe.patience:g} s; what comes after it was not looked at",
                    "find out what hangs there (a dead mount, server or node), and give the same command again",
                )
                return
            if news is None:
                return
            if isinstance(news, Probe):
                probe, begun, told = news, monotonic(), False
            else:
                yield news
                begun = monotonic()

    def stop(self) -> None:
        """Begin no further probe, and end the one at hand where that can be done."""
        self._stopped.set()
        self._subject.end()

    def join(self, seconds: float) -> None:
        """Wait until it has ended and has deleted what it wrote, but not for ever."""
        self._thread.join(max(0.0, seconds))


def look(probe: Probe) -> Iterator[Finding | Probe]:
    """Yield what a probe finds; whatever goes wrong is a finding."""
    try:
        yield from probe.look()
    except Exception as error:
        yield _failed(probe.name, error)


def _failed(name: str, error: Exception) -> Finding:
    """Make a finding of an error: it need be none of those that a probe expects."""
    reason = redact(str(error).strip() or type(error).__name__)
    return wrong(name, f"could not be looked at: {reason}", "mend that, and give the same command again")


@contextlib.contextmanager
def examinations(subjects: Iterable[Subject]) -> Iterator[list[Examination]]:
    """Examine all subjects at once; in the end wait for a moment until all have deleted what they wrote."""
    begun = [Examination(each) for each in subjects]
    try:
        yield begun
    finally:
        for each in begun:
            each.stop()
        until = monotonic() + _CLEANING
        for each in begun:
            each.join(until - monotonic())
