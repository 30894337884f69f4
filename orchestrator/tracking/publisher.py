"""Keeps MLflow up with a run: writes down what ended, and keeps a process going that writes it into MLflow.

The run never waits for either. What MLflow has not got when the run ends stays in the outbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.plan.grid import Mask
from orchestrator.redact import redact
from orchestrator.results.table import Results
from orchestrator.store import DamagedArtifactError, Store, StoreError
from orchestrator.sweep.outputs import Outputs
from orchestrator.texts import plain_text
from orchestrator.tracking.experiment import Experiment, experiment_of
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import Projection, Run
from orchestrator.tracking.studies import draw
from orchestrator.types import Attempt

#: Seconds before the writer is started: a shorter run starts it only at its end.
_WRITER_AFTER = 5.0
#: Seconds before a writer that died is replaced.
_WRITER_AGAIN = 60.0
#: Seconds without progress after which a run that has ended gives MLflow up (also where somebody waits for the end),
#: and the most seconds in all.
PATIENCE, PATIENCE_WHEN_STOPPED, LONGEST = 60.0, 10.0, 900.0


def post_table(
    projection: Projection, outbox: Outbox, store: Store, committed: Mask, table: pa.Table, exact: bool
) -> int:
    """Post the runs of a whole results table, and return the number of changes.

    Args:
        projection: the cells of the plan as runs.
        outbox: where they are posted.
        store: the store that has the training curves.
        committed: which steps are committed (steps,).
        table: one row per cell.
        exact: also remove runs of cells that are pending again, and replace those of cells that succeeded and now did
            not (`Outbox.post`); otherwise only remove those of cells that the sweep has no more, since another driver
            may have finished the others meanwhile.

    Raises:
        OSError: the outbox cannot be written.
    """
    outbox.follow()
    content = fingerprint(table)
    if outbox.table == content:
        return 0
    runs = list(projection.runs(table, projection.plan.positions(table["cell_id"].to_pylist())))
    cells = {id_ for id_ in outbox.digests if ":" not in id_}
    extra = cells - {run.id for run in runs}
    gone = extra if exact else cells.difference(table["cell_id"].to_pylist())
    curves = list(_curves(projection, store, np.flatnonzero(committed).tolist(), outbox.digests))
    return outbox.post([*runs, *curves], sorted(gone), content if gone == extra else None, exact)


def _curves(projection: Projection, store: Store, numbers: Iterable[int], known: Iterable[str]) -> Iterator[Run]:
    """Read the training curves of some committed steps, but for those whose ids are known."""
    plan = projection.plan
    wanted = [number for number in numbers if plan.stage(number).history]
    wanted = [number for number in wanted if f"step:{plan.keys[number]}" not in known]
    if not wanted:
        return
    import pyarrow.parquet as pq

    manifests = store.manifests([plan.address(number) for number in wanted])
    for number in wanted:
        manifest = manifests[plan.address(number)]
        # A curve is not worth stopping for: damage is reported where the artifact is read for its own sake.
        with contextlib.suppress(DamagedArtifactError, StoreError, pa.ArrowInvalid):
            if isinstance(manifest, DamagedArtifactError) or "history.parquet" not in manifest.files:
                continue
            content = pa.BufferReader(store.read(manifest, "history.parquet"))
            history = pq.ParquetFile(content).read(use_threads=False)
            if history.num_rows:
                yield projection.curve(number, history.to_pylist(), manifest.seconds, manifest.finished)


def fingerprint(table: pa.Table) -> str:
    """Digest the content of a table."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


@dataclass
class Delivered:
    """The end of publishing a run: how many runs MLflow got, and what is left."""

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    left: int = 0
    """Runs that MLflow does not have yet."""
    error: str | None = None
    """Why some are left."""


