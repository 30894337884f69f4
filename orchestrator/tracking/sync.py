"""Makes MLflow equal to an outbox, writing each run once.

Nothing waits for it, and MLflow is never asked what is done: delete it, and `sweep sync` writes it again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.keys import digest
from orchestrator.redact import redact
from orchestrator.tracking.backend import Backend, Found, RunRefusedError
from orchestrator.tracking.client import TrackingError, is_server, open_client, open_experiment, translate_errors
from orchestrator.tracking.database import Database
from orchestrator.tracking.experiment import Experiment
from orchestrator.tracking.groups import aggregates, aggregates_of_trials, parent_id, parent_run
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import Run
from orchestrator.tracking.sent import Delivery, Sent
from orchestrator.tracking.server import Server

#: Seconds before each retry of a server that failed when the sweep had ended.
LAST_PAUSES = (1.0, 3.0)

Progress = Callable[[int, int], None]
"""Called with (runs written, runs to write)."""


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did, in runs."""

    created: int
    unchanged: int
    replaced: int


def sync_runs(
    outbox: Outbox, experiment: Experiment, progress: Progress = lambda done, total: None, rebuild: bool = False
) -> Synced:
    """Make the MLflow experiment show exactly what the outbox holds.

    MLflow is asked what it has. A run is found by its cell's tag; one with the same content is left alone, one that was
    interrupted or has another content is deleted and written anew. No run is ever written twice.

    Args:
        outbox: the runs.
        experiment: the experiment, and what it shows beside them.
        progress: called as runs are written.
        rebuild: delete the experiment first.

    Raises:
        TrackingError: MLflow does not answer, or refuses a run and has all others; with the remedy.
    """
    pauses = list(LAST_PAUSES) if is_server(experiment.uri) else []
    sync = Sync(outbox, experiment, progress)
    while True:
        try:
            with outbox.locked(), translate_errors(experiment.uri):
                sync.connect(ask=True, rebuild=rebuild)
                rebuild = False
                sync.deliver(exact=True)
                sync.conclude()
                sync.check_refused()
                return sync.synced()
        except TrackingError as error:
            # A server that did not answer `check_reachable` is not asked again.
            if not pauses or error.__cause__ is None:
                raise
            time.sleep(pauses.pop(0))


def attach(outbox: Outbox, experiment: Experiment, files: Iterable[Path], folder: str | None = None) -> str:
    """Keep local files (figures, a report) as artifacts of the sweep's own run; they replace those of the same name.

    Args:
        outbox: the outbox of the sweep.
        experiment: the experiment.
        files: what to keep.
        folder: the folder of the run's artifacts that they go into; None for the top.

    Returns:
        MLflow's id of that run.

    Raises:
        TrackingError: MLflow does not answer, with the remedy.
    """
    sync = Sync(outbox, experiment, lambda done, total: None)
    with outbox.locked(), translate_errors(experiment.uri):
        sync.connect()
        run = sync.parents([()])[()]
        for file in files:
            sync.client.log_artifact(run, str(file), folder)
        return run


class Sync:
    """The synchronisation of one MLflow experiment with an outbox. Its methods need the outbox's lock held."""

    client: Any
    _backend: Backend

    def __init__(self, outbox: Outbox, experiment: Experiment, progress: Progress) -> None:
        """Prepare; nothing is read or requested yet."""
        # A reader of its own, which also sees what others have read already.
        self.outbox = Outbox(outbox.folder)
        self.experiment = experiment
        self.sent: Sent = outbox.sent(experiment.target)
        self.connected = False
        self._progress = progress
        self._runs: dict[str, Run] = {}
        self._waiting: set[str] = set()
        """Ids of runs that MLflow may not show as they are."""
        self._refused: dict[str, str] = {}
        """Id -> why MLflow refuses that run."""
        self._done = 0
        self._was_there: dict[str, bool] = {}
        """Run that was written -> whether MLflow had it before; one that changes in mid-run is written again."""

    def synced(self) -> Synced:
        """Count what was done so far."""
        replaced = sum(self._was_there.values())
        unchanged = len(self._runs.keys() - self._was_there.keys())
        return Synced(len(self._was_there) - replaced, unchanged, replaced)

    # --- what MLflow has

    def connect(self, ask: bool = False, rebuild: bool = False) -> None:
        """Find or make the experiment, and find out which runs it has.

        Args:
            ask: ask MLflow, without relying on the record of what was sent.
            rebuild: make a new experiment of that name.
        """
        identity = self._open(rebuild)
        self.sent.follow()
        known = self.sent.experiment == identity and self._still_there()
        if ask or not known:
            kept = self._sift(self._backend.find(None))
            self.sent.restart(identity, dict(self.sent.logged) if known else None, kept)
            self._waiting |= self._runs.keys()
        self.connected = True

    def _open(self, rebuild: bool) -> tuple[str, int]:
        """Open MLflow; return id and creation time of the experiment."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self.client = open_client(self.experiment.uri, lambda: self._progress(0, 0))
        found = open_experiment(self.client, self.experiment, rebuild)
        store = self.client._tracking_client.store
        if isinstance(store, SqlAlchemyStore):
            self._backend = Database(store, found.experiment_id, found.artifact_location)
        else:
            self._backend = Server(self.client, found.experiment_id)
        return str(found.experiment_id), int(found.creation_time or 0)

    def _still_there(self) -> bool:
        """Whether the run that was sent last exists: the database may be an older copy of itself."""
        from mlflow.exceptions import MlflowException

        if not self.sent.runs:
            return True
        last = next(reversed(self.sent.runs.values())).run
        try:
            return bool(self.client.get_run(last).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _sift(self, found: Iterable[Found]) -> dict[str, Delivery]:
        """Return the runs that are there once and whole, by id, and delete the others."""
        kept: dict[str, Delivery] = {}
        doomed = []
        for each in found:
            if each.status == "RUNNING" and each.id.startswith("group:") and each.id not in kept:
                # It may have children, so it is kept.
                self.client.set_terminated(each.run, "FINISHED")
            elif each.status == "RUNNING" or not each.id or each.id in kept:
                doomed.append(each.run)
                continue
            kept[each.id] = Delivery(each.content, each.run)
        self._backend.delete(doomed)
        return kept

    def _settle(self, found: Iterable[Found]) -> None:
        """Note what became of the runs of which that is uncertain."""
        kept = self._sift(found)
        gone = sorted(self.sent.uncertain - kept.keys())
        if kept:
            self.sent.note({"sent": [[id_, *delivery] for id_, delivery in kept.items()]})
        if gone:
            self.sent.note({"gone": gone})

    # --- writing

    def deliver(self, exact: bool = False) -> None:
        """Write the runs that MLflow lacks.

        Args:
            exact: also delete runs that are not in the outbox.
        """
        if not self.connected:
            self.connect()
        anew, changes = self.outbox.follow()
        self._apply(anew, changes)
        self.sent.follow()
        if self.sent.uncertain:
            self._settle(self._backend.find(sorted(self.sent.uncertain)))
        if exact:
            self._waiting |= {id_ for id_ in self.sent.runs.keys() - self._runs.keys() if not id_.startswith("group:")}
        self._delete([id_ for id_ in self._waiting if id_ in self.sent.runs and id_ not in self._runs])
        self._refused.clear()
        ids = [id_ for id_ in self._runs if id_ in self._waiting and not self._is_sent(id_)]
        done, total = 0, len(ids)
        for first in range(0, total, self._backend.batch):
            batch = [self._runs[id_] for id_ in ids[first : first + self._backend.batch]]
            for _ in self._write(batch):
                done += 1
                self._progress(done, total)
        self._done += done
        self._waiting &= self._refused.keys()
        if not self._waiting and self.sent.drained != self.outbox.journal.offset:
            self.sent.note({"drained": self.outbox.journal.offset})

    def check_refused(self) -> None:
        """Report the runs that MLflow refused.

        Raises:
            TrackingError: it refused one.
        """
        for id_, reason in self._refused.items():
            more = f" (and {len(self._refused) - 1} more)" if len(self._refused) > 1 else ""
            uri = self.experiment.uri
            message = f"refuses {self._runs[id_].name}{more}: {redact(reason, uri)}; it has all others"
            raise TrackingError(f"MLflow at {redact(uri)} {message}")

    def _apply(self, anew: bool, changes: dict[str, Run | None]) -> None:
        if anew:
            self._waiting |= self._runs.keys()
            self._runs.clear()
        for id_, run in changes.items():
            if run is None:
                self._runs.pop(id_, None)
            else:
                self._runs[id_] = run
        self._waiting |= changes.keys()

    def _is_sent(self, id_: str) -> bool:
        return id_ in self.sent.runs and self.sent.runs[id_].digest == self._runs[id_].digest

    def _delete(self, ids: Sequence[str]) -> None:
        if ids:
            self._backend.delete([self.sent.runs[id_].run for id_ in ids])
            self.sent.note({"gone": list(ids)})

    def _write(self, batch: Sequence[Run]) -> Iterator[Run]:
        """Write some runs, and yield each that MLflow then has."""
        above = self.parents({run.group for run in batch})
        old = [self.sent.runs[run.id].run for run in batch if run.id in self.sent.runs]
        # Whoever finds this without an end looks up in MLflow what became of them.
        self.sent.note({"begun": [run.id for run in batch]}, durable=True)
        self._backend.delete(old)
        error: Exception | None = None
        written: list[tuple[Run, str]] = []
        for run, result in self._backend.write([(run, above[run.group]) for run in batch]):
            if isinstance(result, RunRefusedError):
                self._refused[run.id] = str(result)
            elif isinstance(result, Exception):
                error = error or result
            else:
                written.append((run, result))
                self._was_there.setdefault(run.id, run.id in self.sent.runs)
                yield run
        if written:
            self.sent.note({"sent": [[run.id, run.digest, id_] for run, id_ in written]})
        refused = [run.id for run in batch if run.id in self._refused]
        if refused:
            self.sent.note({"gone": refused})
        if error:
            raise error

    def parents(self, groups: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
        """Find MLflow's ids of the runs of groups, making runs that are missing."""
        found: dict[tuple[str, ...], str] = {}
        whole = {group[:length] for group in groups for length in range(len(group) + 1)}
        for group in sorted(whole, key=lambda each: (len(each), each)):
            id_ = parent_id(group)
            if id_ in self.sent.uncertain:
                self._settle(self._backend.find([id_]))
            if id_ not in self.sent.runs:
                below = [each.started for each in self._runs.values() if each.group[: len(group)] == group]
                run = parent_run(group, self.experiment.name, min(below, default=time.time()))
                self.sent.note({"begun": [id_]}, durable=True)
                for _, result in self._backend.write([(run, found[group[:-1]] if group else None)]):
                    if isinstance(result, Exception):
                        raise result
                    self.sent.note({"sent": [[id_, run.digest, result]]})
            found[group] = self.sent.runs[id_].run
        return found

    def conclude(self) -> None:
        """Log the means of groups, and the summary, data and files of the sweep's own run, where they changed."""
        below: dict[tuple[str, ...], list[Run]] = {(): []}
        for run in self._runs.values():
            for length in range(len(run.group) + 1):
                below.setdefault(run.group[:length], []).append(run)
        above = self.parents(below)
        axes, unaveraged = self.experiment.group_axes, self.experiment.unaveraged
        searched, random = self.experiment.searched, self.experiment.random
        means_of = aggregates_of_trials(below, unaveraged) if searched else aggregates(below, axes, unaveraged, random)
        for group, means in means_of.items():
            if means:
                log = partial(self._log_values, above[group], means)
                self._log_once(f"means {parent_id(group)}", above[group], means, log)
        whole, experiment = above[()], self.experiment
        tags = {**experiment.tags, **({"mlflow.note.content": experiment.note} if experiment.note else {})}
        if tags:
            self._log_once("tags", whole, tags, partial(self._log_values, whole, {}, tags))
        if runs := below[()]:
            self._log_once(
                "end", whole, max(run.ended for run in runs), partial(self.client.set_terminated, whole, "FINISHED")
            )
        if experiment.datasets:
            self._log_once("datasets", whole, experiment.datasets, partial(self._log_datasets, whole))
        self._log_files("file", whole, experiment.files)
        for study in experiment.studies:
            # The driver may have been killed before the first cell of a study ended.
            if shown := above.get(study.group):
                log = partial(self._log_values, shown, study.metrics, study.tags)
                self._log_once(f"study {parent_id(study.group)}", shown, [study.metrics, study.tags], log)
                self._log_files(f"file {parent_id(study.group)}", shown, study.files)

    def _log_files(self, name: str, run: str, files: Iterable[str]) -> None:
        for file in files:
            path = Path(file)
            if path.exists():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                self._log_once(f"{name} {path.name}", run, content, partial(self.client.log_artifact, run, file))

    def _log_once(self, name: str, run: str, facts: object, action: Callable[[], object]) -> None:
        """Log some facts of a run by an action, unless they were logged before."""
        content = digest([run, facts])
        if self.sent.logged.get(name) != content:
            action()
            self.sent.note({"told": name, "digest": content})

    def _log_values(self, run: str, metrics: dict[str, float], tags: dict[str, str] | None = None) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            run,
            # At step 0, the last one counts: MLflow draws what has another step as a line, here one of a single point.
            [Metric(name, value, now, 0) for name, value in metrics.items()],
            [],
            [RunTag(name, value) for name, value in (tags or {}).items()],
        )

    def _log_datasets(self, run: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self.client.log_inputs(
            run,
            [
                DatasetInput(
                    Dataset(each["name"], each["digest"], each["source_type"], each["source"]),
                    [InputTag("mlflow.data.context", each["context"])],
                )
                for each in self.experiment.datasets
            ],
        )
