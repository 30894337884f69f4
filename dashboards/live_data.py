"""What the live page shows, made from what the driver writes. Nothing here knows Streamlit, and nothing writes.

While a driver is alive, its pulse (every 2 s) tells the states of steps, the statuses of cells, rates and what is in
use; the results table tells metrics and errors. Without a driver the table suffices, and one listing of the store per
table counts the steps. Manifests and attempts are read for one cell at a time (`explain`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from upath import UPath

from orchestrator.command import repeat_places, spell
from orchestrator.explain.eta import Eta, format_eta_short
from orchestrator.explain.why import explain as explain_cell
from orchestrator.plan.columns import Plan, cell_id
from orchestrator.redact import bare
from orchestrator.results.blocks import Blocks, Codes, complete_blocks
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.results.table import (
    STATUSES,
    ErrorGroup,
    averaged_metrics,
    error_groups,
    read_results,
    reported_metrics,
    unpack_codes,
)
from orchestrator.run.failures import read_failures
from orchestrator.session import Session, open_session
from orchestrator.texts import plain_text

#: Columns of the table that people may colour by, beside the metrics.
MEASURES = ("seconds", "attempts")
#: So many bytes of the end of a log are shown.
_TAIL = 20_000
#: Seconds that an MLflow server may take to name a run.
_PATIENCE = 2.0


@dataclass(frozen=True)
class Subject:
    """Which sweep is shown, as the command line said it."""

    file: Path
    overrides: tuple[str, ...] = ()
    outputs: str | None = None
    store: str | None = None
    tracking_uri: str | None = None

    def dump(self) -> str:
        """As JSON, to be handed to the page's script."""
        return json.dumps({**asdict(self), "file": str(self.file)})

    def command(self, verb: str, *options: str) -> str:
        """A `sweep` command on this sweep, ready for a shell."""
        places = repeat_places(self.overrides, self.outputs, self.store)
        return spell(["sweep", verb, str(self.file), *options, *places])


def load_subject(text: str) -> Subject:
    """The inverse of `Subject.dump`."""
    content = json.loads(text)
    return Subject(**{**content, "file": Path(content["file"]), "overrides": tuple(content["overrides"])})


@dataclass(frozen=True)
class Look:
    """The sweep at one moment."""

    session: Session
    cells: pd.DataFrame
    """One row per cell of the plan: `cell_id`, the axes (ordered categories), `status`, metrics, … as in the table."""
    metrics: tuple[str, ...]
    averaged: tuple[str, ...]
    """Those of which means are taken."""
    pulse: dict[str, Any] | None
    """What a live driver says of itself."""
    written: float | None
    """When the table was written, in seconds since the epoch; None if there is none."""
    outdated: int
    """Cells that the table tells of as they were before the sweep file or its data changed; shown as pending."""
    trouble: str | None
    """Why the table cannot be read."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the sweep."""
        return tuple(self.session.spec.axes)

    @property
    def updated(self) -> float | None:
        """When the newest of what is shown was written."""
        return self.pulse["time"] if self.pulse else self.written

    @property
    def version(self) -> tuple[str, float | None]:
        """Changes whenever the sweep file or the table does."""
        return self.session.plan.digest, self.written


