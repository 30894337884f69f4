"""Stages are described from what was written about them, and nothing of theirs is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.study.catalogue import bare_function, describe, type_text
from orchestrator.study.documentation import argument_docs, prose, summary
from orchestrator.study.modules import study_at
from workers.stages import STAGES


def described(folder: Path, text: str, reference: str = "mine:train") -> dict[str, Any]:
    (folder / "mine.py").write_text(text)
    study = study_at(folder)
    study.refresh()
    return describe(study, reference, bare_function(study, reference))


def of_package(name: str) -> dict[str, Any]:
    return describe(study_at(Path.cwd()), name, STAGES[name])


def test_a_stage_of_this_package_is_described_with_its_fields_and_those_that_it_inherits() -> None:
    prompts = of_package("prompts")
    assert (prompts["family"], prompts["makes"], prompts["version"]) == ("data", "prompts", STAGES["prompts"].version)
    assert prompts["summary"].startswith("Write `prompts.parquet`")
    fields = prompts["config"]["properties"]
    assert fields["max_tokens"]["default"] == 450
    assert fields["max_tokens"]["description"].startswith("Longest prompt")
    assert fields["seed"]["description"] == "Seed of the order of the rows."
    assert prompts["config"]["$defs"]["LocalPath"]["required"] == ["path"]


def test_inputs_are_described_with_what_the_function_says_of_them() -> None:
    held_out = of_package("preferences")["inputs"]["held_out"]
    assert (held_out["kind"], held_out["optional"], held_out["many"]) == ("prompts", True, False)
    assert held_out["doc"].startswith("a prompts artifact: rows with exactly one")


@pytest.mark.parametrize(("name", "of", "metric"), [
    ("dpo", "all", "dpo_loss"), ("generate", "all", "responses"), ("sft", "default", "sft_loss"),
    ("test_sets", "config", None),
])  # fmt: skip
def test_metrics_are_told_as_far_as_the_config_does_not_decide_them(name: str, of: str, metric: str | None) -> None:
    stage = of_package(name)
    assert stage["metrics_of"] == of
    assert stage["metrics"] is None if metric is None else metric in stage["metrics"]


def test_every_stage_of_this_package_and_most_of_their_fields_are_described() -> None:
    stages = [of_package(name) for name in STAGES]
    assert all(stage["summary"] for stage in stages)
    fields = [field for stage in stages for field in stage["config"].get("properties", {}).values()]
    assert sum("description" in field for field in fields) > len(fields) / 2


OWN = '''\
import nothing_of_the_kind_is_installed
from pathlib import Path
from typing import Literal, TypedDict
class M(TypedDict):
    loss: float
def train(data: Path, shards: list[Path], lr: float, kind: Literal["a", "b"] = "a", extra: Path | None = None) -> M:
    """Train it,
    for long.

    More.

    Args:
        data: the rows,
            all of them.
        lr (float): how fast.
    """
'''


def test_a_function_is_described_without_being_imported(tmp_path: Path) -> None:
    found = described(tmp_path, OWN)
    assert (found["family"], found["version"], found["makes"]) == ("mine", None, "mine.train")
    assert (found["summary"], found["doc"]) == ("Train it, for long.", "Train it,\nfor long.\n\nMore.")
    assert {name: (each["many"], each["optional"], each["file"]) for name, each in found["inputs"].items()} == {
        "data": (False, False, True), "shards": (True, False, False), "extra": (False, True, True),
    }  # fmt: skip
    assert found["inputs"]["data"]["doc"] == "the rows, all of them."
    assert found["config"]["properties"]["lr"] == {"type": "number", "description": "how fast."}
    assert found["config"]["required"] == ["lr"]
    assert (found["metrics"], found["metrics_of"]) == (["loss"], "all")


MODELS = '''\
from dataclasses import dataclass, field
from pydantic import BaseModel, Field
class Base(BaseModel):
    lr: float = Field(0.1, description="In the field.")
    """Below the field."""
class Optimizer(Base):
    """How it learns."""
    steps: int = 3
    """How long."""
@dataclass
class Config:
    optimizer: Optimizer
    """What learns."""
    layers: list[int] = field(default_factory=list)
    """How wide."""
def train(config: Config, seed: int = 0): ...
'''


def test_the_docstrings_of_a_config_class_and_of_those_inside_it_are_found(tmp_path: Path) -> None:
    found = described(tmp_path, MODELS)
    fields = found["config"]["properties"]
    assert (fields["optimizer"]["description"], fields["layers"]["description"]) == ("What learns.", "How wide.")
    optimizer = found["config"]["$defs"]["Optimizer"]
    assert (optimizer["description"], found["summary"]) == ("How it learns.", "")
    assert [each["description"] for each in optimizer["properties"].values()] == ["In the field.", "How long."]
    assert (found["metrics"], found["metrics_of"]) == (None, "run")
    study_at(tmp_path.parent).activate()


def test_listing_all_stages_imports_nothing_that_is_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.study.catalogue import describe\n"
        "from orchestrator.study.modules import study_at; from workers.stages import STAGES\n"
        "for name, stage in STAGES.items(): describe(study_at(Path.cwd()), name, stage)\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("schema", "text"), [
    ({"type": "integer", "minimum": 1}, "int ≥ 1"),
    ({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}, "int ≥ 0"),
    ({"enum": ["cut", "leave_out"], "type": "string"}, "cut | leave_out"),
    ({"anyOf": [{"$ref": "#/$defs/Lora"}, {"type": "null"}]}, "Lora | null"),
    ({"type": "array", "items": {"type": "string"}}, "list of text"),
    ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "boolean"}]}, "[number, true | false]"),
    ({"type": "object", "patternProperties": {"^a": {"type": "number"}}}, "mapping to number"),
    ({"type": "object", "additionalProperties": True}, "mapping"),
    ({}, "any"),
])  # fmt: skip
def test_types_are_written_in_the_terms_of_a_sweep(schema: dict[str, Any], text: str) -> None:
    assert type_text(schema) == text


def test_docstrings_of_every_shape_are_taken_apart() -> None:
    assert (summary(""), prose(""), argument_docs("")) == ("", "", {})
    assert argument_docs("X.\n\nArgs:\n    a: one:\n        two\n\n    b (int): three\n\nReturns:\n    c: no") == {
        "a": "one: two", "b": "three",
    }  # fmt: skip
    assert prose("X.\n\nArgs:\n    a: one") == prose("X.\n\nParameters\n----------\na : int") == "X."
    assert argument_docs("Args:\n") == argument_docs("Args: none") == {}
