"""The tests of all claims of a sweep, for people and for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.claims import Finding, find, verdict_of
from orchestrator.analysis.declared import declare, notes
from orchestrator.analysis.effect import Effect, Sample, effect_record
from orchestrator.analysis.lines import distinct_notes, format_intervals
from orchestrator.analysis.looks import look
from orchestrator.analysis.singles import sample_of
from orchestrator.results.format import format_p_value, format_percent, format_signed
from orchestrator.results.metrics import metric_directions
from orchestrator.results.status import STATUSES, status_codes
from orchestrator.session import Session
from orchestrator.statistics.power import GOOD_POWER
from orchestrator.sweep.problems import Problem, SweepError


@dataclass(frozen=True)
class Tested:
    """The findings on all claims of a sweep, in the order of the file."""

    findings: Sequence[Finding]
    notes: Sequence[str]
    """What is to be known beside them, in sentences without full stop."""
    confidence: float
    fixed: str
    """What statements on these prompts are for."""
    new: str | None
    """What statements for new prompts are for; None where no values of single prompts are declared."""

    @property
    def claims(self) -> Iterator[tuple[str, str, list[Finding]]]:
        """Yield the claims: name, verdict, findings."""
        for name, group in groupby(self.findings, key=lambda each: each.claim):
            findings = list(group)
            yield name, verdict_of(findings), findings

    def record(self) -> dict[str, Any]:
        """Return everything, for machines."""
        return {
            "confidence": self.confidence,
            "family": sum(each.p is not None for each in self.findings),
            "claims": [
                {
                    "claim": name,
                    "verdict": verdict,
                    "statement": findings[0].statement,
                    "metric": findings[0].metric,
                    "findings": [_numbers(each) for each in findings],
                }
                for name, verdict, findings in self.claims
            ],
            "notes": list(self.notes),
        }

    def table(self, people: bool) -> pa.Table:
        """Return one row per finding; as text where it is for people."""
        rows = [{"claim": each.claim, **(self.line(each) if people else _flat(each))} for each in self.findings]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: [row.get(name) for row in rows] for name in names})

    def line(self, each: Finding) -> dict[str, str]:
        """Return a finding for people: column -> text, but for its claim."""
        found = each.found or Effect()
        return {
            "at": _at(each),
            "effect": each.effect,
            "mean": format_signed(found.estimate),
            **format_intervals(found, self),
            "Holm p": format_p_value(each.holm_p),
            "power": format_percent(each.power),
            f"seeds for {GOOD_POWER:.0%}": f"{each.seeds_needed:,}" if each.seeds_needed else "",
            "verdict": each.verdict,
        }


def _at(each: Finding) -> str:
    return ", ".join(f"{axis}={label}" for axis, label in each.at.items())


def _numbers(each: Finding) -> dict[str, Any]:
    found = each.found or Effect()
    return {
        "at": dict(each.at),
        "verdict": each.verdict,
        "effect": each.effect,
        "estimate": found.estimate,
        **effect_record(found),
        "p": each.p,
        "holm_p": each.holm_p,
        "holm_p_opposite": each.holm_p_opposite,
        "power": each.power,
        "seeds_needed": each.seeds_needed,
        "reason": each.reason,
    }


def _flat(each: Finding) -> dict[str, Any]:
    """Return a finding as one row of numbers."""
    flat: dict[str, Any] = {}
    for name, value in _numbers(each).items():
        if name == "at":
            flat["at"] = _at(each)
        elif name == "bootstrap":
            flat["bootstrap_low"], flat["bootstrap_high"] = value or (None, None)
        elif name in ("these_prompts", "new_prompts"):
            for part in ("error", "df", "low", "high"):
                flat[f"{name}_{part}"] = value[part] if value else None
        elif name == "notes":
            flat[name] = "; ".join(value)
        else:
            flat[name] = value
    return {"metric": each.metric, "statement": each.statement} | flat


def examine(
    session: Session, confidence: float = 0.95, progress: Callable[[int, int], None] = lambda done, total: None
) -> Tested:
    """Test the claims that a sweep declares on its results; what was tested with how many seeds is written down.

    Args:
        session: the sweep.
        confidence: of the intervals; verdicts are at half of what is left.
        progress: called with how many tables of single prompts are read, and of how many.

    Raises:
        StoreError: results cannot be read.
        SweepError: it declares no claims, or in a search no study is finished.
    """
    analysis = session.spec.analysis
    if analysis is None or not analysis.claims:
        example = "{primary: {metric: METRIC, better: higher}, claims: {NAME: {compare: {AXIS: [VALUE, VALUE]}}}}"
        message = f"the sweep declares no claims; write what it is to show: analysis: {example}"
        raise SweepError([Problem(str(session.file), "analysis", message)])
    results = session.results()
    table, about = results.comparable(session.table(results), session.cells)
    metrics = dict.fromkeys(claim.metric or analysis.primary.metric for claim in analysis.claims.values())
    known = [name for name in metrics if name in table.column_names]
    return assess(session, sample_of(session, table, known, confidence, progress), table, about)


def assess(session: Session, sample: Sample, table: pa.Table, about: Sequence[str] = ()) -> Tested:
    """Test the claims that a sweep declares on a sample of its results, see `examine`.

    Args:
        session: a sweep with an `analysis`.
        sample: of its results, with the metrics of the claims as far as there are such.
        table: the same results.
        about: what is to be known of them.

    Raises:
        StoreError: results, or what was written down before, cannot be read.
    """
    analysis = session.spec.analysis
    assert analysis is not None, "the caller looked"
    declare(session, _finished(session, table))
    findings = find(sample, analysis, metric_directions(session.plan))
    seeds = max((each.found.seeds for each in findings if each.found), default=0)
    looked = look(session, seeds) if seeds > 1 else None
    said = [*about, *sample.missing_cells(table), *notes(session), *([looked] if looked else []), *_notes(findings)]
    return Tested(findings, said, sample.confidence, sample.fixed, sample.new)


def _finished(session: Session, table: pa.Table) -> int:
    """Count the cells of a sweep that have a result, also those that are not in the table (--only)."""
    of_all = status_codes(session.schedule, (), np.arange(len(session.plan.points)))
    in_table: list[str] = table["status"].to_pylist()
    return max(int(np.count_nonzero(of_all == STATUSES.index("succeeded"))), in_table.count("succeeded"))


def _notes(findings: Sequence[Finding]) -> list[str]:
    return distinct_notes((each.claim, each.found.notes if each.found else ()) for each in findings)
