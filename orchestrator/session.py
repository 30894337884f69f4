"""One sweep file opened: its plan, its places, and what of it is chosen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from orchestrator.command import format_command, program, repeat_places, repeat_selection
from orchestrator.plan.build import build_plan
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.plan.select import select
from orchestrator.run.schedule import Schedule
from orchestrator.search.edited import edited_notes
from orchestrator.search.growth import catch_up
from orchestrator.search.opening import Opening, look_at_start, with_search_problems
from orchestrator.search.studies import Studies
from orchestrator.search.trial import Study
from orchestrator.search.tuned import look_up_tuned
from orchestrator.store import Store, open_store
from orchestrator.sweep.document import Document, read_document
from orchestrator.sweep.load import draft_document
from orchestrator.sweep.outputs import Outputs, resolve_outputs
from orchestrator.sweep.part import matches
from orchestrator.sweep.problems import Problem, SweepError, validation_messages
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.results.table import Results


@dataclass(frozen=True)
class Session:
    """An open sweep. Its schedule is read once; `dataclasses.replace(session)` gives one that looks anew."""

    file: Path
    spec: SweepSpec
    plan: Plan
    cells: Mask | None
    """The chosen cells; None for all."""
    outputs: Outputs
    entry: str | None = None
    """The entry that is to be reached (--stage)."""
    places: tuple[str, ...] = ()
    """The options -s, --outputs and --store as they were given."""
    selection: tuple[str, ...] = ()
    """The options --only and --exclude as they were given."""
    options: tuple[str, ...] = ()
    """The other options of `sweep run` as they were given."""
    considered: int | None = None
    """How many cells there were to choose from, where --error or --max-cells chose among them."""
    opening: Opening = field(default_factory=Opening)
    """What a search begins with."""

    def command(self, verb: str, *words: str) -> str:
        """Return a `sweep` command on this sweep at the same places, ready for a shell."""
        return format_command([*program(), verb, str(self.file), *words, *self.places])

    @cached_property
    def store(self) -> Store:
        """The store, opened for reading; `prepare` it before writing."""
        return open_store(self.outputs.store)

    @cached_property
    def studies(self) -> Studies:
        """The studies of a search, with their records as they were when this was first asked for; else none.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        studies = Studies(self.plan)
        studies.read(self.store)
        return studies

    @cached_property
    def schedule(self) -> Schedule:
        """The state of every step, as the store was when this was first asked for."""
        # The records of studies say which cells there are; results, which trials are measured again.
        schedule = Schedule(self.studies.plan, self.store, self.cells, self.entry)
        if self.studies.all:
            from orchestrator.results.table import Results

            results = Results(self.plan, self.store, schedule, self.studies)
            results.look()
            results.read_failures()
            catch_up(self.studies, schedule, results)
        return schedule

    @property
    def chosen(self) -> range | list[int]:
        """The numbers of the chosen cells; of a search, of those that are decided so far."""
        if self.cells is None and not self.spec.searched:
            return range(len(self.plan.points))
        decided = self.plan.decided if self.cells is None else self.cells & self.plan.decided
        chosen: list[int] = np.flatnonzero(decided).tolist()
        return chosen

    def search_notes(self) -> list[str]:
        """Return what is to be known of a search before it runs, and is no mistake: a sentence each.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        return [*self.opening.notes, *edited_notes(self.studies, self.store)]

    def study_views(self) -> list[Study]:
        """Return the studies as they are now; nothing is written.

        Raises:
            StoreError: the store cannot be read, or a record is damaged.
        """
        from orchestrator.results.table import Results

        results = Results(self.plan, self.store, self.schedule, self.studies)
        results.look()
        results.read_failures()
        return self.studies.views(results)

    def up_to(self, entry: str) -> Session:
        """Return a session that is to reach one entry, and nothing that depends on it.

        Raises:
            SweepError: there is no such entry.
        """
        if entry not in self.plan.entries:
            raise SweepError(
                [Problem("--stage", "", f"there is no entry {entry!r}; {nearest(entry, self.plan.entries)}")]
            )
        return replace(self, entry=entry)

    def narrow(self, error: str | None, count: int | None) -> Session:
        """Return a session of only those chosen cells that are unfinished.

        Args:
            error: only those that ended with this error class or outcome; None for any.
            count: at most so many; None for all.

        Raises:
            SweepError: no cell ended like that.
        """
        kept: list[int] = []
        seen: set[str] = set()
        statuses = self.results().statuses()
        for index in range(len(statuses)) if self.cells is None else np.flatnonzero(self.cells).tolist():
            status, failure = statuses[index]
            if status == "succeeded" or (count is not None and len(kept) >= count) or not self._may_run(index):
                continue
            names = {failure.error_class or "", str(failure.outcome)} if failure else set()
            seen |= names
            if error is None or error in names:
                kept.append(index)
        if error is not None and not kept:
            hint = nearest(error, sorted(seen - {""}))
            raise SweepError([Problem("--error", "", f"no unfinished cell ended with {error!r}; {hint}")])
        cells = np.isin(np.arange(len(self.plan.points)), kept)
        return replace(self, cells=cells, considered=len(self.chosen))

    def _may_run(self, cell: int) -> bool:
        """Tell whether a cell is decided, or will be with its trial; the best one may get others in the end."""
        if self.plan.decided[cell] or self.spec.searched is None:
            return True
        return matches(self.spec.searched.objective.over, self.plan.cell_coords(cell))

    def tracking_uri(self, chosen: str | None = None) -> str:
        """Return MLflow's URI: `chosen`, else `tracking.uri`, else MLFLOW_TRACKING_URI, else SQLite in the outputs."""
        written = self.spec.tracking.uri if self.spec.tracking else None
        return chosen or written or os.environ.get("MLFLOW_TRACKING_URI") or self.outputs.tracking_uri

    def results(self) -> Results:
        """Read what the store says of the cells, failures included; damaged artifacts are set aside."""
        from orchestrator.results.table import Results

        results = Results(self.plan, self.store, self.schedule, self.studies)
        results.set_damaged_aside()
        results.read_failures()
        return results

    def table(self, results: Results | None = None) -> pa.Table:
        """Rebuild the results table from the store, write it, and return the rows of the chosen cells.

        Args:
            results: what `results` has read, if that was called before.

        Raises:
            StoreError: the store cannot be read, or the table cannot be written.
        """
        from orchestrator.results.parquet import write_results

        table = (results or self.results()).table()
        write_results(table, self.outputs.results)
        return self.chosen_rows(table)

    def chosen_rows(self, table: pa.Table) -> pa.Table:
        """Return the rows of the chosen cells, of a results table with a row for each cell."""
        if self.cells is None:
            return table
        return table.filter(self.cells[list(self.plan.positions(table["cell_id"].to_pylist()))])


