"""Keeps MLflow up with a run: writes down what ended, and keeps a writer process going that tells MLflow.

The run never waits for either. What MLflow has not heard when the run ends stays in the outbox.
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

from orchestrator.redact import redact
from orchestrator.results.metrics import unaveraged_metrics
from orchestrator.results.summary import left_out, spread_of
from orchestrator.results.table import Results
from orchestrator.session import Session
from orchestrator.store import DamagedArtifactError, StoreError
from orchestrator.sweep.outputs import code_commit
from orchestrator.texts import plain_text
from orchestrator.tracking.runs import Experiment, Projection, datasets, describe, markdown
from orchestrator.tracking.sent import Outbox, Run
from orchestrator.types import Attempt
from workers.stages import STAGES

#: A run that takes so many seconds is not over before its writer has started.
_WRITER_AFTER = 5.0
#: A writer that died is replaced after so many seconds.
_WRITER_AGAIN = 60.0
#: Seconds without any progress after which a run that has ended gives MLflow up, and all that it may take.
PATIENCE, PATIENCE_WHEN_STOPPED, LONGEST = 60.0, 10.0, 900.0


def experiment_of(session: Session, projection: Projection, uri: str, summary: pa.Table | None = None) -> Experiment:
    """What MLflow is shown beside the runs of cells.

    Args:
        session: the sweep.
        projection: of its plan.
        uri: MLflow's tracking URI.
        summary: the small table that the run ends with, if it has.
    """
    tracking = session.spec.tracking
    local = [each for each in (session.outputs.results, session.file) if isinstance(each, Path)]
    note = f"**{session.spec.question}**\n\n"
    if summary is not None:
        note += f"{spread_of(summary)}:\n\n{markdown(summary, left_out(summary))}"
    return Experiment(
        uri=uri,
        name=(tracking and tracking.experiment) or session.spec.name,
        description=describe(projection, session.file, str(session.outputs.results)),
        note=note[:7500] if summary is not None else "",
        tags={"sweep.code_commit": code_commit(), "sweep.store": session.outputs.store},
        datasets=datasets(session.spec),
        files=tuple(str(each.absolute()) for each in local),
        group_axes=projection.group_axes,
        unaveraged=unaveraged_metrics(session.plan),
    )


def post_table(session: Session, outbox: Outbox, projection: Projection, table: pa.Table, exact: bool) -> int:
    """Write down what MLflow is to show of a whole table; returns how much of it changed.

    Args:
        session: the sweep.
        outbox: where.
        projection: of its plan.
        table: one row per cell.
        exact: also that cells which are pending again are to go; otherwise only those that the sweep has no more, since
            another driver may have finished them meanwhile.

    Raises:
        OSError: the outbox cannot be written.
    """
    outbox.follow()
    content = fingerprint(table)
    if outbox.table == content:
        return 0
    runs = list(projection.runs(table, range(table.num_rows)))
    steps = np.flatnonzero(session.schedule.committed).tolist()
    kept = {run.id for run in runs} if exact else set(table["cell_id"].to_pylist())
    curves = list(_curves(session, projection, steps, outbox.digests))
    gone = [id_ for id_ in outbox.digests if ":" not in id_ and id_ not in kept]
    return outbox.post([*runs, *curves], gone, content)


def _curves(session: Session, projection: Projection, numbers: Iterable[int], known: Iterable[str]) -> Iterator[Run]:
    """The training curves of some committed steps, unless they are known."""
    plan = session.plan
    wanted = [number for number in numbers if STAGES[plan.address(number).stage].history]
    wanted = [number for number in wanted if f"step:{plan.keys[number]}" not in known]
    if not wanted:
        return
    import pyarrow.parquet as pq

    manifests = session.store.manifests([plan.address(number) for number in wanted])
    for number in wanted:
        manifest = manifests[plan.address(number)]
        # A curve is not worth stopping for: a damaged artifact is told of where it is read for its own sake.
        with contextlib.suppress(DamagedArtifactError, StoreError, pa.ArrowInvalid):
            if isinstance(manifest, DamagedArtifactError) or "history.parquet" not in manifest.files:
                continue
            content = pa.BufferReader(session.store.read(manifest, "history.parquet"))
            history = pq.ParquetFile(content).read(use_threads=False)
            if history.num_rows:
                yield projection.curve(number, history.to_pylist(), manifest.seconds, manifest.finished)


def fingerprint(table: pa.Table) -> str:
    """Names a table by its content."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


@dataclass
class Delivered:
    """What became of the outbox."""

    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    left: int = 0
    """Runs that MLflow does not have yet."""
    error: str | None = None
    """Why not."""


