"""The JSON Schema accepts every sweep that is right, and names what is misspelt."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestrator.plan.named import named_stages
from orchestrator.study.modules import study_at
from orchestrator.sweep.document import parse_value, read_document
from orchestrator.sweep.load import draft_sweep
from orchestrator.sweep.new_study import TEMPLATE
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.schema import sweep_schema
from workers.stages import STAGES

SWEEPS = Path(__file__).parents[2] / "sweeps"
SHIPPED = sorted(SWEEPS.rglob("*.yaml"))


@pytest.fixture(scope="module")
def general() -> Draft202012Validator:
    """The schema with the stages of this package."""
    return Draft202012Validator(sweep_schema(study_at(SWEEPS), STAGES))


def of_sweep(path: Path) -> Draft202012Validator:
    spec = draft_sweep(path)
    return Draft202012Validator(sweep_schema(spec.available.study, named_stages(spec)))


def mistakes(schema: Draft202012Validator, value: Any) -> list[str]:
    return [".".join(map(str, each.absolute_path)) for each in schema.iter_errors(value)]


def test_it_is_a_schema_of_draft_2020_12(general: Draft202012Validator) -> None:
    assert general.schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(general.schema)


@pytest.mark.parametrize(
    "path", [*SHIPPED, TEMPLATE / "sweep.yaml"], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_all_shipped_sweeps_and_new_studies_fit(general: Draft202012Validator, path: Path) -> None:
    value = read_document(path).value
    assert mistakes(general, value) == []
    assert mistakes(of_sweep(path), value) == []


SWEEP = parse_value("""
name: small
question: Does it fit?
axes: {rate: [0.1], model: {a: {hub: x, train: {epochs: 1}}}}
stages:
  policy: {config: {model: $model.hub}}
  prompts: {config: {source: {path: x.jsonl}, test: 10}}
  tuned:
    stage: sft
    inputs: {policy: policy, demonstrations: prompts}
    config: [$model.train, {learning_rate: $rate, lora: {r: $rate}}]
  golden: {config: {train: {learning_rate: $rate}}}
  fit:
    stage: fit_mlp
    inputs: {annotations: golden, embeddings: golden}
    config: {loss: bt, seed: $rate, hidden: [$rate, 64]}
runtime: {default: {timeout: 2h, memory: 8GiB}, fit: {timeout: 90}}
limits: {wall: 12h}
tracking: false
""")


def changed(path: str, value: Any) -> Any:
    sweep = copy.deepcopy(SWEEP)
    *above, last = path.split(".")
    inside = sweep
    for name in above:
        inside = inside[int(name) if isinstance(inside, list) else name]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return sweep


@pytest.mark.parametrize(("path", "value"), [
    ("name", "other"),
    ("stages.tuned.config", {"learning_rate": 1e-4}),
    ("stages.tuned.config", "$model.train"),
    ("stages.tuned.config.1.lora", "$model.lora"),
    ("stages.tuned.stage", "$model.stage"),
    ("stages.tuned", {"stage": "$model.stage", "config": {"whatever": 1}}),
    ("stages.tuned", {"stage": "my_study:train", "config": {"whatever": 1}, "metrics": ["loss"]}),
    ("stages.policy.config.model", {"tiny": {"layers": "$rate"}}),
    ("stages.policy.config.model", {"hub": "google/gemma-2b", "revision": "main"}),
    ("stages.fit.config", [{"loss": "bt"}, {"seed": 0}]),
    ("stages.fit.when", "$model.fit"),
])  # fmt: skip
def test_what_may_be_written_fits(general: Draft202012Validator, path: str, value: Any) -> None:
    assert mistakes(general, changed(path, value)) == []


@pytest.mark.parametrize(("path", "value", "place"), [
    ("axis", {}, ""),
    ("question", None, ""),
    ("stages.tuned.stage", "sfft", "stages.tuned.stage"),
    ("stages.tuned.stage", None, "stages.tuned"),
    ("stages.tuned.config.1.learning_rat", 1, "stages.tuned.config"),
    ("stages.tuned.config.1.learning_rate", "fast", "stages.tuned.config"),
    ("stages.tuned.config.1.lora.rr", 1, "stages.tuned.config"),
    ("stages.tuned.inputs.polcy", "policy", "stages.tuned.inputs"),
    ("stages.tuned.inputs.policy", None, "stages.tuned.inputs"),
    ("stages.policy.config.modle", "x", "stages.policy.config"),
    ("stages.policy.config.model", {"tiny": {"layers": 0}}, "stages.policy.config"),
    ("stages.prompts.config.source.path", None, "stages.prompts.config"),
    ("stages.fit.config.seed", None, "stages.fit.config"),
    ("stages.fit.config", None, "stages.fit"),
    ("stages.fit.conifg", {}, "stages.fit"),
    ("runtime.fit.gpu", 1, "runtime.fit"),
    ("limits.wall", [], "limits.wall"),
])  # fmt: skip
def test_what_is_misspelt_or_missing_does_not_fit(
    general: Draft202012Validator, path: str, value: Any, place: str
) -> None:
    assert mistakes(general, SWEEP) == []
    assert place in mistakes(general, changed(path, value))


OWN = """\
name: mine
question: Are they known?
uses: [tables]
axes: {how: {a: {stage: "mine:fast"}, b: {stage: "mine:slow"}}}
stages:
  distil: {config: {lenght: 1}}
  made: {stage: "mine:make", config: {file: {path: none.txt}}}
  tried: {stage: $how.stage, inputs: {data: made}}
