"""Test sets gathered in one table, and training rows that share their prompts left out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workers.config import LocalPath
from workers.data.benchmark_sets import test_sets
from workers.data.configs import PreferencesConfig, TestSet, TestSetsConfig
from workers.data.preferences import preferences
from workers.tables import PREFERENCES


def written(path: Path, *rows: dict[str, Any]) -> LocalPath:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LocalPath(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def row(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": "good", "rejected": "bad", **more}


def run(folder: Path, config: TestSetsConfig) -> tuple[list[dict[str, str]], dict[str, float]]:
    folder.mkdir()
    metrics = test_sets(config, folder)
    assert set(metrics) == set(config.declared())
    return PREFERENCES.read(folder).to_pylist(), metrics


def test_a_subset_is_the_name_of_the_set_and_what_the_row_or_the_config_adds(tmp_path: Path) -> None:
    bench = written(tmp_path / "bench", row("a", subset="hard"), row("b", subset="easy"))
    plain = written(tmp_path / "plain", row("c"), {"prompt": "d"})
    config = TestSetsConfig(
        sets={
            "bench": TestSet(source=bench),
            "human": TestSet(source=plain, incomplete_rows="skip"),
            "bar/natural": TestSet(source=plain, incomplete_rows="skip"),
            "bar/manual": TestSet(source=bench, limit=1),
        }
    )
    rows, metrics = run(tmp_path / "out", config)
    assert [each["subset"] for each in rows[2:]] == ["human", "bar/natural", "bar/manual"]
    assert {(each["prompt"].split()[1], each["subset"]) for each in rows[:2]} == {
        ("a", "bench/hard"),
        ("b", "bench/easy"),
    }
    assert metrics == {"bench_rows": 2.0, "human_rows": 1.0, "bar_rows": 2.0, "skipped_test_rows": 2.0}


def test_a_limit_takes_the_same_rows_for_the_same_seed_and_more_rows_than_there_are_is_an_error(
    tmp_path: Path,
) -> None:
    source = written(tmp_path / "data", *(row(f"q{n}") for n in range(30)))

    def prompts(name: str, **fields: Any) -> list[str]:
        rows, _ = run(tmp_path / name, TestSetsConfig(sets={"s": TestSet(source=source, **fields)}))
        return [each["prompt"] for each in rows]

    ten = prompts("ten", limit=10)
    assert ten == prompts("again", limit=10) == prompts("twenty", limit=20)[:10]
    assert ten != prompts("other", limit=10, seed=1)
    with pytest.raises(ValueError, match="test set s: 30 rows, but 31 asked for"):
        prompts("more", limit=31)


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "/a"])
def test_the_name_of_a_set_can_be_part_of_a_metric(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        TestSetsConfig(sets={name: TestSet(source=written(tmp_path / "data", row("a")))})


def test_training_rows_with_a_prompt_of_a_test_set_are_left_out_and_counted_whatever_its_white_space(
    tmp_path: Path,
) -> None:
    tested = written(tmp_path / "tested", row("Sort\n  this list."), row("How?"))
    run(tmp_path / "sets", TestSetsConfig(sets={"s": TestSet(source=tested)}))
    source = written(
        tmp_path / "train",
        row("Sort this list. ", subset="code"), row("How?\r\n"), row("how?"), row("How? Why?"), row("Why?", subset="x"),
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    config = PreferencesConfig(source=source)
    metrics = preferences(config, tmp_path / "out", test_sets=tmp_path / "sets")
    assert metrics == {"preferences": 3.0, "skipped_rows": 0.0, "held_out_rows": 2.0}
    rows = PREFERENCES.read(tmp_path / "out").to_pylist()
    assert {(each["prompt"][9:-12], each["subset"]) for each in rows} == {
        ("how?", ""),
        ("How? Why?", ""),
        ("Why?", "x"),
    }
    with pytest.raises(ValueError, match=r"0 rows have a held-out test prompt, 2 a prompt of the test sets"):
        preferences(PreferencesConfig(source=source, limit=4), tmp_path / "out", test_sets=tmp_path / "sets")
