"""Stages on models of real shapes: that they work at that size, how long they take, and how much memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from check_record import NO_DEVICE, Figure, Record
from model_shapes import GIB, SHAPES, Shape, make_model
from stage_sweep import DATA, open_values, request_of

from orchestrator.attempt.bundle import run_bundle
from orchestrator.types import Outcome, Runtime


def real_shape(record: Record, work: Path, name: str) -> None:
    """Train, sample, embed and score with a model of a real shape; with a small one where there is no GPU."""
    shape, gpu = SHAPES[name], torch.cuda.is_available()
    if gpu and (short := _short_of(shape, work)):
        record.skipped("all of it", short)
        return
    folder = work / name
    count = make_model(shape, gpu, folder)
    record.ok(f"model of {count / 1e6:,.0f} million weights", f"{shape.dtype}, random")
    if gpu:
        torch.cuda.empty_cache()
    session = open_values(_sweep(shape, folder / "model", gpu), folder)
    session.store.prepare()
    sound: set[int] = set()
    for number in range(len(session.plan)):
        step = session.plan.step(number)
        if not all(parent in sound for parent in session.plan.parents(number)):
            continue
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        on_gpu = gpu and step.entry not in ("prompts", "demonstrations", "preferences")
        (attempt,) = run_bundle([request_of(session, step, Runtime(cpus=4, gpus=int(on_gpu)))])
        if attempt.outcome is Outcome.SUCCEEDED:
            sound.add(number)
        figures = [Figure("time", attempt.seconds, "s")]
        if on_gpu:
            figures.append(Figure("peak of torch's memory", torch.cuda.max_memory_allocated() / GIB, "GiB"))
        told = ", ".join(f"{metric} {value:.4g}" for metric, value in (attempt.metrics or {}).items())
        record.expect(step.entry, number in sound, attempt.error or told, figures)
    shutil.rmtree(folder)
    if gpu:
        return
    record.skipped("the real shape", f"{NO_DEVICE}; a small model of the same architecture in its place")


def _short_of(shape: Shape, work: Path) -> str | None:
    """Return what there is too little of; None if there is enough."""
    free, total = torch.cuda.mem_get_info()
    if free < shape.memory:
        return f"needs {shape.memory / GIB:.0f} GiB of the GPU; {free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    room = shutil.disk_usage(work).free
    if room < shape.disk:
        return f"needs {shape.disk / GIB:.0f} GiB of disk at {work}; {room / GIB:.1f} are free (--scratch FOLDER)"
    return None


def _sweep(shape: Shape, model: Path, gpu: bool) -> dict[str, Any]:
    """Return a sweep that uses a model in every way that GPUs are for."""
    source = {"path": str(DATA / "helpful.jsonl")}
    rows = 64 if gpu else 16
    trained = {"lora": {"r": 8, "alpha": 8}, "dtype": shape.dtype, "batch_size": 8, "max_tokens": 256}
    scored = {"max_tokens": 256, "dtype": shape.dtype}
    stages = {
        "prompts": {"config": {"source": source, "train": rows, "test": 8}},
        "demonstrations": {"config": {"source": source, "limit": rows}},
        "preferences": {"config": {"source": source, "limit": rows}},
        "policy": {"config": {"model": {"path": str(model)}}},
        "sft": {
            "inputs": {"policy": "policy", "demonstrations": "demonstrations"},
            "config": {**trained, "epochs": 1},
        },
        "generate": {
            "inputs": {"policy": "sft", "prompts": "prompts"},
            "config": {"split": "train", "responses": 4, "max_new_tokens": 64 if gpu else 8, "dtype": shape.dtype},
        },
        "embed": {
            "inputs": {"policy": "policy", "responses": "generate"},
            "config": {"max_tokens": 256, "dtype": shape.dtype},
        },
        "scalar": {
            "stage": "scalar_train",
            "inputs": {"policy": "policy", "preferences": "preferences"},
            "config": trained,
        },
        "score": {"inputs": {"golden": "scalar", "responses": "generate"}, "config": scored},
        "margins": {"inputs": {"golden": "scalar", "preferences": "preferences"}, "config": scored},
    }
    if shape.name == "gpt2":
        if gpu:
            stages["embed_tf32"] = {
                "stage": "embed", "inputs": {"policy": "policy", "responses": "generate"},
                "config": {"max_tokens": 256, "dtype": "tf32"},
            }  # fmt: skip
        # Where a model is small enough for it, the trainings of all weights and those of pairs as well.
        pairs = {"policy": "policy", "preferences": "preferences"}
        stages["dpo"] = {"inputs": pairs, "config": {**trained, "warmup": 0}}
        stages["dpo_whole"] = {
            "stage": "dpo", "inputs": pairs,
            "config": {**trained, "lora": None, "warmup": 0, "dtype": "bfloat16"},
        }  # fmt: skip
        stages["sft_half"] = {
            "stage": "sft", "inputs": {"policy": "policy", "demonstrations": "demonstrations"},
            "config": {**trained, "lora": None, "dtype": "float16" if gpu else "bfloat16", "epochs": 1},
        }  # fmt: skip
    stages["generate"]["config"] |= {"seed": "$seed"}
    return {
        "name": f"shape-{shape.name}", "question": "Does it work at this size?", "axes": {"seed": [0]},
        "stages": stages, "results": ["score"], "tracking": False,
    }  # fmt: skip
