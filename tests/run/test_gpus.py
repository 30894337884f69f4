"""Who sees which GPU, and what becomes of a step, and of its process, when a GPU fails or is not there."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import toy
import toy_sweep
from toy_requests import find_slot, make_request, run_all, run_one
from toy_sweep import ONE

from orchestrator.attempt.outcome import classify, explain
from orchestrator.attempt.request import Request
from orchestrator.run.executors import Ended, Executor, ExecutorLostError
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.run.loop import run_plan
from orchestrator.session import open_session
from orchestrator.store import Store
from orchestrator.store.posix import PosixStore
from orchestrator.types import Outcome


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture(scope="module")
def _two_gpus() -> Iterator[None]:
    """A local Ray with two logical GPUs, whose workers run a copy of the code and know the toy stages."""
    import ray

    from orchestrator.run.executors.ray_start import copies, start_ray

    ray.shutdown()
    start_ray(
        address="local",
        num_cpus=4,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=toy.runtime_env() | copies(),
    )
    yield
    ray.shutdown()


@pytest.fixture
def cluster(_two_gpus: None) -> Iterator[Executor]:
    import ray

    from orchestrator.run.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    yield executor
    # Not `stop`, which would take the cluster along.
    for worker in executor._warm.workers:
        ray.kill(worker.process.actor)
    executor._cluster.seats.clear()


def look(executor: Executor, request: Request, keeps_a_model: bool = False) -> dict[str, Any]:
    """What a step says of its process, run as a task, or by a process that keeps a model."""
    executor.submit([request], find_slot(executor, request.runtime, {"model": 1} if keeps_a_model else {}))
    (ended,) = collect(executor, 1)
    (attempt,) = ended.attempts
    assert attempt.outcome is Outcome.SUCCEEDED, attempt
    return json.loads(Path(attempt.log or "").read_text())  # type: ignore[no-any-return]


def collect(executor: Executor, bundles: int) -> list[Ended]:
    ended: list[Ended] = []
    deadline = time.monotonic() + 400
    while len(ended) < bundles:
        assert time.monotonic() < deadline, "the bundles did not end"
        ended += executor.wait(1)
    return ended


def wait_for_end(process: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).wait(400)


@pytest.mark.ray
@pytest.mark.parametrize("keeps_a_model", [False, True])
def test_a_step_sees_as_many_gpus_as_it_asks_for_in_a_process_that_never_sees_another_number(
    cluster: Executor, store: Store, keeps_a_model: bool
) -> None:
    seen = [
        (gpus, look(cluster, make_request(store, "look", value=value, gpus=gpus), keeps_a_model))
        for value, gpus in enumerate((0, 1, 0, 0.5))
    ]
    assert [one["gpus"] for gpus, one in seen if gpus == 0] == [""] * 2
    assert all(one["gpus"] in ("0", "1") for gpus, one in seen if gpus in (0.5, 1))
    with_gpus, without = ({one["process"] for gpus, one in seen if bool(gpus) is kind} for kind in (True, False))
    assert not with_gpus & without
    # Both the job's own modules and its variables are there.
    assert all("py_modules" in one["code"] for _, one in seen)


@pytest.mark.ray
def test_what_shares_a_bundle_with_a_gpu_that_fails_is_not_begun_and_the_process_ends(
    cluster: Executor, store: Store
) -> None:
    kinds = ["look", "sick", "look"]
    requests = [make_request(store, kind, value=value, gpus=1) for value, kind in enumerate(kinds)]
    ended = run_all(cluster, requests)
    assert [attempt.outcome for attempt in ended.attempts] == [Outcome.SUCCEEDED, Outcome.CRASHED]
    crashed = ended.attempts[1]
    assert crashed.error is not None
    assert "uncorrectable ECC" in crashed.error
    assert "CUDA_LAUNCH_BLOCKING" in crashed.error
    assert store.histories([requests[1].step.address]) == {requests[1].step.address: [crashed]}
    wait_for_end(json.loads(Path(ended.attempts[0].log or "").read_text())["process"])


@pytest.mark.ray
def test_what_waits_for_a_process_whose_gpu_fails_is_not_begun_and_the_process_ends(
    cluster: Executor, store: Store
) -> None:
    first, sick, behind = (
        make_request(store, kind, value=value, gpus=2) for value, kind in enumerate(("look", "sick", "look"))
    )
    process = look(cluster, first, keeps_a_model=True)["process"]
    for request in (sick, behind):
        slot = find_slot(cluster, request.runtime, {"model": 1})
        assert slot.worker is not None
        cluster.submit([request], slot)
    ended = {each.requests[0].step.address: each.attempts for each in collect(cluster, 2)}
    assert [attempt.outcome for attempt in ended[sick.step.address]] == [Outcome.CRASHED]
    assert ended[behind.step.address] == ()
    wait_for_end(process)


@pytest.mark.ray
def test_a_gpu_that_fails_once_costs_one_step_one_try(cluster: Executor, tmp_path: Path) -> None:
    config = f"{{value: $x, behaviour: sick_once, marker: {tmp_path}/sick}}"
    path = toy_sweep.write_sweep(tmp_path, ONE.replace("{value: $x}", config) + "runtime: {source: {gpus: 1}}\n")
    session = open_session(path, outputs=str(tmp_path / "out"))
    session.store.prepare()
    made = [each for each in run_plan(session.schedule, session.store, cluster, "abc") if each]
    assert session.schedule.done
    assert [each.outcome for each in made if each.outcome is not Outcome.SUCCEEDED] == [Outcome.CRASHED]


@pytest.mark.ray
def test_a_gpu_that_was_given_and_is_not_there_ends_the_step_with_the_remedy(cluster: Executor, store: Store) -> None:
    attempt = run_one(cluster, make_request(store, "compute", gpus=1))
    assert attempt.outcome is Outcome.CRASHED
    assert "device: cpu" in (attempt.error or "")


def test_in_one_process_a_missing_gpu_ends_the_run_with_the_remedy(store: Store) -> None:
    executor = InlineExecutor()
    assert Path(run_one(executor, make_request(store, "compute", value=1)).log or "").read_text() == "cpu\n"
    attempt = run_one(executor, make_request(store, "compute", value=2, gpus=1))
    assert attempt.outcome is Outcome.CRASHED
    with pytest.raises(ExecutorLostError, match=r"after source: .*device: cpu under runtime"):
        run_one(executor, make_request(store, "compute", value=3))


def gpu_errors() -> list[Any]:
    import torch
    from torch.distributed import DistBackendError

    illegal = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for …")
    wrapped = ValueError("the batch could not be read")
    wrapped.__cause__ = illegal
    return [
        (illegal, Outcome.CRASHED),
        (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:77, unhandled system error"), Outcome.CRASHED),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Outcome.CRASHED),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), Outcome.CRASHED),
        (RuntimeError("HIP error: unspecified launch failure"), Outcome.CRASHED),
        (wrapped, Outcome.CRASHED),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Outcome.OUT_OF_MEMORY),
        (torch.AcceleratorError("CUDA error: out of memory"), Outcome.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), Outcome.OUT_OF_MEMORY),
        (RuntimeError("a bug"), Outcome.FAILED),
        (ValueError("this text is not about a CUDA error"), Outcome.FAILED),
    ]


def test_errors_of_cuda_and_its_libraries_are_not_bugs_of_the_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, (error, outcome) in enumerate(gpu_errors()):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(toy, "source", fail)
        attempt = run_one(InlineExecutor(), make_request(store, value=value, gpus=1))
        assert attempt.outcome is outcome, error


def test_an_error_that_is_its_own_cause_is_classified_and_memory_that_ran_out_is_no_sick_gpu(store: Store) -> None:
    request = make_request(store, "work")
    circle = ValueError("no words")
    circle.__cause__ = circle
    assert classify(circle, request) is Outcome.FAILED
    full = RuntimeError("CUDA error: out of memory")
    assert classify(full, request) is Outcome.OUT_OF_MEMORY
    assert "runs no further step" not in explain(full, Outcome.OUT_OF_MEMORY)
    assert "runs no further step" in explain(RuntimeError("CUDA error: x"), Outcome.CRASHED)