class Publisher:
    """Publishes a sweep while it runs: posts what ended, and keeps a writer process going that brings it to MLflow."""

    def __init__(self, results: Results, file: Path, outputs: Outputs, uri: str) -> None:
        """Prepare; nothing is written or started yet.

        Args:
            results: the results of the run, with its plan, store and schedule.
            file: the sweep file.
            outputs: the places of the sweep.
            uri: MLflow's tracking URI.
        """
        self.results = results
        self.projection = Projection(results.plan, results.studies)
        self.outbox = Outbox(outputs.outbox)
        self._file = file
        self._outputs = outputs
        self._unwritten: str | None = None
        """What is wrong with the outbox, as last seen."""
        self._unsent: str | None = None
        """What is wrong with MLflow, as last reported."""
        self._uri = uri
        self._cells: set[int] = set()
        self._steps: list[int] = []
        self._posted = 0
        self._started = time.monotonic()
        self._writer: _WriterProcess | None = None
        self._writer_due = self._started + _WRITER_AFTER

    @property
    def trouble(self) -> str | None:
        """What is wrong with MLflow or the outbox, as last reported."""
        return self._unwritten or self._unsent

    def note(self, attempt: Attempt) -> None:
        """Remember an attempt that ended."""
        number = self.results.plan.number(attempt.address)
        assert number is not None, "only steps of this plan are run"
        self._cells.update(self.projection.cells_of(number))
        if attempt.metrics is not None and self.results.plan.stage(number).history:
            self._steps.append(number)

    def publish(self) -> None:
        """Post what ended since the last time, and look after the writer."""
        cells, steps = sorted(self._cells), self._steps
        if cells or steps:
            runs = self.projection.runs(self.results.rows(cells), cells)
            try:
                curves = _curves(self.projection, self.results.store, steps, self.outbox.digests)
                self._posted += self.outbox.post([*runs, *curves])
            except (OSError, StoreError) as error:
                # The next call, or the end of the run, writes it down.
                self._unwritten = self._format(error)
                return
            self._cells, self._steps = set(), []
            self._unwritten = None
        if self._posted and time.monotonic() >= self._writer_due:
            if self._writer is None or self._writer.ended:
                self.close()
                self._writer_due = time.monotonic() + _WRITER_AGAIN
                experiment = experiment_of(self.projection, self._file, self._outputs, self._uri)
                try:
                    # The scheduler and the steps come first, hence the niceness.
                    self._writer = _WriterProcess(self.outbox, experiment, niceness=10)
                except OSError as error:
                    self._unsent = f"the MLflow writer cannot be started: {error.strerror or error}"
                    return
            self._writer.receive()
            self._unsent = self._writer.delivered.error

    def finish(
        self, table: pa.Table, summary: pa.Table | None, stopped: bool, progress: Callable[[int, int], None]
    ) -> Delivered:
        """Bring the rest to MLflow, for as long as it makes progress.

        Args:
            table: the results table.
            summary: the small table that the run ends with.
            stopped: somebody waits for the end.
            progress: called with (runs written, runs to write).
        """
        try:
            return self._finish(table, summary, stopped, progress)
        except (OSError, StoreError) as error:
            return Delivered(error=self._format(error))
        finally:
            self.close()

    def _finish(
        self, table: pa.Table, summary: pa.Table | None, stopped: bool, progress: Callable[[int, int], None]
    ) -> Delivered:
        results = self.results
        post_table(self.projection, self.outbox, results.store, results.schedule.committed, table, exact=False)
        studies = results.studies.views(results)
        # Figures are not worth waiting for.
        for position, study in enumerate(studies if not stopped else ()):
            draw(study, self._outputs.figures)
            progress(position + 1, len(studies))
        experiment = experiment_of(self.projection, self._file, self._outputs, self._uri, summary, studies)
        if self._is_known(experiment):
            return Delivered(unchanged=len(self.outbox.digests))
        if self._writer is None or self._writer.ended:
            self.close()
            self._writer = _WriterProcess(self.outbox, replace(experiment, note=""), niceness=0)
        self._writer.end(experiment)
        found = self._wait(PATIENCE_WHEN_STOPPED if stopped else PATIENCE, progress)
        self.close()
        sent = self.outbox.sent(experiment.target)
        sent.follow()
        found.left = sum(
            id_ not in sent.runs or sent.runs[id_].digest != content for id_, content in self.outbox.digests.items()
        )
        return found

    def _format(self, error: OSError | StoreError) -> str:
        if isinstance(error, StoreError):
            return str(error)
        return f"{self.outbox.folder} cannot be written: {error.strerror or error}"

    def close(self) -> None:
        """Kill the writer, if there is one."""
        if self._writer:
            self._writer.kill()
            self._writer = None

    def _is_known(self, experiment: Experiment) -> bool:
        """Whether MLflow has all of this already; a database file that is gone has nothing."""
        if self._writer is not None:
            return False
        sent = self.outbox.sent(experiment.target)
        sent.follow()
        there = not self._uri.startswith("sqlite:///") or Path(self._uri.removeprefix("sqlite:///")).exists()
        return there and sent.drained == self.outbox.journal.offset and not sent.uncertain

    def _wait(self, patience: float, progress: Callable[[int, int], None]) -> Delivered:
        writer = self._writer
        assert writer is not None, "it was started a moment ago"
        until = time.monotonic() + LONGEST
        while not writer.ended:
            writer.receive()
            if writer.total:
                progress(writer.done, writer.total)
            now = time.monotonic()
            if now > until or now - writer.last_report > patience:
                silent = f"MLflow at {redact(self._uri)} did not answer for {patience:.0f} s"
                writer.delivered.error = writer.delivered.error or silent
                return writer.delivered
            time.sleep(0.05)
        writer.receive()
        if writer.exit_code and not writer.delivered.error:
            writer.delivered.error = f"the MLflow writer ended with {writer.exit_code}, see {writer.log}"
        if not writer.exit_code:
            writer.delivered.error = None
        return writer.delivered


