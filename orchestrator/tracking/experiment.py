"""What MLflow shows beside the runs of cells: the page of the experiment, data sets, the summary."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.analysis.metric_grid import SEED
from orchestrator.analysis.summary import format_summary, left_out, spread_of
from orchestrator.code import code_commit
from orchestrator.keys import digest
from orchestrator.redact import redact_uris
from orchestrator.results.format import Format, escape_markdown, export, markdown_code
from orchestrator.results.metrics import declared_metrics, unaveraged_metrics
from orchestrator.results.parquet import column_type
from orchestrator.search.trial import Study
from orchestrator.sweep.outputs import Outputs
from orchestrator.sweep.spec import SweepSpec
from orchestrator.tracking.runs import KEYS, KIND, TRIAL_STATE, Projection
from orchestrator.tracking.runs import STUDY as STUDY_NAME
from orchestrator.tracking.studies import StudyRun, study_runs

#: MLflow takes tags of at most 8,000 characters.
_NOTE_LIMIT = 7500


@dataclass(frozen=True)
class Experiment:
    """An experiment of MLflow, without the runs of its cells."""

    uri: str
    """MLflow's tracking URI."""
    name: str
    description: str
    """The page of the experiment, as Markdown."""
    note: str = ""
    """The page of the sweep's own run, as Markdown: what came out."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of the sweep's own run."""
    datasets: tuple[Mapping[str, str], ...] = ()
    """Data sets, each with name, digest, source_type, source and context, as MLflow calls them."""
    files: tuple[str, ...] = ()
    """Local files that are kept with the sweep's own run."""
    group_axes: Sequence[str] | None = ()
    """The axes that name the groups of cells; None where cells are counted off."""
    unaveraged: Sequence[str] = ()
    """Metrics of which no means are taken."""
    random: Sequence[str] = (SEED,)
    """The axes whose values are the sample."""
    searched: bool = False
    """Whether the groups are studies and their trials."""
    studies: tuple[StudyRun, ...] = ()
    """What the runs of the studies have, once the sweep has ended."""

    @property
    def target(self) -> str:
        """The name of this experiment in this MLflow, whatever password opens it."""
        return f"{redact_uris(self.uri)} {self.name}"


def experiment_of(
    projection: Projection,
    file: Path,
    outputs: Outputs,
    uri: str,
    summary: pa.Table | None = None,
    studies: Sequence[Study] = (),
) -> Experiment:
    """Describe the experiment of a sweep.

    Args:
        projection: the cells of the sweep's plan as runs.
        file: the sweep file.
        outputs: where the sweep's table and artifacts are.
        uri: MLflow's tracking URI.
        summary: the small table that the run ends with, if it has ended.
        studies: those of the plan, if it has ended.
    """
    spec, plan = projection.spec, projection.plan
    local = [each for each in (outputs.results, file) if isinstance(each, Path)]
    note = f"**{escape_markdown(spec.question)}**\n\n"
    if summary is not None:
        note += f"{spread_of(summary)}:\n\n{markdown(summary, left_out(summary))}"
    return Experiment(
        uri=uri,
        name=(spec.tracking and spec.tracking.experiment) or spec.name,
        description=describe(projection, file, str(outputs.results)),
        note=note[:_NOTE_LIMIT] if summary is not None else "",
        tags={"sweep.code_commit": code_commit(), "sweep.store": outputs.store},
        datasets=datasets(spec),
        files=tuple(str(each.absolute()) for each in local),
        group_axes=projection.group_axes,
        unaveraged=unaveraged_metrics(plan),
        random=plan.spec.random_axes,
        searched=spec.searched is not None,
        studies=study_runs(projection, studies, outputs.figures),
    )