class Watch:
    """Follows a sweep; keeps what did not change. Browsers share one, so it is guarded by a lock."""

    def __init__(self, subject: Subject) -> None:
        """Nothing is read yet."""
        self.subject = subject
        self._lock = threading.Lock()
        self._digest: str | None = None
        self._session: Session | None = None
        self._blank: pd.DataFrame | None = None
        self._table: tuple[Any, pd.DataFrame, int] | None = None
        self._stages: tuple[Any, list[dict[str, Any]]] | None = None

    def session(self) -> Session:
        """The sweep as its file stands now: planned again when the content of the file changes.

        Raises:
            SweepError: the file is wrong.
            OSError: it cannot be read.
        """
        with self._lock:
            return self._open()

    def look(self) -> Look:
        """The sweep as it stands now.

        Raises:
            SweepError: the sweep file is wrong.
            OSError: it cannot be read.
        """
        with self._lock:
            session = self._open()
            assert self._blank is not None
            pulse = read_heartbeat(session.outputs.folder, session.plan.entries)
            if pulse and pulse.get("plan") != session.plan.digest:
                # A driver of an older version of the file.
                pulse = None
            cells, outdated, written, trouble = self._blank, 0, None, None
            try:
                cells, outdated, written = self._read_table(session, self._blank)
            except FileNotFoundError:
                pass
            except (ValueError, OSError) as error:
                trouble = str(error)
            if pulse and pulse["cells"]:
                cells = cells.assign(status=_statuses(unpack_codes(pulse["cells"])))
            elif (cells["status"] == "running").any():
                # A driver that was killed left the table so.
                cells = cells.assign(status=cells["status"].replace("running", "pending"))
            metrics, averaged = (tuple(cells.attrs.get(name, ())) for name in ("metrics", "averaged"))
            return Look(session, cells, metrics, averaged, pulse, written, outdated, trouble)

    def stages(self, look: Look) -> list[dict[str, Any]]:
        """Per entry: steps in each state, rate per minute, seconds each, and the time left (`Eta`), if known.

        Without a driver the store is listed, once for each table.
        """
        if look.pulse:
            return [
                _stage(name, look.pulse["steps"][name], pace["per_minute"])
                | {"seconds": pace["seconds"], "left": Eta(**pace["left"])}
                for name, pace in look.pulse["pace"].items()
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
            self._session, self._digest, self._blank = session, digest, _blank(session.plan)
            self._table = self._stages = None
        return self._session

    def _read_table(self, session: Session, blank: pd.DataFrame) -> tuple[pd.DataFrame, int, float]:
        path = session.outputs.results
        stat = path.stat()
        version = (stat.st_mtime, stat.st_size)
        if self._table is None or self._table[0] != version:
            self._table = (version, *_join(blank, path))
        return self._table[1], self._table[2], stat.st_mtime


def _blank(plan: Plan) -> pd.DataFrame:
    """The cells of a plan of which nothing is known."""
    coords = [plan.cell_coords(index) for index in range(len(plan.points))]
    frame = pd.DataFrame({"cell_id": [cell_id(each) for each in coords]})
    grid = plan.grid
    for axis, name in enumerate(grid.names):
        labels = [str(label) for label in grid.labels[axis]]
        codes = grid.project(grid.all, (axis,))[plan.points]
        frame[name] = pd.Categorical.from_codes(codes, categories=pd.Index(labels), ordered=True)
    frame.attrs["axes"] = tuple(grid.names)
    frame["status"] = _statuses(np.full(len(frame), STATUSES.index("pending"), np.uint8))
    for column in ("error_class", "error", "log"):
        frame[column] = pd.Series([None] * len(frame), dtype=object)
    frame["attempts"] = 0
    frame["seconds"] = np.nan
    frame["key"] = [plan.cell_key(index) for index in range(len(frame))]
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
            frame[name] = pd.Series(np.where(there, column, None), dtype=object)
        else:
            frame[name] = np.where(same, column, np.nan)
    codes = rows["status"].map({status: code for code, status in enumerate(STATUSES)})
    frame["status"] = _statuses(np.where(same, codes.fillna(STATUSES.index("pending")), STATUSES.index("pending")))
    frame.attrs["metrics"], frame.attrs["averaged"] = metrics, averaged_metrics(table)
    return frame, int((~same & rows["key"].notna().to_numpy()).sum())


def _statuses(codes: np.ndarray) -> Any:
    return pd.Categorical.from_codes(codes.astype(np.int8), categories=pd.Index(STATUSES))


def _stage(name: str, states: dict[str, int], per_minute: float | None = None) -> dict[str, Any]:
    return {"stage": name, "total": sum(states.values()), **states, "per_minute": per_minute, "seconds": None,
            "left": None}  # fmt: skip


def stages_shown(stages: list[dict[str, Any]]) -> pd.DataFrame:
    """`Watch.stages` as a table for people: counts of nothing are empty, times are spelled."""

    def count(number: int) -> int | None:
        return number or None

    return pd.DataFrame(
        {
            "stage": each["stage"],
            # Rounded down: 100 is all of them. Of no step nothing is said.
            "done": 100 * each["committed"] // each["total"] if each["total"] else None,
            "committed": f"{each['committed']:,} / {each['total']:,}",
            "running": count(each["running"] + each["elsewhere"]),
            "failed": count(each["failed"]),
            "blocked": count(each["blocked"]),
            "per_minute": round(each["per_minute"], 1) or None if each["per_minute"] is not None else None,
            "seconds": "" if each["seconds"] is None else spell_short(each["seconds"]),
            "left": format_eta_short(each["left"], spell_short) if each["left"] else "",
        }
        for each in stages
    )


def spell_short(seconds: float) -> str:
    """A duration for a narrow column: 0.11 s, 58 s, 3.0 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def explain(look: Look, text: str) -> dict[str, Any]:
    """All that is known of one cell (`explain`), with its status as of now and its `metrics`.

    `first_log` names the log to look at first, in the words of `logs`.

    Raises:
        SweepError: there is no such cell.
    """
    found = explain_cell(replace(look.session), text)
    row = look.cells[look.cells["cell_id"] == found["cell_id"]].iloc[0]
    found["status"] = str(row["status"])
    found["metrics"] = {name: float(row[name]) for name in look.metrics if pd.notna(row[name])}
    found["first_log"] = next((name for name, each in logs(found).items() if each["log"] == found["log"]), None)
    return found


def steps_shown(found: dict[str, Any]) -> pd.DataFrame:
    """The steps of an explained cell as a table for people: one row per stage, its shards taken together."""
    rows = []
    for entry in dict.fromkeys(step["entry"] for step in found["steps"]):
        steps = [step for step in found["steps"] if step["entry"] == entry]
        states = Counter("damaged" if step["damage"] else step["state"] for step in steps)
        state = next(iter(states)) if len(states) == 1 else ", ".join(f"{n} {state}" for state, n in states.items())
        attempts = [attempt for step in steps for attempt in step["attempts"]]
        rows.append(
            {
                "stage": entry,
                "state": state,
                "key": steps[0]["key"][:16] if len(steps) == 1 else f"{len(steps)} shards",
                "cells": steps[0]["cells"],
                "attempts": len(attempts) or None,
                "seconds": sum(each["seconds"] for each in attempts) if attempts else None,
                "because": next((step["damage"] or step["because"] for step in steps
                                 if step["damage"] or step["because"]), None),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def logs(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The attempts of an explained cell that left a log, by a name for people."""
    counts: dict[str, int] = {}
    named = {}
    for step in found["steps"]:
        counts[step["entry"]] = counts.get(step["entry"], 0) + 1
        several = sum(each["entry"] == step["entry"] for each in found["steps"]) > 1
        shard = f" shard {counts[step['entry']]}" if several else ""
        for attempt in step["attempts"]:
            if attempt["log"]:
                named[f"{step['entry']}{shard}, attempt {attempt['number']}: {attempt['outcome']}"] = attempt
    return named


def time_left(look: Look) -> Eta | None:
    """The time that the whole sweep will take; None without a driver."""
    return Eta(**look.pulse["left"]) if look.pulse else None


def default_axes(look: Look) -> tuple[str, str]:
    """Columns and rows of the grid at first: the axes of the sweep's own summary, else those with most values."""
    labels = {axis: len(look.session.spec.labels(axis)) for axis in look.axes}
    asked = [axis for axis in look.session.spec.summary.by if axis in labels]
    others = sorted((axis for axis in labels if axis not in asked), key=lambda axis: (axis == "seed", -labels[axis]))
    first, second = [*asked, *others, look.axes[0]][:2]
    return (first, second) if labels[first] >= labels[second] else (second, first)


def tiles(cells: pd.DataFrame, columns: str, rows: str, measure: str | None) -> pd.DataFrame:
    """The squares of the grid: what the cells with one value of each of two axes have in common.

    Args:
        cells: of `Look.cells`, perhaps filtered.
        columns: an axis.
        rows: an axis, perhaps the same.
        measure: a metric, or one of MEASURES; None for none.

    Returns:
        one row per square that has cells: `column` and `row` (positions of labels), `x` and `y` (labels), `cells`, one
        column per status with its count, and with a measure `n`, `mean` and `sd` (sample) over the cells of complete
        blocks (`blocks`), so that squares can be compared.
    """
    frame = pd.DataFrame({"column": cells[columns].cat.codes, "row": cells[rows].cat.codes})
    for status in STATUSES:
        frame[status] = (cells["status"] == status).astype(np.int64)
    keys = ["column", "row"]
    found = frame.groupby(keys, sort=True)[list(STATUSES)].sum()
    found["cells"] = found.sum(axis=1)
    if measure is not None:
        frame["value"] = cells[measure].where(blocks(cells, columns, rows, measure).kept).astype(np.float64)
        of_squares = frame.groupby(keys, sort=True)["value"]
        found["n"], found["mean"], found["sd"] = of_squares.count(), of_squares.mean(), of_squares.std()
    found = found.reset_index()
    for position, label, axis in (("column", "x", columns), ("row", "y", rows)):
        found[label] = np.asarray(cells[axis].cat.categories, object)[found[position]]
    return found


def blocks(cells: pd.DataFrame, columns: str, rows: str, measure: str) -> Blocks:
    """Which of the cells the means of a measure are taken of: those of complete blocks of the squares by two axes."""
    axes = [name for name in cells.attrs["axes"] if name not in (columns, rows)]
    compared, block = (_combined(cells, names) for names in (dict.fromkeys([columns, rows]), axes))
    succeeded = (cells["status"] == "succeeded").to_numpy()
    there = succeeded & np.isfinite(cells[measure].to_numpy(np.float64))
    return complete_blocks(there, compared, block, cells["status"].to_numpy(str))


def _combined(cells: pd.DataFrame, axes: Iterable[str]) -> Codes:
    code: Codes = np.zeros(len(cells), np.int64)
    for axis in axes:
        code = code * len(cells[axis].cat.categories) + cells[axis].cat.codes.to_numpy(np.int64)
    return code


@cache
def watch(subject: str) -> Watch:
    """The one watch of this process on a sweep (`Subject.dump`)."""
    return Watch(load_subject(subject))


def groups(look: Look) -> list[ErrorGroup]:
    """Failed and blocked cells by class and cause, the largest group first."""
    if look.pulse:
        return [ErrorGroup(**group) for group in look.pulse["errors"]]
    cells = look.cells
    bad = cells[cells["status"].isin(["failed", "blocked"])]
    columns = (bad[name].tolist() for name in ("status", "error_class", "error", "log"))
    return error_groups(zip(*columns, strict=True))


def machine() -> dict[str, Any]:
    """The load of this machine over the last minute, in the words of a driver's pulse."""
    memory, cpus = psutil.virtual_memory(), psutil.cpu_count() or 1
    return {
        "cpus": cpus, "cpu_percent": min(100 * os.getloadavg()[0] / cpus, 100.0),
        "memory_used": memory.total - memory.available, "memory": memory.total,
    }  # fmt: skip


def tail(place: str) -> str:
    """The end of a log: at most 20 kB, without what would move a terminal. A log that is gone is said to be."""
    path = UPath(place) if "://" in place else Path(place)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - _TAIL, 0))
            text = plain_text(stream.read().decode(errors="replace"))
    except OSError as error:
        return f"({place} cannot be read: {error.strerror or error})"
    return text if size <= _TAIL else f"… the last {_TAIL // 1000} of {size // 1000} kB\n" + text.partition("\n")[2]


