"""A run as a program calls it: what it tells, and that it prints nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from toy_runs import command, environment
from toy_sweep import FAILING_CELL

from orchestrator.drive import drive
from orchestrator.events import (
    Event,
    Finished,
    LoopEnded,
    LoopStarted,
    NothingToDo,
    Progressed,
    StageBroken,
    Started,
    Troubled,
)
from orchestrator.session import Session, open_session
from orchestrator.types import Outcome


def opened(folder: Path, text: str = toy_sweep.SWEEP, **options: str) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"), **options)  # type: ignore[arg-type]


def test_a_run_tells_what_happens_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    session = opened(tmp_path, FAILING_CELL)
    assert drive(session, inline=True, on_event=events.append) == 1
    assert capfd.readouterr() == ("", "")
    first, begun, *others, last, finished = events
    assert first == Started(12, 24)
    assert isinstance(begun, LoopStarted)
    ended = [each.attempt for each in others if isinstance(each, Progressed) and each.attempt]
    assert sorted(attempt.outcome for attempt in ended) == [Outcome.FAILED] * 6 + [Outcome.SUCCEEDED] * 18
    assert last == LoopEnded("done")
    assert isinstance(finished, Finished)
    assert (finished.exit_code, finished.written, finished.ended_early) == (1, True, False)
    assert finished.table.equals(pq.read_table(session.outputs.results))
    assert finished.summary is not None


def test_where_all_that_was_chosen_is_there_the_others_are_counted(tmp_path: Path) -> None:
    drive(opened(tmp_path, only=["x=1"]), inline=True)
    events: list[Event] = []
    assert drive(opened(tmp_path, only=["x=1"]), inline=True, on_event=events.append) == 0
    assert events[0] == NothingToDo(unfinished=4)
    assert not any(isinstance(each, Started | LoopStarted | Progressed) for each in events)


def test_a_stage_that_is_stopped_and_a_hook_that_fails_are_told(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: raise}")
    text += "limits: {breaker: 2}\nhooks: {breaker: 'echo no; exit 3'}\n"
    events: list[Event] = []
    assert drive(opened(tmp_path, text), inline=True, on_event=events.append) == 1
    (broken,) = [each for each in events if isinstance(each, StageBroken)]
    assert broken.entry == "source"
    assert Troubled("hooks.breaker ended with 3: no") in events


def test_whoever_watches_may_interrupt_a_run(tmp_path: Path) -> None:
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.attempt:
            raise KeyboardInterrupt

    assert drive(opened(tmp_path), inline=True, on_event=watch) == 130
    assert LoopEnded("interrupted") in events
    assert isinstance(events[-1], Finished)
    assert events[-1].ended_early
    assert drive(opened(tmp_path), inline=True) == 0


def test_a_run_does_not_end_with_whoever_reads_what_it_prints(tmp_path: Path) -> None:
    text = (
        toy_sweep.SWEEP.replace("plain: {behaviour: work}", "plain: {behaviour: nan}")
        + "hooks: {finish: 'touch ended'}\n"
    )
    path = toy_sweep.write_sweep(tmp_path, text)
    line = command(tmp_path, path, "--inline")
    process = subprocess.Popen(line, env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    while b"steps to run" not in process.stdout.readline():
        pass
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(400) == 1
    assert (tmp_path / "ended").exists()
    assert open_session(path, outputs=str(tmp_path / "out")).outputs.results.exists()
