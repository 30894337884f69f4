"""`sweep show`: what a cell made, entry by entry, with views of what its artifacts hold."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.explain.artifact_files import ArtifactFiles
from orchestrator.explain.cell_artifacts import CellArtifacts
from orchestrator.explain.file_views import UNREADABLE, file_view, file_views
from orchestrator.explain.log_tail import tail
from orchestrator.explain.paired_judgments import judgments_view
from orchestrator.explain.rewarded_responses import responses_view
from orchestrator.explain.views import CurveView, View
from orchestrator.plan.select import find_cell
from orchestrator.redact import redact
from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.results.table import Results
from orchestrator.run.schedule import State
from orchestrator.session import Session
from orchestrator.store import DamagedArtifactError
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest
from orchestrator.types import Artifact, Attempt, Manifest
from workers.metric import Metric, over_shards
from workers.tables import HISTORY, JUDGMENTS, RESPONSES, VERDICTS

#: Kinds whose texts say most about a cell, with the file of each and who joins it with what belongs to it.
_JOINED = {
    "responses": (RESPONSES.file, responses_view),
    "judgments": (JUDGMENTS.file, judgments_view),
    "verdicts": (VERDICTS.file, judgments_view),
}
#: So many bytes and lines of the log of a failed step are shown.
_LOG_BYTES, _LOG_LINES = 8_000, 15


def show(session: Session, cell: str, entry: str | None = None) -> dict[str, Any]:
    """Return what a cell made, as JSON; reads no more of the store than it shows, and changes nothing.

    Args:
        session: the sweep.
        cell: names the cell, as `find_cell` reads it.
        entry: only this entry of the cell; without one every entry comes, with views of its training curve, and all
            views where it is a target of the sweep, feeds one, or has the texts behind it.

    Raises:
        SweepError: the text names no cell, or several, or the cell has no such entry.
        StoreError: the store cannot be read.
    """
    plan, store, schedule = session.plan, session.store, session.schedule
    index = find_cell(plan, cell)
    found = plan.cell(index)
    if entry is not None and entry not in found.steps:
        raise SweepError([Problem("--stage", "", f"the cell has no entry {entry!r}; {nearest(entry, found.steps)}")])
    results = Results(plan, store, schedule, session.studies)
    results.read_failures()
    status, _ = results.status_of(index)
    artifacts = CellArtifacts(schedule, store, found)
    # Dead drivers leave claims behind.
    claims = store.claims() if read_heartbeat(session.outputs.folder, plan.entries) else {}
    look = _Look(session, artifacts, results.failures, claims)
    telling = _telling(artifacts)
    entries = [
        look.entry(name, group, entry is not None, group[0] in telling)
        for name, group in found.steps.items()
        if entry in (None, name)
    ]
    tracking = session.spec.tracking
    return {
        "cell_id": found.id,
        "coords": dict(found.coords),
        "status": status,
        "key": plan.cell_key(index),
        "links": {
            "file": str(session.file),
            "results": str(session.outputs.results),
            "mlflow": redact(session.tracking_uri()) if tracking else None,
            "experiment": (tracking.experiment or session.spec.name) if tracking else None,
        },
        "entries": entries,
    }


def _telling(artifacts: CellArtifacts) -> set[Artifact]:
    """Choose the artifacts that say most: targets, what they read, and the texts that this was made from."""
    steps = artifacts.cell.steps
    targets = {steps[name][0] for name in artifacts.plan.targets if name in steps}
    read = {each for artifact in targets for each in _inputs(artifacts, artifact)}
    behind = {each for artifact in read for each in _inputs(artifacts, artifact)}
    return targets | read | {each for each in behind if artifacts.kind(each) in _JOINED}


def _inputs(artifacts: CellArtifacts, artifact: Artifact) -> set[Artifact]:
    # Of many shards the first one is shown.
    return {group[0] for group in artifacts.step(artifact).inputs.values()}


@dataclass(frozen=True)
class _Look:
    """What is known of the steps of a cell."""

    session: Session
    artifacts: CellArtifacts
    failures: Mapping[int, Attempt]
    claims: Collection[Artifact]

    def entry(self, name: str, group: Sequence[Artifact], asked: bool, telling: bool) -> dict[str, Any]:
        """Describe an entry, a step or all shards of it: with all views if it was asked for or is telling."""
        first = self.artifacts.step(group[0])
        steps = [self._step(artifact) for artifact in group]
        # Of many shards the first one that is there is looked at.
        shard = next((place for place, step in enumerate(steps) if step["state"] == "committed"), 0)
        files = self.artifacts.files(group[shard])
        views: list[View] = []
        # Where this entry has the step of another one, that one shows what it made.
        shows = asked or first.entry == name or first.entry not in self.artifacts.cell.steps
        if shows and isinstance(files, ArtifactFiles):
            try:
                views = self._views(group[shard], files, asked or telling)
            except DamagedArtifactError as error:
                steps[shard] |= {"state": "damaged", "damage": self._damage(error)}
        states = Counter(step["state"] for step in steps)
        return {
            "entry": name,
            "stage": first.stage,
            "kind": first.definition.output,
            "step_of": first.entry if first.entry != name else None,
            "state": next(iter(states)) if len(states) == 1 else "partial",
            "states": dict(states),
            "config": _redacted(first.config),
            "inputs": {
                input_: [*dict.fromkeys(map(self.artifacts.entry, feeding))] for input_, feeding in first.inputs.items()
            },
            **self._metrics(group),
            "shards": len(steps),
            "shard": shard,
            "steps": steps,
            "files": [{"name": file, "bytes": size} for file, size in files.sizes.items()]
            if isinstance(files, ArtifactFiles)
            else [],
            "versions": dict(files.manifest.versions) if isinstance(files, ArtifactFiles) else {},
            "views": [asdict(view) for view in views],
        }

    def _step(self, artifact: Artifact) -> dict[str, Any]:
        """Describe one step: how it ended, where, and where its artifact and log are."""
        manifest, state = self.artifacts.manifests[artifact], self.artifacts.state(artifact)
        described: dict[str, Any] = {"key": artifact.key, "state": str(state)}
        described |= dict.fromkeys(("location", "bytes", "attempt", "seconds", "finished", "host", "code_commit"))
        described |= dict.fromkeys(("log", "error_class", "error", "log_tail", "damage"))
        if isinstance(manifest, Manifest):
            files = ArtifactFiles(self.session.store, manifest)
            described |= {"location": files.location, "bytes": sum(files.sizes.values()), "attempt": manifest.attempt}
            described |= {"seconds": manifest.seconds, "finished": manifest.finished, "host": manifest.host}
            return described | {"state": "committed", "code_commit": manifest.code_commit, "log": manifest.log}
        if state == State.COMMITTED:
            return described | {"state": "damaged", "damage": self._damage(manifest)}
        if artifact in self.claims:
            return described | {"state": "running"}
        failure = self.failures.get(self.artifacts.number(artifact))
        if failure is None:
            return described
        described |= {"attempt": failure.number, "seconds": failure.seconds, "host": failure.host, "log": failure.log}
        described |= {"code_commit": failure.code_commit, "finished": failure.started + failure.seconds}
        lines = tail(failure.log, _LOG_BYTES).splitlines()[-_LOG_LINES:] if failure.log else []
        error = {"error_class": failure.error_class, "error": failure.error, "log_tail": "\n".join(lines) or None}
        return described | error

    def _damage(self, error: DamagedArtifactError) -> str:
        verify = self.session.command("verify", "--discard")
        return f"{error}; to set it aside, so that the next `sweep run` makes it again: {verify}"

    def _metrics(self, group: Sequence[Artifact]) -> dict[str, Any]:
        """Combine the metrics of all shards as the results table does; none while a shard is missing."""
        found = [self.artifacts.manifests[artifact] for artifact in group]
        manifests = [each for each in found if isinstance(each, Manifest)]
        if len(manifests) < len(group):
            return {"metrics": {}, "undefined": {}}
        if len(manifests) == 1:
            return {"metrics": dict(manifests[0].metrics), "undefined": dict(manifests[0].undefined)}
        metrics = over_shards(self._declared(group[0]), [each.metrics for each in manifests])
        undefined = {
            f"{metric} in shard {shard}": reason
            for shard, each in enumerate(manifests)
            for metric, reason in each.undefined.items()
        }
        return {"metrics": metrics, "undefined": undefined}

    def _declared(self, artifact: Artifact) -> dict[str, Metric]:
        plan, number = self.session.plan, self.artifacts.number(artifact)
        return plan.by_entry[plan.entry_of(number)].resolved_at(int(plan.at[number])).configs[0].declared() or {}

    def _views(self, artifact: Artifact, files: ArtifactFiles, whole: bool) -> list[View]:
        """Look at what an artifact holds: all of it, or only the curve of its training.

        Raises:
            DamagedArtifactError: a file is missing or altered.
            StoreError: the store cannot be read.
        """
        if not whole:
            curve = file_view(files, HISTORY.file) if HISTORY.file in files.sizes else None
            return [curve] if isinstance(curve, CurveView) else []
        file, join = _JOINED.get(self.artifacts.kind(artifact), ("", None))
        joined: View | None = None
        if join and file in files.sizes:
            # A kind of this name may be somebody else's.
            with contextlib.suppress(*UNREADABLE):
                joined = join(self.artifacts, artifact, files)
        return [joined, *file_views(files, [file])] if joined else file_views(files)


def _redacted(value: Any) -> Any:
    """Hide passwords in the URIs of a config."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(item) for name, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value
