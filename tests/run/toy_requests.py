"""Attempts of one toy step: asked for, and waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping

import toy

from orchestrator.attempt.request import Request
from orchestrator.keys import digest
from orchestrator.run.executors import Ended, Executor, Slot
from orchestrator.store import Store
from orchestrator.types import Artifact, Attempt, Runtime, Step


def make_request(
    store: Store, behaviour: str = "work", number: int = 1, value: float = 3, **runtime: object
) -> Request:
    config = {"value": value, "behaviour": behaviour}
    step = Step(Artifact("toy_source", digest(config)), "source", toy.STAGES["toy_source"], config, "{}", {}, {})
    return Request(step, number, Runtime(**runtime), store.location, "abc", "driver")  # type: ignore[arg-type]


def run_one(executor: Executor, request: Request, seconds: float = 400) -> Attempt:
    ended = run_all(executor, [request], seconds)
    assert len(ended.attempts) == 1
    return ended.attempts[0]


def find_slot(executor: Executor, runtime: Runtime, ready: Mapping[str, int]) -> Slot:
    """A slot, as soon as there is one: a seat at a GPU is made first."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        executor.reserve({runtime: 1} if runtime.gpus else {}, {})
        if slot := executor.find_slot(runtime, ready):
            return slot
        assert not runtime.gpus or executor.wait(0.1) == []
    raise AssertionError("there is no slot")


def run_all(executor: Executor, requests: list[Request], seconds: float = 400) -> Ended:
    executor.submit(requests, find_slot(executor, requests[0].runtime, {}))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = executor.wait(1)
        if ended:
            assert len(ended) == 1
            assert ended[0].requests == tuple(requests)
            return ended[0]
    raise AssertionError("the bundle did not end")