class Courier:
    """Of one run of a sweep."""

    def __init__(self, session: Session, results: Results, uri: str) -> None:
        """Nothing is written or started yet."""
        self.session = session
        self.results = results
        self.projection = Projection(session.plan)
        self.outbox = Outbox(session.outputs.outbox)
        self._unwritten: str | None = None
        """What is wrong with the outbox."""
        self._unsent: str | None = None
        """What is wrong with MLflow, as last heard."""
        self._uri = uri
        self._cells: set[int] = set()
        self._steps: list[int] = []
        self._posted = 0
        self._started = time.monotonic()
        self._writer: _Writer | None = None
        self._writer_due = self._started + _WRITER_AFTER

    @property
    def trouble(self) -> str | None:
        """What is wrong with MLflow or the outbox, as last heard."""
        return self._unwritten or self._unsent

    def note(self, attempt: Attempt) -> None:
        """Take in an attempt that ended."""
        number = self.session.plan.number(attempt.address)
        assert number is not None, "only steps of this plan are run"
        cell = int(self.projection.owners[number])
        if cell >= 0:
            self._cells.add(cell)
        if attempt.metrics is not None and STAGES[attempt.address.stage].history:
            self._steps.append(number)

    def beat(self) -> None:
        """Write down what ended since the last time, and look after the writer."""
        cells, steps = sorted(self._cells), self._steps
        if cells or steps:
            runs = self.projection.runs(self.results.rows(cells), cells)
            try:
                curves = _curves(self.session, self.projection, steps, self.outbox.digests)
                self._posted += self.outbox.post([*runs, *curves])
            except (OSError, StoreError) as error:
                # The next beat, or the end of the run, writes it down.
                self._unwritten = self._spelled(error)
                return
            self._cells, self._steps = set(), []
            self._unwritten = None
        if self._posted and time.monotonic() >= self._writer_due:
            if self._writer is None or self._writer.ended:
                self.close()
                self._writer_due = time.monotonic() + _WRITER_AGAIN
                # The scheduler and the steps come first.
                experiment = experiment_of(self.session, self.projection, self._uri)
                try:
                    self._writer = _Writer(self.outbox, experiment, niceness=10)
                except OSError as error:
                    self._unsent = f"the MLflow writer cannot be started: {error.strerror or error}"
                    return
            self._writer.listen()
            self._unsent = self._writer.delivered.error

    def finish(
        self, table: pa.Table, summary: pa.Table | None, stopped: bool, progress: Callable[[int, int], None]
    ) -> Delivered:
        """Tell MLflow the rest, for as long as it makes progress.

        Args:
            table: the results table.
            summary: the small table that the run ends with.
            stopped: somebody waits for this to end.
            progress: told how far this is.
        """
        try:
            return self._finish(table, summary, stopped, progress)
        except (OSError, StoreError) as error:
            return Delivered(error=self._spelled(error))
        finally:
            self.close()

    def _finish(
        self, table: pa.Table, summary: pa.Table | None, stopped: bool, progress: Callable[[int, int], None]
    ) -> Delivered:
        post_table(self.session, self.outbox, self.projection, table, exact=False)
        experiment = experiment_of(self.session, self.projection, self._uri, summary)
        if self._is_known(experiment):
            return Delivered(unchanged=len(self.outbox.digests))
        if self._writer is None or self._writer.ended:
            self.close()
            self._writer = _Writer(self.outbox, replace(experiment, note=""), niceness=0)
        self._writer.end(experiment)
        found = self._wait(PATIENCE_WHEN_STOPPED if stopped else PATIENCE, progress)
        self.close()
        sent = self.outbox.sent(experiment.target)
        sent.follow()
        found.left = sum(
            id_ not in sent.runs or sent.runs[id_].digest != content for id_, content in self.outbox.digests.items()
        )
        return found

    def _spelled(self, error: OSError | StoreError) -> str:
        if isinstance(error, StoreError):
            return str(error)
        return f"{self.outbox.folder} cannot be written: {error.strerror or error}"

    def close(self) -> None:
        """End the writer, if there is one, whatever it does."""
        if self._writer:
            self._writer.kill()
            self._writer = None

    def _is_known(self, experiment: Experiment) -> bool:
        """Whether MLflow was told all of this already; a database file that is gone knows nothing."""
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
            writer.listen()
            if writer.total:
                progress(writer.done, writer.total)
            now = time.monotonic()
            if now > until or now - writer.heard > patience:
                silent = f"MLflow at {redact(self._uri)} did not answer for {patience:.0f} s"
                writer.delivered.error = writer.delivered.error or silent
                return writer.delivered
            time.sleep(0.05)
        writer.listen()
        if writer.exit_code and not writer.delivered.error:
            writer.delivered.error = f"the MLflow writer ended with {writer.exit_code}, see {writer.log}"
        if not writer.exit_code:
            writer.delivered.error = None
        return writer.delivered


class _Writer:
    """A process that tells MLflow what is in the outbox."""

    def __init__(self, outbox: Outbox, experiment: Experiment, niceness: int) -> None:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.delivered = Delivered()
        self.done = self.total = 0
        self.heard = time.monotonic()
        """When it last said something that is no complaint."""
        self.log = outbox.folder / "writer.log"
        with contextlib.ExitStack() as stack:
            log: Any = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                log = stack.enter_context(self.log.open("wb"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.tracking.writer", str(outbox.folder.absolute()), str(niceness)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C is for the driver, which then tells it to end.
                start_new_session=True,
            )
        assert self._process.stdout is not None, "it is a pipe"
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        self._say(experiment)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def end(self, experiment: Experiment) -> None:
        """Have it write what is left, and end."""
        self.heard = time.monotonic()
        self._say(experiment)

    def listen(self) -> None:
        """Read what it has said; waits for nothing."""
        assert self._process.stdout is not None, "it is a pipe"
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._process.stdout.fileno(), 65536):
                *lines, self._rest = (self._rest + content).split(b"\n")
                for line in lines:
                    # A library may print there too.
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        self._take(json.loads(line))

    def _take(self, said: Mapping[str, Any]) -> None:
        if "error" in said:
            self.delivered.error = plain_text(said["error"])
            return
        self.heard = time.monotonic()
        if "synced" in said:
            self.delivered = Delivered(**said["synced"])
        else:
            self.done, self.total = said["done"], said["total"]
            self.delivered.error = None

    def _say(self, experiment: Experiment) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        # It is dead otherwise, which is noticed where it is looked after.
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
