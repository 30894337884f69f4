"""The first section: what the sweep claims, and whether it holds; or what it would have to declare."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dashboards.report.figures import Figure, drawn, format_name
from dashboards.report.intervals import Panel, findings_chart, interval_ends
from dashboards.report.section import Section, Table
from dashboards.report.study import PAGES, Study
from orchestrator.analysis.claims import Finding
from orchestrator.analysis.tested import Tested, assess
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_value
from orchestrator.results.metrics import metric_directions
from orchestrator.sweep.analysis import Claim

#: Characters of a line of a label in the figure.
_LABEL = 36
_TITLE = "What was claimed, and whether it holds"
#: What YAML reads as a text, and as this one.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z_][\w-]*", re.IGNORECASE | re.ASCII)


def claims(study: Study) -> Section:
    """Say of each claim whether it holds; without claims say what to add to the sweep file.

    Raises:
        StoreError: what was declared or looked at before cannot be read, or tables of single prompts.
    """
    analysis = study.session.spec.analysis
    if analysis is None:
        text = ["Nothing is claimed, and nothing is ranked: the sweep file does not declare what it is to show."]
        return Section("claims", _TITLE, text, code=[("What could be added to the sweep file", example(study))])
    tested = assess(study.session, study.sample, study.table, study.notes)
    elsewhere = {*study.notes, *study.sample.missing_cells(study.table)}
    notes = [f"Note: {note}." for note in tested.notes if note not in elsewhere]
    if not tested.findings:
        text = ["The sweep file claims nothing.", *notes]
        return Section("claims", _TITLE, text, code=[("What could be added to the sweep file", example(study))])
    counts = Counter(verdict for _, verdict, _ in tested.claims)
    said = ", ".join(_counted(count, verdict) for verdict, count in counts.most_common())
    text = [f"Of {counts.total()} claims {said}."]
    for name, verdict, findings in tested.claims:
        reasons = "".join(f" Reason: {each}." for each in dict.fromkeys(each.reason for each in findings) if each)
        text.append(f"{name}: {verdict}. Claimed: {findings[0].statement}.{reasons}")
    table = _table(tested)
    figures = [_figure(study, tested)] if any(_known(each) for each in tested.findings) else []
    return Section("claims", _TITLE, [*text, *notes], figures, [table])


def _counted(count: int, verdict: str) -> str:
    if verdict in ("holds", "does not hold"):
        return f"{count} {verdict if count == 1 else verdict.replace('holds', 'hold').replace('does', 'do')}"
    return f"{count} {'is' if count == 1 else 'are'} {verdict}"


def _table(tested: Tested) -> Table:
    lines = [{"claim": each.claim, **tested.line(each)} for each in tested.findings]
    columns = ["claim", "verdict", *(name for name in lines[0] if name not in ("claim", "verdict"))]
    unsaid = [name for name in columns if not any(line[name] for line in lines)]
    shown = [name for name in columns if name not in unsaid]
    numeric = [name not in ("claim", "at", "effect", "verdict") for name in shown]
    family = sum(each.p is not None for each in tested.findings)
    tests = f"{family} test{'' if family == 1 else 's'}"
    note = (
        f"Intervals of {100 * tested.confidence:g} %, not adjusted; Holm p over {tests} for "
        f"{tested.new or tested.fixed} where there are such values. A verdict needs a Holm p below "
        f"{format_value((1 - tested.confidence) / 2)}. Power: the chance that the same sweep, run anew, would find it "
        "again."
    )
    rows = [[line[name] for name in shown] for line in lines]
    return Table("claims", "All findings", shown, rows, numeric, note)


def _known(each: Finding) -> bool:
    return each.found is not None and each.found.estimate is not None


def _figure(study: Study, tested: Tested) -> Figure:
    """Draw the findings, those of one scale together."""
    analysis = study.session.spec.analysis
    assert analysis is not None
    directions = metric_directions(study.session.plan)
    panels: dict[tuple[Any, ...], Panel] = {}
    for each in filter(_known, tested.findings):
        claim = analysis.claims[each.claim]
        at = {name: label for name, label in each.at.items() if name in analysis.primary.by}
        rest = {name: label for name, label in each.at.items() if name not in at}
        scale = f"{_slope(claim)}{format_name(each.metric)}"
        title = scale + (f", {format_coords(at)}" if at else "")
        band = _band(claim, directions.get(each.metric))
        panel = panels.setdefault((each.metric, _slope(claim), *at.items()), Panel(title, []))
        panel.rows.append(_row(each, rest, band))
    caption = (
        f"One line for each finding, with {study.intervals} Grey: where the effect has to lie for a claim with a "
        "margin. The colour is the verdict, which is of p values that are adjusted for the number of findings."
    )
    return Figure("claims", "Estimates of what is claimed", caption, findings_chart(list(panels.values())))


def _slope(claim: Claim) -> str:
    if claim.slope is None:
        return "difference in "
    return f"slope per {'doubling' if claim.log else 'unit'} of {claim.slope}, "


def _band(claim: Claim, better: str | None) -> tuple[float, float] | None:
    """Return the margin of a claim that has one."""
    if claim.equivalent is not None:
        return -claim.equivalent, claim.equivalent
    if claim.no_worse is not None:
        return (-claim.no_worse, 0.0) if better == "higher" else (0.0, claim.no_worse)
    return None


def _row(each: Finding, rest: Mapping[str, Any], band: tuple[float, float] | None) -> dict[str, Any]:
    found = each.found
    assert found is not None
    name = each.claim + (f" ({format_coords(rest)})" if rest else "")
    lines = [*textwrap.wrap(drawn(name), _LABEL), *textwrap.wrap(drawn(each.effect), _LABEL)]
    row: dict[str, Any] = {"label": "\n".join(lines), "estimate": found.estimate, "verdict": each.verdict}
    row |= interval_ends(found)
    if band:
        row |= {"band_low": band[0], "band_high": band[1]}
    return row


# --- what to add


def example(study: Study) -> str:
    """Write an `analysis` that this sweep could declare, from its own metrics and axes."""
    declared = study.session.spec.analysis
    metric = declared.primary.metric if declared else study.metrics[0]
    lines = ["analysis:"]
    better = metric_directions(study.session.plan).get(metric)
    by = ""
    if declared:
        by = f", by: [{', '.join(map(_yaml, declared.primary.by))}]" if declared.primary.by else ""
    elif PAGES in study.axes and not (study.colour and study.colour.name == PAGES):
        by = f", by: {PAGES}"
    hint = "" if better else "  # or: lower"
    lines.append(f"  primary: {{metric: {_yaml(metric)}, better: {better or 'higher'}{by}}}{hint}")
    colour = study.colour
    if colour:
        compared = f"compare: {{{_yaml(colour.name)}: [{', '.join(map(_yaml, colour.labels[:2]))}]}}"
        lines += ["  claims:", f"    first-beats-second: {{{compared}}}"]
        numeric = next((axis for axis in study.across if axis.numeric), None)
        if numeric:
            slope = f"slope: {_yaml(numeric.name)}, log: true, of: {{{compared}}}, expect: negative"
            lines.append(f"    gap-shrinks-with-{re.sub(r'[^A-Za-z0-9-]+', '-', numeric.name)}: {{{slope}}}")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """Write a value so that YAML reads the same."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)
