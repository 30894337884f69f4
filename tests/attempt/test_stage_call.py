"""What reaches a stage beside its config and its inputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.code import this_code
from orchestrator.store.posix import PosixStore
from orchestrator.study.modules import study_at
from orchestrator.study.source import modules_of, source_digest
from orchestrator.types import Artifact, Attempt, Outcome, Runtime, Step
from workers.stage import Call, Origin, Stage

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


def wander(config: toy.SourceConfig, out: Path) -> dict[str, float]:
    Path("relative.txt").write_text("written where the process was started")
    os.chdir(out)
    if config.value == 2:
        shutil.rmtree(out)
    return {"value": config.value}


def wanderers(calls: Sequence[Call]) -> Iterator[dict[str, float]]:
    os.chdir(calls[0].out)
    return (wander(call.config, call.out) for call in calls)


@pytest.mark.parametrize("together", [False, True])
def test_a_stage_that_goes_elsewhere_leaves_the_next_one_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    store = PosixStore(tmp_path / "store")
    store.prepare()
    definition = replace(
        toy.STAGES["toy_source"], function=f"{__name__}:wander", together=f"{__name__}:wanderers" if together else ""
    )
    requests = [
        Request(
            Step(Artifact("toy_source", key * 32), "source", definition, {"value": value}, "{}", {}, {}),
            1, Runtime(), store.location, "abc", "driver",
        )
        for key, value in zip("abc", (1.0, 2.0, 3.0), strict=True)
    ]  # fmt: skip
    attempts = run_bundle(requests)
    # The second one removed the folder that it was in.
    assert [each.metrics is not None for each in attempts] == [True, False, True], attempts
    assert Path.cwd() == tmp_path
    assert (tmp_path / "relative.txt").exists()
    assert not list((tmp_path / "store").rglob("relative.txt"))


def test_a_module_of_stages_that_is_edited_after_it_was_planned_is_noticed(tmp_path: Path) -> None:
    module = tmp_path / "own_stages_of_a_study.py"
    module.write_text("def source(config, out):\n    return {'value': config.value}\n")
    study = study_at(tmp_path)
    store = PosixStore(tmp_path / "store")
    store.prepare()

    def planned() -> Stage:
        study.refresh()
        stage = replace(toy.STAGES["toy_source"], function=f"{module.stem}:source")
        return replace(stage, origin=Origin("", source_digest(study, modules_of(stage)), str(tmp_path)))

    def attempt(key: str, definition: Stage) -> Attempt:
        step = Step(Artifact("toy_source", key * 32), "source", definition, {"value": 1.0}, "{}", {}, {})
        (made,) = run_bundle([Request(step, 1, Runtime(), store.location, "abc", "driver", code=this_code())])
        return made

    before = planned()
    module.write_text("def source(config, out):\n    return {'value': 2 * config.value}\n")
    failed = attempt("a", before)
    assert failed.outcome is Outcome.FAILED
    assert "own_stages_of_a_study.py or a module that it imports was edited; give the same" in str(failed.error)
    before = planned()
    assert attempt("b", before).metrics == {"value": 2}
    module.write_text("def source(config, out):\n    return {'value': 3 * config.value}\n")
    # What was planned is in memory and goes on; what is planned anew is not what was imported before.
    assert attempt("c", before).metrics == {"value": 2}
    assert attempt("d", planned()).metrics == {"value": 3}
