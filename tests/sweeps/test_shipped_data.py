"""The data that the repository ships: made by one script, and neither trivial nor hopeless to learn from."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workers.config import LocalPath
from workers.data.configs import PreferencesConfig
from workers.data.preferences import preferences
from workers.tables import PREFERENCES

DATA = Path(__file__).parents[2] / "sweeps" / "data"
KINDS = ("helpful", "harmless")


def script(name: str = "make_data") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
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


def judgments() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / "judgments.jsonl").read_text().splitlines()]


def test_the_script_reproduces_the_committed_judgments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    assert script("make_judgments").lines() == (DATA / "judgments.jsonl").read_text()
    assert (DATA / "judgments.jsonl").stat().st_size < 250_000


def test_the_first_120_preferences_of_each_file_are_judged_in_their_own_words_and_in_both_orders(
    tmp_path: Path,
) -> None:
    table = []
    for source in (DATA / "helpful.jsonl", DATA / "harmless.jsonl"):
        named = LocalPath(path=str(source), sha256=hashlib.sha256(source.read_bytes()).hexdigest())
        preferences(PreferencesConfig(source=named, limit=120), tmp_path)
        table += PREFERENCES.read(tmp_path).to_pylist()
    shown = [(row["prompt"], row["first"], row["second"]) for row in judgments()]
    assert shown[::2] == [(row["prompt"], row["chosen"], row["rejected"]) for row in table]
    assert shown[1::2] == [(row["prompt"], row["rejected"], row["chosen"]) for row in table]


def test_about_85_of_100_verdicts_are_right_and_a_few_are_malformed() -> None:
    right = [judgment["verdict"] == 1 + number % 2 for number, judgment in enumerate(judgments())]
    assert 0.8 < sum(right) / 480 < 0.9
    assert 3 <= sum(judgment["verdict"] not in (1, 2) for judgment in judgments()) <= 25
    # Cases of each kind for a filter: right in both orders, in one, in none.
    assert {one + other for one, other in zip(right[::2], right[1::2], strict=True)} == {0, 1, 2}


def test_rationales_are_short_and_varied() -> None:
    rationales = [judgment["rationale"] for judgment in judgments()]
    assert max(len(text.split()) for text in rationales) <= 25
    assert len(set(rationales)) > 100
