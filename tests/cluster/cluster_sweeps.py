"""Sweeps of the stages of `placed`, driven by `sweep run` in processes of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil
import pyarrow.parquet as pq
import pytest
import toy_sweep
from ray_nodes import RayNodes
from timeline import Span, read_spans
from toy_runs import command, environment

from orchestrator.session import open_session
from orchestrator.types import Attempt

HEAD = """\
question: Where does it run?
tracking: false
uses: [placed]
namespace: placed
"""

#: Seven GPU steps that become ready while 280 CPU steps are queued; the last one has the node's GPUs for itself.
STARVED = """\
axes: {x: [1, 2, 3, 4, 5, 6, 7], y: RANGE}
stages:
  prepare: {stage: placed_first, config: {value: $x, seconds: 0.5}}
  tune: {stage: placed_next, inputs: {number: prepare}, config: {seconds: 2}}
  fit: {stage: placed_first, config: {value: $x, label: $y, seconds: 0.5}}
results: [tune, fit]
runtime: {default: {cpus: 1}, tune: {cpus: 4, gpus: 1}}
""".replace("RANGE", str([f"y{number}" for number in range(40)]))

#: Seconds after which a sweep of these tests is taken to hang. It is there to fail, not to measure: they take a minute.
PATIENCE = 400


class Driver:
    """`sweep run` of one sweep."""

    def __init__(self, folder: Path, text: str, address: str, more: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.path = toy_sweep.write_sweep(folder, f"name: {folder.name}\n{HEAD}{text}", "sweep.yaml")
        self._said = folder / "said"
        here = Path(__file__).parent
        path = os.pathsep.join([str(here.parent), str(here)])
        self._environment = {**environment(), "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", **more}
        line = command(folder, self.path, "--address", address)
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(line, env=self._environment, stdout=said, stderr=subprocess.STDOUT)

    @property
    def printed(self) -> str:
        return self._said.read_text()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def finish(self, code: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for the end, which is to be of this code; returns what it printed."""
        try:
            found = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the sweep has not ended:\n{self.printed}\n{self.status()}")
        assert found == code, self.printed
        return self.printed

    def status(self) -> str:
        """What `sweep status` says now."""
        return self.ask("status")

    def ask(self, name: str, *options: str) -> str:
        """What another `sweep` command says of the sweep now."""
        python, option, code, _, *rest = command(self.folder, self.path, *options)
        done = subprocess.run(
            [python, option, code, name, *rest], env=self._environment, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def kill(self) -> None:
        if self.running:
            process = psutil.Process(self.process.pid)
            for each in [process, *process.children(recursive=True)]:
                each.kill()
        self.process.wait()

    def attempts(self) -> list[Attempt]:
        """The attempts on record that did not succeed."""
        session = open_session(self.path, outputs=str(self.folder / "out"))
        addresses = [session.plan.address(number) for number in range(len(session.plan))]
        return [each for history in session.store.histories(addresses).values() for each in history]

    def check_done_once(self) -> None:
        """Every cell succeeded; each step was committed, once; nothing is left."""
        session = open_session(self.path, outputs=str(self.folder / "out"))
        assert session.schedule.done
        rows = pq.read_table(session.outputs.results, columns=["cell_id", "status"]).to_pylist()
        assert {row["status"] for row in rows} == {"succeeded"}
        assert len({row["cell_id"] for row in rows}) == len(rows) == len(session.plan.cells)
        store = Path(session.outputs.store)
        assert len(list((store / "artifacts").glob("*/*"))) == len(session.plan)
        assert not list((store / "claims").rglob("*/*"))


class Sweeps:
    """The sweeps of one test, on one cluster."""

    def __init__(self, nodes: RayNodes, folder: Path, trace: Path) -> None:
        self._nodes = nodes
        self._folder = folder
        self._trace = trace
        self._drivers: list[Driver] = []

    def __enter__(self) -> Sweeps:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for driver in self._drivers:
            driver.kill()

    def start(self, text: str, name: str = "one", **more: str) -> Driver:
        """Start the driver of a sweep; `text` has its axes, stages and results, `more` more of its environment."""
        driver = Driver(self._folder / name, text, self._nodes.address, more)
        self._drivers.append(driver)
        return driver

    def spans(self, entry: str | None = None, sweep: str | None = None) -> list[Span]:
        """The calls of stages so far, as in `read_spans`."""
        return read_spans(self._trace, entry, sweep)

    def wait_for(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Until a condition holds; an error if all drivers have ended by then."""
        until = time.monotonic() + seconds
        while not condition():
            said = "\n".join(driver.printed for driver in self._drivers)
            assert any(driver.running for driver in self._drivers), said
            assert time.monotonic() < until, said
            time.sleep(0.1)
