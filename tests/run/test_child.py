"""`--inline` runs steps in a child process: what takes that with it is a step's outcome, and the sweep goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep
from toy_requests import make_request, run_all, run_one
from toy_runs import command, environment

from orchestrator.drive import drive
from orchestrator.events import Event, Troubled
from orchestrator.run.executors import Ended, ExecutorLostError, child_process
from orchestrator.run.executors.child import ChildExecutor
from orchestrator.session import Session, open_session
from orchestrator.store import Store
from orchestrator.store.posix import PosixStore
from orchestrator.types import Attempt, Outcome, Runtime

#: Stages that do to their process what nobody expects; `two` does so the first time only.
STUDY = """\
import ctypes, os, signal, subprocess, sys, threading, time
from pathlib import Path
from orchestrator.attempt.process import PROCESS

def odd(what: str, marker: str, out: Path) -> dict[str, float]:
    Path(marker, f"{what}-{os.getpid()}").touch()
    match what:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sys_exit":
            sys.exit(4)
        case "once" if len(list(Path(marker).glob("once-*"))) == 1:
            print("it was here")
            subprocess.Popen(["sleep", "1000"])
            Path(marker, "orphan").write_text(str(os.getpid()))
            os._exit(0)
        case "reads":
            assert sys.stdin.read() == ""
        case "fifo":
            assert Path(marker, "fifo").read_text() == "go on"
        case "wait":
            while True:
                time.sleep(0.05)
        case "closes":
            os.closerange(3, 1000)
        case "spoils":
            PROCESS.spoilt = "it said so"
            threading.Thread(target=time.sleep, args=(1000,)).start()
    (out / "process").write_text(str(os.getpid()))
    return {"value": 1.0}
"""
SWEEP = """\
name: odd
question: What becomes of the others?
axes: {what: [WHAT]}
stages: {odd: {stage: "study:odd", config: {what: $what, marker: FOLDER}}}
runtime: {default: {attempts: 2}}
tracking: false
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def executor() -> Iterator[ChildExecutor]:
    executor = ChildExecutor()
    yield executor
    executor.stop()


def write(folder: Path, *what: str) -> Path:
    (folder / "study.py").write_text(STUDY)
    text = SWEEP.replace("WHAT", ", ".join(what)).replace("FOLDER", str(folder))
    return toy_sweep.write_sweep(folder, text, "odd.yaml")