"""
FILES = {
    "tables.py": "from workers.config import Config\nfrom workers.stage import Stage\n"
    "class C(Config):\n    length: int\n"
    "STAGES = {'distil': Stage('tables:distil', None, C, 'model')}\ndef distil(config, out): ...\n",
    "mine.py": "from pathlib import Path\ndef make(out: Path, file: Path, seed: int = 0): ...\n"
    "def fast(data: Path, lr: float): ...\ndef slow(data: Path, steps: int): ...\n",
}


def test_tables_that_a_sweep_uses_and_functions_that_it_names_are_known_whatever_else_is_wrong(tmp_path: Path) -> None:
    for name, text in {**FILES, "mine.yaml": OWN}.items():
        (tmp_path / name).write_text(text)
    schema = of_sweep(tmp_path / "mine.yaml")
    stages = read_document(tmp_path / "mine.yaml").value["stages"]
    # The functions of `tried` are those of the axis; what they need is not known here.
    assert mistakes(schema, read_document(tmp_path / "mine.yaml").value) == ["stages.distil.config"]
    right = {"name": "x", "question": "x", "axes": {}}
    for entry, fits in (
        ({"distil": {"config": {"length": "$a"}}}, True),
        ({"x": {"stage": "mine:fast", "inputs": {"data": "y"}, "config": {"lr": "$a"}}}, True),
        ({"x": {"stage": "mine:fast", "inputs": {"dta": "y"}, "config": {"lr": 1}}}, False),
        ({"x": {"stage": "mine:slow", "config": {"lr": 1, "steps": 1}}}, False),
        ({"x": {"stage": "mine:slow", "inputs": {"data": "y"}}}, False),
        ({"x": stages["made"]}, True),
        ({"x": {"stage": "mine:make", "config": {"file": {"pth": "x"}}}}, False),
    ):
        assert (mistakes(schema, right | {"stages": entry}) == []) == fits, entry
    (tmp_path / "mine.yaml").write_text(OWN.replace("mine:make", "mine:mak").replace("[tables]", "[tabels]"))
    with pytest.raises(SweepError) as found:
        named_stages(draft_sweep(tmp_path / "mine.yaml"))
    places = [(each.line, each.path) for each in found.value.problems]
    assert places == [(3, "uses[0]"), (7, "stages.made.stage")]
    study_at(tmp_path.parent).activate()


UNION = """\
from typing import Annotated, Any, Literal
from pydantic import BaseModel, Field
class A(BaseModel):
    kind: Literal["a"] = "a"
class B(BaseModel):
    kind: Literal["b"] = "b"
    size: float = float("inf")
def train(which: Annotated[A | B, Field(discriminator="kind")], other: Any = None): ...
"""


def test_a_reference_may_stand_for_what_tells_choices_apart_and_no_default_breaks_the_json(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(UNION)
    (tmp_path / "odd.yaml").write_text(
        "name: odd\nquestion: Is it?\naxes: {}\nstages: {x: {stage: 'odd:train', config: {which: {kind: $k}}}}\n"
    )
    schema = of_sweep(tmp_path / "odd.yaml")
    assert mistakes(schema, read_document(tmp_path / "odd.yaml").value) == []
    assert "default" not in schema.schema["$defs"]["config.B"]["properties"]["size"]
    json.dumps(schema.schema, allow_nan=False)
    study_at(tmp_path.parent).activate()
