"""One contract for all executors: every attempt is classified, recorded and logged in the same way."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
import toy_sweep
from toy_requests import make_request, run_all, run_one

from orchestrator.attempt.outcome import successful_attempt
from orchestrator.attempt.request import Request
from orchestrator.run.executors import Executor, ExecutorLostError, ray_start
from orchestrator.run.executors.child import ChildExecutor
from orchestrator.run.executors.head import Head
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.store import Store
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Manifest, Outcome, Runtime, Step


@pytest.fixture(scope="module")
def _child() -> Iterator[Executor]:
    executor = ChildExecutor()
    yield executor
    executor.stop()


@pytest.fixture(params=["inline", "child", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        yield InlineExecutor()
    elif request.param == "child":
        yield request.getfixturevalue("_child")
    else:
        request.getfixturevalue("local_ray")
        from orchestrator.run.executors.ray_cluster import RayExecutor

        yield RayExecutor()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


def test_a_ray_head_that_is_silent_is_given_up_before_ray_ends_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.run.executors.head._PAUSE", 0.0)
    monkeypatch.setattr("orchestrator.run.executors.head._PART", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        head = Head(f"127.0.0.1:{port}")
        assert head.answers()
    assert not head.answers()
    with socket.create_server(("127.0.0.1", port)):
        # A head that comes back starts a new count.
        assert head.answers()
    assert not head.answers()
    time.sleep(0.7)
    with pytest.raises(ExecutorLostError, match=rf"the Ray head at 127\.0\.0\.1:{port} has not answered for"):
        head.answers()


def test_a_step_that_works_is_committed_with_its_metrics(executor: Executor, store: Store) -> None:
    request = make_request(store)
    attempt = run_one(executor, request)
    assert attempt.outcome is Outcome.SUCCEEDED
    assert attempt.error is None
    manifest = store.manifests([request.step.address])[request.step.address]
    assert isinstance(manifest, Manifest)
    assert manifest.metrics == {"value": 3.0}
    assert set(manifest.files) == {"number.txt"}
    assert successful_attempt(manifest, "source") == dataclasses.replace(
        attempt, started=manifest.finished - manifest.seconds, seconds=manifest.seconds
    )
    # A success is told by its manifest alone; nothing was printed, so there is no log.
    assert store.histories([request.step.address]) == {}
    assert attempt.log is None
    assert not list((Path(store.location) / "attempts").rglob("*.*"))


@pytest.mark.parametrize(
    ("behaviour", "outcome", "error_class", "words"),
    [
        ("raise", Outcome.FAILED, "ValueError", "told to raise"),
        ("no_metric", Outcome.REJECTED, "rejected", "missing: 'value'"),
        ("extra_metric", Outcome.REJECTED, "rejected", "surprise"),
        ("nan", Outcome.REJECTED, "rejected", "finite"),
        ("memory", Outcome.OUT_OF_MEMORY, "out_of_memory", "memory"),
        ("disk_full", Outcome.STORE_ERROR, "store_error", "--outputs"),
    ],
)
def test_each_failure_has_its_outcome_class_and_message_and_commits_nothing(
    executor: Executor, store: Store, behaviour: str, outcome: Outcome, error_class: str, words: str
) -> None:
    request = make_request(store, behaviour)
    attempt = run_one(executor, request)
    assert attempt.outcome is outcome
    assert attempt.error_class == error_class
    assert words in (attempt.error or "")
    assert store.committed(["toy_source"]) == set()
    assert store.histories([request.step.address]) == {request.step.address: [attempt]}
    assert not list((Path(store.location) / "claims").glob("*/*"))


def test_the_traceback_and_all_output_are_in_the_log(executor: Executor, store: Store) -> None:
    printed = run_one(executor, make_request(store, "print"))
    text = Path(printed.log or "").read_text()
    for word in ("a word to stdout", "a word to stderr", "a word from a child"):
        assert word in text
    raised = run_one(executor, make_request(store, "raise"))
    assert "Traceback" in Path(raised.log or "").read_text()


def test_a_step_that_hangs_is_timed_out(executor: Executor, store: Store) -> None:
    attempt = run_one(executor, make_request(store, "hang", timeout=1.0))
    assert attempt.outcome is Outcome.TIMED_OUT
    assert "runtime.timeout" in (attempt.error or "")
    assert store.committed(["toy_source"]) == set()


@pytest.mark.ray
def test_a_step_on_ray_that_seems_to_hang_is_told_once_while_it_goes_on(local_ray: None, store: Store) -> None:
    import ray

    from orchestrator.run.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    request = make_request(store, "hang", silent=0.5)
    slot = executor.find_slot(request.runtime, {})
    assert slot
    executor.submit([request], slot)
    until = time.monotonic() + 400
    while not (told := executor.silent()):
        assert executor.wait(0.1) == []
        assert time.monotonic() < until
    (sentence,) = told
    assert "seems to hang" in sentence
    executor._notices_due = 0.0
    assert executor.silent() == []
    for task in executor._running:
        ray.cancel(task, force=True)
    while not executor.wait(1.0):
        assert time.monotonic() < until


@pytest.mark.parametrize("executor", ["child", pytest.param("ray", marks=pytest.mark.ray)], indirect=True)
def test_a_step_that_is_silent_for_too_long_is_ended_where_the_sweep_says_so(executor: Executor, store: Store) -> None:
    request = make_request(store, "hang", silent=1.0, silent_ends=True)
    attempt = run_one(executor, request)
    assert attempt.outcome is Outcome.TIMED_OUT
    assert "no output, no computing, no I/O; its limit is 1 s (runtime.silent)" in (attempt.error or "")
    assert store.histories([request.step.address]) == {request.step.address: [attempt]}
    assert run_one(executor, make_request(store, silent=1.0, silent_ends=True)).outcome is Outcome.SUCCEEDED


def test_a_damaged_input_is_reported_by_its_address(executor: Executor, store: Store) -> None:
    source = make_request(store)
    run_one(executor, source)
    number = Path(store.location) / "artifacts" / "toy_source" / source.step.key / "number.txt"
    number.chmod(0o644)
    number.write_text("4.0")
    address = source.step.address
    step = Step(
        Artifact("toy_double", "d" * 32), "double", toy.STAGES["toy_double"], {}, "{}", {"number": (address,)}, {}
    )
    attempt = run_one(executor, Request(step, 1, Runtime(), store.location, "abc", "driver"))
    assert attempt.outcome is Outcome.DAMAGED_INPUT
    assert attempt.damaged == (address,)


def test_each_step_of_a_bundle_ends_by_itself(executor: Executor, store: Store) -> None:
    kinds = ["work", "raise", "work", "nan", "work"]
    requests = [make_request(store, kind, value=value) for value, kind in enumerate(kinds)]
    ended = run_all(executor, requests)
    assert [attempt.address for attempt in ended.attempts] == [request.step.address for request in requests]
    assert [attempt.outcome for attempt in ended.attempts] == [
        Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED, Outcome.REJECTED, Outcome.SUCCEEDED,
    ]  # fmt: skip
    assert store.committed(["toy_source"]) == {requests[index].step.address for index in (0, 2, 4)}


@pytest.mark.faults
@pytest.mark.parametrize(
    ("behaviour", "outcome"), [("crash", Outcome.CRASHED), ("hang", Outcome.TIMED_OUT), ("exit", Outcome.CRASHED)]
)
def test_a_step_that_takes_its_process_with_it_costs_its_neighbours_nothing(
    local_ray: None, store: Store, behaviour: str, outcome: Outcome
) -> None:
    from orchestrator.run.executors.ray_cluster import RayExecutor

    kinds = ["work", "raise", behaviour, "work", "work"]
    requests = [make_request(store, kind, value=value, timeout=5) for value, kind in enumerate(kinds)]
    ended = run_all(RayExecutor(), requests)
    # Those before it are told by the store; those after it were not begun, and are told nothing about.
    assert [(attempt.address, attempt.outcome) for attempt in ended.attempts] == [
        (requests[0].step.address, Outcome.SUCCEEDED),
        (requests[1].step.address, Outcome.FAILED),
        (requests[2].step.address, outcome),
    ]
    assert store.committed(["toy_source"]) == {requests[0].step.address}


@pytest.mark.faults
def test_a_killed_ray_worker_is_a_crashed_attempt_and_the_executor_lives_on(local_ray: None, store: Store) -> None:
    from orchestrator.run.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    request = make_request(store, "crash")
    attempt = run_one(executor, request)
    assert attempt.outcome is Outcome.CRASHED
    assert store.histories([request.step.address]) == {request.step.address: [attempt]}
    assert run_one(executor, make_request(store, number=2)).outcome is Outcome.SUCCEEDED


def test_the_address_of_a_job_server_is_an_error_that_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from orchestrator.run.executors.ray_cluster import RayExecutor
    from orchestrator.run.executors.ray_start import RayUnreachableError

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(RayUnreachableError, match="sweep submit"):
        RayExecutor()


def run_in_vain(folder: Path, *options: str, **environment: str) -> str:
    """What the run command says that ends with 2, since there is no Ray."""
    path = toy_sweep.write_sweep(folder)
    command = ["sweep", "run", str(path), "--outputs", str(folder / "o"), *options]
    code = f"import sys, toy; from orchestrator.cli import main; sys.argv = {command!r}; main()"
    env = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=400)
    assert done.returncode == 2, done.stderr
    assert "Nothing was run" in done.stdout
    return done.stdout


def test_an_address_where_no_cluster_answers_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    said = run_in_vain(tmp_path, "--address", "127.0.0.1:1")
    assert "no Ray cluster answers at 127.0.0.1:1" in said
    assert "ray start --head" in said


def test_a_ray_that_does_not_start_in_time_is_started_again_and_what_else_goes_wrong_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = Exception("The current node timed out during startup. This could happen because …")
    outcomes: list[Exception | None] = []
    tries: list[dict[str, object]] = []

    def init(**options: object) -> None:
        tries.append(options)
        if error := outcomes.pop(0):
            raise error

    monkeypatch.setattr(ray_start.ray, "init", init)
    monkeypatch.setattr(ray_start.ray, "shutdown", lambda: None)
    outcomes[:] = [late, late, None]
    ray_start.start_ray(num_cpus=2)
    assert tries == [{"num_cpus": 2}] * 3
    outcomes[:] = [late, late, late]
    with pytest.raises(Exception, match="timed out during startup"):
        ray_start.start_ray()
    outcomes[:] = [ValueError("no such option"), None]
    with pytest.raises(ValueError, match="no such option"):
        ray_start.start_ray()
    assert outcomes == [None]


def test_a_ray_that_does_not_start_here_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = run_in_vain(tmp_path, RAY_TMPDIR=str(tmp_path / "file"))
    assert "Ray did not start on this machine: [Errno 20] Not a directory" in said
    assert "--inline does without Ray" in said


def test_a_step_that_wants_a_node_of_its_own_gets_all_its_cores(local_ray: None) -> None:
    from orchestrator.run.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    assert executor.slots(Runtime()) == 2
    assert executor.slots(Runtime(whole_node=True)) == 1
