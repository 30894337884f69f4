"""Trainings and samplings that are stopped and go on from a checkpoint, beside the same that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from artifact_difference import difference
from check_record import NO_DEVICE, Figure, Record
from memory_checks import error, prepare
from safetensors.numpy import load_file
from stage_checks import stages
from stage_sweep import request_of, steps_of

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.checkpoints import STAGE
from orchestrator.types import Artifact, Outcome, Runtime
from workers.checkpoints import NONE, Checkpoints
from workers.language_models.generate import generate
from workers.language_models.sft import sft

#: A stage asks twice before its first checkpoint, and once more before it is stopped.
_KEPT_AT, _STOPPED_AT = 2, 3


class _Stopped(Checkpoints):
    """The checkpoints of a step whose process is stopped after it has kept one."""

    def __init__(self, kept: Checkpoints) -> None:
        self._kept = kept
        self._asked = 0

    def found(self) -> Mapping[str, Path]:
        return self._kept.found()

    def due(self) -> bool:
        self._asked += 1
        if self._asked == _STOPPED_AT:
            raise MemoryError("stopped")
        return self._asked == _KEPT_AT

    def keep(self, name: str, write: Callable[[Path], None]) -> bool:
        return self._kept.keep(name, write)

    def drop(self, name: str) -> None:
        self._kept.drop(name)


def stopped_sft(config: Any, out: Path, *, checkpoints: Checkpoints = NONE, **inputs: Path) -> dict[str, float]:
    """Fine-tune until it is stopped."""
    return sft(config, out, checkpoints=_Stopped(checkpoints), **inputs)


def stopped_generate(config: Any, out: Path, *, checkpoints: Checkpoints = NONE, **inputs: Any) -> dict[str, float]:
    """Sample until it is stopped."""
    return generate(config, out, checkpoints=_Stopped(checkpoints), **inputs)


def resumption(record: Record, work: Path) -> None:
    """Stop a step once, let it go on, and compare it with one that was not stopped."""
    session = stages(work / "resumption")
    prepare(session, ("prompts", "demonstrations", "policy", "sft"))
    runtimes = {"CPU": Runtime(cpus=4, batch_size=4), "GPU": Runtime(cpus=4, gpus=1, batch_size=4)}
    if not torch.cuda.is_available():
        del runtimes["GPU"]
        record.skipped("on the GPU", NO_DEVICE)
    for where, runtime in runtimes.items():
        for entry in ("sft", "generate"):
            step = steps_of(session, entry)[0]
            stopped = replace(step.definition, function=f"resumption_checks:stopped_{entry}")
            # Of keys of their own, since what is there is not made again.
            whole, again = (
                replace(step, address=Artifact(step.stage, f"{kind}{where[0].lower()}{step.key[2:]}")) for kind in "ab"
            )
            attempts, kept = [], 0
            for each in (whole, replace(again, definition=stopped), again):
                attempts += run_bundle([request_of(session, each, runtime)])
                kept += len(session.store.committed([STAGE]))
            outcomes = [each.outcome for each in attempts]
            if (outcomes, kept) != ([Outcome.SUCCEEDED, Outcome.OUT_OF_MEMORY, Outcome.SUCCEEDED], 1):
                record.failed(f"{entry} on the {where}", f"{error(attempts)}; {kept} checkpoints in the place of 1")
                continue
            folders = [session.store.fetch(each.address) for each in (again, whole)]
            begun = (
                load_file(session.store.fetch(step.inputs["policy"][0]) / "model" / "model.safetensors")
                if entry == "sft"
                else {}
            )
            found = difference(step.definition.output, folders[0], folders[1], begun, 2.0**-24)
            # A CPU sums in one order; a GPU may sum gradients in another each time.
            allowed = found.allowed if where == "GPU" else 0.0
            record.expect(
                f"{entry} on the {where}", found.found <= allowed, f"{found.what}; allowed {allowed:g}",
                [Figure("difference", found.found, "")],
            )  # fmt: skip
