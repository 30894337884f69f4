"""What is looked at of a search when its sweep is opened, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.plan.columns import Plan
from orchestrator.search.earlier import ELSEWHERE, EarlierTable
from orchestrator.search.edited import NAMED
from orchestrator.search.records import Earlier
from orchestrator.search.start import start_trials
from orchestrator.search.studies import OpenStudy, Studies
from orchestrator.store import Store
from orchestrator.sweep.problems import DocPath, Problem, SweepError, told
from orchestrator.sweep.search import From
from orchestrator.sweep.spec import SweepSpec
from orchestrator.texts import few

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Opening:
    """What a search begins with."""

    earlier: dict[str, tuple[Earlier, ...]] = field(default_factory=dict)
    """Id of a study that was told nothing yet -> the results that it is told before its first trial."""
    notes: list[str] = field(default_factory=list)
    """What is no mistake, and yet does less than it seems."""


def with_search_problems(spec: SweepSpec) -> SweepSpec:
    """Return a sweep that has the mistakes in what its search says of Optuna among its problems."""
    if spec.searched is None:
        return spec
    # It imports Optuna, which only searches need.
    from orchestrator.search.options import problems

    where = ("search", str(spec.search_name))
    return spec.with_problems(spec.problem((*where, *path), message) for path, message in problems(spec.searched))


def look_at_start(plan: Plan, store: Callable[[], Store], read_table: Callable[[str], pa.Table]) -> Opening:
    """Look at the trials and the results that the studies of a plan start from.

    Args:
        plan: of a sweep with or without a search.
        store: opens the store, which knows the studies that were told earlier results.
        read_table: returns the results table of another sweep file, as `from` names it; raises SweepError, ValueError
            or OSError where there is none.

    Raises:
        SweepError: a default is not known; or earlier results tell no study anything.
        StoreError: the store cannot be read.
    """
    search = plan.spec.searched
    if search is None:
        return Opening()
    from orchestrator.search.options import notes

    opening = Opening(notes=notes(search))
    if not search.start:
        return opening
    studies, problems = Studies(plan).all, dict[Problem, None]()
    for study in studies:
        try:
            start_trials(plan, study)
        except SweepError as error:
            problems |= dict.fromkeys(error.problems)
    sources = [(index, each.from_) for index, each in enumerate(search.start) if isinstance(each, From)]
    if sources:
        new, untold = _new_and_untold(store(), studies)
        if untold:
            what = "start: {from: …} is told before the first trial, and"
            opening.notes.append(f"{what} {few(untold, NAMED)} began without it; what it says now is not told any more")
        for index, file in sources if new else ():
            path: DocPath = ("search", str(plan.spec.search_name), "start", index, "from")
            try:
                _tell(opening, file, EarlierTable(search, read_table(file)), new)
            except SweepError as error:
                problems[plan.spec.problem(path, str(error.problems[0]))] = None
            except (ValueError, OSError) as error:
                problems[plan.spec.problem(path, f"{file}: {error}")] = None
    if problems:
        raise SweepError(told(problems))
    return opening


def _new_and_untold(store: Store, studies: list[OpenStudy]) -> tuple[list[OpenStudy], list[str]]:
    """Return the studies that have not begun, and the names of those that began without earlier results."""
    known = set(store.studies())
    new, untold = [], []
    for study in studies:
        # Recorded before the first trial.
        earlier = store.study_records(study.id, ["earlier.json"]) if study.id in known else {}
        if not earlier:
            new.append(study)
        elif earlier["earlier.json"].strip() == b"[]":
            untold.append(study.name)
    return new, untold


def _tell(opening: Opening, file: str, table: EarlierTable, studies: list[OpenStudy]) -> None:
    """Add what a table tells each study, and a note of what it does not.

    Raises:
        ValueError: it tells none of them anything; the message says why.
    """
    left_out: dict[str, set[int]] = {}
    # What one study cannot use, another may.
    settled: set[int] = set()
    untold: list[str] = []
    for study in studies:
        usable = table.told(study)
        settled |= usable.used
        for why, rows in usable.left_out.items():
            left_out.setdefault(why, set()).update(rows)
        if usable.results:
            opening.earlier[study.id] = (*opening.earlier.get(study.id, ()), *usable.results)
        else:
            untold.append(study.name)
    amiss: dict[str, int] = {}
    for why in sorted(left_out, key=lambda why: why == ELSEWHERE):
        if rows := left_out[why] - settled:
            amiss[why] = len(rows)
            settled |= rows
    if len(untold) == len(studies):
        reasons = ", ".join(f"{count} {why}" for why, count in amiss.items())
        raise ValueError(f"none of its {table.rows} results can be used: {reasons or 'there are none'}")
    amiss.pop(ELSEWHERE, None)
    if amiss:
        reasons = ", ".join(f"{count} {why}" for why, count in amiss.items())
        opening.notes.append(f"start: of the {table.rows} results of {file} some are left out: {reasons}")
    if untold:
        opening.notes.append(f"start: {file} has no results for {few(untold, NAMED)}")
