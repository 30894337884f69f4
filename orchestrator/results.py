"""The results table: one row per cell, rebuilt from the store at any time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from orchestrator.execute import Schedule, State, needed_steps
from orchestrator.outputs import replace_file
from orchestrator.plan import Plan
from orchestrator.spec import SweepSpec
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.types import Artifact, Attempt, Cell, Manifest, Outcome, Scalar

#: Raised when a column changes its name, type or meaning.
SCHEMA_VERSION = 1


class Results:
    """What is known of a sweep's cells: manifests of committed steps, last attempts of failed ones.

    Manifests are read once; a table can be made from here at any moment of a run.
    """

    def __init__(self, plan: Plan, store: Store, schedule: Schedule) -> None:
        """Read what the store knows. Damaged artifacts are set aside and join the steps to run."""
        self.plan = plan
        self.store = store
        self.schedule = schedule
        self.failures: dict[Artifact, Attempt] = {}
        self._manifests: dict[Artifact, Manifest] = {}
        self._reported = frozenset(plan.spec.results or plan.targets)

    def set_damaged_aside(self) -> list[str]:
        """Read the manifests of finished cells; returns what was found damaged and will be made again."""
        damage = self._read_manifests()
        if damage:
            self.schedule.derive()
        return damage

    def read_failures(self) -> None:
        """Read how the steps that are not committed ended last, and what waits for them."""
        needed = needed_steps(self.plan, self.schedule.committed)
        for address, history in self.store.histories(needed.keys()).items():
            if history and history[-1].outcome is not Outcome.SUCCEEDED:
                self.failures[address] = history[-1]
        for address, step in needed.items():
            if address in self.failures:
                self.schedule.states[address] = State.FAILED
            elif any(self.schedule.states.get(parent) in (State.FAILED, State.BLOCKED) for parent in step.parents()):
                self.schedule.states[address] = State.BLOCKED

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt that just ended."""
        if attempt.outcome is Outcome.SUCCEEDED:
            self.failures.pop(attempt.address, None)
        else:
            self.failures[attempt.address] = attempt

    def table(self) -> pa.Table:
        """One row per cell, in the order of the plan."""
        self._read_manifests()
        metrics = self._metric_names()
        rows = [self._row(cell) for cell in self.plan.cells]
        schema = pa.schema(
            [
                pa.field("cell_id", pa.string(), nullable=False),
                *(pa.field(axis, _arrow_type(self.plan.spec, axis), nullable=False) for axis in self.plan.spec.axes),
                pa.field("status", pa.string(), nullable=False),
                pa.field("error_class", pa.string()),
                pa.field("error", pa.string()),
                pa.field("attempts", pa.int64(), nullable=False),
                pa.field("seconds", pa.float64()),
                *(pa.field(name, pa.float64()) for name in metrics),
                pa.field("key", pa.string(), nullable=False),
                pa.field("code_commit", pa.string()),
                pa.field("log", pa.string()),
            ],
            metadata={
                "schema_version": str(SCHEMA_VERSION),
                "sweep": self.plan.spec.name,
                "question": self.plan.spec.question,
                "axes": json.dumps({axis: list(self.plan.spec.labels(axis)) for axis in self.plan.spec.axes}),
                "metrics": json.dumps(metrics),
            },
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def status_of(self, cell: Cell) -> tuple[str, Attempt | None]:
        """succeeded; failed (a step of its own did); blocked (a shared step failed); running; or pending."""
        states = self.schedule.states
        if all(target in states and states[target] is State.COMMITTED for target in self.plan.targets_of(cell)):
            return "succeeded", None
        steps = [artifact for group in cell.steps.values() for artifact in group]
        failed = [artifact for artifact in steps if states.get(artifact) is State.FAILED]
        own = [artifact for artifact in failed if self.plan.users[artifact] == 1]
        if failed:
            return ("failed" if own else "blocked"), self.failures.get((own or failed)[0])
        running = any(states.get(artifact) is State.RUNNING for artifact in steps)
        return ("running" if running else "pending"), None

    def _row(self, cell: Cell) -> dict[str, Any]:
        status, failure = self.status_of(cell)
        metrics: dict[str, float] = {}
        attempts, seconds, commit = 0, 0.0, None
        own = frozenset(self.plan.own_steps(cell))
        for artifact in self._of_interest(cell):
            if self.schedule.states.get(artifact) is State.COMMITTED:
                manifest = self._manifests[artifact]
                if self._reports(cell, artifact):
                    metrics |= manifest.metrics
                if artifact in own:
                    attempts = max(attempts, manifest.attempt)
                    seconds += manifest.seconds
                    commit = manifest.code_commit
            elif artifact in self.failures:
                attempts = max(attempts, self.failures[artifact].number)
                seconds += self.failures[artifact].seconds
        return {
            **cell.coords,
            **metrics,
            "cell_id": cell.id,
            "status": status,
            "error_class": failure.error_class if failure else None,
            "error": failure.error if failure else None,
            "attempts": attempts,
            "seconds": seconds if attempts else None,
            "key": self.plan.key_of(cell),
            "code_commit": commit or (failure.code_commit if failure else None),
            "log": failure.log if failure else None,
        }

    def _of_interest(self, cell: Cell) -> Iterable[Artifact]:
        """The steps of a cell that its row speaks of: those whose metrics are reported, and its own."""
        for name, group in cell.steps.items():
            for artifact in group:
                if name in self._reported or self.plan.users[artifact] == 1:
                    yield artifact

    def _reports(self, cell: Cell, artifact: Artifact) -> bool:
        return any(artifact in cell.steps.get(name, ()) for name in self._reported)

    def _read_manifests(self) -> list[str]:
        """Read what was committed since the last time; what is damaged is set aside and told."""
        states = self.schedule.states
        unread = {
            artifact
            for cell in self.plan.cells
            for artifact in self._of_interest(cell)
            if artifact not in self._manifests and states.get(artifact) is State.COMMITTED
        }
        damage = []
        for artifact, found in self.store.manifests(unread).items():
            if isinstance(found, DamagedArtifactError):
                self.store.discard(artifact)
                self.schedule.committed.discard(artifact)
                states[artifact] = State.PENDING
                damage.append(str(found))
            else:
                self._manifests[artifact] = found
        return damage

    def _metric_names(self) -> list[str]:
        names: dict[str, None] = {}
        for entry, steps in self.plan.of_entry().items():
            if entry in self._reported:
                for config in {step.identity.split(',"inputs":')[0]: step for step in steps}.values():
                    names |= dict.fromkeys(self.plan.metrics_of(config))
        return list(names)


def write_results(table: pa.Table, path: Path | UPath) -> None:
    """Replace the Parquet file at once, so that a reader in mid-run sees the old table or the new one.

    Raises:
        StoreError: the folder cannot be written.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    replace_file(path, buffer.getvalue())


def read_results(path: str | Path | UPath) -> pa.Table:
    """The results table of a sweep, for notebooks: a Parquet file, or the sweep's output folder, also in a bucket.

    Raises:
        FileNotFoundError: the sweep has not been run there.
        ValueError: the table was written with another schema version.
    """
    place = UPath(path, use_listings_cache=False) if "://" in str(path) else UPath(path)
    if place.suffix != ".parquet":
        place = place / "results.parquet"
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist; `sweep run` or `sweep results` writes it")
    table = pq.read_table(pa.BufferReader(place.read_bytes()))
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise ValueError(f"{path} has schema version {found}, this code reads {SCHEMA_VERSION}; run `sweep results`")
    return table


def reported_metrics(table: pa.Table) -> list[str]:
    """The metric columns of a results table."""
    names: list[str] = json.loads(table.schema.metadata[b"metrics"])
    return names


def _arrow_type(spec: SweepSpec, axis: str) -> pa.DataType:
    labels: tuple[Scalar, ...] = spec.labels(axis)
    kinds: Mapping[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    found = {type(label) for label in labels}
    if found == {int, float}:
        return pa.float64()
    return kinds.get(found.pop(), pa.string()) if len(found) == 1 else pa.string()
