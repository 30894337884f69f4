"""Toy sweeps with a change: loaded, or the mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_sweep

from orchestrator.plan.build import build_plan
from orchestrator.plan.wiring import resolve_entries
from orchestrator.sweep.load import draft_sweep, load_sweep
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.spec import SweepSpec


def load(path: Path, *overrides: str) -> SweepSpec:
    spec = load_sweep(path, overrides)
    resolve_entries(spec)
    return spec


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    path = toy_sweep.write_sweep(folder, text)
    with pytest.raises(SweepError) as caught:
        build_plan(draft_sweep(path, overrides))
    return [str(problem).replace(str(path), "FILE") for problem in caught.value.problems]


def edit(before: str, after: str) -> str:
    assert before in toy_sweep.SWEEP
    return toy_sweep.SWEEP.replace(before, after)


RESULTS = "results: [total]"
KIND = "plain: {behaviour: work}"


def judged_by(backend: str) -> str:
    return f"""\
name: judges
question: Which?
axes: {{seed: [0]}}
stages:
  preferences: {{config: {{source: {{hub: some/data}}}}}}
  judge_sample:
    inputs: {{preferences: preferences}}
    config: {{backend: {{{backend}}}, seed: $seed}}
results: [judge_sample]
"""
