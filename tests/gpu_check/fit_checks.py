"""Fits and evaluations of the paper's shape: how near to the device's speed, and that bundles change no bit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from check_record import NO_DEVICE, Figure, Record
from device_checks import peak, settle

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from bench_fits import FORWARD, Flops, training_data
from released_scripts import DIMENSION, HIDDEN

from workers import model_cache
from workers.device import device, promise_gpu
from workers.reward_models.configs import EvaluateConfig, FitMlpConfig
from workers.reward_models.evaluate import evaluate, evaluate_all
from workers.reward_models.fit_mlp import fit_mlp, fit_mlps
from workers.reward_models.heads import build_mlp, save_mlp
from workers.stage import Call

#: Loss and precision of the fits.
FITS = (("bt", "float32"), ("clf", "float32"), ("bt", "tf32"), ("bt", "bfloat16"))


def fits(record: Record, work: Path) -> None:
    """Fit alone and in a bundle, in each precision."""
    gpu = torch.cuda.is_available()
    annotations, bundle = (5_000, 8) if gpu else (400, 2)
    place, _ = training_data(work / "fits", annotations)
    inputs: dict[str, Any] = {"annotations": place, "embeddings": [place]}
    for loss, precision in FITS:
        setting = FitMlpConfig(loss=loss, precision=precision, epochs=6 if gpu else 2, patience=6, seed=0)  # type: ignore[arg-type]
        fit_mlp(setting.model_copy(update={"epochs": 1}), fresh(work), **inputs)
        counted = Flops()
        alone, seconds = timed(lambda out, s=setting: fit_mlp(s, out, **inputs), work)  # type: ignore[misc]
        flops = counted.stop()
        again, _ = timed(lambda out, s=setting: fit_mlp(s, out, **inputs), work)  # type: ignore[misc]
        calls = [Call(setting.model_copy(update={"seed": seed}), fresh(work), inputs) for seed in range(bundle)]
        clock = time.perf_counter()
        metrics = list(fit_mlps(calls))
        settle()
        each = (time.perf_counter() - clock) / bundle
        name = f"{loss}, {precision}, n = {annotations:,}"
        rate = peak(precision)
        record.ok(
            f"time of a fit, {name}", f"{flops / 1e12:.3f} TFLOP on the {device().type}",
            [Figure("alone", seconds, "s"), Figure(f"in a bundle of {bundle}", each, "s"),
             Figure("share of the peak of products", 100 * flops / rate / seconds, "%"),
             Figure("in the bundle", 100 * flops / rate / each, "%")],
        )  # fmt: skip
        same = None not in metrics and _same_bytes(alone, calls[0].out)
        record.expect(f"bundle beside alone, {name}", same, "the same bytes are promised")
        record.expect(f"twice, {name}", _same_bytes(alone, again), "the same bytes are promised")


def evaluations(record: Record, work: Path) -> None:
    """Evaluate alone, in a bundle, and where the embeddings do not fit onto the GPU."""
    gpu = torch.cuda.is_available()
    prompts, responses, models = (500, 500, 8) if gpu else (20, 100, 2)
    random = np.random.default_rng(0)
    test = fresh(work)
    embeddings = random.standard_normal((prompts, responses, DIMENSION), dtype=np.float32)
    np.save(test / "embeddings.npy", embeddings)
    np.save(test / "scores.npy", embeddings[..., :8].sum(axis=2))
    del embeddings
    heads = []
    for seed in range(models):
        torch.manual_seed(seed)
        heads.append(fresh(work))
        save_mlp([build_mlp(DIMENSION, HIDDEN)], DIMENSION, HIDDEN, heads[-1])
    inputs: dict[str, Any] = {"embeddings": [test], "scores": [test]}
    flops = FORWARD * prompts * responses
    for precision in ("float32", "tf32", "bfloat16"):
        setting = EvaluateConfig(best_of=(2, 10, 50), precision=precision)  # type: ignore[arg-type]
        one = inputs | {"reward_model": heads[0]}
        cold, first = timed(lambda out, s=setting, i=one: evaluate(s, out, **i), work)  # type: ignore[misc]
        warm, second = timed(lambda out, s=setting, i=one: evaluate(s, out, **i), work)  # type: ignore[misc]
        calls = [Call(setting, fresh(work), inputs | {"reward_model": head}) for head in heads]
        clock = time.perf_counter()
        metrics = list(evaluate_all(calls))
        each = (time.perf_counter() - clock) / models
        name = f"{precision}, {prompts} x {responses} x {DIMENSION:,}"
        record.ok(
            f"time of an evaluation, {name}", f"{flops / 1e12:.3f} TFLOP on the {device().type}",
            [Figure("first", first, "s"), Figure("again", second, "s"), Figure(f"in a bundle of {models}", each, "s"),
             Figure("share of the peak of products, in the bundle", 100 * flops / peak(precision) / each, "%")],
        )  # fmt: skip
        same = None not in metrics and _same_bytes(cold, calls[0].out) and _same_bytes(cold, warm)
        record.expect(f"bundle beside alone, {name}", same, "the same bytes are promised")
        if not gpu:
            continue
        # Less than the embeddings take, so they go through in blocks.
        model_cache.drop()
        promise_gpu(True, 2**30)
        blocks, third = timed(lambda out, s=setting, i=one: evaluate(s, out, **i), work)  # type: ignore[misc]
        promise_gpu(None)
        record.expect(
            f"in blocks, {name}", _same_bytes(cold, blocks), "with gpu_memory 1 GiB; the same bytes are promised",
            [Figure("time", third, "s")],
        )  # fmt: skip
    if not gpu:
        record.skipped("in blocks", NO_DEVICE)


def fresh(work: Path) -> Path:
    """Make an empty folder."""
    folder = work / f"out-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


def timed(run: Callable[[Path], object], work: Path) -> tuple[Path, float]:
    """Return the folder that something wrote into, and its seconds."""
    out = fresh(work)
    settle()
    clock = time.perf_counter()
    run(out)
    settle()
    return out, time.perf_counter() - clock


def _same_bytes(*folders: Path) -> bool:
    contents: Sequence[dict[str, bytes]] = [
        {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    ]
    return all(each == contents[0] for each in contents)
