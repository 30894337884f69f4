"""What MLflow is to show, on disk: append-only, so that neither a crash nor an absent server loses any of it.

```
<folder>/runs.jsonl            one line per change of a run; the last one of an id counts
<folder>/sent-<target>.jsonl   what one MLflow has of it (`tracking/sent.py`)
<folder>/lock                  held by whoever talks to MLflow
```

The first is written by drivers, the second by whoever holds the lock. `sweep sync` makes both anew where they are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.tracking.journal import Journal
from orchestrator.tracking.runs import KEY, Run
from orchestrator.tracking.sent import Sent


class Outbox:
    """The runs that MLflow is to show."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; nothing is read yet."""
        self.folder = folder
        self.journal = Journal(folder / "runs.jsonl")
        self.digests: dict[str, str] = {}
        """Id -> `Run.digest`, as far as `follow` has read."""
        self.table: str | None = None
        """The fingerprint of the results table that all of this equals, if it equals one."""
        self._succeeded: dict[str, str] = {}
        """Id -> key of the cell, where it succeeded."""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of whoever talks to MLflow; waits for its holder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def follow(self) -> tuple[bool, dict[str, Run | None]]:
        """Read what was posted since the last time, also by others.

        Returns:
            Whether that is everything, as in `Journal.read`; id -> run, None where it is to go.
        """
        anew, lines = self.journal.read()
        if anew:
            self.digests.clear()
            self._succeeded.clear()
            self.table = None
        changes: dict[str, Run | None] = {}
        for line in lines:
            if "table" in line:
                self.table = str(line["table"])
                continue
            self.table = None
            if "run" in line:
                # A line that no driver wrote tells nothing; the driver of its cell posts it again.
                if run := _run(line):
                    self._take(run)
                    changes[run.id] = run
            elif isinstance(line.get("gone"), str):
                self._drop(line["gone"])
                changes[line["gone"]] = None
        return anew, changes

    def post(self, runs: Iterable[Run], gone: Iterable[str] = (), table: str | None = None, exact: bool = False) -> int:
        """Write down what changed, and return the number of changes.

        Args:
            runs: what MLflow is to show; unchanged ones are skipped.
            gone: ids that it is to show no more.
            table: the fingerprint of the results table that all of this then equals.
            exact: the runs are what the store says just now. Otherwise a cell that succeeded, and under the same key
                did not, keeps its run: whoever says so is a driver that has not seen how another one finished it.

        Raises:
            OSError: it cannot be written.
        """
        self.follow()
        changed = [run for run in runs if self.digests.get(run.id) != run.digest]
        if not exact:
            known, changed = changed, [run for run in changed if not self._undoes(run)]
            table = table if len(known) == len(changed) else None
        dropped = [id_ for id_ in gone if id_ in self.digests]
        lines = [
            f'{{"digest":"{run.digest}","started":{run.started!r},"ended":{run.ended!r},"run":{run.json}}}'
            for run in changed
        ]
        lines += [json.dumps({"gone": id_}) for id_ in dropped]
        if table is not None and (lines or table != self.table):
            lines.append(json.dumps({"table": table}))
        if lines and self.journal.append(lines):
            for run in changed:
                self._take(run)
            for id_ in dropped:
                self._drop(id_)
            self.table = table
        return len(changed) + len(dropped)

    def _undoes(self, run: Run) -> bool:
        return not run.succeeded and run.id in self._succeeded and self._succeeded[run.id] == run.tags.get(KEY)

    def _take(self, run: Run) -> None:
        self.digests[run.id] = run.digest
        self._succeeded.pop(run.id, None)
        if run.succeeded and KEY in run.tags:
            self._succeeded[run.id] = run.tags[KEY]

    def _drop(self, id_: str) -> None:
        self.digests.pop(id_, None)
        self._succeeded.pop(id_, None)

    def sent(self, target: str) -> Sent:
        """Open the record of what one MLflow has.

        Args:
            target: its name (`Experiment.target`).
        """
        name = hashlib.sha256(target.encode()).hexdigest()[:12]
        return Sent(Journal(self.folder / f"sent-{name}.jsonl"))


def _run(line: Mapping[str, Any]) -> Run | None:
    """Read a run back; None if the line is not as it was written."""
    try:
        facts = line["run"]
        group, curve = tuple(facts["group"]), tuple((metric, step, value) for metric, step, value in facts["curve"])
        started, ended = float(line["started"]), float(line["ended"])
        run = Run(**{**facts, "group": group, "curve": curve}, started=started, ended=ended)
        whole = run.digest == line["digest"] and isinstance(run.id, str)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return run if whole and math.isfinite(started) and math.isfinite(ended) else None
