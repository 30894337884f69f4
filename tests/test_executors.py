"""One contract for both executors: every attempt is classified, recorded and logged in the same way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy

from orchestrator.attempt import Request
from orchestrator.canonical import digest
from orchestrator.executors import Executor
from orchestrator.executors.inline import InlineExecutor
from orchestrator.store import Store
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Attempt, Manifest, Outcome, Runtime, Step


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "inline":
        yield InlineExecutor()
    else:
        request.getfixturevalue("local_ray")
        from orchestrator.executors.ray_cluster import RayExecutor

        yield RayExecutor()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


def make_request(store: Store, behaviour: str = "work", number: int = 1, **runtime: object) -> Request:
    config = {"value": 3, "behaviour": behaviour}
    step = Step(Artifact("toy_source", digest(config)), "source", config, "{}", {}, {})
    return Request(step, number, Runtime(**runtime), store.location, "abc")  # type: ignore[arg-type]


def run_one(executor: Executor, request: Request, seconds: float = 60) -> Attempt:
    executor.submit(request)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = executor.wait(1)
        if ended:
            assert len(ended) == 1
            return ended[0]
    raise AssertionError("the attempt did not end")


def test_a_step_that_works_is_committed_with_its_metrics(executor: Executor, store: Store) -> None:
    request = make_request(store)
    attempt = run_one(executor, request)
    assert attempt.outcome is Outcome.SUCCEEDED
    assert attempt.error is None
    manifest = store.manifests([request.step.address])[request.step.address]
    assert isinstance(manifest, Manifest)
    assert manifest.metrics == {"value": 3.0}
    assert set(manifest.files) == {"number.txt"}
    assert store.histories([request.step.address]) == {request.step.address: [attempt]}


@pytest.mark.parametrize(
    ("behaviour", "outcome", "error_class", "words"),
    [
        ("raise", Outcome.FAILED, "ValueError", "told to raise"),
        ("no_metric", Outcome.REJECTED, "rejected", "missing: ['value']"),
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
    assert not list((Path(store.location) / "scratch").iterdir())


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


def test_a_damaged_input_is_reported_by_its_address(executor: Executor, store: Store) -> None:
    source = make_request(store)
    run_one(executor, source)
    (Path(store.location) / "artifacts" / "toy_source" / source.step.key / "number.txt").write_text("4.0")
    address = source.step.address
    step = Step(Artifact("toy_double", "d" * 32), "double", {}, "{}", {"number": (address,)}, {})
    attempt = run_one(executor, Request(step, 1, Runtime(), store.location, "abc"))
    assert attempt.outcome is Outcome.DAMAGED_INPUT
    assert attempt.damaged == (address,)


@pytest.mark.ray
@pytest.mark.faults
def test_a_killed_ray_worker_is_a_crashed_attempt_and_the_executor_lives_on(local_ray: None, store: Store) -> None:
    from orchestrator.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    request = make_request(store, "crash")
    attempt = run_one(executor, request)
    assert attempt.outcome is Outcome.CRASHED
    assert store.histories([request.step.address]) == {request.step.address: [attempt]}
    assert run_one(executor, make_request(store, number=2)).outcome is Outcome.SUCCEEDED


@pytest.mark.ray
def test_the_address_of_a_job_server_is_an_error_that_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from orchestrator.executors.ray_cluster import RayExecutor, RayUnreachableError

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(RayUnreachableError, match="ray job submit"):
        RayExecutor()


@pytest.mark.ray
def test_an_address_where_no_cluster_answers_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = toy.write_sweep(tmp_path)
    code = (
        "import sys, toy; toy.install(); from orchestrator.cli import main; "
        f"sys.argv = ['sweep', 'run', {str(path)!r}, '--outputs', {str(tmp_path / 'o')!r}, '--address', "
        "'127.0.0.1:1']; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(toy.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stdout
    assert "ray start --head" in done.stdout