def open_session(
    file: Path,
    overrides: list[str] | None = None,
    only: list[str] | None = None,
    exclude: list[str] | None = None,
    outputs: str | None = None,
    store: str | None = None,
    entry: str | None = None,
) -> Session:
    """Load, check and plan a sweep file.

    Args:
        file: the sweep file.
        overrides: what `-s` changes of it, as `path=value`.
        only: axes and the values that cells are to have, as `axis=value,value`.
        exclude: likewise, of cells that are left out.
        outputs: the output root, if not the default.
        store: the store, if not that of the output root.
        entry: the entry that is to be reached; all of them when left out.

    Raises:
        SweepError: with every mistake that was found.
    """
    session = open_document(read_document(file), overrides, only, exclude, outputs, store)
    return session if entry is None else session.up_to(entry)


def open_document(
    document: Document,
    overrides: list[str] | None = None,
    only: list[str] | None = None,
    exclude: list[str] | None = None,
    outputs: str | None = None,
    store: str | None = None,
) -> Session:
    """Check and plan a sweep that has been read; arguments and errors as those of `open_session`.

    Other sweeps that it names are looked for with the same `outputs` and `store`.

    Raises:
        StoreError: the store cannot be read, and `start: [{from: …}]` needs it.
    """
    return _open(document, overrides, only, exclude, outputs, store, ())


def _open(
    document: Document,
    overrides: list[str] | None,
    only: list[str] | None,
    exclude: list[str] | None,
    outputs: str | None,
    store: str | None,
    for_others: tuple[Path, ...],
) -> Session:
    """Open a sweep, for itself or because other sweeps, each for the one before it, need its tuned results."""
    chain = (*for_others, document.path)

    def open_other(path: Path) -> Session:
        if os.path.realpath(path) in map(os.path.realpath, chain):
            circle = " -> ".join(each.name for each in (*chain, path))
            raise SweepError([Problem("", "", f"the sweeps need each other's results, in a circle: {circle}")])
        return _open(read_document(path), None, None, None, outputs, store, chain)

    def read_table(file: str) -> pa.Table:
        from orchestrator.results.parquet import read_results

        name, written = _name_and_store(read_document(document.path.parent / file))
        return read_results(resolve_outputs(name, written, outputs, store).results)

    spec = look_up_tuned(draft_document(document, overrides or ()), open_other)
    plan = build_plan(with_search_problems(spec))
    cells = select(plan, only or (), exclude or ()) if only or exclude else None
    places, selection = repeat_places(overrides, outputs, store), repeat_selection(only, exclude)
    where = resolve_outputs(spec.name, spec.store, outputs, store)
    opening = look_at_start(plan, lambda: open_store(where.store), read_table)
    return Session(document.path, spec, plan, cells, where, None, tuple(places), tuple(selection), opening=opening)


def _name_and_store(document: Document) -> tuple[str, str | None]:
    """Return what says where the results of a sweep are; the rest of it need not be valid any more."""
    written = {part: document.value[part] for part in ("name", "store") if part in document.value}
    try:
        spec = SweepSpec.model_validate({"question": "unknown", "axes": {}, "stages": {}} | written)
    except ValidationError as error:
        messages = validation_messages(error, document, (), SweepSpec)
        raise SweepError([document.problem(where, message) for where, message in messages.items()]) from error
    return spec.name, spec.store
