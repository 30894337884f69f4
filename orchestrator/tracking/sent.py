"""What MLflow is to be told, on disk: append-only, so that neither a crash nor an absent server loses any of it.

```
<folder>/runs.jsonl            one line per change of a run; the last one of an id counts
<folder>/sent-<target>.jsonl   what one MLflow has of it, and who asks it about what is uncertain
```

The first is written by drivers, the second by whoever holds the lock. `sweep sync` makes both anew where they are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Run:
    """All that MLflow is told of a cell, of a long step with its training curve, or of their parent."""

    id: str
    """The cell's id, `step:<key>`, or `group:<name>` for a parent."""
    name: str
    group: tuple[str, ...]
    """The parents below the sweep's own run, outermost first."""
    succeeded: bool
    started: float
    """Seconds since the epoch."""
    ended: float
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curve: tuple[tuple[str, int, float], ...] = ()
    """(metric, training step, value)."""

    @cached_property
    def spelled(self) -> str:
        """All but the time, as JSON."""
        return json.dumps({name: getattr(self, name) for name in _FACTS}, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """Changes when anything but the time changes that MLflow is told."""
        return hashlib.sha256(self.spelled.encode()).hexdigest()[:32]


_FACTS = tuple(each.name for each in fields(Run) if each.name not in ("started", "ended"))


class Journal:
    """An append-only file of JSON lines that several processes write and follow."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet, and the file need not exist."""
        self.path = path
        self.offset = 0
        """Bytes read so far."""
        self._head = b""

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """The complete lines that were added since the last time; what a crash tore is left out.

        Returns:
            Whether these are all the lines, because the file was not read before or another one took its place; lines.
        """
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            anew = self.offset > 0
            self.offset, self._head = 0, b""
            return anew, []
        with stream:
            head = stream.readline()
            anew = self.offset == 0 or head != self._head
            if anew:
                self.offset, self._head = 0, head
            stream.seek(self.offset)
            content = stream.read()
        content = content[: content.rfind(b"\n") + 1]
        self.offset += len(content)
        lines = []
        for text in content.splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
        return anew, lines

    def append(self, lines: Sequence[str], durable: bool = False) -> bool:
        """Add lines by one write.

        Args:
            lines: what to add, as JSON.
            durable: return only when they are safe against a power failure.

        Returns:
            Whether `read` will leave them out: where nobody else has added anything, they need not be read back.

        Raises:
            OSError: they could not be written whole.
        """
        content = "".join(f"{line}\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            if not size:
                self._head = _head()
                content = self._head + content
            elif os.pread(handle, 1, size - 1) != b"\n":
                content = b"\n" + content
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            if durable:
                os.fsync(handle)
            end = os.lseek(handle, 0, os.SEEK_CUR)
        finally:
            os.close(handle)
        follows = end - len(content) == self.offset
        if follows:
            self.offset = end
        return follows

    def replace(self, lines: Sequence[str]) -> None:
        """Put other lines in the place of all that is there, at once.

        Raises:
            OSError: they could not be written; the old ones stay.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}-{secrets.token_hex(4)}")
        try:
            part.write_bytes(_head() + "".join(f"{line}\n" for line in lines).encode())
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)


def _head() -> bytes:
    """A first line that tells a file from one that takes its place."""
    return f'{{"file":"{secrets.token_hex(8)}"}}\n'.encode()


class Outbox:
    """The runs that MLflow is to show, and what was posted of them."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.journal = Journal(folder / "runs.jsonl")
        self.digests: dict[str, str] = {}
        """Id -> digest of what MLflow is to show of it, as far as `follow` has read."""
        self.table: str | None = None
        """The table that all of this equals, if it was finished with one."""

    @property
    def lock(self) -> Path:
        """Held by whoever talks to MLflow."""
        return self.folder / "lock"

    def follow(self) -> tuple[bool, dict[str, Run | None]]:
        """Read what was posted since the last time, also by others.

        Returns:
            Whether that is everything, as in `Journal.read`; id -> run, None where it is to go.
        """
        anew, lines = self.journal.read()
        if anew:
            self.digests.clear()
            self.table = None
        changes: dict[str, Run | None] = {}
        for line in lines:
            if "table" in line:
                self.table = line["table"]
            elif "run" in line:
                self.table = None
                self.digests[line["run"]["id"]] = line["digest"]
                changes[line["run"]["id"]] = _run(line)
            elif "gone" in line:
                self.table = None
                self.digests.pop(line["gone"], None)
                changes[line["gone"]] = None
        return anew, changes

    def post(self, runs: Iterable[Run], gone: Iterable[str] = (), table: str | None = None) -> int:
        """Write down what changed; returns how much that is.

        Args:
            runs: what MLflow is to show; those that were posted already are left out.
            gone: ids that it is to show no more.
            table: the fingerprint of the table that all of this equals.

        Raises:
            OSError: it cannot be written.
        """
        self.follow()
        changed = [run for run in runs if self.digests.get(run.id) != run.digest]
        dropped = [id_ for id_ in gone if id_ in self.digests]
        lines = [
            f'{{"digest":"{run.digest}","started":{run.started!r},"ended":{run.ended!r},"run":{run.spelled}}}'
            for run in changed
        ]
        lines += [json.dumps({"gone": id_}) for id_ in dropped]
        if table is not None and (lines or table != self.table):
            lines.append(json.dumps({"table": table}))
        if lines and self.journal.append(lines):
            self.digests |= {run.id: run.digest for run in changed}
            for id_ in dropped:
                del self.digests[id_]
            self.table = table
        return len(changed) + len(dropped)

    def sent(self, target: str) -> Sent:
        """What one MLflow has.

        Args:
            target: names it: tracking URI and experiment.
        """
        name = hashlib.sha256(target.encode()).hexdigest()[:12]
        return Sent(Journal(self.folder / f"sent-{name}.jsonl"))


def _run(line: Mapping[str, Any]) -> Run:
    facts = line["run"]
    group, curve = tuple(facts["group"]), tuple((metric, step, value) for metric, step, value in facts["curve"])
    return Run(**{**facts, "group": group, "curve": curve}, started=line["started"], ended=line["ended"])


class Delivery(NamedTuple):
    """A run as MLflow has it."""

    digest: str
    run: str
    """MLflow's run id."""


class Sent:
    """What one MLflow has. Never asked what is true; saves asking MLflow what it has."""

    def __init__(self, journal: Journal) -> None:
        """Nothing is read yet."""
        self._journal = journal
        self._clear()

    def _clear(self) -> None:
        self.experiment: tuple[str, int] | None = None
        """Id and creation time of the experiment that this speaks of."""
        self.runs: dict[str, Delivery] = {}
        self.told: dict[str, str] = {}
        """What else was told, as name -> digest."""
        self.uncertain: set[str] = set()
        """Ids whose writing was begun, and of which nobody has noted how it ended."""
        self.drained = -1
        """Bytes of the outbox's journal of which MLflow has everything."""

    def follow(self) -> None:
        """Read what was noted since the last time, also by others."""
        anew, lines = self._journal.read()
        if anew:
            self._clear()
        for line in lines:
            self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "experiment" in line:
            self.experiment = (line["experiment"], line["created"])
        elif "begun" in line:
            self.uncertain |= set(line["begun"])
        elif "sent" in line:
            self.runs |= {id_: Delivery(digest, run) for id_, digest, run in line["sent"]}
            self.uncertain -= {id_ for id_, _, _ in line["sent"]}
        elif "gone" in line:
            for id_ in line["gone"]:
                self.runs.pop(id_, None)
            self.uncertain -= set(line["gone"])
        elif "told" in line:
            self.told[line["told"]] = line["digest"]
        elif "drained" in line:
            self.drained = line["drained"]

    def note(self, line: Mapping[str, Any], durable: bool = False) -> None:
        """Write down, and take in, one line of those that `follow` reads.

        Raises:
            OSError: it cannot be written.
        """
        if self._journal.append([json.dumps(line)], durable):
            self._take(line)
        else:
            self.follow()

    def restart(self, experiment: tuple[str, int], told: Mapping[str, str] | None = None) -> None:
        """Forget which runs an experiment has.

        Args:
            experiment: id and creation time.
            told: what else it was told, so far as that is known.

        Raises:
            OSError: it cannot be written.
        """
        lines: list[dict[str, Any]] = [{"experiment": experiment[0], "created": experiment[1]}]
        lines += [{"told": name, "digest": digest} for name, digest in (told or {}).items()]
        self._journal.replace([json.dumps(line) for line in lines])
        self.follow()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
