"""Every stage that computes on a GPU, beside the same step on the CPU."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from artifact_difference import difference
from check_record import Figure, Record
from safetensors.numpy import load_file
from stage_sweep import manifest_of, open_values, request_of, run_all, stage_sweep, steps_of

from orchestrator.attempt.stage_call import call_stage
from orchestrator.session import Session
from orchestrator.types import Outcome, Runtime, Step
from workers.reward_models.configs import FitMlpConfig
from workers.reward_models.fit_mlp import initial_network

CPU, GPU = Runtime(cpus=4), Runtime(cpus=4, gpus=1)
_ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-9}


def on_cpu(record: Record, work: Path) -> None:
    """Run the whole sweep on the CPU."""
    seconds: dict[str, list[float]] = {}
    for attempt in run_all(stages(work), CPU):
        if attempt.outcome is Outcome.SUCCEEDED:
            seconds.setdefault(attempt.entry, []).append(attempt.seconds)
        else:
            record.failed(attempt.entry, f"{attempt.outcome}: {attempt.error}")
    for entry, each in seconds.items():
        record.ok(entry, f"{len(each)} steps" if len(each) > 1 else "", [Figure("time", sum(each), "s")])


def on_gpu(record: Record, work: Path, *entries: str) -> None:
    """Run the steps of entries on the GPU, from what the CPU made, and compare."""
    for entry in entries:
        try:
            compare(record, stages(work), entry, GPU)
        except Exception as error:
            traceback.print_exc()
            record.failed(entry, f"{type(error).__name__}: {error}"[:1000])


def compare(record: Record, session: Session, entry: str, runtime: Runtime) -> None:
    """Run the steps of an entry again, and compare with what is in the store."""
    for step in steps_of(session, entry):
        manifest = manifest_of(session, step)
        if manifest is None:
            record.skipped(_name(step), "the CPU did not make it")
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            clock = time.perf_counter()
            metrics = call_stage(request_of(session, step, runtime), session.store, out)
            seconds = time.perf_counter() - clock
            theirs = session.store.fetch(step.address)
            rounding = _ROUNDING[str(step.config.get("precision", "float32"))]
            found = difference(step.definition.output, out, theirs, _begun(session, step), rounding)
        before = manifest.metrics
        changed = [f"{name} {metrics.get(name)} beside {value}" for name, value in before.items()
                   if metrics.get(name) != value]  # fmt: skip
        record.expect(
            _name(step),
            found.small and set(before) <= set(metrics),
            f"{found.what}; allowed {found.allowed:g}" + (f"; {', '.join(changed[:3])}" if changed else ""),
            [Figure("difference", found.found, ""), Figure("time", seconds, "s")],
        )


def stages(work: Path) -> Session:
    """Open the sweep of all stages in the folder that all checks share."""
    return open_values(stage_sweep(), work / "stages")


def _begun(session: Session, step: Step) -> Mapping[str, np.ndarray]:
    """Return the weights that a training starts from; none if the step trains nothing, or starts from nothing."""
    if step.definition.output == "reward_model":
        (embeddings,) = step.inputs["embeddings"]
        dimension = np.load(session.store.fetch(embeddings) / "embeddings.npy", mmap_mode="r").shape[-1]
        network = initial_network(dimension, FitMlpConfig.model_validate(step.config))
        return {f"0.{name}": weight.detach().numpy() for name, weight in network.named_parameters()}
    if step.definition.output in ("model", "golden") and (started := step.inputs.get("policy", ())):
        return dict(load_file(session.store.fetch(started[0]) / "model" / "model.safetensors"))
    return {}


def _name(step: Step) -> str:
    coords = ", ".join(str(value) for axis, value in step.coords.items() if axis != "seed")
    return f"{step.entry}, {coords}" if coords else step.entry
