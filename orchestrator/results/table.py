"""The results table: one row per cell, rebuilt from the store at any time."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from orchestrator.plan.columns import Plan, cell_id
from orchestrator.plan.grid import Mask, Numbers
from orchestrator.run.breaker import signature
from orchestrator.run.failures import read_failures, stopped_entries
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.store.atomic import explained, replace_file
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Attempt, Scalar
from workers.metric import Metric, over_shards

#: What may have become of a cell.
STATUSES = ("succeeded", "running", "pending", "blocked", "failed")
#: Stands for the error class of a failed cell of which nobody noted it down.
UNKNOWN_ERROR = "unknown"
#: Raised when a column changes its name, type or meaning.
SCHEMA_VERSION = 1
#: A larger table is cut into files of so many rows.
PART_ROWS = 100_000


class _Finished(NamedTuple):
    """What a row needs of a manifest."""

    metrics: Mapping[str, float]
    undefined: Mapping[str, str]
    attempt: int
    seconds: float
    code_commit: str


class Results:
    """What is known of a sweep's cells: manifests of committed steps, last attempts of failed ones.

    Manifests are read once; a table can be made from here at any moment of a run.
    """

    def __init__(self, plan: Plan, store: Store, schedule: Schedule) -> None:
        """Nothing is read yet."""
        self.plan = plan
        self.store = store
        self.schedule = schedule
        self.failures: dict[int, Attempt] = {}
        """Step -> its last attempt, which failed."""
        self.stopped: dict[str, Attempt] = {}
        """Entries that the breaker stopped -> one of their failures, which says so."""
        self._finished: dict[int, _Finished] = {}
        self._reported = frozenset(plan.spec.results or plan.targets)

    def set_damaged_aside(self) -> list[str]:
        """Read the manifests of finished cells; returns what was found damaged and will be made again."""
        damage = self._read_manifests()
        if damage:
            self.schedule.derive(self.schedule.committed)
        return damage

    def read_failures(self) -> None:
        """Read how the steps that are not committed ended last."""
        self.failures = read_failures(self.schedule, self.store)

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt that just ended."""
        number = self.plan.number(attempt.address)
        assert number is not None, "only steps of this plan are run"
        if attempt.metrics is not None:
            self.failures.pop(number, None)
            if self._of_interest[number]:
                self._finished[number] = _Finished(
                    attempt.metrics, attempt.undefined, attempt.number, attempt.seconds, attempt.code_commit
                )
        else:
            self.failures[number] = attempt

    def table(self) -> pa.Table:
        """One row per cell, in the order of the plan."""
        self._read_manifests()
        return self.rows(range(len(self.plan.points)))

    def rows(self, cells: Sequence[int]) -> pa.Table:
        """The rows of some cells, as far as attempts were noted or manifests were read."""
        metrics = list(dict.fromkeys(name for declared in self._declared.values() for name in declared))
        chosen = np.asarray(cells, np.int64)
        groups = [(name, self.plan.groups(name)[chosen].tolist()) for name in self.plan.entries]
        if len(cells) == len(self.plan.points):
            statuses = self.statuses()
        else:
            self.stopped = stopped_entries(self.schedule, self.failures)
            statuses = [
                self._status([(name, each[position]) for name, each in groups if each[position] >= 0])
                for position in range(len(cells))
            ]
        rows = [
            self._row(index, [(name, each[position]) for name, each in groups], *statuses[position])
            for position, index in enumerate(cells)
        ]
        schema = pa.schema(
            [
                pa.field("cell_id", pa.string(), nullable=False),
                *(pa.field(axis, column_type(self.plan.spec, axis), nullable=False) for axis in self.plan.spec.axes),
                pa.field("status", pa.string(), nullable=False),
                pa.field("error_class", pa.string()),
                pa.field("error", pa.string()),
                pa.field("attempts", pa.int64(), nullable=False),
                pa.field("seconds", pa.float64()),
                *(pa.field(name, pa.float64()) for name in metrics),
                pa.field("key", pa.string(), nullable=False),
                pa.field("code_commit", pa.string()),
                pa.field("log", pa.string()),
                pa.field("undefined", pa.string()),
            ],
            metadata={
                "schema_version": str(SCHEMA_VERSION),
                "sweep": self.plan.spec.name,
                "question": self.plan.spec.question,
                "axes": json.dumps({axis: list(self.plan.spec.labels(axis)) for axis in self.plan.spec.axes}),
                "metrics": json.dumps(metrics),
                "unaveraged": json.dumps(unaveraged_metrics(self.plan)),
            },
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def statuses(self) -> list[tuple[str, Attempt | None]]:
        """What became of each cell, and its failure; reads no manifest."""
        codes = self.codes()
        found: list[tuple[str, Attempt | None]] = [(STATUSES[code], None) for code in codes.tolist()]
        groups = [(name, self.plan.groups(name)) for name in self.plan.entries]
        for index in np.flatnonzero(codes >= STATUSES.index("blocked")).tolist():
            firsts = [(name, int(of_cells[index])) for name, of_cells in groups]
            found[index] = self._status([(name, first) for name, first in firsts if first >= 0])
        return found

    def codes(self) -> npt.NDArray[np.uint8]:
        """What became of each cell, as a position in STATUSES; the same as `status_of` of each, all at once."""
        self.stopped = stopped_entries(self.schedule, self.failures)
        codes, count = self.schedule.codes, len(self.plan.points)
        missing = _Any(codes != State.COMMITTED)
        failed, blocked = _Any(codes == State.FAILED), _Any(codes == State.BLOCKED)
        failed_alone = _Any((codes == State.FAILED) & (self.plan.users == 1))
        under_way = _Any(np.isin(codes, (State.RUNNING, State.ELSEWHERE)))
        marks = {name: np.zeros(count, np.bool_) for name in ("missing", "failed", "own", "stopped", "under_way")}
        for name in self.plan.entries:
            firsts = self.plan.groups(name)
            cells = np.flatnonzero(firsts >= 0)
            first = firsts[cells]
            last = first + self.plan.size[first]
            if name in self.plan.wanted:
                marks["missing"][cells] |= missing.between(first, last)
            marks["failed"][cells] |= failed.between(first, last)
            marks["own"][cells] |= failed_alone.between(first, last)
            marks["under_way"][cells] |= under_way.between(first, last)
            if name in self.stopped:
                marks["stopped"][cells] |= blocked.between(first, last)
        found = np.full(count, STATUSES.index("pending"), np.uint8)
        # Each outweighs those before it.
        found[marks["under_way"]] = STATUSES.index("running")
        found[marks["failed"] | marks["stopped"]] = STATUSES.index("blocked")
        found[marks["own"]] = STATUSES.index("failed")
        found[~marks["missing"]] = STATUSES.index("succeeded")
        return found

    def status_of(self, index: int) -> tuple[str, Attempt | None]:
        """What became of a cell, and its failure.

        succeeded; failed (a step of its own did); blocked (a shared step failed); running; or pending.
        """
        firsts = [(name, int(self.plan.groups(name)[index])) for name in self.plan.entries]
        self.stopped = stopped_entries(self.schedule, self.failures)
        return self._status([(name, first) for name, first in firsts if first >= 0])

    def _status(self, groups: list[tuple[str, int]]) -> tuple[str, Attempt | None]:
        states, sizes = self.schedule.states, self._sizes
        seen: dict[str, bytearray] = {name: states[first : first + sizes[first]] for name, first in groups}
        done = {State.COMMITTED}
        if all(done.issuperset(seen[name]) for name in self.plan.wanted if name in seen):
            return "succeeded", None
        failed = [
            number
            for name, first in groups
            if State.FAILED in seen[name]
            for number in range(first, first + sizes[first])
            if states[number] == State.FAILED
        ]
        if failed:
            own = [number for number in failed if self._users[number] == 1]
            return ("failed" if own else "blocked"), self.failures.get((own or failed)[0])
        for name, states_of in seen.items():
            if State.BLOCKED in states_of and name in self.stopped:
                return "blocked", self.stopped[name]
        under_way = any(State.RUNNING in each or State.ELSEWHERE in each for each in seen.values())
        return ("running" if under_way else "pending"), None

    def _row(self, index: int, groups: list[tuple[str, int]], status: str, failure: Attempt | None) -> dict[str, Any]:
        metrics: dict[str, float] = {}
        undefined: dict[str, str] = {}
        attempts, seconds, commit = 0, 0.0, None
        for name, first in groups:
            if first < 0:
                continue
            own = self._users[first] == 1
            if not (own or name in self._reported):
                continue
            shards: list[_Finished] = []
            for number in range(first, first + self._sizes[first]):
                finished = self._finished.get(number)
                if finished and self.schedule.states[number] == State.COMMITTED:
                    shards.append(finished)
                    if own:
                        attempts = max(attempts, finished.attempt)
                        seconds += finished.seconds
                        commit = finished.code_commit
                elif number in self.failures:
                    attempts = max(attempts, self.failures[number].number)
                    seconds += self.failures[number].seconds
            if name in self._reported and len(shards) == self._sizes[first]:
                metrics |= self._metrics(name, shards)
                for place, shard in enumerate(shards):
                    where = f" in shard {place}" if len(shards) > 1 else ""
                    undefined |= {metric + where: reason for metric, reason in shard.undefined.items()}
        coords = self.plan.cell_coords(index)
        return {
            **coords,
            **metrics,
            "cell_id": cell_id(coords),
            "status": status,
            "error_class": failure.error_class if failure else None,
            "error": failure.error if failure else None,
            "attempts": attempts,
            "seconds": seconds if attempts else None,
            "key": self.plan.cell_key(index),
            "code_commit": commit or (failure.code_commit if failure else None),
            "log": failure.log if failure else None,
            "undefined": "; ".join(f"{metric}: {reason}" for metric, reason in undefined.items()) or None,
        }

    def _metrics(self, entry: str, shards: Sequence[_Finished]) -> Mapping[str, float]:
        """The metrics of an entry of which all shards are finished."""
        if len(shards) == 1:
            return shards[0].metrics
        return over_shards(self._declared[entry], [shard.metrics for shard in shards])

    @cached_property
    def _users(self) -> list[int]:
        users: list[int] = self.plan.users.tolist()
        return users

    @cached_property
    def _sizes(self) -> list[int]:
        sizes: list[int] = self.plan.size.tolist()
        return sizes

    @cached_property
    def _of_interest(self) -> Mask:
        """The steps that rows speak of: those whose metrics are reported, and those of one cell alone."""
        marked: Mask = (self.plan.users == 1) | self.plan.steps_of(entries=self._reported)
        return marked

    def _read_manifests(self) -> list[str]:
        """Read what was committed since the last time; what is damaged is set aside and told."""
        unread = np.flatnonzero(self._of_interest & self.schedule.committed).tolist()
        numbers = {self.plan.address(number): number for number in unread if number not in self._finished}
        damage = []
        for address, found in self.store.manifests(numbers.keys()).items():
            number = numbers[address]
            if isinstance(found, DamagedArtifactError):
                self.store.discard(address)
                self.schedule.states[number] = State.PENDING
                damage.append(str(found))
            else:
                self._finished[number] = _Finished(
                    found.metrics, found.undefined, found.attempt, found.seconds, found.code_commit
                )
        return damage

    @cached_property
    def _declared(self) -> dict[str, dict[str, Metric]]:
        """Reported entry -> what it declares of its metrics."""
        declared: dict[str, dict[str, Metric]] = {name: {} for name in self.plan.entries if name in self._reported}
        for name, metrics in declared.items():
            for variant in self.plan.by_entry[name].wired.variants:
                if variant:
                    metrics |= variant.configs[0].declared()
        return declared


def pack_codes(codes: npt.NDArray[np.uint8]) -> str:
    """The statuses of all cells (`Results.codes`) as a short text: 12,960 of them take some hundred characters."""
    return base64.b64encode(zlib.compress(codes.tobytes(), 1)).decode()


def unpack_codes(text: str) -> npt.NDArray[np.uint8]:
    """The inverse of `pack_codes`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


class ErrorGroup(NamedTuple):
    """Unfinished cells that ended alike."""

    status: str
    error_class: str
    cells: int
    """How many."""
    example: str
    """One of their messages."""
    log: str | None
    """Its log."""


class _Any:
    """Answers whether some steps of a range are marked, for many ranges at once."""

    def __init__(self, marked: Mask) -> None:
        self._before: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(marked)])

    def between(self, first: Numbers, last: Numbers) -> Mask:
        """For each range whether a step from `first` up to, but not including, `last` is marked."""
        found: Mask = self._before[last] > self._before[first]
        return found


def error_groups(
    rows: Iterable[tuple[str, str | None, str | None, str | None]],
) -> list[ErrorGroup]:
    """Unfinished cells, given as (status, error class, message, log), by status and the signature of their error.

    Returns:
        the groups, the largest first.
    """
    groups: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], tuple[str, str | None]] = {}
    for status, kind, message, log in rows:
        if status != "succeeded":
            group = (status, kind or unnamed_error(status), signature(kind, message))
            groups[group] += 1
            examples.setdefault(group, (message or "", log))
    return [ErrorGroup(*group[:2], count, *examples[group]) for group, count in groups.most_common()]


def unnamed_error(status: str) -> str:
    """What stands for the error class of an unfinished cell that has none."""
    return UNKNOWN_ERROR if status in ("failed", "blocked") else "not run yet"


def write_results(table: pa.Table, path: Path | UPath) -> None:
    """Replace the table, so that a reader in mid-run sees the old one or the new one.

    Up to `PART_ROWS` rows it is one Parquet file. Above, `path` is a folder of such files, each of so many rows in the
    order of the plan, so that a part holds few values of the leading axes; each is replaced at once, hence a reader may
    see older and newer rows side by side, but every cell once. pyarrow and pandas read both alike, DuckDB the folder as
    `path/*.parquet`.

    Raises:
        StoreError: the place cannot be written.
    """
    import pyarrow.parquet as pq

    def spelled(rows: pa.Table) -> bytes:
        buffer = pa.BufferOutputStream()
        pq.write_table(rows, buffer, compression="zstd")
        content: bytes = buffer.getvalue()
        return content

    with explained(path):
        old = _parts(path)
        if table.num_rows <= PART_ROWS:
            _remove(old, path)
        elif path.is_file():
            path.unlink()
    if table.num_rows <= PART_ROWS:
        replace_file(path, spelled(table))
        return
    starts = range(0, table.num_rows, PART_ROWS)
    parts = [path / f"part-{number:05}.parquet" for number in range(len(starts))]
    for start, part in zip(starts, parts, strict=True):
        replace_file(part, spelled(table.slice(start, PART_ROWS)))
    with explained(path):
        _remove([part for part in old if part.name not in {each.name for each in parts}])


def _parts(path: Path | UPath) -> list[Path | UPath]:
    """The parts of a table of many rows, in order; none where it is one file, or not there."""
    return sorted(path.glob("part-*.parquet"), key=lambda part: part.name) if path.is_dir() else []


def _remove(parts: list[Path | UPath], folder: Path | UPath | None = None) -> None:
    for part in parts:
        part.unlink()
    if folder is not None and parts and isinstance(folder, Path):
        # An object store has no empty folders.
        folder.rmdir()


def read_results(path: str | Path | UPath) -> pa.Table:
    """The results table of a sweep, for notebooks: `results.parquet`, or the sweep's output folder, also in a bucket.

    Raises:
        FileNotFoundError: the sweep has not been run there.
        ValueError: the table was written with another schema version.
    """
    import pyarrow.parquet as pq

    place = UPath(path, use_listings_cache=False) if "://" in str(path) else UPath(path)
    if place.suffix != ".parquet":
        place = place / "results.parquet"
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; `sweep run` or `sweep results` writes it")
    files = _parts(place) or [place]
    # Arrow's threads, at work for the first time, abort a process that ends within some milliseconds (exit code 134).
    contents = (pa.BufferReader(file.read_bytes()) for file in files)
    table = pa.concat_tables([pq.ParquetFile(each).read(use_threads=False) for each in contents])
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise ValueError(f"{path} has schema version {found}, this code reads {SCHEMA_VERSION}; run `sweep results`")
    return table


def reported_metrics(table: pa.Table) -> list[str]:
    """The metric columns of a results table."""
    names: list[str] = json.loads(table.schema.metadata[b"metrics"])
    return names


def unaveraged_metrics(plan: Plan) -> list[str]:
    """The reported metrics of which no means are taken: p values and ends of intervals."""
    entries = plan.spec.results or plan.targets
    variants = (variant for name in entries for variant in plan.by_entry[name].wired.variants if variant)
    declared = (metric for variant in variants for metric in variant.configs[0].declared().values())
    return list(dict.fromkeys(metric.name for metric in declared if not metric.averaged))


def averaged_metrics(table: pa.Table) -> list[str]:
    """The metric columns of which means are taken: all but p values and ends of intervals."""
    never = json.loads(table.schema.metadata.get(b"unaveraged", b"[]"))
    return [name for name in reported_metrics(table) if name not in never]


def column_type(spec: SweepSpec, axis: str) -> pa.DataType:
    """The type of the column of an axis; whole numbers beside others are floats, so that 10 is shown as 10.0."""
    labels: tuple[Scalar, ...] = spec.labels(axis)
    kinds: Mapping[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    found = {type(label) for label in labels}
    if found == {int, float}:
        return pa.float64()
    return kinds.get(found.pop(), pa.string()) if len(found) == 1 else pa.string()
