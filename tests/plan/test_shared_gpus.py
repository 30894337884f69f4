"""Steps that share a GPU say how much of its memory they may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_sweep
from sweep_files import load, mistakes

from orchestrator.plan.build import build_plan


def with_runtime(runtime: str) -> str:
    return toy_sweep.SWEEP + f"runtime:\n{runtime}\n"


@pytest.mark.parametrize(
    ("runtime", "place"),
    [
        ("  double: {gpus: 0.25}", "runtime.double.gpus: is 0.25, so a step of 'double' shares"),
        ("  default: {gpus: 0.5}", "runtime.default.gpus: is 0.5, so a step of"),
        ("  default: {gpus: 0.5}\n  source: {cpus: 2}", "runtime.default.gpus"),
        ("  double: {gpu_memory: 1GiB, rules: [{at: {x: 2}, gpus: 1.5}]}", "double.rules[0].gpus: is 1.5; a step"),
        ("  double:\n    rules:\n      - {at: {x: 1}, gpus: 0.5, gpu_memory: 1GiB}\n      - {at: {x: 2}, gpus: 0.5}",
         "runtime.double.rules[1].gpus"),
    ],
)  # fmt: skip
def test_a_part_of_a_gpu_without_a_part_of_its_memory_is_a_mistake_with_its_place(
    tmp_path: Path, runtime: str, place: str
) -> None:
    (message,) = mistakes(tmp_path, with_runtime(runtime))
    assert place in message
    assert message.startswith("FILE:")
    assert "write" in message


@pytest.mark.parametrize(
    "runtime",
    [
        "  double: {gpus: 0.25, gpu_memory: 20GiB}",
        "  default: {gpu_memory: 20GiB}\n  double: {gpus: 0.25}",
        "  double: {gpus: 0.25, device: cpu}",
        "  double: {gpus: 1}",
        "  double: {gpus: 2, gpu_memory: 20GiB}",
        "  default: {gpus: 0.5}\n  source: {gpus: 1}\n  double: {gpus: 1}\n  total: {device: cpu}",
    ],
)
def test_what_says_how_much_memory_it_may_use_or_shares_nothing_is_sound(tmp_path: Path, runtime: str) -> None:
    load(toy_sweep.write_sweep(tmp_path, with_runtime(runtime)))


def test_the_memory_of_the_gpu_reaches_the_step_and_no_key(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path, with_runtime("  double: {gpus: 0.25, gpu_memory: 20GiB}"))
    spec = load(path)
    assert spec.runtime_of("double", {}).gpu_memory == 20 * 2**30
    assert spec.runtime_of("total", {}).gpu_memory is None
    other = load(toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP))
    assert build_plan(spec).digest == build_plan(other).digest
