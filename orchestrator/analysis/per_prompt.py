"""Metrics by single prompts (or rows of a test set), of thousands of cells, read from the artifacts of their stages.

Cells were measured on the same prompts if their tables agree in number, order and names of the rows. A table that only
numbers its rows says nothing of what they are; the artifacts of prompts (kind `prompts`) that its step was made from,
and whatever else it was made from in the first place, are then part of their names. Models do not count.

A stage of this package declares which column a metric is the mean of. A function that people bring cannot: of a stage
of somebody's own that declares no column at all, a metric may be the mean of the column of its name. Whether a metric
is that mean is checked for every artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.analysis.prompt_cache import PromptCache
from orchestrator.analysis.prompt_table import PromptTable, PromptTableReader
from orchestrator.keys import digest
from orchestrator.plan.wiring import ResolvedEntry
from orchestrator.session import Session
from orchestrator.statistics.estimates import Reals
from orchestrator.store import DamagedArtifactError
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest, plain_text
from orchestrator.types import Manifest

#: Files that are read at once; an object store answers many requests in the time of one.
_THREADS = 16
#: What is read goes into the cache after so many files, or so many bytes of them.
_BATCH, _BATCH_BYTES = 512, 32 * 2**20
#: Kinds of artifacts that were made from prompts which nothing is measured on here.
_MODELS = frozenset({"model", "golden", "reward_model"})
#: Relative to the numbers, a mean and the metric differ by no more where columns are float32.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class PromptSet:
    """A metric of the cells that were measured on the same prompts."""

    cells: NDArray[np.int64]
    """Their positions among the cells that were asked for, ascending (n,)."""
    values: Reals
    """(n, prompts), in the order of the table; NaN where it has a null."""


@dataclass(frozen=True)
class PromptValues:
    """A metric of some cells, prompt by prompt."""

    sets: NDArray[np.int64]
    """For each cell, its position in `by_set`; -1 where nothing is at hand."""
    by_set: tuple[PromptSet, ...]
    """In the order of their first cells."""
    problems: list[str]
    """Why nothing is at hand for some of the cells: a sentence for each reason."""


class _Source(NamedTuple):
    """Where the numbers of a cell are: in the artifacts of a group of steps."""

    place: int
    first: int
    column: str


class _Absent(NamedTuple):
    """Why a cell has no numbers."""

    reason: str
    detail: str = ""
    """What differs from cell to cell; that of the first is told."""


class _Found(NamedTuple):
    prompts: tuple[object, ...]
    """What the prompts are."""
    values: Reals


class PerPrompt:
    """Reads metrics by single prompts; what it has learned of artifacts is kept, so each object sees one state."""

    def __init__(self, session: Session, places: Sequence[tuple[str, str]]) -> None:
        """Look where the numbers are; nothing is read yet.

        Args:
            session: the sweep.
            places: (entry, file of its artifacts), as ("evaluate", "prompts.parquet").

        Raises:
            SweepError: there is no such entry.
        """
        self._plan, self._store = session.plan, session.store
        unknown = [entry for entry, _ in places if entry not in self._plan.entries]
        if unknown:
            raise SweepError(
                [Problem("", "", f"no entry {each!r}; {nearest(each, self._plan.entries)}") for each in unknown]
            )
        # First, because a search makes its plan grow.
        self._committed = session.schedule.committed
        self._places = list(places)
        self._declared: dict[int, dict[str, str]] = {}
        self._manifests: dict[int, Manifest | None] = {}
        self._origins: dict[int, frozenset[str]] = {}
        named = [self._columns_of(entry) for entry, _ in places]
        self.metrics: tuple[str, ...] = tuple(dict.fromkeys(name for columns in named for name in columns))
        """The metrics that are means over single prompts."""
        self._readers = [PromptTableReader(columns.values()) for columns in named]
        self._caches = [
            PromptCache(session.outputs.prompts / digest(list(place), 12), columns.values())
            for place, columns in zip(places, named, strict=True)
        ]

    def read(
        self, metric: str, cells: Sequence[int], progress: Callable[[int, int], object] = lambda done, total: None
    ) -> PromptValues:
        """Read a metric of some cells, from the cache as far as it was read before.

        Args:
            metric: one of `metrics`; of another one nothing is at hand.
            cells: numbers of cells of the plan.
            progress: is told how many files are read, and of how many.

        Raises:
            StoreError: the store cannot be read.
        """
        sources = [self._source(metric, cell) for cell in cells]
        found = self._found(metric, dict.fromkeys(each for each in sources if isinstance(each, _Source)), progress)
        counts = Counter[str]()
        details: dict[str, str] = {}
        members: dict[tuple[object, ...], dict[int, Reals]] = {}
        for position, source in enumerate(sources):
            known = found[source] if isinstance(source, _Source) else source
            if isinstance(known, _Absent):
                counts[known.reason] += 1
                details.setdefault(known.reason, f" ({known.detail})" if known.detail else "")
            else:
                members.setdefault(known.prompts, {})[position] = known.values
        sets = np.full(len(sources), -1, np.int64)
        by_set = []
        for number, rows in enumerate(members.values()):
            positions = np.array(list(rows), np.int64)
            sets[positions] = number
            by_set.append(PromptSet(positions, np.stack(list(rows.values()))))
        problems = [
            f"{count:,} of {len(sources):,} cells have no {metric} by single prompts: {reason}{details[reason]}"
            for reason, count in counts.items()
        ]
        return PromptValues(sets, tuple(by_set), problems)

    # --- where the numbers are

    def _source(self, metric: str, cell: int) -> _Source | _Absent:
        """Return where the numbers of a cell are, or why there are none."""
        absent = _Absent("no place is named")
        for place, (entry, file) in enumerate(self._places):
            first = int(self._plan.groups(entry)[cell])
            if first < 0:
                absent = _Absent(f"{entry} is no part of them")
            elif not (column := self._columns(first).get(metric)):
                absent = _Absent(f"it is no mean over the rows of {entry}/{file}")
            elif not self._committed[first : first + self._plan.size[first]].all():
                absent = _Absent(f"{entry} is not finished")
            else:
                return _Source(place, first, column)
        return absent

    def _columns_of(self, entry: str) -> dict[str, str]:
        """Return the columns that metrics of an entry name, and of entries that stand in for it: metric -> column."""
        groups = np.unique(self._plan.groups(entry))
        homes = {entry, *(self._plan.entry_of(first) for first in groups[groups >= 0].tolist())}
        resolved = (each for home in sorted(homes) for each in self._plan.by_entry[home].wired.resolved)
        found = {id(each.configs[0]): each for each in resolved if each}
        return {name: column for each in found.values() for name, column in _columns_of(each).items()}

    def _columns(self, step: int) -> Mapping[str, str]:
        """Return the columns that the metrics of a step name: metric -> column."""
        plan = self._plan
        resolved = plan.by_entry[plan.entry_of(step)].resolved_at(int(plan.at[step]))
        found = self._declared.get(id(resolved.configs[0]))
        if found is None:
            found = self._declared[id(resolved.configs[0])] = _columns_of(resolved)
        return found

    # --- what they are

    def _found(
        self, metric: str, sources: Iterable[_Source], progress: Callable[[int, int], object]
    ) -> dict[_Source, _Found | _Absent]:
        """Return the numbers of each source, or why there are none."""
        found: dict[_Source, _Found | _Absent] = {}
        by_column: dict[tuple[int, str], list[_Source]] = {}
        for source in sources:
            by_column.setdefault((source.place, source.column), []).append(source)
        self._look_at_manifests(source.first for group in by_column.values() for source in group)
        for (place, column), group in by_column.items():
            files = {step: manifest for source in group for step, manifest in self._files(source)}
            tables = self._tables(place, column, files, progress)
            for source in group:
                found[source] = self._join(metric, source, tables)
        return found

    def _steps(self, first: int) -> range:
        return range(first, first + int(self._plan.size[first]))

    def _look_at_manifests(self, firsts: Iterable[int]) -> None:
        steps = (step for first in firsts for step in self._steps(first))
        unknown = {self._plan.address(step): step for step in steps if step not in self._manifests}
        for address, manifest in self._store.manifests(unknown.keys()).items():
            self._manifests[unknown[address]] = manifest if isinstance(manifest, Manifest) else None

    def _files(self, source: _Source) -> Iterator[tuple[int, Manifest]]:
        """Return the steps of a source whose artifact has the file, with their manifests."""
        for step in self._steps(source.first):
            manifest = self._manifests[step]
            if manifest and self._places[source.place][1] in manifest.files:
                yield step, manifest

    def _tables(
        self, place: int, column: str, manifests: Mapping[int, Manifest], progress: Callable[[int, int], object]
    ) -> dict[int, PromptTable | _Absent]:
        """Return the tables of some steps, or why they cannot be read."""
        name, cache = self._places[place][1], self._caches[place]
        digests = {step: manifest.files[name][1] for step, manifest in manifests.items()}
        total = len(set(digests.values()))
        tables: dict[str, PromptTable | _Absent] = {**cache.read(column, digests.values())}
        missing = {digests[step]: manifest for step, manifest in manifests.items() if digests[step] not in tables}
        done = len(tables)
        progress(done, total)

        def read(manifest: Manifest) -> PromptTable | _Absent:
            try:
                return self._readers[place].read(self._store.read(manifest, name))
            except (DamagedArtifactError, ValueError) as error:
                return _Absent(f"{name} cannot be read", plain_text(" ".join(str(error).split()), 300))

        with ThreadPoolExecutor(_THREADS) as pool:
            for batch in _batches(missing, name):
                fresh: dict[str, PromptTable] = {}
                for sha256, table in zip(batch, pool.map(read, batch.values()), strict=True):
                    tables[sha256] = table
                    if isinstance(table, PromptTable):
                        fresh[sha256] = table
                        # Of the other columns the cache knows.
                        kept = {each: numbers for each, numbers in table.columns.items() if each == column}
                        tables[sha256] = PromptTable(table.rows, table.texts, kept)
                    done += 1
                    progress(done, total)
                cache.add(fresh)
        return {step: tables[sha256] for step, sha256 in digests.items()}

    def _join(self, metric: str, source: _Source, tables: Mapping[int, PromptTable | _Absent]) -> _Found | _Absent:
        """Put the tables of all shards behind each other."""
        entry, file = self._places[source.place]
        parts = []
        for step in self._steps(source.first):
            table = tables.get(step)
            if self._manifests[step] is None:
                return _Absent(f"the artifact of {entry} is damaged or gone")
            if table is None:
                return _Absent(f"the artifact of {entry} has no {file}")
            if isinstance(table, _Absent):
                return table
            if source.column not in table.columns:
                return _Absent(f"{entry}/{file} has no numbers in a column {source.column!r}")
            parts.append(table)
        numbers = [table.columns[source.column] for table in parts]
        values = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        if not all(map(self._is_mean, repeat(metric), self._steps(source.first), numbers)):
            return _Absent(f"it is not the mean of column {source.column!r} of {entry}/{file}")
        named = all(table.texts for table in parts)
        prompts = (*(table.rows for table in parts), None if named else self._origin(source.first))
        return _Found(prompts, values)

    def _is_mean(self, metric: str, step: int, values: Reals) -> bool:
        manifest = self._manifests[step]
        value = manifest.metrics.get(metric) if manifest else None
        there = values[~np.isnan(values)]
        if value is None or not len(there):
            # Undefined where there is nothing to take a mean of.
            return value is None and not len(there)
        scale = float(np.abs(there).mean())
        return bool(abs(float(there.mean()) - value) <= _ROUNDING * scale)

    def _origin(self, step: int) -> frozenset[str]:
        """Return the keys of the artifacts that a step was made from in the first place, models and theirs left out."""
        found = self._origins.get(step)
        if found is None:
            keys: set[str] = set()
            for parent in self._plan.parents(step):
                kind = self._plan.stage(parent).output
                if kind in _MODELS:
                    continue
                made_of = self._origin(parent) if kind != "prompts" else frozenset()
                keys |= made_of or {self._plan.keys[parent]}
            found = self._origins[step] = frozenset(keys)
        return found


def _columns_of(resolved: ResolvedEntry) -> dict[str, str]:
    """Return the columns that the metrics of a stage are means of: metric -> column."""
    declared = resolved.configs[0].declared() or {}
    columns = {name: metric.column for name, metric in declared.items() if metric.column}
    # What has an origin is not this package's.
    return columns or (dict(zip(declared, declared, strict=True)) if resolved.stage.origin else {})


def _batches(manifests: Mapping[str, Manifest], name: str) -> Iterator[dict[str, Manifest]]:
    """Cut files into batches of `_BATCH`, fewer where they are large."""
    batch: dict[str, Manifest] = {}
    size = 0
    for sha256, manifest in manifests.items():
        batch[sha256] = manifest
        size += manifest.files[name][0]
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch
