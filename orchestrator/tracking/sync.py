"""The MLflow projection: what the outbox holds is written to MLflow, never twice.

Nothing waits for it and MLflow is never asked what is done: delete it, and `sweep sync` writes it again.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.keys import digest
from orchestrator.redact import bare, redact
from orchestrator.tracking.backend import Found, Place, RunRefusedError
from orchestrator.tracking.database import Database
from orchestrator.tracking.runs import Experiment, aggregates, parent_id, parent_run
from orchestrator.tracking.sent import Delivery, Outbox, Run, Sent, locked
from orchestrator.tracking.server import Server

#: Seconds before a server is asked again that failed when the sweep had ended.
LAST_PAUSES = (1.0, 3.0)

Progress = Callable[[int, int], None]
"""Called with (runs written, runs to write)."""


class TrackingError(Exception):
    """MLflow does not answer, or refuses a run. The sweep goes on without it; `sweep sync` catches up."""


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did."""

    created: int
    unchanged: int
    replaced: int


def sync_runs(
    outbox: Outbox, experiment: Experiment, progress: Progress = lambda done, total: None, rebuild: bool = False
) -> Synced:
    """Make the MLflow experiment show exactly what the outbox holds.

    MLflow is asked what it has. A run is found by its cell's tag; one whose content is unchanged is left alone, one
    that was interrupted or has another content is deleted and written anew. No run is ever written twice.

    Args:
        outbox: what it is to show.
        experiment: where, and what else.
        progress: told how far this is.
        rebuild: delete the experiment first.

    Raises:
        TrackingError: MLflow does not answer, or has all runs but some that it refuses; with the remedy.
    """
    pauses = list(LAST_PAUSES) if is_server(experiment.uri) else []
    mirror = Mirror(outbox, experiment, progress)
    while True:
        try:
            with locked(outbox.lock), told_apart(experiment.uri):
                mirror.connect(ask=True, rebuild=rebuild)
                rebuild = False
                mirror.deliver(exact=True)
                mirror.conclude()
                mirror.check_refused()
                return mirror.synced()
        except TrackingError as error:
            # A server that was asked whether it is there, and is not, is not asked again.
            if not pauses or error.__cause__ is None:
                raise
            time.sleep(pauses.pop(0))


def attach(outbox: Outbox, experiment: Experiment, files: Iterable[Path], folder: str | None = None) -> str:
    """Keep local files (figures, a report) as artifacts of the sweep's own run, in place of those of the same name.

    Args:
        outbox: of the sweep.
        experiment: where.
        files: what to keep.
        folder: below which folder of the run's artifacts.

    Returns:
        MLflow's id of that run.

    Raises:
        TrackingError: MLflow does not answer, with the remedy.
    """
    mirror = Mirror(outbox, experiment, lambda done, total: None)
    with locked(outbox.lock), told_apart(experiment.uri):
        mirror.connect()
        run = mirror.parents([()])[()]
        for file in files:
            mirror.client.log_artifact(run, str(file), folder)
        return run


