"""A sweep as the live page follows it. Nothing here knows Streamlit, and nothing writes.

While a driver is alive, its heartbeat (every 2 s) has the states of steps, the statuses of cells, rates and what is in
use; the results table has metrics and errors. Without a driver the table suffices, and one listing of the store per
table counts the steps. Manifests and attempts are read for one cell at a time (`live.cell_data`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from upath import UPath

from dashboards.live.searched import Searched
from orchestrator.command import format_command, repeat_places
from orchestrator.explain.eta import Eta
from orchestrator.plan.columns import Plan, cell_id
from orchestrator.results.heartbeat import read_heartbeat, unpack_codes
from orchestrator.results.metrics import averaged_metrics, reported_metrics
from orchestrator.results.parquet import read_results
from orchestrator.results.status import STATUSES
from orchestrator.run.failures import ErrorGroup, error_groups, read_failures
from orchestrator.search.trial import Study
from orchestrator.session import Session, open_session
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError

#: What may have become of a cell that is shown: those that a search may still decide are not.
SHOWN = STATUSES[: STATUSES.index("undecided")]


@dataclass(frozen=True)
class Subject:
    """The sweep that is shown, as the command line named it."""

    file: Path
    overrides: tuple[str, ...] = ()
    outputs: str | None = None
    store: str | None = None
    tracking_uri: str | None = None

    def dump(self) -> str:
        """Encode as JSON, to be handed to the page's script."""
        return json.dumps({**asdict(self), "file": str(self.file)})

    def command(self, verb: str, *options: str) -> str:
        """Return a `sweep` command on this sweep, ready for a shell."""
        places = repeat_places(self.overrides, self.outputs, self.store)
        return format_command(["sweep", verb, str(self.file), *options, *places])


def load_subject(text: str) -> Subject:
    """Decode what `Subject.dump` made."""
    content = json.loads(text)
    return Subject(**{**content, "file": Path(content["file"]), "overrides": tuple(content["overrides"])})


