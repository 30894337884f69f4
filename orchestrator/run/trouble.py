"""Failures beside the steps of a run, such as a heartbeat that cannot be written: they must not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from orchestrator.store import StoreError
from orchestrator.texts import plain_text


class Troubles:
    """The things that fail at the moment. Each is reported once, and once more when it works again."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Start with nothing wrong.

        Args:
            report: is called with a line for people.
        """
        self._report = report
        self._known: set[str] = set()

    @contextlib.contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """Go on where a place cannot be read or written. Other errors are bugs, and raised.

        Args:
            what: cannot be done then, as the subject of a sentence.
        """
        try:
            yield
        except (StoreError, OSError) as error:
            if what not in self._known:
                self._known.add(what)
                self._report(f"{what} fails for now, the sweep goes on: {plain_text(str(error))}")
        else:
            if what in self._known:
                self._known.remove(what)
                self._report(f"{what} works again")
