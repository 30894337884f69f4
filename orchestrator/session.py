"""One sweep file opened for a command: its plan, its places, and what the store says of it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.command import program, repeat_places, repeat_selection, spell
from orchestrator.explain.eta import Pace
from orchestrator.plan.build import build_plan
from orchestrator.plan.columns import Plan
from orchestrator.plan.grid import Mask
from orchestrator.plan.select import find_cell, select
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import Store, open_store
from orchestrator.store.atomic import replace_file
from orchestrator.sweep.load import draft_sweep
from orchestrator.sweep.outputs import Outputs, resolve_outputs
from orchestrator.sweep.problems import Problem, SweepError, nearest
from orchestrator.sweep.spec import SweepSpec
from orchestrator.types import Manifest

if TYPE_CHECKING:
    from orchestrator.results.table import Results

#: A running driver refreshes its pulse this often (seconds); one older than three times that is a dead driver's.
PULSE_EVERY = 2.0


@dataclass
class Session:
    """A sweep at hand."""

    file: Path
    spec: SweepSpec
    plan: Plan
    cells: Mask | None
    """The cells selected by --only and --exclude; None for all."""
    outputs: Outputs
    entry: str | None = None
    """The entry that is to be reached (--stage)."""
    places: tuple[str, ...] = ()
    """-s, --outputs and --store, as the command line had them."""
    selection: tuple[str, ...] = ()
    """--only and --exclude, likewise."""
    options: tuple[str, ...] = ()
    """The other options of `sweep run`, likewise."""
    considered: int | None = None
    """How many cells there were to choose from, where --error or --max-cells chose among them."""

    def command(self, verb: str, *words: str) -> str:
        """A command on this sweep, ready for a shell."""
        return spell([*program(), verb, str(self.file), *words, *self.places])

    @cached_property
    def store(self) -> Store:
        """The store, opened for reading; `prepare` it before writing."""
        return open_store(self.outputs.store)

    @cached_property
    def schedule(self) -> Schedule:
        """The state of every step."""
        return Schedule(self.plan, self.store, self.cells, self.entry)

    def narrow(self, error: str | None, count: int | None) -> None:
        """Keep only unfinished cells: those that ended with an error class or outcome, and at most so many.

        Raises:
            SweepError: no cell ended like that.
        """
        results = self.results()
        kept: list[int] = []
        seen: set[str] = set()
        statuses = results.statuses()
        for index in self.chosen:
            status, failure = statuses[index]
            if status == "succeeded" or (count is not None and len(kept) >= count):
                continue
            names = {failure.error_class or "", str(failure.outcome)} if failure else set()
            seen |= names
            if error is None or error in names:
                kept.append(index)
        if error is not None and not kept:
            hint = nearest(error, sorted(seen - {""}))
            raise SweepError([Problem("--error", "", f"no unfinished cell ended with {error!r}; {hint}")])
        self.considered = len(self.chosen)
        self.cells = np.isin(np.arange(len(self.plan.points)), kept)
        del self.schedule

    @property
    def chosen(self) -> range | list[int]:
        """The selected cells."""
        return range(len(self.plan.points)) if self.cells is None else np.flatnonzero(self.cells).tolist()

    def tracking_uri(self, chosen: str | None = None) -> str:
        """What was chosen, else the sweep's `tracking.uri`, else MLFLOW_TRACKING_URI, else SQLite under the outputs."""
        written = self.spec.tracking.uri if self.spec.tracking else None
        return chosen or written or os.environ.get("MLFLOW_TRACKING_URI") or self.outputs.tracking_uri

    def results(self) -> Results:
        """The table's contents as the store tells them, damage set aside, failures included."""
        from orchestrator.results.table import Results

        results = Results(self.plan, self.store, self.schedule)
        results.set_damaged_aside()
        results.read_failures()
        return results

    def plan_report(self, cpus: float | None = None, gpus: float = 0) -> dict[str, Any]:
        """What would run: per entry the steps, why they are not there, and what they will probably cost.

        Args:
            cpus: cores of the cluster; None for those of this machine.
            gpus: GPUs of the cluster.
        """
        from orchestrator.explain.forecast import forecast
        from orchestrator.explain.why import Reasons
        from orchestrator.run.failures import read_failures

        steps: dict[str, dict[str, Any]] = {name: dict(each) for name, each in self.schedule.totals().items()}
        failures = read_failures(self.schedule, self.store)
        counts = self.schedule.counts()
        reasons = Reasons(self.schedule, self.store, failures)
        expected = forecast(self.schedule, self.store, cpus or os.cpu_count() or 1, gpus)
        for name, each in steps.items():
            each |= {"failed": counts[name][State.FAILED], "blocked": counts[name][State.BLOCKED]}
            cost = expected.costs.get(name)
            if cost:
                each["expected"] = asdict(cost)
            each["reasons"] = dict(reasons.of_entry(name).most_common()) if each["to_run"] else {}
        return {
            "cells": len(self.chosen),
            "steps": steps,
            "expected": {
                "cpu_hours": sum(each.cpu_hours for each in expected.costs.values()),
                "gpu_hours": sum(each.gpu_hours for each in expected.costs.values()),
                "bytes": sum(each.bytes for each in expected.costs.values()),
                "wall_seconds": [expected.left.low, expected.left.high],
                "unknown_steps": expected.left.unknown,
                "steps": expected.left.steps,
            },
        }

    def status(self) -> dict[str, Any]:
        """Steps by state and cells by status; `running` is what a live driver says of itself."""
        from orchestrator.results.table import Results
        from orchestrator.run.failures import error_groups

        results = Results(self.plan, self.store, self.schedule)
        results.read_failures()
        statuses = results.statuses()
        pulse = self.read_pulse()
        steps: dict[str, dict[str, Any]] = {}
        for name, counts in self.schedule.counts().items():
            running = pulse["steps"].get(name, {}).get("running", 0) if pulse else 0
            steps[name] = {
                "total": sum(counts.values()),
                "committed": counts[State.COMMITTED],
                "running": running,
                "pending": max(counts[State.PENDING] - running, 0),
                "failed": counts[State.FAILED],
                "blocked": counts[State.BLOCKED],
                "per_minute": pulse["pace"][name]["per_minute"] if pulse else None,
                "seconds": pulse["pace"][name]["seconds"] if pulse else None,
            }
        cells = dict(Counter(status for status, _ in statuses))
        rows = (
            (status, each.error_class, each.error, each.log) if each else (status, None, None, None)
            for status, each in statuses
        )
        errors = [group._asdict() for group in error_groups(rows) if group.example]
        return {
            "cells": len(self.plan.points),
            "cells_by_status": cells,
            "steps": steps,
            "errors": errors,
            "live": bool(pulse),
            "left": pulse["left"] if pulse else None,
        }

    def looks(self) -> Iterator[dict[str, Any]]:
        """The status now and again, until no driver is running; looking takes at most a fifth of the time."""
        while True:
            started = time.monotonic()
            self.__dict__.pop("schedule", None)
            report = self.status()
            yield report
            if not report["live"]:
                return
            time.sleep(max(PULSE_EVERY, 4 * (time.monotonic() - started)))

    def explain(self, text: str) -> dict[str, Any]:
        """All that is known of one cell; reads records, changes nothing."""
        from orchestrator.attempt.outcome import successful_attempt
        from orchestrator.explain.why import Reasons
        from orchestrator.results.table import Results

        index = find_cell(self.plan, text)
        cell = self.plan.cell(index)
        results = Results(self.plan, self.store, self.schedule)
        results.read_failures()
        status, failure = results.status_of(index)
        reasons = Reasons(self.schedule, self.store, results.failures)
        mine = [artifact for group in cell.steps.values() for artifact in group]
        histories, manifests = self.store.histories(mine), self.store.manifests(mine)
        # Dead drivers leave claims behind.
        claims = self.store.claims() if self.read_pulse() else {}
        steps = []
        for name, group in cell.steps.items():
            for artifact in group:
                number = self.plan.number(artifact)
                assert number is not None, "a cell is made of steps of its plan"
                committed = self.schedule.states[number] == State.COMMITTED
                manifest = manifests[artifact]
                history = list(histories.get(artifact, ()))
                if isinstance(manifest, Manifest):
                    history.append(successful_attempt(manifest, name))
                steps.append(
                    {
                        "entry": name,
                        "stage": artifact.stage,
                        "key": artifact.key,
                        "state": "running" if artifact in claims else str(State(self.schedule.states[number])),
                        "because": reasons.of_step(number) if self.schedule.needed[number] else None,
                        "damage": str(manifest) if committed and not isinstance(manifest, Manifest) else None,
                        "cells": int(self.plan.users[number]),
                        "config": dict(self.plan.step(number).config),
                        "attempts": [
                            {"number": each.number, "outcome": str(each.outcome), "seconds": each.seconds}
                            | {"error_class": each.error_class, "error": each.error, "log": each.log}
                            for each in history
                        ],
                    }
                )
        return {
            "cell_id": cell.id,
            "file": str(self.file),
            "coords": dict(cell.coords),
            "status": status,
            "key": self.plan.cell_key(index),
            "error_class": failure.error_class if failure else None,
            "error": failure.error if failure else None,
            "log": failure.log if failure else None,
            "steps": steps,
        }

    def write_pulse(self, standing: Mapping[str, Any], pace: Pace, ahead: Mapping[str, Mapping[str, int]]) -> None:
        """Tell other processes that a driver is alive, where the sweep stands and how fast it goes.

        Args:
            standing: `steps` (entry -> state -> how many), `cells` (the statuses, packed by `pack_codes`), `errors`
                (groups of cells that ended alike) and `usage` (what is in use of the machines).
            pace: of the entries.
            ahead: entry -> kind -> steps that have yet to end.
        """
        pulse = {"time": time.time(), "plan": self.plan.digest, **standing}
        pulse |= {"pace": pace.dump(ahead), "left": asdict(pace.left(ahead))}
        replace_file(self.outputs.folder / "running.json", json.dumps(pulse).encode())

    def read_pulse(self) -> dict[str, Any] | None:
        """What a live driver says of itself, as `write_pulse` was given it; None when there is no driver."""
        try:
            pulse: dict[str, Any] = json.loads((self.outputs.folder / "running.json").read_text())
            alive = abs(time.time() - pulse["time"]) < 3 * PULSE_EVERY
            return pulse if alive and pulse["pace"].keys() == set(self.plan.entries) else None
        except (OSError, ValueError, KeyError):
            return None

    def stop_pulse(self) -> None:
        """Tell other processes that no driver runs; those that are not told see it grow old."""
        # Each service has exceptions of its own; none is an OSError for sure.
        with contextlib.suppress(Exception):
            (self.outputs.folder / "running.json").unlink()


def open_session(
    file: Path,
    overrides: list[str] | None = None,
    only: list[str] | None = None,
    exclude: list[str] | None = None,
    outputs: str | None = None,
    store: str | None = None,
    entry: str | None = None,
) -> Session:
    """Load, check and plan a sweep file.

    Raises:
        SweepError: with every mistake that was found.
    """
    # What is wrong with the text is told together with what is wrong with the plan.
    spec = draft_sweep(file, overrides or ())
    plan = build_plan(spec)
    cells = select(plan, only or (), exclude or ()) if only or exclude else None
    if entry is not None and entry not in plan.entries:
        raise SweepError([Problem("--stage", "", f"there is no entry {entry!r}; {nearest(entry, plan.entries)}")])
    places, selection = repeat_places(overrides, outputs, store), repeat_selection(only, exclude)
    where = resolve_outputs(spec.name, spec.store, outputs, store)
    return Session(file, spec, plan, cells, where, entry, tuple(places), tuple(selection))
