"""Models that stay, models and batches that do not fit, and devices that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check_record import NO_DEVICE, Figure, Record
from model_shapes import GIB, SHAPES, make_model
from stage_sweep import DATA, open_values, request_of, stage_sweep, steps_of

from orchestrator.attempt.bundle import run_bundle
from orchestrator.session import Session
from orchestrator.types import Artifact, Attempt, Outcome, Runtime, Step
from workers import model_cache
from workers.config import Config
from workers.stage import Stage


def warm_models(record: Record, work: Path) -> None:
    """Let two steps that load the same model follow each other, then one that loads another."""
    values = stage_sweep()
    source = values["stages"]["prompts"]
    policy = values["stages"]["policy"]
    settings = {"split": "train", "responses": 2, "max_new_tokens": 8, "seed": "$seed"}
    values |= {
        "name": "warm", "axes": {"seed": [0, 1]}, "results": ["generate"],
        "stages": {
            "prompts": source, "demonstrations": values["stages"]["demonstrations"], "policy": policy,
            "generate": {"inputs": {"policy": "policy", "prompts": "prompts"}, "config": settings},
        },
    }  # fmt: skip
    session = open_values(values, work / "warm")
    runtimes = {"CPU": Runtime(cpus=4), "GPU": Runtime(cpus=4, gpus=1)}
    if not torch.cuda.is_available():
        del runtimes["GPU"]
        record.skipped("on the GPU", NO_DEVICE)
    prepare(session, ("prompts", "demonstrations", "policy"))
    kept: dict[str, object] = {}
    for where, runtime in runtimes.items():
        attempts, models = [], []
        for step in steps_of(session, "generate"):
            # Of another key, since what is there is not made again.
            mine = replace(step, address=Artifact(step.stage, f"{len(kept)}{step.key[1:]}"))
            attempts += run_bundle([request_of(session, mine, runtime)])
            models.append(model_cache.kept())
        kept[where] = models[-1]
        done = all(each.outcome is Outcome.SUCCEEDED for each in attempts)
        seconds = [Figure(name, each.seconds, "s") for name, each in zip(("first", "second"), attempts, strict=True)]
        record.expect(
            f"two steps on the {where}", done and models[0] is models[1],
            "the second finds the model of the first" if done else error(attempts), seconds,
        )  # fmt: skip
    if len(kept) == 2:
        record.expect("the CPU beside the GPU", kept["CPU"] is not kept["GPU"], "each has a model of its own")
        kept.clear()
        models.clear()
        model_cache.cached_model("nothing", object)
        left = torch.cuda.memory_allocated() / 2**20
        record.expect("the model that was dropped", left < 16, "its memory is free", [Figure("left", left, "MiB")])


def too_large(record: Record, work: Path) -> None:
    """Run steps whose model, or training, is larger than what they may use of the GPU, and then one that fits."""
    session = _gpt2(work)
    prepare(session, ("prompts", "demonstrations", "policy"))
    (sft,), (generate,) = steps_of(session, "sft"), steps_of(session, "raw")
    for step, memory, words in (
        (generate, 300 * 2**20, "needs"),  # 124 million weights in float32 are 475 MiB
        (sft, GIB, "training"),
        (sft, int(2.45 * GIB), ""),  # the weights of a training fit, its activations do not
        (generate, 20_000 * GIB, "promises"),  # more than there is
    ):
        (attempt,) = run_bundle([request_of(session, step, Runtime(cpus=4, gpus=1, gpu_memory=memory))])
        record.expect(
            f"{step.entry} with gpu_memory {memory / GIB:.1f} GiB",
            attempt.outcome is Outcome.OUT_OF_MEMORY and words in str(attempt.error),
            f"{attempt.outcome}: {attempt.error}",
        )
    for step in (generate, sft):
        (attempt,) = run_bundle([request_of(session, step, Runtime(cpus=4, gpus=1))])
        record.expect(
            f"{step.entry} after that, with all of the GPU", attempt.outcome is Outcome.SUCCEEDED,
            attempt.error or "in the same process",
        )  # fmt: skip


def batches(record: Record, work: Path) -> None:
    """Embed in batches that are far too large, and in small ones; only rounding may differ."""
    session = _gpt2(work)
    prepare(session, ("prompts", "demonstrations", "policy"))
    (step,) = steps_of(session, "raw")
    (attempt,) = run_bundle([request_of(session, step, Runtime(cpus=4, gpus=1))])
    if attempt.outcome is not Outcome.SUCCEEDED:
        record.failed("the responses", error([attempt]))
        return
    (embed,) = steps_of(session, "embed")
    found = []
    for number, runtime in enumerate(
        (
            Runtime(cpus=4, gpus=1, batch_size=16),
            # 256 texts of 200 tokens: 0.6 GB for the inner outputs of an MLP, several times over, and 0.9 are left.
            Runtime(cpus=4, gpus=1, batch_size=256, gpu_memory=int(1.4 * GIB)),
        )
    ):
        mine = replace(embed, address=Artifact(embed.stage, f"{number}{embed.key[1:]}"))
        (attempt,) = run_bundle([request_of(session, mine, runtime)])
        if attempt.outcome is not Outcome.SUCCEEDED:
            record.failed(f"batches of {runtime.batch_size}", error([attempt]))
            return
        found.append(np.load(session.store.fetch(mine.address) / "embeddings.npy"))
        log = Path(session.outputs.store, attempt.log).read_text() if attempt.log else ""
    halved = log.count("do not fit into memory")
    apart = float(np.abs(found[0] - found[1]).max() / found[0].std())
    record.expect(
        "batches are halved", halved > 0, "where memory runs out, as the log tells", [Figure("times", halved, "")]
    )
    record.expect(
        "what they make", apart < 1e-3, "largest difference over the standard deviation; allowed 0.001",
        [Figure("difference", apart, "")],
    )  # fmt: skip


class FaultConfig(Config):
    """Config of a stage that fails."""

    def metrics(self) -> tuple[str, ...]:
        return ()


def fail_on_device(config: FaultConfig, out: Path) -> dict[str, float]:
    """Look up a row that is not there: a kernel asserts that it is, and CUDA is of no use to this process any more."""
    torch.nn.functional.embedding(torch.tensor([5], device="cuda"), torch.ones(2, 2, device="cuda")).sum().item()
    return {}


def sick_device(record: Record, work: Path) -> None:
    """Run a step whose kernel fails, with another one behind it in its bundle."""
    session = open_values(stage_sweep(), work / "sick")
    session.store.prepare()
    stage = Stage("memory_checks:fail_on_device", 1, FaultConfig, "nothing")
    steps = [Step(Artifact("fault", key * 32), "fault", stage, {}, "{}", {}, {}) for key in "ab"]
    attempts = run_bundle([request_of(session, step, Runtime(gpus=1)) for step in steps])
    record.expect(
        "a sticky error", [each.outcome for each in attempts] == [Outcome.CRASHED],
        f"the process is given up, and the step behind it not begun: {error(attempts)}",
    )  # fmt: skip
    try:
        torch.ones(1, device="cuda").sum().item()
    except RuntimeError as error:
        record.ok("afterwards", f"CUDA is of no use to the process, as expected: {type(error).__name__}")
    else:
        record.ok("afterwards", "CUDA still works in the process: the error was not sticky here")


def _gpt2(work: Path) -> Session:
    """Open a sweep with a model of GPT-2's shape."""
    model = work / "gpt2-for-memory"
    if not model.is_dir():
        make_model(SHAPES["gpt2"], True, model)
    source = {"path": str(DATA / "helpful.jsonl")}
    policy = {"policy": "policy", "prompts": "prompts"}
    stages: dict[str, Any] = {
        "prompts": {"config": {"source": source, "train": 64, "test": 8}},
        "demonstrations": {"config": {"source": source, "limit": 64}},
        "policy": {"config": {"model": {"path": str(model / "model")}}},
        "raw": {
            "stage": "generate", "inputs": policy,
            "config": {"split": "train", "responses": 4, "max_new_tokens": 128, "seed": "$seed"},
        },
        "embed": {"inputs": {"policy": "policy", "responses": "raw"}, "config": {"max_tokens": 512}},
        "sft": {
            "inputs": {"policy": "policy", "demonstrations": "demonstrations"},
            "config": {"epochs": 1, "batch_size": 64, "max_tokens": 256},
        },
    }  # fmt: skip
    values = {"name": "memory", "question": "What fits?", "axes": {"seed": [0]}, "stages": stages, "tracking": False}
    return open_values(values | {"results": ["embed"]}, work / f"memory-{len(list(work.iterdir()))}")


def prepare(session: Session, entries: tuple[str, ...]) -> None:
    """Run the steps of some entries on the CPU."""
    session.store.prepare()
    for entry in entries:
        for step in steps_of(session, entry):
            attempts = run_bundle([request_of(session, step, Runtime(cpus=4))])
            if attempts[0].outcome is not Outcome.SUCCEEDED:
                raise RuntimeError(error(attempts))


def error(attempts: list[Attempt]) -> str:
    return "; ".join(f"{each.entry} {each.outcome}: {each.error}" for each in attempts)
