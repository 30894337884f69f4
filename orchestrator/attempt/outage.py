"""Waits for a store that is away: a file server that restarts, an object store that is down for some minutes."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from orchestrator.redact import redact
from orchestrator.store.errors import StoreAwayError, StoreError, away
from orchestrator.texts import plain_text

T = TypeVar("T")

#: Seconds that a store may be away. A restart, a failover or a deployment of a service takes minutes; what takes longer
#: wants somebody to act, and machines that wait cost as much as those that compute.
PATIENCE = 600.0
#: Seconds before the second try, doubled before each further one, and their limit; a random half more or less, so that
#: a hundred workers do not fall upon a service that has just come back.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
#: Seconds after which an outage is told: one that is shorter concerns nobody.
TOLD_AFTER = 5.0
#: Seconds without a failed try after which the next one begins another outage.
_CALM = 60.0


class Outage:
    """The outage of the store that this process meets, if there is one.

    The patience is that of the process, and not of each operation: once it is used up, every further operation has one
    try, until one succeeds.
    """

    def __init__(self) -> None:
        """Start with a store that answers."""
        self.forget()

    def forget(self) -> None:
        """Start anew, and tell nobody: a forked process is another one."""
        self._tell: Callable[[str], None] | None = None
        self._since: float | None = None
        """Monotonic time since which the store is away; None if it answers."""
        self._last = 0.0
        """Monotonic time of the last try that failed."""
        self._told = False
        self._waited = 0.0
        """Seconds that this process has waited so far."""

    def clock(self) -> float:
        """Read a clock in seconds that stands still while the store is waited for, for how long steps take."""
        return time.perf_counter() - self._waited

    @contextlib.contextmanager
    def telling(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Have the outages of a context told: once each, and once more when the store is back.

        Args:
            tell: called with a sentence for people.
        """
        before, self._tell = self._tell, tell
        try:
            yield
        finally:
            self._tell = before

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Have what is told in this context told at its end: whoever tells it in the midst of a step tells its log."""
        tell, deferred = self._tell, list[str]()
        self._tell = deferred.append if tell else None
        try:
            yield
        finally:
            self._tell = tell
            if tell:
                for message in deferred:
                    tell(message)

    def endure(self, action: Callable[[], T], proof: bool = True) -> T:
        """Do something with the store, and do it again for as long as the store is away.

        A signal handler that raises ends the wait at once.

        Args:
            action: may be called several times; the store may have done it, and the answer was lost.
            proof: whether it shows that the store answers if it succeeds at once; False where it may need no store.

        Raises:
            StoreAwayError: the store has been away for `PATIENCE` seconds.
        """
        pause = _FIRST_PAUSE
        while True:
            begun = time.monotonic()
            try:
                done = action()
            except (StoreError, OSError) as error:
                if not away(error):
                    raise
                lasted = self._fail(error, begun)
                if lasted >= PATIENCE:
                    raise StoreAwayError(f"{error} (waited for {_format(lasted)})") from error
            else:
                if proof or pause > _FIRST_PAUSE:
                    self._succeed()
                return done
            time.sleep(min(PATIENCE - lasted, pause * random.uniform(0.5, 1.5)))  # noqa: S311 (no secret)
            self._waited += time.monotonic() - begun
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def entered(self, make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
        """Enter a context, and try again for as long as the store is away; leaving it is tried once.

        Args:
            make: makes the context manager, anew for each try.

        Raises:
            StoreAwayError: the store has been away for `PATIENCE` seconds.
        """
        with contextlib.ExitStack() as stack:
            yield self.endure(lambda: stack.enter_context(make()))

    def look(self, action: Callable[[], object]) -> bool:
        """Do something with the store once, and return whether the store answers, if only with a refusal."""
        begun = time.monotonic()
        try:
            action()
        except (StoreError, OSError) as error:
            if away(error):
                self._fail(error, begun)
                return False
        else:
            self._succeed()
        return True

    def _fail(self, error: StoreError | OSError, begun: float) -> float:
        """Note a try that failed; return for how many seconds the store has been away."""
        if self._since is None or begun - self._last > _CALM:
            self._since, self._told = begun, False
        self._last = time.monotonic()
        lasted = self._last - self._since
        if self._tell and not self._told and lasted >= TOLD_AFTER:
            self._told = True
            cause = error.__cause__ if isinstance(error, StoreError) else error
            reason = plain_text(redact(str(cause)), 300).strip() or type(cause).__name__
            self._tell(
                f"the store has been away for {_format(lasted)} ({reason}); it is waited for, up to "
                f"{_format(PATIENCE)}, and nothing is lost"
            )
        return lasted

    def _succeed(self) -> None:
        if self._since is not None:
            if self._tell and self._told:
                self._tell(f"the store is back after {_format(time.monotonic() - self._since)}; the sweep goes on")
            self._since, self._told = None, False


def _format(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


#: The outage that this process meets.
OUTAGE = Outage()
os.register_at_fork(after_in_child=OUTAGE.forget)
