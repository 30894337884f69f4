"""Whatever is written into a sweep file, it is planned, or refused with mistakes at their places."""

# ruff: noqa: PT017, E501 (what is refused is looked at, and what is not is fine too)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy_sweep
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import ODD, damaged, examples, mutated, values

from orchestrator.plan.build import build_plan
from orchestrator.sweep.document import parse_value
from orchestrator.sweep.load import draft_document, draft_sweep
from orchestrator.sweep.mapping import document_of
from orchestrator.sweep.outputs import resolve_outputs
from orchestrator.sweep.problems import SweepError

SWEEPS = Path(__file__).parents[2] / "sweeps"
#: Small ones: each has another part of the grammar.
TEXTS = (toy_sweep.SWEEP, *((SWEEPS / f"{name}.yaml").read_text() for name in ("quickstart", "judges", "embeddings")))
RICH = """\
name: toy
question: Does all of it work?
data: {n: 1, deep: {path: toy.yaml}}
axes:
  x: [1, 2]
  kind:
    plain: {twice: true, n: 2, config: {behaviour: work}}
    other: {twice: false, n: 2, config: {behaviour: raise}}
exclude: [{x: 1, kind: [other]}]
stages:
  source: {stage: toy_source, shards: $kind.n, config: {value: $x}}
  double: {stage: toy_double, when: $kind.twice, otherwise: source, inputs: {number: source}}
  total: {stage: toy_total, inputs: {numbers: double}, config: [{add: $data.n}, $kind.config]}
results: [total]
summary: {by: [x], metrics: [total]}
analysis: {primary: {metric: total, better: higher}, claims: {more: {compare: {x: [1, 2]}, within: {y: [10]}}}}
runtime:
  default: {cpus: 1, timeout: 2h, memory: 1GiB, memory_limit: 2GiB, gpu_memory: 8GiB, device: cpu, attempts: 2}
  total: {rules: [{at: {x: [1, 2]}, gpus: 1, silent: 30m, silent_ends: true}]}
limits: {running: 2, failures: 3, breaker: 4, gpu_hours: 5, wall: 1h}
hooks: {finish: "true", breaker: "true"}
store: /nowhere
tracking: {uri: "http://localhost:1", experiment: toy}
uses: [toy]
namespace: toy
"""
SOUND = tuple(parse_value(text) for text in (*TEXTS, RICH))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the local files are that the sweeps name."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "data").symlink_to(SWEEPS / "data")
    (folder / "toy.yaml").touch()
    return folder


def is_planned_or_refused(folder: Path, value: Any) -> None:
    """What the values say is a plan, or mistakes with places."""
    try:
        spec = draft_document(document_of(value, folder))
        resolve_outputs(spec.name, spec.store, None, None)
        build_plan(spec)
    except SweepError as error:
        assert error.problems
        assert all(str(problem).strip() and len(str(problem)) < 6000 for problem in error.problems)


@examples(80)
@given(mutated(*SOUND))
def test_a_sweep_with_something_wrong_in_it_is_planned_or_refused(folder: Path, value: Any) -> None:
    is_planned_or_refused(folder, value if isinstance(value, dict) else {"data": value})


@examples(25)
@given(st.dictionaries(st.sampled_from(sorted(SOUND[-1])) | st.text(max_size=6), values))
def test_any_mapping_is_planned_or_refused(folder: Path, value: Any) -> None:
    is_planned_or_refused(folder, value)


@examples(80)
@given(damaged(*(text.encode() for text in (*TEXTS, RICH))))
def test_a_text_that_was_torn_or_altered_is_planned_or_refused(folder: Path, text: bytes) -> None:
    path = folder / "damaged.yaml"
    path.write_bytes(text)
    try:
        build_plan(draft_sweep(path))
    except SweepError as error:
        assert all(problem.place.startswith(str(path)) for problem in error.problems)


@examples(80)
@given(st.text("[]{}:,-#&*!|>'\"%@`~<? \n\tax01.\\", max_size=60))
@example('"\\UFFFFFFFF"')
@example("%YAML 1." + "9" * 5000)
@example("!!int " + "9" * 5000)
@example("? - ? - ?")
@example("&a [*a]")
@example("!<tag:yaml.org,2002:int> []")
def test_any_text_is_a_value_or_no_yaml(text: str) -> None:
    try:
        json.dumps(parse_value(text))
    except yaml.YAMLError as error:
        assert str(error)


@examples(80)
@given(
    st.lists(st.sampled_from(["axes", "x", "stages", "total", "config", "0", "1", "data", "path", "", "²", "٣"]) | st.text(max_size=4), min_size=1, max_size=5),
    st.sampled_from([str(each) for each in ODD]).filter(lambda text: "\0" not in text) | st.text("[]{}:,'\"$ax01.~/", max_size=12),
)  # fmt: skip
def test_any_override_is_made_or_refused(folder: Path, parts: list[str], text: str) -> None:
    path = toy_sweep.write_sweep(folder, RICH, "overridden.yaml")
    try:
        build_plan(draft_sweep(path, [f"{'.'.join(parts)}={text}"]))
    except SweepError as error:
        assert error.problems
