"""What reaches a stage beside its config and its inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import toy

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.code import code_digest
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Outcome, Runtime, Step

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


def test_a_module_of_stages_that_is_edited_after_the_driver_started_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_stages_of_a_study.py"
    module.write_text("def source(config, out):\n    return {'value': config.value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    modules = (module.stem,)
    store = PosixStore(tmp_path / "store")
    store.prepare()
    definition = replace(toy.STAGES["toy_source"], function=f"{module.stem}:source")

    def outcome(key: str, code: str) -> tuple[Outcome, str | None]:
        step = Step(Artifact("toy_source", key * 32), "source", definition, {"value": 1.0}, "{}", {}, {})
        request = Request(step, 1, Runtime(), store.location, "abc", "driver", code=code, modules=modules)
        (attempt,) = run_bundle([request])
        return attempt.outcome, attempt.error

    before = code_digest(modules)
    assert before != code_digest()
    assert outcome("a", before) == (Outcome.SUCCEEDED, None)
    module.write_text("def source(config, out):\n    return {'value': 2 * config.value}\n")
    found, error = outcome("b", code_digest(modules))
    assert found is Outcome.SUCCEEDED, error
    found, error = outcome("c", before)
    assert found is Outcome.FAILED
    assert "a file of orchestrator, workers, own_stages_of_a_study was edited" in str(error)