@contextmanager
def told_apart(uri: str) -> Iterator[None]:
    """Whatever MLflow, its database or the network raise becomes TrackingError."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        # By name, since importing MLflow takes seconds, which a server that is down is not worth. A database whose
        # driver is not installed is an ImportError.
        ours = isinstance(error, (OSError, ImportError, RunRefusedError))
        if not ours and type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        first = redact(str(error), uri).strip().partition("\n")[0] or type(error).__name__
        message = f"MLflow at {redact(uri)} failed: {first}; nothing is lost, run `sweep sync` later"
        raise TrackingError(message) from error


def _quiet() -> None:
    # MLflow would also repeat what creates a run, and make twins of it when only the answer was lost. The projection
    # may be repeated as a whole, since it finds what is there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Otherwise every run that ends costs a request more and prints two lines.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.ERROR)


class Mirror:
    """One MLflow experiment that is made to show what an outbox holds. Its methods want the outbox's lock held."""

    client: Any
    _place: Place

    def __init__(self, outbox: Outbox, experiment: Experiment, progress: Progress) -> None:
        """Nothing is read or asked yet."""
        # A reader of its own: what others have read already must be seen here, too.
        self.outbox = Outbox(outbox.folder)
        self.experiment = experiment
        self.sent: Sent = outbox.sent(experiment.target)
        self.connected = False
        self._progress = progress
        self._runs: dict[str, Run] = {}
        self._waiting: set[str] = set()
        """Ids that MLflow may not show as they are."""
        self._refused: dict[str, str] = {}
        """Id -> why MLflow does not take that run."""
        self._done = 0
        self._replaced = 0

    def synced(self) -> Synced:
        """What was done so far."""
        return Synced(self._done - self._replaced, len(self._runs) - self._done, self._replaced)

    # --- getting to know MLflow

    def connect(self, ask: bool = False, rebuild: bool = False) -> None:
        """Find or make the experiment, and find out what it has.

        Args:
            ask: do not rely on what was noted of it.
            rebuild: make a new experiment of that name.
        """
        uri, name = self.experiment.uri, self.experiment.name
        _check_reachable(uri)
        _quiet()
        import mlflow
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._progress(0, 0)
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name(name)
        if found and rebuild:
            # A deleted experiment keeps its name.
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            if found.lifecycle_stage != "deleted":
                self.client.rename_experiment(found.experiment_id, f"{name} (replaced {when})")
                self.client.delete_experiment(found.experiment_id)
                found = None
        if found is None:
            found = self.client.get_experiment(self._make_experiment())
        elif found.lifecycle_stage == "deleted":
            # Its runs come back, too.
            self.client.restore_experiment(found.experiment_id)
        if found.tags.get("mlflow.note.content") != self.experiment.description:
            self.client.set_experiment_tag(found.experiment_id, "mlflow.note.content", self.experiment.description)
        store = self.client._tracking_client.store
        if isinstance(store, SqlAlchemyStore):
            self._place = Database(store, found.experiment_id, found.artifact_location)
        else:
            self._place = Server(self.client, found.experiment_id)
        self.sent.follow()
        identity = (str(found.experiment_id), int(found.creation_time or 0))
        known = self.sent.experiment == identity and self._still_there()
        if ask or not known:
            self.sent.restart(identity, dict(self.sent.told) if known else None)
            self._settle(self._place.find(None))
            self._waiting |= self._runs.keys()
        self.connected = True

    def _make_experiment(self) -> str:
        name, uri = self.experiment.name, self.experiment.uri
        # The kind keeps MLflow's pages from asking for it, and from showing those of language-model traces.
        tags = {"mlflow.note.content": self.experiment.description, "mlflow.experimentKind": "custom_model_development"}
        options = {}
        if uri.startswith("sqlite:///"):
            # Beside the database, not in whatever directory the command was given from.
            folder = Path(uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts" / name
            options = {"artifact_location": folder.absolute().as_uri()}
        return str(self.client.create_experiment(name, tags=tags, **options))

    def _still_there(self) -> bool:
        """Whether the run that was noted last exists: the database may be an older copy of itself."""
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

    def _settle(self, found: Iterable[Found]) -> None:
        """Note what is there once and whole, and delete what is not."""
        kept: dict[str, Delivery] = {}
        doomed = []
        for each in found:
            if each.status == "RUNNING" and each.id.startswith("group:") and each.id not in kept:
                # It may have children.
                self.client.set_terminated(each.run, "FINISHED")
            elif each.status == "RUNNING" or not each.id or each.id in kept:
                doomed.append(each.run)
                continue
            kept[each.id] = Delivery(each.content, each.run)
        self._place.delete(doomed)
        gone = sorted(self.sent.uncertain - kept.keys())
        if kept:
            self.sent.note({"sent": [[id_, *delivery] for id_, delivery in kept.items()]})
        if gone:
            self.sent.note({"gone": gone})

    # --- telling MLflow

    def deliver(self, exact: bool = False) -> None:
        """Write what MLflow lacks.

        Args:
            exact: also delete whatever is not in the outbox.
        """
        if not self.connected:
            self.connect()
        anew, changes = self.outbox.follow()
        self._take_in(anew, changes)
        self.sent.follow()
        if self.sent.uncertain:
            self._settle(self._place.find(sorted(self.sent.uncertain)))
        if exact:
            self._waiting |= {id_ for id_ in self.sent.runs.keys() - self._runs.keys() if not id_.startswith("group:")}
        self._forget([id_ for id_ in self._waiting if id_ in self.sent.runs and id_ not in self._runs])
        self._refused.clear()
        ids = [id_ for id_ in self._runs if id_ in self._waiting and not self._is_sent(id_)]
        done, total = 0, len(ids)
        for first in range(0, total, self._place.batch):
            batch = [self._runs[id_] for id_ in ids[first : first + self._place.batch]]
            for _ in self._write(batch):
                done += 1
                self._progress(done, total)
        self._done += done
        self._waiting &= self._refused.keys()
        if not self._waiting and self.sent.drained != self.outbox.journal.offset:
            self.sent.note({"drained": self.outbox.journal.offset})

    def check_refused(self) -> None:
        """Make known what MLflow did not take.

        Raises:
            TrackingError: there is such a run.
        """
        for id_, reason in self._refused.items():
            more = f" (and {len(self._refused) - 1} more)" if len(self._refused) > 1 else ""
            uri = self.experiment.uri
            message = f"refuses {self._runs[id_].name}{more}: {redact(reason, uri)}; it has all others"
            raise TrackingError(f"MLflow at {redact(uri)} {message}")

    def _take_in(self, anew: bool, changes: dict[str, Run | None]) -> None:
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

    def _forget(self, ids: Sequence[str]) -> None:
        if ids:
            self._place.delete([self.sent.runs[id_].run for id_ in ids])
            self.sent.note({"gone": list(ids)})

    def _write(self, batch: Sequence[Run]) -> Iterator[Run]:
        """Write some runs; gives each that is there."""
        above = self.parents({run.group for run in batch})
        old = [self.sent.runs[run.id].run for run in batch if run.id in self.sent.runs]
        self._replaced += len(old)
        # Whoever finds this without its end looks up what became of them.
        self.sent.note({"begun": [run.id for run in batch]}, durable=True)
        self._place.delete(old)
        error: Exception | None = None
        written: list[tuple[Run, str]] = []
        for run, result in self._place.write([(run, above[run.group]) for run in batch]):
            if isinstance(result, RunRefusedError):
                self._refused[run.id] = str(result)
            elif isinstance(result, Exception):
                error = error or result
            else:
                written.append((run, result))
                yield run
        if written:
            self.sent.note({"sent": [[run.id, run.digest, id_] for run, id_ in written]})
        refused = [run.id for run in batch if run.id in self._refused]
        if refused:
            self.sent.note({"gone": refused})
        if error:
            raise error

    def parents(self, groups: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
        """MLflow's ids of the runs of groups, made where they are missing."""
        found: dict[tuple[str, ...], str] = {}
        whole = {group[:length] for group in groups for length in range(len(group) + 1)}
        for group in sorted(whole, key=lambda each: (len(each), each)):
            id_ = parent_id(group)
            if id_ in self.sent.uncertain:
                self._settle(self._place.find([id_]))
            if id_ not in self.sent.runs:
                below = [each.started for each in self._runs.values() if each.group[: len(group)] == group]
                run = parent_run(group, self.experiment.name, min(below, default=time.time()))
                self.sent.note({"begun": [id_]}, durable=True)
                for _, result in self._place.write([(run, found[group[:-1]] if group else None)]):
                    if isinstance(result, Exception):
                        raise result
                    self.sent.note({"sent": [[id_, run.digest, result]]})
            found[group] = self.sent.runs[id_].run
        return found

    def conclude(self) -> None:
        """Give the groups their means, and the sweep's own run its summary, data and files, where they changed."""
        below: dict[tuple[str, ...], list[Run]] = {(): []}
        for run in self._runs.values():
            for length in range(len(run.group) + 1):
                below.setdefault(run.group[:length], []).append(run)
        above = self.parents(below)
        for group, means in aggregates(below, self.experiment.group_axes, self.experiment.unaveraged).items():
            if means:
                self._tell(f"means {parent_id(group)}", above[group], means, partial(self._log, above[group], means))
        whole, experiment = above[()], self.experiment
        tags = {**experiment.tags, **({"mlflow.note.content": experiment.note} if experiment.note else {})}
        if tags:
            self._tell("tags", whole, tags, partial(self._log, whole, {}, tags))
        if runs := below[()]:
            self._tell(
                "end", whole, max(run.ended for run in runs), partial(self.client.set_terminated, whole, "FINISHED")
            )
        if experiment.datasets:
            self._tell("datasets", whole, experiment.datasets, partial(self._log_datasets, whole))
        for file in experiment.files:
            path = Path(file)
            if path.exists():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                self._tell(f"file {path.name}", whole, content, partial(self.client.log_artifact, whole, file))

    def _tell(self, name: str, run: str, facts: object, action: Callable[[], object]) -> None:
        content = digest([run, facts])
        if self.sent.told.get(name) != content:
            action()
            self.sent.note({"told": name, "digest": content})

    def _log(self, run: str, metrics: dict[str, float], tags: dict[str, str] | None = None) -> None:
        from mlflow.entities import Metric, RunTag

        now, step = int(time.time() * 1000), int(metrics.get("cells", 0))
        self.client.log_batch(
            run,
            # The number of cells as the step, so that the page shows how a mean settles.
            [Metric(name, value, now, step) for name, value in metrics.items()],
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


def is_server(uri: str) -> bool:
    """Whether a tracking URI means one, rather than a database."""
    return uri.startswith(("http://", "https://"))


def _check_reachable(uri: str) -> None:
    """A server that is down is found out in seconds, not after MLflow's minutes of retries."""
    if not is_server(uri):
        return
    try:
        with urllib.request.urlopen(f"{bare(uri).rstrip('/')}/health", timeout=5):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        reason = f"answers with {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = redact(str(getattr(error, "reason", error)), uri)
    remedy = "start it or correct --tracking-uri, then run `sweep sync`"
    raise TrackingError(f"the MLflow server {redact(uri)} does not answer ({reason}); {remedy}")