@dataclass(frozen=True)
class Look:
    """The sweep at one moment."""

    session: Session
    cells: pd.DataFrame
    """One row per cell that there is, by its number in the plan: `cell_id`, the axes (ordered categories), `status`,
    metrics, … as in the table."""
    metrics: tuple[str, ...]
    averaged: tuple[str, ...]
    """Those of which means are taken."""
    heartbeat: dict[str, Any] | None
    """The heartbeat of a live driver."""
    written: float | None
    """When the table was written, in seconds since the epoch; None if there is none."""
    outdated: int
    """Cells of which the table has what they were before the sweep file or its data changed; shown as pending."""
    trouble: str | None
    """Why the table, or the records of studies, cannot be read."""
    studies: tuple[Study, ...] = ()
    """The studies of a search, as the table knows them."""
    more: int = 0
    """How many cells may still come with trials that are not suggested yet, at most."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held by whoever lets the plan grow."""

    def anew(self) -> Session:
        """Return a session that reads the store anew; what it finds of studies is in the plan then.

        Raises:
            StoreError: the store cannot be read.
        """
        session = replace(self.session)
        if session.spec.searched:
            with self.lock:
                assert session.schedule.plan is session.plan
        return session

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the axes of the sweep."""
        return tuple(self.session.spec.axes)

    @property
    def updated(self) -> float | None:
        """Return when the newest of what is shown was written."""
        return self.heartbeat["time"] if self.heartbeat else self.written

    @property
    def version(self) -> tuple[str, float | None]:
        """Return what changes whenever the sweep file or the table does."""
        return self.session.plan.digest, self.written

    @property
    def left(self) -> Eta | None:
        """Return the time that the whole sweep will still take; None without a driver."""
        return Eta(**self.heartbeat["left"]) if self.heartbeat else None

    def errors(self) -> list[ErrorGroup]:
        """Group failed and blocked cells by class and cause, the largest group first."""
        if self.heartbeat:
            return [ErrorGroup(**group) for group in self.heartbeat["errors"]]
        bad = self.cells[self.cells["status"].isin(["failed", "blocked"])]
        columns = (bad[name].tolist() for name in ("status", "error_class", "error", "log"))
        return error_groups(zip(*columns, strict=True))


class Watch:
    """A follower of a sweep that keeps what did not change. Browsers share one, so it is guarded by a lock."""

    def __init__(self, subject: Subject) -> None:
        """Start with nothing read."""
        self.subject = subject
        self._lock = threading.Lock()
        self._digest: str | None = None
        self._session: Session | None = None
        self._blank: pd.DataFrame | None = None
        self._table: tuple[Any, pd.DataFrame, int] | None = None
        self._stages: tuple[Any, list[dict[str, Any]]] | None = None
        self._searched: Searched | None = None

    def session(self) -> Session:
        """Return the sweep as its file stands now: planned again when the content of the file changes.

        Raises:
            SweepError: the file is wrong.
            OSError: it cannot be read.
        """
        with self._lock:
            return self._open()

    def look(self) -> Look:
        """Return the sweep as it stands now.

        Raises:
            SweepError: the sweep file is wrong.
            OSError: it cannot be read.
        """
        with self._lock:
            session = self._open()
            heartbeat = read_heartbeat(session.outputs.folder, session.plan.entries)
            if heartbeat and heartbeat.get("plan") != session.plan.digest:
                # A driver of an older version of the file.
                heartbeat = None
            codes = _codes(heartbeat, session.plan)
            blank, trouble = self._decided(session, codes)
            cells, outdated, written = blank, 0, None
            try:
                cells, outdated, written = self._read_table(session, blank)
            except FileNotFoundError:
                pass
            except (ValueError, OSError, KeyError, TypeError) as error:
                # The last two are what a table of somebody else's lacks.
                trouble = str(error)
            studies: tuple[Study, ...] = ()
            more = 0
            if self._searched:
                studies, more = self._searched.views(cells, cells.attrs.get("metrics", ()), written)
            if codes is not None:
                cells = cells.assign(status=_statuses(codes[cells.index]))
            elif (cells["status"] == "running").any():
                # A driver that was killed left the table so.
                cells = cells.assign(status=cells["status"].replace("running", "pending"))
            metrics, averaged = (tuple(cells.attrs.get(name, ())) for name in ("metrics", "averaged"))
            return Look(
                session, cells, metrics, averaged, heartbeat, written, outdated, trouble, studies, more, self._lock
            )

    def stages(self, look: Look) -> list[dict[str, Any]]:
        """Return for each entry its steps in each state and, if known, their rate, seconds each and time left (`Eta`).

        Without a driver the store is listed, once for each table.
        """
        if look.heartbeat:
            return [
                _stage(name, look.heartbeat["steps"][name], pace["per_minute"])
                | {"seconds": pace["seconds"], "left": Eta(**pace["left"])}
                for name, pace in look.heartbeat["pace"].items()
            ]
        with self._lock:
            if self._stages is None or self._stages[0] != look.version:
                session = replace(look.session)
                read_failures(session.schedule, session.store)
                counts = session.schedule.counts()
                rows = [_stage(name, {str(state): n for state, n in each.items()}) for name, each in counts.items()]
                self._stages = look.version, rows
            return self._stages[1]

    def _open(self) -> Session:
        digest = hashlib.sha256(self.subject.file.read_bytes()).hexdigest()
        if self._session is None or digest != self._digest:
            subject = self.subject
            session = open_session(subject.file, list(subject.overrides), None, None, subject.outputs, subject.store)
            self._session, self._digest, self._blank = session, digest, None
            self._searched = Searched(session) if session.spec.searched else None
            self._table = self._stages = None
        return self._session

    def _decided(self, session: Session, codes: np.ndarray | None) -> tuple[pd.DataFrame, str | None]:
        """Return the cells that there are, without results, and why not all of them may be known."""
        trouble = None
        if self._searched:
            try:
                self._searched.grow(codes, _version(session.outputs.results))
            except (StoreError, SweepError) as error:
                trouble = str(error)
        numbers = np.flatnonzero(session.plan.decided)
        if self._blank is None or len(self._blank) != len(numbers):
            values = self._searched.values(numbers.tolist()) if self._searched else {}
            self._blank, self._table = _blank(session.plan, numbers, values), None
        return self._blank, trouble

    def _read_table(self, session: Session, blank: pd.DataFrame) -> tuple[pd.DataFrame, int, float]:
        path = session.outputs.results
        version = _version(path)
        if version is None:
            raise FileNotFoundError(path)
        if self._table is None or self._table[0] != version:
            self._table = (version, *_join(blank, path))
        return self._table[1], self._table[2], version[0]


@cache
def watch(subject: str) -> Watch:
    """Return the one watch of this process on a sweep (`Subject.dump`)."""
    return Watch(load_subject(subject))


def machine() -> dict[str, Any]:
    """Return the load of this machine over the last minute, in the form of a driver's heartbeat."""
    memory, cpus = psutil.virtual_memory(), psutil.cpu_count() or 1
    return {
        "cpus": cpus, "cpu_percent": min(100 * os.getloadavg()[0] / cpus, 100.0),
        "memory_used": memory.total - memory.available, "memory": memory.total,
    }  # fmt: skip


