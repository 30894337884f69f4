"""A sweep that trains with LoRA on LoRA: adapters of one base give the rows of merged models."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.types import Artifact, Manifest

#: What references do is shown by `attempt/test_references.py`, and what adapters are by those of the stages.
pytestmark = pytest.mark.long

DATA = Path(__file__).parents[2] / "sweeps" / "data" / "helpful.jsonl"
SWEEP = """\
name: adapted
question: Does it matter how a model is stored?
axes: {merged: [false, true]}
data: {path: DATA}
stages:
  demonstrations: {config: {source: $data, limit: 40}}
  preferences: {config: {source: $data, limit: 40}}
  prompts: {config: {source: $data, train: 8, test: 8}}
  policy:
    inputs: {demonstrations: demonstrations}
    config: {model: {tiny: {layers: 1, hidden: 32, heads: 2, vocabulary: 400, context: 256, steps: 20}}}
  sft:
    inputs: {policy: policy, demonstrations: demonstrations}
    config: {lora: {r: 4, alpha: 8, merged: $merged}, learning_rate: 0.03, epochs: 1, max_tokens: 256}
  dpo:
    inputs: {policy: sft, preferences: preferences}
    config: {lora: {r: 2, alpha: 2, merged: $merged}, learning_rate: 0.01, batch_size: 8, max_tokens: 256}
  scalar:
    stage: scalar_train
    inputs: {policy: sft, preferences: preferences}
    config: {lora: {r: 2, alpha: 2, merged: $merged}, learning_rate: 0.01, batch_size: 8, max_tokens: 256}
  first:
    stage: generate
    inputs: {policy: sft, prompts: prompts}
    config: {split: test, responses: 2, max_new_tokens: 8}
  second:
    stage: generate
    inputs: {policy: dpo, prompts: prompts}
    config: {split: test, responses: 2, max_new_tokens: 8}
  embed: {inputs: {policy: dpo, responses: second}}
  score: {inputs: {golden: scalar, responses: second}}
results: [score, first, embed]
tracking: false
"""


def run(folder: Path, outputs: str) -> Session:
    file = folder / "adapted.yaml"
    file.write_text(SWEEP.replace("DATA", str(DATA)))
    session = open_session(file, outputs=outputs)
    assert drive(session, None, False, None) == 0
    return open_session(file, outputs=outputs)


def address(session: Session, entry: str, merged: bool) -> Artifact:
    (cell,) = (cell for cell in map(session.plan.cell, range(2)) if cell.coords["merged"] == merged)
    return cell.steps[entry][0]


def manifest(session: Session, entry: str, merged: bool) -> Manifest:
    found = session.store.manifests([address(session, entry, merged)])[address(session, entry, merged)]
    assert isinstance(found, Manifest)
    return found


def test_adapters_of_one_base_give_the_rows_of_merged_models_and_their_base_is_made_again(
    tmp_path: Path, local_ray: None
) -> None:
    outputs = str(tmp_path / "out")
    session = run(tmp_path, outputs)
    base = address(session, "policy", False)
    for entry in ("sft", "dpo", "scalar"):
        assert manifest(session, entry, False).refers_to == base
        assert "adapter/adapter_model.safetensors" in manifest(session, entry, False).files
        assert manifest(session, entry, True).refers_to is None
        assert "model/model.safetensors" in manifest(session, entry, True).files
    assert manifest(session, "first", False).files == manifest(session, "first", True).files
    for entry in ("second", "score"):
        kept, whole = (manifest(session, entry, merged) for merged in (False, True))
        assert kept.metrics == pytest.approx(whole.metrics, abs=1e-4)
    # Whoever reads an adapter is run again without its base.
    lost = ("first", "second", "embed", "score")
    before = {entry: manifest(session, entry, False).files for entry in lost}
    session.store.remove([base, *(address(session, entry, False) for entry in lost)])
    session = run(tmp_path, outputs)
    assert {entry: manifest(session, entry, False).files for entry in lost} == before
    assert isinstance(session.store.manifests([base])[base], Manifest)
