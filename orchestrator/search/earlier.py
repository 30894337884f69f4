"""Results of earlier sweeps that studies are told before their first trial, from these sweeps' tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.search.records import Earlier
from orchestrator.search.studies import OpenStudy
from orchestrator.sweep.search import Search, SpaceField, reduced
from orchestrator.types import Scalar

if TYPE_CHECKING:
    import pyarrow as pa


#: Why a row tells a study nothing that another study is told.
ELSEWHERE = "are of other coordinates"


@dataclass
class Usable:
    """What a table tells a study."""

    results: tuple[Earlier, ...] = ()
    """One for each combination of values, in order of the table."""
    used: set[int] = field(default_factory=set)
    """The rows that these come from."""
    left_out: dict[str, set[int]] = field(default_factory=dict)
    """Why -> the rows that tell nothing for it."""


class EarlierTable:
    """The results table of an earlier sweep, as far as a search can use it."""

    def __init__(self, search: Search, table: pa.Table) -> None:
        """Read the columns that the search has to do with.

        Raises:
            ValueError: it lacks a metric of the search, or all of its fields; the message names it.
        """
        metadata = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
        self._measured = [*search.objective.metrics, *search.constraints]
        if lacking := [name for name in self._measured if name not in json.loads(metadata["metrics"])]:
            raise ValueError(f"its table has no metric {lacking[0]!r}")
        axes = json.loads(metadata["axes"])
        known = [*axes, *json.loads(metadata.get("space", "[]"))]
        self._fields = [name for name in search.fields if name in known]
        if not self._fields:
            raise ValueError(f"its table has no column of the space ({', '.join(search.fields)})")
        self._search = search
        self._axes = list(axes)
        trials = [name for name in ("trial_state",) if name in table.column_names]
        needed = dict.fromkeys([*self._axes, *self._fields, *self._measured, "status", *trials])
        self._rows: list[dict[str, Any]] = table.select(list(needed)).to_pylist()

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return len(self._rows)

    def told(self, study: OpenStudy) -> Usable:
        """Return what the table tells a study."""
        left_out: dict[str, set[int]] = {}
        rows: dict[tuple[tuple[str, Scalar], ...], list[int]] = {}
        for number, row in enumerate(self._rows):
            values, why = self._values(study, row)
            if why:
                left_out.setdefault(why, set()).add(number)
            else:
                rows.setdefault(tuple(values.items()), []).append(number)
        found = [self._result(dict(pairs), [self._rows[number] for number in each]) for pairs, each in rows.items()]
        return Usable(tuple(found), {number for each in rows.values() for number in each}, left_out)

    def _values(self, study: OpenStudy, row: Mapping[str, Any]) -> tuple[dict[str, Scalar], str]:
        """Return the values of a row in the study's space, or why it has none."""
        if any(axis in study.coords and row[axis] != study.coords[axis] for axis in self._axes):
            return {}, ELSEWHERE
        if row["status"] != "succeeded":
            return {}, "did not succeed"
        if row.get("trial_state", "complete") != "complete":
            # What is left of such a trial are those repetitions that went well.
            return {}, "are of trials that are not complete"
        if self._search.objective.null == "fail":
            for metric in self._measured:
                if row[metric] is None:
                    return {}, f"have an undefined {metric}"
        values: dict[str, Scalar] = {}
        for name, each in self._search.fields.items():
            if not self._search.exists(name, study.coords, values):
                continue
            if name not in self._fields or row[name] is None:
                return {}, f"have no {name}"
            label = _label(each, row[name])
            if label is None:
                return {}, f"lie outside the space ({name})"
            values[name] = label
        return values, "" if values else "have no field of the space"

    def _result(self, values: Mapping[str, Scalar], rows: Sequence[Mapping[str, Any]]) -> Earlier:
        """Reduce the rows with some values like the repetitions of a trial."""
        objective = self._search.objective
        objectives = []
        for metric, better in zip(objective.metrics, objective.directions, strict=True):
            worst = -math.inf if better == "higher" else math.inf
            numbers = [worst if row[metric] is None else float(row[metric]) for row in rows]
            objectives.append(reduced(numbers, objective.reduce, better))
        excesses = []
        for metric, bound in self._search.constraints.items():
            numbers = [math.inf if row[metric] is None else bound.excess(float(row[metric])) for row in rows]
            excesses.append(reduced(numbers, objective.reduce, "lower"))
        return Earlier(values, tuple(objectives), tuple(excesses))


def _label(each: SpaceField, value: Any) -> Scalar | None:
    """Return how a value of a column is recorded; None where the field does not have it."""
    if each.choice is not None:
        # A column holds numbers of one kind.
        alike = [label for label in each.labels if isinstance(label, bool) == isinstance(value, bool)]
        return next((label for label in alike if label == value), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not each.contains(value):
        return None
    return float(value) if each.float_ is not None else int(value)
