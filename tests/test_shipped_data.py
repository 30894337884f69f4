"""The data that the repository ships: made by one script, and neither trivial nor hopeless to learn from."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(__file__).parents[1] / "sweeps" / "data"
KINDS = ("helpful", "harmless")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data", DATA / "make_data.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(kind: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{kind}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_reproduces_the_committed_bytes(kind: str) -> None:
    assert script().lines(kind) == (DATA / f"{kind}.jsonl").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_700_rows_with_at_least_400_distinct_prompts_in_under_600_kb(kind: str) -> None:
    assert len(rows(kind)) == 700
    assert len({row["chosen"].rpartition("\n\nAssistant:")[0] for row in rows(kind)}) >= 400
    assert (DATA / f"{kind}.jsonl").stat().st_size < 600_000


@pytest.mark.parametrize("kind", KINDS)
def test_both_answers_belong_to_one_prompt_and_differ(kind: str) -> None:
    for row in rows(kind):
        one, other = (row[column].rpartition("\n\nAssistant:") for column in ("chosen", "rejected"))
        assert one[0] == other[0]
        assert one[2].strip()
        assert other[2].strip()
        assert one[2] != other[2]
        assert len(one[2].split()) <= 70


@pytest.mark.parametrize("kind", KINDS)
def test_length_alone_does_not_tell_the_chosen_answer(kind: str) -> None:
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows(kind)) / 700
    assert 0.5 < longer < 0.85
