"""Contains failures beside the steps of a run, such as a heartbeat that cannot be written: they must not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from orchestrator.redact import redact
from orchestrator.store import StoreError
from orchestrator.texts import plain_text


class Troubles:
    """The side tasks of a run that fail at the moment; each is reported once, and again when it recovers."""

    def __init__(self, report: Callable[[str], None], store_answers: Callable[[], bool] = lambda: True) -> None:
        """Start without failures.

        Args:
            report: called with a line for people.
            store_answers: whether a failure is one of its own, and not one of many for which the store is away.
        """
        self._report = report
        self._store_answers = store_answers
        self._failing: set[str] = set()

    @contextlib.contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """Suppress errors of reading and writing in this context; other errors are bugs, and raised.

        Args:
            what: the task, as the subject of a sentence ("writing the table").
        """
        try:
            yield
        except (StoreError, OSError) as error:
            if what not in self._failing and self._store_answers():
                self._failing.add(what)
                self._report(f"{what} fails for now, the sweep goes on: {plain_text(redact(str(error)))}")
        else:
            if what in self._failing:
                self._failing.remove(what)
                self._report(f"{what} works again")
