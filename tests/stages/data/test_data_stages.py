"""Prompts, demonstrations and preferences: read natively, held apart, and nothing lost without a word."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import tables
from workers.config import HubData, LocalPath
from workers.data.configs import DemonstrationsConfig, PreferencesConfig, PromptsConfig
from workers.data.demonstrations import demonstrations
from workers.data.dialogue_rows import read_dialogues
from workers.data.dialogues import as_prompt
from workers.data.preferences import preferences
from workers.data.prompts import prompts

HH = (
    Path(os.environ.get("SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    / "hh-rlhf"
    / "harmless-base-test.jsonl.gz"
)


def transcript(question: str, answer: str) -> str:
    return f"\n\nHuman: {question}\n\nAssistant: {answer}"


def row(number: int) -> dict[str, str]:
    question = f"question {number}"
    return {"chosen": transcript(question, f"good {number}"), "rejected": transcript(question, f"bad {number}")}


def local(path: Path) -> LocalPath:
    return LocalPath(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def jsonl(folder: Path, rows: list[object], name: str = "data.jsonl") -> LocalPath:
    path = folder / name
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return local(path)


def made(folder: Path, name: str) -> Path:
    out = folder / name
    out.mkdir()
    return out


def test_a_dialogue_is_split_at_its_last_assistant_turn(tmp_path: Path) -> None:
    text = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"
    found, skipped = read_dialogues(
        jsonl(tmp_path, [{"chosen": text, "rejected": text[:-1] + "e"}]), incomplete_rows="error", pairs=True
    )
    assert skipped == 0
    assert found[0].prompt == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert (found[0].response, found[0].rejected) == (" d", " e")


def test_all_row_forms_and_file_kinds_read_alike(tmp_path: Path) -> None:
    plain = {"prompt": "question 1", "chosen": "good 1", "rejected": "bad 1"}
    answer = {"prompt": "question 1", "response": "good 1"}
    zipped = tmp_path / "data.jsonl.gz"
    zipped.write_bytes(gzip.compress(json.dumps(plain).encode() + b"\n"))
    parquet = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([plain]), parquet)
    sources = [
        jsonl(tmp_path, [row(1)], "a.jsonl"), jsonl(tmp_path, [plain], "b.jsonl"), jsonl(tmp_path, [answer], "c.jsonl"),
        local(zipped), local(parquet),
    ]  # fmt: skip
    found = {
        (each.prompt, each.response)
        for source in sources
        for each in read_dialogues(source, incomplete_rows="error")[0]
    }
    assert found == {("\n\nHuman: question 1\n\nAssistant:", " good 1")}


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])).filter(
        lambda text: "Human:" not in text and "Assistant:" not in text and text.strip()
    )
)
def test_any_plain_prompt_is_wrapped_once(text: str) -> None:
    wrapped = as_prompt(text)
    assert wrapped.startswith("\n\nHuman: ")
    assert wrapped.endswith("\n\nAssistant:")
    assert as_prompt(wrapped) == wrapped


BROKEN = [
    ({"chosen": transcript("q", "a")}, "no rejected"),
    ({"chosen": transcript("q", "a"), "rejected": None}, "null"),
    ({"chosen": transcript("q", "a"), "rejected": transcript("q", "  ")}, "empty"),
    ({"chosen": transcript("q", "a"), "rejected": "no marker"}, "Assistant"),
    ({"chosen": transcript("q", "a"), "rejected": transcript("other", "b")}, "different prompts"),
    ({"chosen": transcript("q", "a"), "rejected": transcript("q", "a")}, "no preference"),
    ("{not json", "not valid JSON"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN)
def test_a_row_without_an_answer_is_an_error_with_its_line_and_the_remedy(
    tmp_path: Path, broken: object, words: str
) -> None:
    config = PreferencesConfig(source=jsonl(tmp_path, [row(1), broken, row(2)]))
    with pytest.raises(ValueError, match=r"line 2") as caught:
        preferences(config, made(tmp_path, "out"))
    assert words in str(caught.value)
    assert "incomplete_rows: skip" in str(caught.value)


def test_incomplete_rows_are_counted_and_named_when_the_sweep_says_skip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path, [row(1), BROKEN[0][0], BROKEN[-1][0], row(2)])
    metrics = preferences(PreferencesConfig(source=source, incomplete_rows="skip"), made(tmp_path, "out"))
    assert metrics == {"preferences": 2.0, "skipped_rows": 2.0, "held_out_rows": 0.0}
    assert "line 2" in (printed := capsys.readouterr().out)
    assert "line 3" in printed


def test_a_missing_file_an_edited_file_and_an_unreachable_hub_are_errors_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="visible"):
        read_dialogues(LocalPath(path=str(tmp_path / "none.jsonl"), sha256="0"), incomplete_rows="skip")
    source = jsonl(tmp_path, [row(1)])
    jsonl(tmp_path, [row(2)])
    with pytest.raises(ValueError, match="submit the sweep again"):
        read_dialogues(source, incomplete_rows="skip")
    with pytest.raises(OSError, match="HF_HOME"):
        read_dialogues(HubData(hub="nobody/nothing", subset="x"), incomplete_rows="skip")


def test_a_hub_data_set_is_read_from_its_subset_and_split(tmp_path: Path) -> None:
    # `datasets` reads a local repository folder in the same way as one of the Hub.
    (tmp_path / "hub" / "harmless-base").mkdir(parents=True)
    for split, number in (("train", 1), ("test", 2)):
        path = tmp_path / "hub" / "harmless-base" / f"{split}.jsonl.gz"
        path.write_bytes(gzip.compress(json.dumps(row(number)).encode() + b"\n"))
    source = HubData(hub=str(tmp_path / "hub"), subset="harmless-base", split="test")
    found, _ = read_dialogues(source, incomplete_rows="error")
    assert [each.response for each in found] == [" good 2"]


def test_train_and_test_prompts_are_distinct_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [row(number % 30) for number in range(60)])
    tables_made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = made(tmp_path, name)
        metrics = prompts(PromptsConfig(source=source, train=20, test=5, seed=seed), out)
        assert (metrics["train_prompts"], metrics["test_prompts"]) == (20, 5)
        tables_made.append(tables.PROMPTS.read(out))
    assert len(set(tables_made[0]["prompt"].to_pylist())) == 25
    assert tables_made[0].equals(tables_made[1])
    assert not tables_made[0].equals(tables_made[2])


def test_long_prompts_are_dropped_and_counted_and_too_few_are_an_error(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [row(1), row(2), {"prompt": "long " * 500, "chosen": "a", "rejected": "b"}, row(3)])
    with pytest.raises(ValueError, match="lower `train`"):
        prompts(PromptsConfig(source=source, train=10, test=1, incomplete_rows="skip"), made(tmp_path, "a"))
    long = jsonl(tmp_path, [{"prompt": "long " * 500, "response": "a"}, {"prompt": "x", "response": "a"},
                            {"prompt": "y", "response": "a"}], "long.jsonl")  # fmt: skip
    assert prompts(PromptsConfig(source=long, test=1), made(tmp_path, "b"))["long_prompts"] == 1


def test_rows_of_test_prompts_are_held_out_of_demonstrations_and_preferences(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [row(number) for number in range(20)])
    held_out = made(tmp_path, "prompts")
    prompts(PromptsConfig(source=source, train=10, test=6), held_out)
    table = tables.PROMPTS.read(held_out).to_pylist()
    test = {each["prompt"] for each in table if each["split"] == "test"}
    metrics = demonstrations(DemonstrationsConfig(source=source), made(tmp_path, "d"), held_out=held_out)
    assert metrics == {"demonstrations": 14.0, "skipped_rows": 0.0, "held_out_rows": 6.0}
    preferences(PreferencesConfig(source=source, limit=8), made(tmp_path, "p"), held_out=held_out)
    kept = tables.DEMONSTRATIONS.read(tmp_path / "d")
    assert not test & set(kept["prompt"].to_pylist())
    kept = tables.PREFERENCES.read(tmp_path / "p")
    assert kept.num_rows == 8
    assert not test & set(kept["prompt"].to_pylist())


@pytest.mark.skipif(not HH.exists(), reason=f"the real hh-rlhf file is not at {HH} (set SHARED_DATA)")
def test_the_real_hh_rlhf_file_reads_with_its_known_counts(tmp_path: Path) -> None:
    found, skipped = read_dialogues(local(HH), incomplete_rows="skip", pairs=True)
    assert len(found) + skipped == 2312
    assert skipped < 60
    assert all(each.prompt.endswith("\n\nAssistant:") and each.response.strip() for each in found)
    # Human annotators did not simply prefer the longer answer.
    longer = sum(len(each.response) > len(each.rejected or "") for each in found) / len(found)
    assert 0.3 < longer < 0.7
