"""`sweeps/own-stage`, a study outside the packages: planned without its libraries, run, and known by its source."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.drive import drive
from orchestrator.session import Session, open_session
from orchestrator.study.modules import study_at
from orchestrator.types import Manifest
from workers.tables import HISTORY

SWEEPS = Path(__file__).parents[2] / "sweeps"
SWEEP = SWEEPS / "own-stage" / "sweep.yaml"
DIALOGUE = "\n\nHuman: How?{}\n\nAssistant: {}"


@pytest.fixture(autouse=True)
def _no_module_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    study_at(tmp_path).activate()
    assert not {"pairs", "classifier"} & set(sys.modules)


def test_planning_imports_neither_its_modules_nor_their_libraries(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from orchestrator.explain.preview import preview
from orchestrator.session import open_session
session = open_session(Path({str(SWEEP)!r}))
told = preview(session)
assert told["cells"] == 48
assert {{name: each["total"] for name, each in told["steps"].items()}} == {{"features": 4, "train": 48}}
heavy = {{"pairs", "classifier", "torch", "sklearn", "scipy", "pyarrow", "ray", "mlflow"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=400)


def test_a_corner_runs_to_a_table_and_leaves_curves(tmp_path: Path) -> None:
    corner = ["axes.learning_rate=[0.05, 0.8]", "axes.batch_size=[64]", "axes.seed=[0, 1]", "tracking=false"]
    session = open_session(SWEEP, [*corner, "stages.train.config.epochs=3"], outputs=str(tmp_path))
    assert drive(session, None, True, None) == 0
    rows = pq.read_table(session.outputs.results).to_pylist()
    assert len(rows) == 4
    for row in rows:
        assert row["status"] == "succeeded"
        assert 0.6 < row["accuracy"] <= 1
        assert 0 < row["loss"] < 0.7
        # In three epochs the low rate does not get there, so that there is no number, and why is said.
        assert (row["epochs_to_80"] is None) == (row["learning_rate"] == 0.05), row
    numbers = [each for each in range(len(session.plan)) if session.plan.entry_of(each) == "train"]
    manifests = session.store.manifests([session.plan.address(each) for each in numbers])
    for manifest in manifests.values():
        assert isinstance(manifest, Manifest)
        curve = HISTORY.read(session.store.fetch(manifest.address)).to_pylist()
        assert len(curve) == 9
        assert curve[-3] == {"step": 3, "metric": "loss", "value": manifest.metrics["loss"]}


def keys(session: Session) -> dict[str, set[str]]:
    plan = session.plan
    return {
        name: {plan.keys[each] for each in range(len(plan)) if plan.entry_of(each) == name} for name in plan.entries
    }


def test_an_edited_classifier_is_trained_anew_on_the_same_features(tmp_path: Path) -> None:
    shutil.copytree(SWEEP.parent, tmp_path / "own-stage")
    shutil.copytree(SWEEPS / "data", tmp_path / "data")
    copied = tmp_path / "own-stage" / "sweep.yaml"
    before = keys(open_session(copied))
    # Where the study lies makes no difference.
    assert keys(open_session(SWEEP)) == before
    with (copied.parent / "classifier.py").open("a") as file:
        file.write("# edited\n")
    after = keys(open_session(copied))
    assert after["features"] == before["features"]
    assert not after["train"] & before["train"]


@pytest.fixture
def pairs() -> ModuleType:
    return study_at(SWEEP.parent).load("pairs")


def test_pairs_of_a_prompt_stay_together_and_test_pairs_teach_no_words(tmp_path: Path, pairs: ModuleType) -> None:
    file = tmp_path / "pairs.jsonl"
    # Prompt n has two pairs, whose four answers have a word of their own.
    rows = [
        {"chosen": DIALOGUE.format(n, f"good word{n}"), "rejected": DIALOGUE.format(n, f"bad word{n}")}
        for n in range(8)
        for _ in range(2)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = pairs.features(file, tmp_path, test_share=0.25, seed=1)
    assert metrics == {"train_pairs": 12, "test_pairs": 4, "words": 8}
    train, test = (np.load(tmp_path / f"{split}.npy") for split in ("train", "test"))
    assert (train.shape, test.shape) == ((12, 2, 8), (4, 2, 8))
    # Of a test answer only "good" or "bad" is known.
    assert (np.count_nonzero(train, axis=2) == 2).all()
    assert (np.count_nonzero(test, axis=2) == 1).all()
    assert (test[:, 0] != test[:, 1]).any(axis=1).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 prompts cannot be split"),
        (json.dumps({"chosen": DIALOGUE.format(1, "a"), "rejected": DIALOGUE.format(1, "b")}), "1 prompts cannot be"),
        ('{"chosen": "a", "rejected": "b"}', "pairs.jsonl:1: expected chosen and rejected dialogues"),
        ("[]", "pairs.jsonl:1: expected"),
        ('{"chosen": 3}', "pairs.jsonl:1: expected"),
        ("no json", "pairs.jsonl:1: expected"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(tmp_path: Path, pairs: ModuleType, text: str, message: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        pairs.features(file, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"learning_rate": 1, "batch_size": 4, "epochs": 0}, "epochs 0 and batch_size 4"),
        ({"learning_rate": 1, "batch_size": 0}, "epochs 20 and batch_size 0"),
        ({"learning_rate": 1e30, "batch_size": 4}, "learning_rate 1e\\+30 diverged in epoch 1"),
    ],
)
def test_a_training_that_cannot_be_measured_is_an_error(tmp_path: Path, config: dict[str, float], message: str) -> None:
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}.npy", np.random.default_rng(0).random((20, 2, 5), dtype=np.float32))
    with pytest.raises(ValueError, match=message):
        study_at(SWEEP.parent).load("classifier").train(tmp_path, tmp_path, **config)