class _WriterProcess:
    """A running `orchestrator.tracking.writer`, as the driver sees it."""

    def __init__(self, outbox: Outbox, experiment: Experiment, niceness: int) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.delivered = Delivered()
        self.done = self.total = 0
        self.last_report = time.monotonic()
        """When it last reported anything but an error, or was asked to end."""
        self.log = outbox.folder / "writer.log"
        with contextlib.ExitStack() as stack:
            log: Any = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                log = stack.enter_context(self.log.open("wb"))
            writer = ["orchestrator.tracking.writer", str(outbox.folder.absolute()), str(niceness)]
            self._process = subprocess.Popen(
                # -P: a module in the working directory, such as a `queue.py`, is not meant for it.
                [sys.executable, "-P", "-m", *writer],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C is for the driver, which then asks it to end.
                start_new_session=True,
            )
        assert self._process.stdout is not None, "it is a pipe"
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        self._send(experiment)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def end(self, experiment: Experiment) -> None:
        """Ask it to write what is left, and to end."""
        self.last_report = time.monotonic()
        self._send(experiment)

    def receive(self) -> None:
        """Read its reports; waits for nothing."""
        assert self._process.stdout is not None, "it is a pipe"
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._process.stdout.fileno(), 65536):
                *lines, self._rest = (self._rest + content).split(b"\n")
                for line in lines:
                    # A library may print there too.
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        self._take(json.loads(line))

    def _take(self, report: Mapping[str, Any]) -> None:
        if "error" in report:
            self.delivered.error = plain_text(report["error"])
            return
        self.last_report = time.monotonic()
        if "synced" in report:
            self.delivered = Delivered(**report["synced"])
        else:
            self.done, self.total = report["done"], report["total"]
            self.delivered.error = None

    def _send(self, experiment: Experiment) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        # It is dead otherwise, which `publish` and `finish` notice.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(asdict(experiment)).encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None, "both are pipes"
            with contextlib.suppress(OSError):
                stream.close()
        self._process.kill()
        self._process.wait()