def _version(path: Path | UPath) -> tuple[float, int] | None:
    """What changes with a file; None without one."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime, stat.st_size


def _codes(heartbeat: Mapping[str, Any] | None, plan: Plan) -> np.ndarray | None:
    """The statuses of all cells, as a driver tells; None where it does not."""
    with contextlib.suppress(ValueError):
        codes = unpack_codes(heartbeat["cells"]) if heartbeat and heartbeat.get("cells") else None
        return codes if codes is None or len(codes) == len(plan.points) else None
    return None


def _blank(plan: Plan, numbers: np.ndarray, values: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Some cells of a plan of which nothing is known but the values of their trials."""
    coords = [plan.cell_coords(index) for index in numbers.tolist()]
    frame = pd.DataFrame({"cell_id": [cell_id(each) for each in coords]}, index=numbers)
    grid = plan.grid
    for axis, name in enumerate(grid.names):
        labels = [str(label) for label in grid.labels[axis]]
        codes = grid.project(grid.all, (axis,))[plan.points[numbers]]
        frame[name] = pd.Categorical.from_codes(codes, categories=pd.Index(labels), ordered=True)
    frame.attrs["axes"], frame.attrs["values"] = tuple(grid.names), tuple(values)
    frame.attrs["random"] = plan.spec.random_axes
    for name, column in values.items():
        frame[name] = column
    frame["status"] = _statuses(np.full(len(frame), STATUSES.index("pending"), np.uint8))
    for text in ("error_class", "error", "log", *(["trial_state"] if plan.spec.searched else [])):
        frame[text] = pd.Series([None] * len(frame), index=numbers, dtype=object)
    frame["attempts"] = 0
    frame["seconds"] = np.nan
    frame["key"] = [plan.cell_key(index) for index in numbers.tolist()]
    return frame


def _join(blank: pd.DataFrame, path: Path | UPath) -> tuple[pd.DataFrame, int]:
    """The cells of a plan with what a table knows of them, and of how many it knows only what they were before.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: it was written by another version of this code.
    """
    table = read_results(path)
    metrics = reported_metrics(table)
    known = ["error_class", "error", "log", "attempts", "seconds", *metrics]
    known += ["trial_state"] if "trial_state" in blank else []
    found = table.select(["cell_id", "status", "key", *known]).to_pandas().set_index("cell_id")
    rows = found.reindex(blank["cell_id"])
    same = (rows["key"].to_numpy() == blank["key"].to_numpy()) & rows["key"].notna().to_numpy()
    frame = blank.copy()
    for name in known:
        column = rows[name].to_numpy()
        if name == "attempts":
            frame[name] = np.where(same, rows[name].fillna(0), 0).astype(np.int64)
        elif column.dtype == object:
            # Text that is missing is NaN in pandas, which is no text; and true.
            there = same & rows[name].notna().to_numpy()
            frame[name] = pd.Series(np.where(there, column, None), index=frame.index, dtype=object)
        else:
            frame[name] = np.where(same, column, np.nan)
    codes = rows["status"].map({status: code for code, status in enumerate(STATUSES)})
    frame["status"] = _statuses(np.where(same, codes.fillna(STATUSES.index("pending")), STATUSES.index("pending")))
    frame.attrs["metrics"], frame.attrs["averaged"] = metrics, averaged_metrics(table)
    return frame, int((~same & rows["key"].notna().to_numpy()).sum())


def _statuses(codes: np.ndarray) -> Any:
    # The records of studies are newer than what a driver or a table told: what joined since waits.
    codes = np.where(codes < len(SHOWN), codes, SHOWN.index("pending"))
    return pd.Categorical.from_codes(codes.astype(np.int8), categories=pd.Index(SHOWN))


def _stage(name: str, states: dict[str, int], per_minute: float | None = None) -> dict[str, Any]:
    return {"stage": name, "total": sum(states.values()), **states, "per_minute": per_minute, "seconds": None,
            "left": None}  # fmt: skip
