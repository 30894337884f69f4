"""Writes runs to an MLflow server through its public interface."""

from __future__ import annotations

import functools
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator.tracking.backend import Found, RunRefusedError, found_by_tags, tags_of
from orchestrator.tracking.runs import CELL, ID, KIND, Run

#: Connections to a server. More would wait for each other where its database is SQLite.
_CONNECTIONS = 4
#: Runs that are begun before it is noted which of them are there: after a crash, so many must be looked up.
_BATCH = 64
#: MLflow accepts at most so many metrics in one call.
_METRICS_PER_CALL = 1000


class Server:
    """An MLflow server: at most three calls per run, over several connections."""

    batch = _BATCH

    def __init__(self, client: Any, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        _acknowledge_at_once()

    def find(self, ids: Sequence[str] | None) -> list[Found]:
        """See `Backend.find`."""
        if ids is None:
            filters = [f"tags.`{KIND}` = '{kind}'" for kind in ("cell", "step", "group", "sweep")]
        else:
            # MLflow's filters cannot quote a quotation mark: in its place, and that of whatever else means something to
            # some database, stands what matches any character.
            patterns = ((ID if ":" in id_ else CELL, re.sub(r"[^\w :=,./-]", "_", id_)) for id_ in ids)
            filters = [f"tags.`{tag}` LIKE '{pattern}'" for tag, pattern in patterns]
        found = (
            found_by_tags(run.info.run_id, run.info.status, run.data.tags)
            for each in filters
            for run in self._search(each)
        )
        # Several filters may match one run.
        return list({each.run: each for each in found if ids is None or each.id in ids}.values())

    def _search(self, filter_string: str) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string,
                max_results=1000,
                page_token=token,
                order_by=["attributes.start_time"],
            )
            yield from page
            token = page.token
            if not token:
                return

    def write(self, runs: Sequence[tuple[Run, str | None]]) -> Iterator[tuple[Run, str | Exception]]:
        """See `Backend.write`."""
        failed = threading.Event()

        def one(run: Run, parent: str | None) -> str | Exception:
            # After a failure, another call would only wait for the same timeout.
            if failed.is_set():
                return ConnectionError("not tried")
            try:
                return self._write(run, parent)
            except RunRefusedError as error:
                return error
            except Exception as error:
                failed.set()
                return error

        with ThreadPoolExecutor(min(_CONNECTIONS, len(runs))) as pool:
            for (run, _), result in zip(runs, pool.map(one, *zip(*runs, strict=True)), strict=True):
                yield run, result

    def _write(self, run: Run, parent: str | None) -> str:
        from mlflow.exceptions import MlflowException

        id_ = ""
        try:
            started = int(run.started * 1000)
            made = self.client.create_run(self.experiment_id, started, tags_of(run, parent), run.name)
            id_ = str(made.info.run_id)
            self._fill(id_, run)
        except MlflowException as error:
            # No other code is about the content of a run.
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise
            if id_:
                self.client.delete_run(id_)
            raise RunRefusedError(error.message.splitlines()[0]) from error
        return id_

    def _fill(self, id_: str, run: Run) -> None:
        from mlflow.entities import Metric, Param

        ended = int(run.ended * 1000)
        metrics = [Metric(name, value, ended, 0) for name, value in run.metrics.items()]
        metrics += [Metric(name, value, ended, step) for name, step, value in run.curve]
        params = [Param(name, value) for name, value in run.params.items()]
        for first in range(0, max(len(metrics), len(params) and 1), _METRICS_PER_CALL):
            self.client.log_batch(id_, metrics[first : first + _METRICS_PER_CALL], params if not first else [])
        self.client.set_terminated(id_, "FINISHED" if run.succeeded else "FAILED", ended)

    def delete(self, runs: Sequence[str]) -> None:
        """See `Backend.delete`."""
        for run in runs:
            self.client.delete_run(run)


@functools.cache
def _acknowledge_at_once() -> None:
    """Make this process acknowledge each packet of an answer at once, from now on.

    `mlflow server` with several workers, its default, answers in two packets and does not send the second (Nagle) until
    the first is acknowledged, which Linux delays by 40 ms: 45 ms for a request that takes 4. The option must be set
    again for each answer, and neither MLflow nor requests has a place for that.
    """
    import urllib3.connection

    read = urllib3.connection.HTTPConnection.getresponse
    if not hasattr(socket, "TCP_QUICKACK"):
        return

    def acknowledged(self: urllib3.connection.HTTPConnection) -> urllib3.HTTPResponse:
        if isinstance(self.sock, socket.socket) and self.sock.family in (socket.AF_INET, socket.AF_INET6):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return read(self)

    urllib3.connection.HTTPConnection.getresponse = acknowledged  # type: ignore[method-assign]
