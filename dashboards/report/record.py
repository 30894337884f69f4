"""Sections on how the numbers were made: failures, cost and provenance."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dashboards.report.section import Section, Table
from dashboards.report.study import Study
from orchestrator.plan.select import format_coords
from orchestrator.results.format import format_value
from orchestrator.run.failures import error_groups, unnamed_error
from orchestrator.types import Artifact, Manifest, Scalar


def failures(study: Study) -> Section:
    """Tabulate the cells without a result by what went wrong."""
    columns = ["status", "error_class", "error", "log", *study.session.spec.axes]
    rows = study.rows.select(columns).to_pylist()
    found = error_groups((row["status"], row["error_class"], row["error"], row["log"]) for row in rows)
    examples: dict[tuple[Any, ...], dict[str, Scalar]] = {}
    for row in rows:
        coords = {axis: row[axis] for axis in study.session.spec.axes}
        examples.setdefault(
            (row["status"], row["error_class"] or unnamed_error(row["status"]), row["error"] or ""), coords
        )
    lines = [
        [status, kind, f"{count:,}", message[:500], format_coords(examples[status, kind, message]), log or ""]
        for status, kind, count, message, log in found
    ]
    if not lines:
        return Section("failures", "Failures", ["None: every cell succeeded."])
    names = ["status", "error", "cells", "example", "of cell", "log"]
    numeric = [False, False, True, False, False, False]
    table = Table("failures", "Cells without a result, by what went wrong", names, lines, numeric)
    return Section("failures", "Failures", ["The same `sweep run` command tries them again."], (), [table])


def read_manifests(study: Study) -> dict[str, list[Manifest]]:
    """Return for each entry the manifests of the committed steps that the cells of the report need."""
    session = study.session
    plan = session.plan
    meant = plan.steps_of(cells=session.cells) & session.schedule.committed
    addresses: dict[str, list[Artifact]] = {name: [] for name in plan.entries}
    for number in np.flatnonzero(meant).tolist():
        addresses[plan.entry_of(number)].append(plan.address(number))
    read = session.store.manifests({address for each in addresses.values() for address in each})
    found = {name: [read[address] for address in each] for name, each in addresses.items()}
    return {name: [each for each in some if isinstance(each, Manifest)] for name, some in found.items()}


def cost(study: Study, manifests: Mapping[str, Sequence[Manifest]]) -> Section:
    """Tabulate what the committed steps cost (`read_manifests`), by stage."""
    spec, total = study.session.spec, np.zeros(4)
    rows = []
    for name, each in manifests.items():
        if each:
            runtime = spec.runtime_of(name, {})
            hours = sum(manifest.seconds for manifest in each) / 3600
            size = sum(size for manifest in each for size, _ in manifest.files.values()) / 1e6
            numbers = np.array([len(each), hours * runtime.cpus, hours * runtime.gpus, size])
            total += numbers
            texts = (format_value(float(number)) for number in (3600 * hours / len(each), *numbers[1:]))
            rows.append([name, f"{len(each):,}", *texts])
    if not rows:
        return Section("cost", "Cost", ["No step of these cells is in the store."])
    rows.append(["all", f"{int(total[0]):,}", "", *(format_value(float(number)) for number in total[1:])])
    columns = ["stage", "steps", "s per step", "CPU-hours", "GPU-hours", "disk (MB)"]
    text = [
        "The committed steps of these cells, shared steps counted once, without failed attempts. Hours are the wall "
        "time of a step times the cores and GPUs that the sweep file reserves for its stage."
    ]
    return Section("cost", "Cost", text, (), [Table("cost", "By stage", columns, rows, [False] + [True] * 5)])


def provenance(study: Study, manifests: Mapping[str, Sequence[Manifest]]) -> Section:
    """Say which code, libraries and sweep file made the numbers (`read_manifests`), and how to make them again."""
    session = study.session
    every = [each for some in manifests.values() for each in some]
    keys = hashlib.sha256("".join(sorted(study.rows["key"].to_pylist())).encode()).hexdigest()
    facts = [["sweep", session.spec.name], ["store", session.outputs.store], ["cells", f"{study.rows.num_rows:,}"]]
    facts.append(["sha256 of all cell keys", keys])
    if every:
        starts, ends = min(each.finished - each.seconds for each in every), max(each.finished for each in every)
        facts.append(["made", f"{_time(starts)} to {_time(ends)}"])
        facts.append(["code", _counted(each.code_commit for each in every)])
        facts.append(["hosts", _counted(each.host for each in every)])
        adopted = sum(each.adopted is not None for each in every)
        facts += [["adopted", f"{adopted:,} steps, from older versions of their stages"]] if adopted else []
    versions: dict[str, set[str]] = {}
    for manifest in every:
        for library, version in manifest.versions.items():
            versions.setdefault(library, set()).add(version)
    tables = [Table("provenance", "Where the numbers come from", ["", ""], facts, [False, False])]
    if versions:
        rows = [[library, ", ".join(sorted(each))] for library, each in sorted(versions.items())]
        tables.append(Table("versions", "Libraries", ["library", "version"], rows, [False, False]))
    chosen = [str(session.file), *session.selection, *session.places]
    command, again = (shlex.join(["sweep", verb, *chosen]) for verb in ("run", "report"))
    code = [("Run it again", f"{command}\n{again}"), ("The sweep file", session.file.read_text())]
    return Section("provenance", "Provenance", (), (), tables, code)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count:,} steps)" for value, count in sorted(Counter(values).items()))
