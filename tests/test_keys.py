"""The keys of the shipped sweeps, and a store of an earlier commit: neither changes while code only moves."""

from __future__ import annotations

import os
import tarfile
from itertools import product
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator import read_results
from orchestrator.search.studies import Studies
from orchestrator.session import Session, open_session
from orchestrator.store import DamagedArtifactError

SWEEPS = Path(__file__).parents[1] / "sweeps"
SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
HARMLESS = SHARED / "hh-rlhf" / "harmless-base-test.jsonl.gz"
#: What commit e4bc492 left of a sweep of sixteen cells, eight of which fail: in a folder, and as objects. Artifacts of
#: `evaluate`, the pin and the table were made again when that stage got version 2; all else is of then.
EARLIER = Path(__file__).parent / "data" / "store-of-e4bc492.tar.xz"


@pytest.mark.parametrize(
    ("name", "cells", "steps", "digest"),
    [
        ("full", 12_960, 31_983, "c980f8fee8da8cf07cfa30c06a4e3ec0"),
        ("synthetic", 2_160, 5_100, "51b9216143873c2657d7bf6d4ea3b27f"),
        ("quickstart", 144, 384, "bde2d8947349b8aa01edf49ed7b714d2"),
        ("judges", 192, 6_659, "3e9a75cf2714cf6184718b6fe83dff01"),
        ("judge-bias", 60, 550, "a80205fc41abdc4de9bcb9a143e23bac"),
        ("judges-quickstart", 24, 303, "b3dbd33430f494af631312bb741ee687"),
        # Cells and steps that may come; the keys of what is decided at first, and what is searched for.
        ("tune", 21_600, 45_063, "a24fe6e99cb2ac3f60b0ea81dd01ba4e"),
        ("tune-quickstart", 704, 1_463, "423f6fb73ed00dea3c99bf5e90c880a6"),
    ],
)
def test_the_plans_of_the_shipped_sweeps_are_pinned(name: str, cells: int, steps: int, digest: str) -> None:
    plan = open_session(SWEEPS / f"{name}.yaml").plan
    assert (len(plan.points), len(plan), plan.digest) == (cells, steps, digest)


def test_what_was_the_only_choice_once_has_the_keys_of_then() -> None:
    """Embeddings in float32, and responses by transformers."""
    then = {"embed": "dtype=float32", "generate": "engine=transformers"}
    released = [f"stages.{stage}_{split}.config.{was}" for stage, was in then.items() for split in ("train", "test")]
    assert open_session(SWEEPS / "full.yaml", released).plan.digest == "58a7bca82ab4eba91857a03263fb1500"


def test_the_studies_of_a_shipped_search_are_pinned() -> None:
    plan = open_session(SWEEPS / "tune-quickstart.yaml").plan
    assert [study.id for study in Studies(plan).all] == [
        "f9b67d22a53c13d365f6737234a1eeb4",
        "09ddac6e5b794615b57dca0065bbb19b",
    ]


@pytest.mark.skipif(not HARMLESS.exists(), reason=f"there is no {HARMLESS}: real data are not part of the project")
def test_the_plan_of_human_text_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HH_RLHF", str(HARMLESS))
    plan = open_session(SWEEPS / "hh-local.yaml").plan
    assert (len(plan.points), len(plan), plan.digest) == (36, 99, "5393fa5067fb26831da79044c3b2d821")


def test_the_plan_of_published_embeddings_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, split in product(("embd", "reward"), ("train", "test")):
        (tmp_path / f"{kind}_gemma-2b_gemma-2b_harmless_{split}.npy").touch()
    monkeypatch.setenv("EMBEDDINGS", str(tmp_path))
    assert open_session(SWEEPS / "embeddings.yaml").plan.digest == "9a0e008da4499f750118489e32ee0814"


def test_a_store_of_an_earlier_commit_has_nothing_left_to_do(tmp_path: Path) -> None:
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    _check(open_session(tmp_path / "sweep.yaml", outputs=str(tmp_path / "posix")), tmp_path / "posix")


def test_objects_of_an_earlier_commit_have_nothing_left_to_do(tmp_path: Path, s3: str) -> None:
    import s3fs

    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    s3fs.S3FileSystem().put(f"{tmp_path / 'objects'}/", s3, recursive=True)
    _check(open_session(tmp_path / "sweep.yaml", outputs=s3), tmp_path / "objects")


def _check(session: Session, earlier: Path) -> None:
    """Eight cells are finished, the failures of the others are known, and the table is that of then."""
    table: pa.Table = session.results().table()
    before = read_results(earlier / "sweeps" / "small")
    assert table.equals(before, check_metadata=True)
    assert before["status"].to_pylist().count("succeeded") == 8
    assert {each for each in before["error_class"].to_pylist() if each} == {"ValueError"}
    plan, schedule = session.plan, session.schedule
    assert not (schedule.needed & plan.steps_of(plan.grid.where({"annotations": 20})[plan.points])).any()
    (pin,) = session.store.pins().values()
    assert pin == {plan.address(number) for number in range(len(plan)) if schedule.committed[number]}
    for manifest in session.store.manifests(pin).values():
        assert not isinstance(manifest, DamagedArtifactError)
        # Reads every byte.
        session.store.fetch(manifest.address)