def run_address(uri: str, experiment: str, cell: str) -> str | None:
    """Where an MLflow server shows the run of a cell; None if it does not know it, or does not answer at once.

    Asks MLflow's REST API (https://mlflow.org/docs/latest/rest-api.html), so that nothing here imports mlflow.
    """
    base = bare(uri).rstrip("/")
    api = f"{uri.rstrip('/')}/api/2.0/mlflow"
    try:
        query = urllib.parse.urlencode({"experiment_name": experiment})
        found = _ask(f"{api}/experiments/get-by-name?{query}")["experiment"]["experiment_id"]
        wanted = {"experiment_ids": [found], "filter": f"tags.`sweep.cell_id` = '{cell}'", "max_results": 1}
        runs = _ask(f"{api}/runs/search", wanted).get("runs", [])
        return f"{base}/#/experiments/{found}/runs/{runs[0]['info']['run_id']}" if runs else None
    except (OSError, ValueError, KeyError):
        return None


@lru_cache(maxsize=1000)
def recent_address(uri: str, experiment: str, cell: str, minute: int) -> str | None:
    """As `run_address`, asked once a minute: a server that does not answer must not hold up every refresh."""
    return run_address(uri, experiment, cell)


def _ask(url: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    body = json.dumps(content).encode() if content is not None else None
    parts = urllib.parse.urlsplit(url)
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        known = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(known.encode()).decode()}"
    request = urllib.request.Request(bare(url), body, headers)
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def age(when: float, now: float | None = None) -> float:
    """Seconds since a moment, never negative."""
    return max((now or time.time()) - when, 0.0)
