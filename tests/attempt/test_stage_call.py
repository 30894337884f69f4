"""What reaches a stage beside its config and its inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import toy

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Runtime, Step

RECEIVED: list[int | None] = []


def source(config: toy.SourceConfig, out: Path, *, batch_size: int | None = None) -> dict[str, float]:
    RECEIVED.append(batch_size)
    return {"value": config.value}


@pytest.mark.parametrize(
    ("batches", "asked", "received"), [(True, 8, 8), (True, None, None), (False, 8, None)], ids=str
)
def test_a_stage_that_makes_batches_receives_the_size_that_is_asked_for(
    tmp_path: Path, batches: bool, asked: int | None, received: int | None
) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    definition = replace(toy.STAGES["toy_source"], function="test_stage_call:source", batches=batches)
    step = Step(Artifact("toy_source", "a" * 32), "source", definition, {"value": 1.0}, "{}", {}, {})
    request = Request(step, 1, Runtime(batch_size=asked), store.location, "abc", "driver")
    (attempt,) = run_bundle([request])
    assert attempt.metrics == {"value": 1.0}, attempt.error
    assert RECEIVED.pop() == received
