"""What one MLflow has of an outbox, on disk, so that it need not be asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestrator.tracking.journal import Journal


class Delivery(NamedTuple):
    """A run as MLflow has it."""

    digest: str
    run: str
    """MLflow's run id."""


class Sent:
    """A record of what one MLflow has. Only a cache: MLflow itself decides where the two differ."""

    def __init__(self, journal: Journal) -> None:
        """Remember the file; nothing is read yet."""
        self._journal = journal
        self._clear()

    def _clear(self) -> None:
        self.experiment: tuple[str, int] | None = None
        """Id and creation time of the experiment whose runs these are."""
        self.runs: dict[str, Delivery] = {}
        self.logged: dict[str, str] = {}
        """What else was logged, as name -> digest."""
        self.uncertain: set[str] = set()
        """Ids whose writing was begun and has no known end."""
        self.drained = -1
        """The length in bytes of the part of the outbox's journal that MLflow has entirely."""

    def follow(self) -> None:
        """Read what was noted since the last time, also by others."""
        anew, lines = self._journal.read()
        if anew:
            self._clear()
        for line in lines:
            # A line that nobody of ours wrote: whoever talks to MLflow asks it where this record says too little.
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "experiment" in line:
            self.experiment = (_text(line["experiment"]), int(line["created"]))
        elif "begun" in line:
            self.uncertain |= set(map(_text, line["begun"]))
        elif "sent" in line:
            sent = {_text(id_): Delivery(_text(digest), _text(run)) for id_, digest, run in line["sent"]}
            self.runs |= sent
            self.uncertain -= sent.keys()
        elif "gone" in line:
            gone = set(map(_text, line["gone"]))
            for id_ in gone:
                self.runs.pop(id_, None)
            self.uncertain -= gone
        elif "told" in line:
            self.logged[_text(line["told"])] = _text(line["digest"])
        elif "drained" in line:
            self.drained = int(line["drained"])

    def note(self, line: Mapping[str, Any], durable: bool = False) -> None:
        """Append one line of the kinds that `follow` reads.

        Raises:
            OSError: it cannot be written.
        """
        if self._journal.append([json.dumps(line)], durable):
            self._take(line)
        else:
            self.follow()

    def restart(
        self,
        experiment: tuple[str, int],
        logged: Mapping[str, str] | None = None,
        runs: Mapping[str, Delivery] | None = None,
    ) -> None:
        """Forget what the experiment has, and note what it was found to have, at once: half of it would be believed.

        Args:
            experiment: its id and creation time.
            logged: what else was logged there, as far as that is known.
            runs: id -> the run.

        Raises:
            OSError: it cannot be written.
        """
        lines: list[dict[str, Any]] = [{"experiment": experiment[0], "created": experiment[1]}]
        lines += [{"told": name, "digest": digest} for name, digest in (logged or {}).items()]
        if runs:
            lines.append({"sent": [[id_, *delivery] for id_, delivery in runs.items()]})
        self._journal.replace([json.dumps(line) for line in lines])
        self.follow()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