def start(folder: Path, path: Path) -> subprocess.Popen[str]:
    line = command(folder, path, "--inline")
    return subprocess.Popen(
        line, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(folder: Path, path: Path) -> tuple[int, str, Session]:
    driver = start(folder, path)
    printed, _ = driver.communicate(timeout=400)
    return driver.returncode, printed, open_session(path, outputs=str(folder / "out"))


def history(session: Session) -> dict[object, list[Attempt]]:
    addresses = [session.plan.address(number) for number in range(len(session.plan))]
    found = session.store.histories(addresses)
    return {session.plan.coords(number)["what"]: found.get(each, []) for number, each in enumerate(addresses)}


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 400
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def process_of(folder: Path, what: str) -> int:
    """The number of the step's process, once that is running."""
    wait_for(lambda: list(folder.glob(f"{what}-*")))
    (found,) = folder.glob(f"{what}-*")
    return int(found.name.rpartition("-")[2])


def is_gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.faults
def test_what_ends_the_process_is_the_outcome_of_its_step_and_the_others_succeed(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "exit", "b", "segfault", "c", "killed", "once", "sys_exit", "reads", "closes", "z")
    code, printed, session = run(tmp_path, path)
    assert code == 1, printed
    table = pq.read_table(session.outputs.results).to_pylist()
    failed = {row["what"]: row for row in table if row["status"] != "succeeded"}
    assert sorted(failed) == ["closes", "exit", "killed", "segfault", "sys_exit"]
    for what, words in (("exit", "exit code 3"), ("segfault", "SIGSEGV"), ("killed", "SIGKILL")):
        assert failed[what]["error_class"] == "crashed"
        assert "the worker process died (" in failed[what]["error"]
        assert words in failed[what]["error"]
        assert [each.outcome for each in history(session)[what]] == [Outcome.CRASHED] * 2
    # That is no end of a process, or it was recorded before the process ended.
    assert "sys.exit(4)" in failed["sys_exit"]["error"]
    assert "Bad file descriptor" in failed["closes"]["error"]
    # Where it happened is the last word of the log.
    assert "in odd" in Path(failed["segfault"]["log"]).read_text()
    assert "study.py" in Path(failed["segfault"]["log"]).read_text()
    (once,) = history(session)["once"]
    assert Path(once.log or "").read_text() == "it was here\n"
    # What a step started goes with its process.
    group = int((tmp_path / "orphan").read_text())
    assert all(is_gone(each) or os.getpgid(each.pid) != group for each in psutil.process_iter())
    assert session.store.claims() == {}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_signal_to_the_driver_interrupts_the_step_which_leaves_nothing_behind(
    tmp_path: Path, number: int, code: int
) -> None:
    driver = start(tmp_path, write(tmp_path, "wait"))
    process = psutil.Process(process_of(tmp_path, "wait"))
    driver.send_signal(number)
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == code, printed
    assert "interrupted" in printed
    assert "Traceback" not in printed
    assert is_gone(process)
    store = tmp_path / "out" / "store"
    assert not list((store / "claims").rglob("*/*"))
    assert not list((store / "attempts").rglob("*.json"))


def test_a_process_runs_one_step_after_another_until_one_of_them_spoils_it(tmp_path: Path) -> None:
    session = open_session(write(tmp_path, "a", "spoils", "z"), outputs=str(tmp_path / "out"))
    assert drive(session, inline=True, apart=True) == 0
    a, spoils, z = (process_of(tmp_path, what) for what in ("a", "spoils", "z"))
    assert a == spoils != z
    assert os.getpid() not in (a, z)


@pytest.mark.faults
def test_the_process_of_a_driver_that_is_killed_dies_with_it(tmp_path: Path) -> None:
    driver = start(tmp_path, write(tmp_path, "wait"))
    process = psutil.Process(process_of(tmp_path, "wait"))
    driver.kill()
    driver.communicate()
    wait_for(lambda: is_gone(process))


def test_a_process_ends_when_its_driver_has_nothing_more_for_it(store: Store) -> None:
    executor = ChildExecutor()
    assert run_one(executor, make_request(store)).outcome is Outcome.SUCCEEDED
    assert executor._child
    process = psutil.Process(executor._child._process.pid)
    assert not is_gone(process)
    executor.stop()
    assert is_gone(process)


@pytest.mark.faults
def test_a_step_that_c_code_keeps_from_hearing_its_alarm_is_timed_out(
    executor: ChildExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "GRACE", 0.5)
    kinds = ["work", "stuck", "work"]
    requests = [make_request(store, kind, value=value, timeout=0.5) for value, kind in enumerate(kinds)]
    ended = run_all(executor, requests)
    assert [each.outcome for each in ended.attempts] == [Outcome.SUCCEEDED, Outcome.TIMED_OUT]
    assert ended.attempts[1].error == "the step ran longer than its timeout of 0.5 s (runtime.timeout)"
    assert run_one(executor, requests[2]).outcome is Outcome.SUCCEEDED


def test_a_gpu_that_fails_costs_its_step_a_try_and_the_process(executor: ChildExecutor, store: Store) -> None:
    kinds = ["look", "sick", "look"]
    requests = [make_request(store, kind, value=value) for value, kind in enumerate(kinds)]
    ended = run_all(executor, requests)
    assert [each.outcome for each in ended.attempts] == [Outcome.SUCCEEDED, Outcome.CRASHED]
    again = run_all(executor, requests[2:])
    assert [each.outcome for each in again.attempts] == [Outcome.SUCCEEDED]
    logs = [Path(each.log or "").read_text() for each in (ended.attempts[0], again.attempts[0])]
    assert logs[0] != logs[1]


@pytest.mark.faults
def test_a_step_that_waits_for_a_fifo_is_told_once_with_the_remedy_and_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    os.mkfifo(tmp_path / "fifo")
    session = open_session(write(tmp_path, "fifo"), ["runtime.odd.silent=1s"], outputs=str(tmp_path / "out"))
    told: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Troubled):
            told.append(event.message)
            (tmp_path / "fifo").write_text("go on")

    assert drive(session, inline=True, on_event=listen, apart=True) == 0
    (sentence,) = told
    assert sentence.startswith("odd ")
    assert "seems to hang: no output, no computing and no I/O for " in sentence
    assert "runtime.odd.silent_ends: true" in sentence


@pytest.mark.faults
def test_what_waits_for_a_process_that_dies_is_not_begun(executor: ChildExecutor, store: Store) -> None:
    crash, behind = make_request(store, "crash"), make_request(store, "work")
    for request in (crash, behind):
        slot = executor.find_slot(request.runtime, {})
        assert slot is not None
        executor.submit([request], slot)
    # It has one to run and the next one, and no more.
    assert executor.find_slot(Runtime(), {}) is None
    ended: list[Ended] = []
    while not ended:
        ended = executor.wait(1)
    assert [[each.outcome for each in one.attempts] for one in ended] == [[Outcome.CRASHED], []]
    assert ended[1].requests == (behind,)
    assert run_one(executor, behind).outcome is Outcome.SUCCEEDED


def test_a_bundle_that_names_what_cannot_be_imported_fails_and_the_next_one_runs(
    executor: ChildExecutor, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = type("LostConfig", (toy.SourceConfig,), {"__module__": "toy"})
    monkeypatch.setattr(toy, "LostConfig", lost, raising=False)
    request = make_request(store)
    broken = replace(request, step=replace(request.step, definition=replace(request.step.definition, config=lost)))
    attempt = run_one(executor, broken)
    assert attempt.outcome is Outcome.FAILED
    assert "LostConfig" in (attempt.error or "")
    assert run_one(executor, request).outcome is Outcome.SUCCEEDED


def test_a_process_that_cannot_start_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_CODE", "import sys; sys.exit(7)  # {path} {end} {pid}")
    executor = ChildExecutor()
    slot = executor.find_slot(Runtime(), {})
    assert slot
    executor.submit([make_request(store)], slot)
    with pytest.raises(ExecutorLostError, match="did not start: exit code 7"):
        executor.wait(400)
    executor.stop()