def describe(projection: Projection, file: Path, table: str) -> str:
    """Write the page of the experiment, as Markdown.

    Args:
        projection: the cells of the sweep's plan as runs.
        file: the sweep file.
        table: where its results table is.
    """
    plan, spec = projection.plan, projection.spec
    labels = {axis: _label_texts(spec, axis) for axis in spec.axes}
    product = " × ".join(f"{len(each)} {escape_markdown(axis)}" for axis, each in labels.items())
    # What is excluded is no cell.
    product = f"of {product}" if math.prod(map(len, labels.values())) > len(plan.points) else product
    rows = "\n".join(
        f"| {escape_markdown(axis)} | {escape_markdown(', '.join(_few(each)))} |" for axis, each in labels.items()
    )
    declared = declared_metrics(plan)
    metrics: dict[str, list[str]] = {}
    for name in spec.results or plan.targets:
        metrics[name] = list(declared[name])
    metric_rows = "\n".join(
        f"| {escape_markdown(name)} | {escape_markdown(', '.join(each))} |" for name, each in metrics.items() if each
    )
    axes, cells = projection.group_axes, f"{len(plan.points):,} cells ({product})"
    groups = f"by {escape_markdown(', '.join(axes))}" if axes else "of consecutive cells" if axes is None else ""
    means = (
        "Groups only count their cells."
        if axes is None
        else "Groups carry balanced means and their standard deviations, so that they can be compared: each "
        "combination of the other axes counts the same, and a missing cell is filled in from all pairs of cells that "
        "agree in everything but the group. `<metric>_cells` says over how many cells."
    )
    if spec.searched:
        cells = f"At most {len(plan.points):,} cells, as its studies choose them (of {product})"
        groups = "by study and trial"
        means = (
            "A trial carries means and standard deviations over its repetitions; a study its best trial, without a "
            "mean over trials, which would say nothing."
        )
    varied = [axis for axis, each in labels.items() if len(each) > 1][-2:] or list(labels)[:1]
    example = " and ".join(f'params.{axis} = "{labels[axis][-1]}"' for axis in varied)
    shown = (
        example,
        f'tags.`{KIND}` = "cell"',
        'tags.`sweep.status` = "failed"',
        f'tags.`{KEYS}` LIKE "%KEY%"',
    )
    if spec.searched:
        name = projection.studies.all[0].name
        shown = (f'tags.`{STUDY_NAME}` = "{name}" and tags.`{TRIAL_STATE}` = "complete"', *shown[1:])
    some, all_cells, failed, users = map(markdown_code, shown)
    why, run, sync = (
        markdown_code(f"sweep {verb} {shlex.quote(str(file))}{more}")
        for verb, more in (("why", " CELL"), ("run", ""), ("sync", ""))
    )
    return f"""\
**{escape_markdown(spec.question)}**

{cells}, one run each{f", in groups {groups}," if groups else ""} below the run of the
whole sweep, which has the summary, the table and the data. {means}

| axis | values |
|---|---|
{rows}

| metrics of | |
|---|---|
{metric_rows}

Stages: {" → ".join(map(escape_markdown, plan.entries))}.

Show some: {some} · only cells: {all_cells} · what failed: {failed} · whatever used a step: {users} · why a cell is as
it is: {why}

This page mirrors {markdown_code(table)}. To go on: {run}; to bring MLflow up to date: {sync}.
"""


def datasets(spec: SweepSpec) -> tuple[dict[str, str], ...]:
    """List the files and published data sets that a sweep names, each once, as MLflow describes data."""
    found: dict[tuple[str, str], dict[str, str]] = {}

    def visit(value: Any, where: str) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and "sha256" in value:
                source = {"source_type": "local", "source": json.dumps({"uri": value["path"]})}
                note(Path(value["path"]).name, value["sha256"][:32], source, where)
            elif isinstance(value.get("hub"), str):
                parts = [str(value[each]) for each in ("subset", "split", "revision") if value.get(each)]
                name = f"{value['hub']} ({', '.join(parts)})" if parts else value["hub"]
                # MLflow's name for a subset is config_name.
                renamed = {"path": "hub", "config_name": "subset", "split": "split", "revision": "revision"}
                origin = json.dumps({theirs: value.get(ours) for theirs, ours in renamed.items()})
                note(name, digest(value), {"source_type": "hugging_face", "source": origin}, where)
            for name, item in value.items():
                visit(item, f"{where}.{name}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, f"{where}.{index}")

    def note(name: str, content: str, source: dict[str, str], where: str) -> None:
        found.setdefault((name, content), {"name": name, "digest": content, **source, "context": where[:500]})

    for part in ("data", "axes", "stages"):
        visit(spec.document.value.get(part), part)
    return tuple(found.values())


def markdown(summary: pa.Table, left_out: Sequence[str] = ()) -> str:
    """Format a summary (`orchestrator.analysis.summary.summarise`) as Markdown, each metric as mean ± sd.

    Args:
        summary: the summary.
        left_out: notes on what is not in it, which come first.
    """
    notes = "".join(f"{escape_markdown(note)}.\n\n" for note in left_out)
    return notes + export(format_summary(summary), Format.MD).decode()


def _few(labels: Sequence[str]) -> list[str]:
    return [*labels[:12], f"… ({len(labels)} in all)"] if len(labels) > 13 else list(labels)


def _label_texts(spec: SweepSpec, axis: str) -> list[str]:
    """Spell the values of an axis as `Run.params` does."""
    return [str(each) for each in pa.array(spec.labels(axis), column_type(spec, axis)).to_pylist()]
