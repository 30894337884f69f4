"""The results table: one row per cell, rebuilt from the store at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orchestrator.plan.columns import Plan, cell_id
from orchestrator.plan.grid import Mask
from orchestrator.results.comparable import comparable_rows
from orchestrator.results.metrics import declared_metrics, undeclared_entries
from orchestrator.results.parquet import as_column, results_schema
from orchestrator.results.status import STATUSES, failure_of, status_codes
from orchestrator.results.study_watch import chosen_studies
from orchestrator.run.failures import read_failures, stopped_entries
from orchestrator.run.schedule import Schedule, State
from orchestrator.search.studies import Measured, Studies
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.types import Attempt
from workers.metric import Metric, over_shards


class _Finished(NamedTuple):
    """What a row needs of a manifest, or of an attempt that succeeded."""

    metrics: Mapping[str, float]
    undefined: Mapping[str, str]
    attempt: int
    seconds: float
    code_commit: str


class Results:
    """What is known of the cells of a sweep: manifests of committed steps, last attempts of failed ones.

    Manifests are read once; a table can be made from here at any moment of a run.
    """

    def __init__(self, plan: Plan, store: Store, schedule: Schedule, studies: Studies | None = None) -> None:
        """Start with nothing read."""
        self.plan = plan
        self.studies = studies or Studies(plan)
        self.store = store
        self.schedule = schedule
        self.failures: dict[int, Attempt] = {}
        """Step -> its last attempt, which failed."""
        self._damage: list[str] = []
        """What was found damaged, and is not told yet."""
        self._finished: dict[int, _Finished] = {}
        self._found: dict[str, None] = {}
        """Metrics that were returned by entries that do not declare any."""

    def set_damaged_aside(self) -> list[str]:
        """Read the manifests of finished cells; return what was found damaged and will be made again."""
        self._read_manifests()
        damage, self._damage = self._damage, []
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
                self._finish(
                    number,
                    _Finished(attempt.metrics, attempt.undefined, attempt.number, attempt.seconds, attempt.code_commit),
                )
        else:
            self.failures[number] = attempt

    def table(self) -> pa.Table:
        """Make the table: one row per cell, in the order of the plan; cells that may come have none."""
        self._read_manifests()
        return self.rows(self.cells)

    @property
    def cells(self) -> list[int]:
        """The cells that have a row in the table; in a search some may come, and some are superseded."""
        superseded = self.studies.superseded(self)
        return [cell for cell in np.flatnonzero(self.plan.decided).tolist() if cell not in superseded]

    def comparable(self, rows: pa.Table, cells: Mask | None = None) -> tuple[pa.Table, list[str]]:
        """Reduce some rows of the table to those that can be compared (`comparable_rows`): all but in a search.

        Args:
            rows: of this table.
            cells: mask of the cells that they are of; None for all.

        Raises:
            SweepError: there is nothing to compare in a search.
        """
        return comparable_rows(rows, [each.view(self) for each in chosen_studies(self.studies, cells)])

    def rows(self, cells: Sequence[int]) -> pa.Table:
        """Make the rows of some cells, as far as attempts were noted or manifests were read."""
        self._users: list[int] = self.plan.users.tolist()
        trials = self._trials(cells)
        chosen = np.asarray(cells, np.int64)
        groups = [(name, self.plan.groups(name)[chosen].tolist()) for name in self.plan.entries]
        rows = [
            self._row(index, [(name, each[position]) for name, each in groups], status, failure) | trials.get(index, {})
            for position, (index, (status, failure)) in enumerate(zip(cells, self.statuses(cells), strict=True))
        ]
        schema = results_schema(self.plan, sorted(self._found)) if self._undeclared else self._schema
        return pa.Table.from_pylist(rows, schema=schema)

    def codes(self) -> npt.NDArray[np.uint8]:
        """Return what became of each cell, as a position in STATUSES (`status_codes`); reads nothing."""
        stopped = stopped_entries(self.schedule, self.failures)
        return status_codes(self.schedule, stopped, np.arange(len(self.plan.points)))

    def statuses(self, cells: Sequence[int] | None = None) -> list[tuple[str, Attempt | None]]:
        """Return what became of some cells, or of each, and the failure of those that are failed or blocked.

        Reads nothing; the rule is that of `status_codes`.
        """
        stopped = stopped_entries(self.schedule, self.failures)
        chosen = np.arange(len(self.plan.points)) if cells is None else np.asarray(cells, np.int64)
        found: list[tuple[str, Attempt | None]] = []
        for cell, code in zip(chosen.tolist(), status_codes(self.schedule, stopped, chosen).tolist(), strict=True):
            status = STATUSES[code]
            ended = status in ("failed", "blocked")
            found.append((status, failure_of(self.schedule, self.failures, stopped, cell, status) if ended else None))
        return found

    def status_of(self, index: int) -> tuple[str, Attempt | None]:
        """Return what became of one cell, and its failure."""
        return self.statuses([index])[0]

    def _row(self, index: int, groups: list[tuple[str, int]], status: str, failure: Attempt | None) -> dict[str, Any]:
        metrics: dict[str, float] = {}
        undefined: dict[str, str] = {}
        attempts, seconds, commit = 0, 0.0, None
        for name, first in groups:
            if first < 0:
                continue
            own = self._users[first] == 1
            if not (own or name in self._declared):
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
            if name in self._declared and len(shards) == self._sizes[first]:
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

    # --- trials

    def measured(self, cell: int) -> Measured:
        """Return what is known of a cell of a trial, as far as attempts were noted or manifests were read."""
        metrics: dict[str, float] = {}
        seconds: dict[int, float] = {}
        missing = not self.plan.decided[cell]
        for name in self.plan.entries:
            first = int(self.plan.groups(name)[cell])
            if first < 0:
                continue
            numbers = range(first, first + self._sizes[first])
            states = [self.schedule.states[number] for number in numbers]
            finished = [each for number in numbers if (each := self._finished.get(number))]
            took = {number: self._finished[number].seconds for number in numbers if number in self._finished}
            if self.plan.by_entry[name].open:
                if State.FAILED in states:
                    failure = self.failures.get(numbers[states.index(State.FAILED)])
                    return Measured("failed", why=(failure.error_class if failure else None) or "unknown")
                seconds |= took
            if name in self.plan.wanted:
                missing = missing or any(state != State.COMMITTED for state in states)
            if name in self._declared and len(finished) == len(numbers):
                metrics |= self._metrics(name, finished)
        return Measured("waiting", seconds=seconds) if missing else Measured("succeeded", metrics, seconds=seconds)

    def join(self, steps: Sequence[int]) -> None:
        """Read the manifests of steps that are new in the plan, as far as they are committed."""
        if any(self.schedule.states[number] == State.COMMITTED for number in steps):
            self._read_manifests()

    def _trials(self, cells: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the columns of the trials of some cells; a value that does not exist in one is missing."""
        found: dict[int, dict[str, Any]] = {}
        states: dict[tuple[int, int], dict[str, Any]] = {}
        for cell in cells if self.studies.all else ():
            position, number = self.studies.of_cell[cell]
            study = self.studies.all[position]
            if (position, number) not in states:
                suggestion = study.history.suggestions[number]
                trial = study.ended.get(number) or study.trial(suggestion, self)
                values = {name: as_column(study.search.fields[name], each) for name, each in suggestion.values.items()}
                states[position, number] = {"study": study.name, "trial_state": trial.state, **values}
            found[cell] = states[position, number]
        return found

    def _metrics(self, entry: str, shards: Sequence[_Finished]) -> Mapping[str, float]:
        """The metrics of an entry of which all shards are finished."""
        if len(shards) == 1:
            return shards[0].metrics
        return over_shards(self._declared[entry], [shard.metrics for shard in shards])

    def look(self) -> None:
        """Read the manifests of finished cells, and change nothing: those that are damaged do not count.

        Raises:
            StoreError: the store cannot be read.
        """
        self._read_manifests(discard=False)

    def _read_manifests(self, discard: bool = True) -> None:
        """Read what was committed since the last time, and set aside what is damaged; may be called again if it fails.

        Raises:
            StoreError: the store cannot be read or written.
        """
        unread = np.flatnonzero(self._of_interest & self.schedule.committed).tolist()
        numbers = {self.plan.address(number): number for number in unread if number not in self._finished}
        for address, found in self.store.manifests(numbers.keys()).items():
            number = numbers[address]
            if isinstance(found, DamagedArtifactError) and not discard:
                continue
            if isinstance(found, DamagedArtifactError):
                self.store.discard(address)
                self.schedule.states[number] = State.PENDING
                self._damage.append(str(found))
            else:
                self._finish(
                    number,
                    _Finished(found.metrics, found.undefined, found.attempt, found.seconds, found.code_commit),
                )

    def _finish(self, number: int, finished: _Finished) -> None:
        self._finished[number] = finished
        if self.plan.entry_of(number) in self._undeclared:
            self._found |= dict.fromkeys(finished.metrics)

    @cached_property
    def _schema(self) -> pa.Schema:
        return results_schema(self.plan)

    @cached_property
    def _declared(self) -> dict[str, dict[str, Metric]]:
        """Reported entry -> its metrics."""
        return declared_metrics(self.plan)

    @cached_property
    def _undeclared(self) -> frozenset[str]:
        """Reported entries that do not declare their metrics."""
        return frozenset(undeclared_entries(self.plan))

    @cached_property
    def _of_interest(self) -> Mask:
        """The steps that rows speak of: those whose metrics are reported, those of one cell alone, those of trials."""
        marked: Mask = (self.plan.users == 1) | self.plan.steps_of(entries=frozenset(self._declared))
        for name, entry in self.plan.by_entry.items():
            if entry.open:
                marked[entry.first : entry.last] = True
            elif name in self._declared:
                self.plan.mark(marked, entry.groups)
        return marked

    @cached_property
    def _sizes(self) -> list[int]:
        sizes: list[int] = self.plan.size.tolist()
        return sizes
