"""The part of a GPU's memory that a step may use is known to its stage, and to nobody after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import toy

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact, Outcome, Runtime, Step
from workers import model_cache
from workers.device import gpu_memory, gpu_promised
from workers.device_memory import NoRoomError

SEEN: list[tuple[object, ...]] = []


def look(config: toy.SourceConfig, out: Path) -> dict[str, float]:
    SEEN.append((gpu_promised(), gpu_memory(), model_cache.cached_model("model", object)))
    if config.value == 2:
        raise NoRoomError("some/model: needs 5.0 GiB on the GPU")
    return {"value": config.value}


def test_a_step_knows_its_part_and_what_an_earlier_one_with_another_part_left_on_the_gpu_is_dropped(
    tmp_path: Path,
) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    definition = replace(toy.STAGES["toy_source"], function=f"{__name__}:look")
    parts = [None, None, 2**30, 2**30, 2**31]
    requests = [
        Request(
            Step(Artifact("toy_source", f"{number}" * 32), "source", definition, {"value": 1.0}, "{}", {}, {}),
            1, Runtime(gpus=0.25, gpu_memory=part), store.location, "abc", "driver",
        )
        for number, part in enumerate(parts)
    ]  # fmt: skip
    assert {each.outcome for each in run_bundle(requests)} == {Outcome.SUCCEEDED}
    assert [seen[:2] for seen in SEEN] == [(True, part) for part in parts]
    first, second, third, fourth, fifth = (model for _, _, model in SEEN)
    assert first is second
    assert second is not third
    assert third is fourth
    assert fourth is not fifth
    assert gpu_memory() is None


def test_a_model_for_which_there_is_no_room_is_a_step_out_of_memory_with_the_remedy(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    definition = replace(toy.STAGES["toy_source"], function=f"{__name__}:look")
    step = Step(Artifact("toy_source", "a" * 32), "source", definition, {"value": 2.0}, "{}", {}, {})
    runtime = Runtime(gpus=0.25, gpu_memory=2**30)
    (attempt,) = run_bundle([Request(step, 1, runtime, store.location, "abc", "driver")])
    assert attempt.outcome is Outcome.OUT_OF_MEMORY
    assert attempt.error is not None
    assert attempt.error.startswith("some/model: needs 5.0 GiB on the GPU")
    assert "or more of runtime.source.gpu_memory" in attempt.error
