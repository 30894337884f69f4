"""What goes wrong beside the steps of a run: telling others where a sweep stands must not end it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from orchestrator.store import StoreError
from orchestrator.texts import plain_text


class Troubles:
    """Tells of each trouble once, and once more when it is over."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """Nothing is wrong.

        Args:
            tell: told a line for people.
        """
        self._tell = tell
        self._known: set[str] = set()

    @contextlib.contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """Go on where a place cannot be read or written. Other errors are ours, and raised.

        Args:
            what: cannot be done then, as the subject of a sentence.
        """
        try:
            yield
        except (StoreError, OSError) as error:
            self.note(what, str(error))
        else:
            self.note(what, None)

    def note(self, what: str, trouble: str | None) -> None:
        """Something goes wrong for this reason, or works."""
        if trouble is not None and what not in self._known:
            self._known.add(what)
            self._tell(f"{what} fails for now, the sweep goes on: {plain_text(trouble)}")
        elif trouble is None and what in self._known:
            self._known.remove(what)
            self._tell(f"{what} works again")
