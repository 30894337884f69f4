"""The MLflow projection of a results table: one run per cell, grouped, never twice. The only file that imports mlflow.

MLflow is never asked what is done and nothing waits for it: delete it, and `sweep sync` writes it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.canonical import digest
from orchestrator.results import reported_metrics

#: MLflow lists children slowly beyond a few hundred; the sweep's cells are spread over parents of at most so many.
CHILDREN_PER_PARENT = 500
#: Tags by which runs are found again.
KIND, CELL, CONTENT, GROUP = "sweep.kind", "sweep.cell_id", "sweep.content", "sweep.group"
_TEXT_LIMIT = 5000
#: Seconds before a server that failed is asked again.
_PAUSES = (1.0, 3.0)


class TrackingUnreachableError(Exception):
    """MLflow does not answer. The sweep goes on without it; `sweep sync` catches up."""


@dataclass(frozen=True)
class Synced:
    """What a synchronisation did."""

    created: int
    unchanged: int
    replaced: int


def sync_runs(
    table: pa.Table,
    uri: str,
    experiment: str,
    lock: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Synced:
    """Make the MLflow experiment show exactly the finished, failed and blocked rows of a results table.

    A run is found by its cell's tag. One whose content is unchanged is left alone; one that was interrupted or whose
    cell has a new result is deleted and written anew. No run is ever written twice.

    Args:
        table: a results table (`orchestrator.results.Results.table`).
        uri: MLflow tracking URI.
        experiment: name of the experiment, which is the sweep.
        lock: a file that keeps two synchronisations of one sweep apart.
        progress: called with (rows done, rows in all).

    Raises:
        TrackingUnreachableError: MLflow does not answer, with the remedy.
    """
    _check_reachable(uri)
    # MLflow would also repeat what creates a run, and make twins of it when only the answer was lost. The projection
    # may be repeated as a whole, since it finds what is there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Otherwise every run that ends costs a request more and prints two lines.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    pauses = list(_PAUSES) if uri.startswith(("http://", "https://")) else []
    while True:
        try:
            with _locked(lock):
                client = mlflow.MlflowClient(tracking_uri=uri)
                return _Projection(client, table, experiment, uri).sync(progress)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if pauses:
                time.sleep(pauses.pop(0))
                continue
            raise _unreachable(uri, error) from error


def _unreachable(uri: str, error: Exception) -> TrackingUnreachableError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TrackingUnreachableError(f"MLflow at {uri} failed: {first}; nothing is lost, run `sweep sync` later")


class _Projection:
    def __init__(self, client: Any, table: pa.Table, experiment: str, uri: str) -> None:
        self.client = client
        self.metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        self.axes: list[str] = list(json.loads(self.metadata["axes"]))
        self.metrics = reported_metrics(table)
        self.rows = [row for row in table.to_pylist() if row["status"] in ("succeeded", "failed", "blocked")]
        self.group_axes = _group_axes(table, self.axes)
        self.experiment_id = self._experiment(experiment, uri)

    def sync(self, progress: Callable[[int, int], None]) -> Synced:
        cells, parents, doomed = self._existing()
        created = unchanged = replaced = 0
        wanted = {row["cell_id"] for row in self.rows}
        for run_id in doomed:
            self.client.delete_run(run_id)
        for cell, (run_id, _) in cells.items():
            if cell not in wanted:
                self.client.delete_run(run_id)
        for done, row in enumerate(self.rows):
            content = digest(row)
            found = cells.get(row["cell_id"])
            if found and found[1] == content:
                unchanged += 1
            else:
                if found:
                    self.client.delete_run(found[0])
                    replaced += 1
                self._create(row, content, parents)
                created += 1
            progress(done + 1, len(self.rows))
        return Synced(created - replaced, unchanged, replaced)

    def _existing(self) -> tuple[dict[str, tuple[str, str]], dict[str, str], list[str]]:
        """Cells' runs with their content, parents' runs, and runs to drop: interrupted ones and twins."""
        cells: dict[str, tuple[str, str]] = {}
        parents: dict[str, str] = {}
        doomed: list[str] = []
        for run in _pages(self.client, self.experiment_id):
            tags = run.data.tags
            if tags.get(KIND) == "group":
                if tags.get(GROUP) in parents:
                    doomed.append(run.info.run_id)
                else:
                    parents[tags[GROUP]] = run.info.run_id
                    if run.info.status == "RUNNING":
                        # Whoever made it was interrupted before it was ended.
                        self.client.set_terminated(run.info.run_id, "FINISHED")
            elif tags.get(KIND) == "cell":
                if run.info.status == "RUNNING" or tags.get(CELL) in cells:
                    doomed.append(run.info.run_id)
                else:
                    cells[tags[CELL]] = (run.info.run_id, tags.get(CONTENT, ""))
        return cells, parents, doomed

    def _create(self, row: dict[str, Any], content: str, parents: dict[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME

        group = ",".join(f"{axis}={row[axis]}" for axis in self.group_axes) or "all cells"
        if group not in parents:
            parent = self.client.create_run(
                self.experiment_id,
                tags={KIND: "group", GROUP: group, MLFLOW_SOURCE_NAME: "sweep"},
                run_name=group,
            )
            parents[group] = parent.info.run_id
            self.client.set_terminated(parent.info.run_id, "FINISHED")
        ended = int(time.time() * 1000)
        started = ended - int((row["seconds"] or 0) * 1000)
        name = ",".join(f"{axis}={row[axis]}" for axis in self.axes if axis not in self.group_axes)
        tags = {
            KIND: "cell",
            CELL: row["cell_id"],
            CONTENT: content,
            "sweep.status": row["status"],
            "sweep.key": row["key"],
            MLFLOW_RUN_NAME: name or row["cell_id"],
            MLFLOW_PARENT_RUN_ID: parents[group],
            MLFLOW_SOURCE_NAME: "sweep",
        }
        for column in ("code_commit", "error_class", "error", "log"):
            if row[column]:
                tags[f"sweep.{column}"] = str(row[column])[:_TEXT_LIMIT]
        run = self.client.create_run(self.experiment_id, start_time=started, tags=tags)
        metrics = [
            Metric(metric, row[metric], ended, 0)
            for metric in (*self.metrics, "seconds", "attempts")
            if row[metric] is not None
        ]
        parameters = [Param(axis, str(row[axis])) for axis in self.axes]
        self.client.log_batch(run.info.run_id, metrics, parameters, [RunTag("sweep.attempts", str(row["attempts"]))])
        status = "FINISHED" if row["status"] == "succeeded" else "FAILED"
        self.client.set_terminated(run.info.run_id, status, ended)

    def _experiment(self, name: str, uri: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            options = {}
            if uri.startswith("sqlite:///"):
                # Beside the database, not in whatever directory the command was given from.
                folder = Path(uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts" / name
                options = {"artifact_location": folder.absolute().as_uri()}
            return str(
                self.client.create_experiment(name, tags={"mlflow.note.content": self.metadata["question"]}, **options)
            )
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
            # Restoring brings the old runs back; they are found by their tags like any others.
        return str(found.experiment_id)


def _pages(client: Any, experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], max_results=1000, page_token=token, order_by=["attributes.start_time"]
        )
        yield from page
        token = page.token
        if not token:
            return


def _group_axes(table: pa.Table, axes: list[str]) -> list[str]:
    """As few leading axes as leave at most CHILDREN_PER_PARENT cells to each of their values."""
    for count in range(1, len(axes)):
        sizes = table.group_by(axes[:count]).aggregate([("cell_id", "count")])["cell_id_count"].to_pylist()
        if max(sizes) <= CHILDREN_PER_PARENT:
            return axes[:count]
    return axes[:-1]


def _check_reachable(uri: str) -> None:
    """A server that is down is found out in seconds, not after MLflow's minutes of retries."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return
        reason = f"answers with {error.code}"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    raise TrackingUnreachableError(
        f"the MLflow server {uri} does not answer ({reason}); start it or correct --tracking-uri, then run `sweep sync`"
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
