"""Contains failures beside the steps of a run, such as a heartbeat that cannot be written: they must not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

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
        self._sick: set[str] = set()

    def places(self, sick: Mapping[str, str]) -> None:
        """Report the devices and nodes that get no work since the last call, and those that get it again.

        Args:
            sick: their names -> why.
        """
        for place in sick.keys() - self._sick:
            self._report(f"{place} gets no work until a probe succeeds there: {plain_text(redact(sick[place]))}")
        for place in self._sick - sick.keys():
            self._report(f"{place} gets work again")
        self._sick = set(sick)

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
