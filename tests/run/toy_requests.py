"""Attempts of one toy step: asked for, and waited for."""

from __future__ import annotations

import time

import toy

from orchestrator.attempt.request import Request
from orchestrator.keys import digest
from orchestrator.run.executors import Ended, Executor
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


def run_all(executor: Executor, requests: list[Request], seconds: float = 400) -> Ended:
    slot = executor.find_slot(requests[0].runtime, {})
    assert slot is not None
    executor.submit(requests, slot)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = executor.wait(1)
        if ended:
            assert len(ended) == 1
            assert ended[0].requests == tuple(requests)
            return ended[0]
    raise AssertionError("the bundle did not end")
