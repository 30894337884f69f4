"""Which prompts end up in which split, and how their length is counted."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from workers import tables
from workers.config import HubModel, LocalPath
from workers.data.configs import DemonstrationsConfig, PreferencesConfig, PromptsConfig
from workers.data.demonstrations import demonstrations
from workers.data.dialogue_rows import read_dialogues
from workers.data.preferences import preferences
from workers.data.prompts import prompts

HH = (
    Path(os.environ.get("SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    / "hh-rlhf"
    / "harmless-base-test.jsonl.gz"
)


def local(path: Path) -> LocalPath:
    return LocalPath(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def questions(folder: Path, name: str, texts: list[str]) -> LocalPath:
    path = folder / name
    path.write_text("".join(json.dumps({"prompt": text, "response": "yes"}) + "\n" for text in texts))
    return local(path)


def made(folder: Path, config: PromptsConfig) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Metrics, and the prompts of each split."""
    metrics = prompts(config, folder)
    assert set(metrics) == set(config.declared())
    table = tables.PROMPTS.read(folder)
    assert table["prompt_id"].to_pylist() == list(range(table.num_rows))
    found: dict[str, list[str]] = {"train": [], "test": []}
    for each in table.to_pylist():
        found[each["split"]].append(each["prompt"])
    assert table["split"].to_pylist() == ["train"] * len(found["train"]) + ["test"] * len(found["test"])
    return metrics, found


def test_the_order_of_rows_and_files_added_later_do_not_reshuffle_the_prompts(tmp_path: Path) -> None:
    some = [f"question {number}" for number in range(40)]
    _, before = made(tmp_path, PromptsConfig(source=questions(tmp_path, "a", some), test=10))
    _, reversed_rows = made(tmp_path, PromptsConfig(source=questions(tmp_path, "b", some[::-1]), test=10))
    assert reversed_rows == before
    more = [*some, "one more"]
    _, after = made(tmp_path, PromptsConfig(source=questions(tmp_path, "c", more), test=10))
    order = [prompt for prompt in after["test"] + after["train"] if "one more" not in prompt]
    assert order == before["test"] + before["train"]


def test_prompts_of_the_test_source_never_occur_among_the_train_prompts(tmp_path: Path) -> None:
    source = questions(tmp_path, "train", [f"question {number}" for number in range(30)])
    test_source = questions(tmp_path, "test", [f"question {number}" for number in range(20, 40)])
    metrics, found = made(tmp_path, PromptsConfig(source=source, test_source=test_source))
    assert metrics == {"train_prompts": 20.0, "test_prompts": 20.0, "skipped_rows": 0.0, "long_prompts": 0.0}
    assert not set(found["train"]) & set(found["test"])
    # Only prompts that really are test prompts are taken from training.
    metrics, found = made(tmp_path, PromptsConfig(source=source, test_source=test_source, test=5))
    assert len(found["test"]) == 5
    assert len(found["train"]) == 30 - sum(int(prompt.split()[2]) < 30 for prompt in found["test"])


def test_a_prompt_too_long_in_both_sources_is_counted_once(tmp_path: Path) -> None:
    long = "long " * 500
    source = questions(tmp_path, "train", ["a", "b", long])
    test_source = questions(tmp_path, "test", ["c", long])
    assert made(tmp_path, PromptsConfig(source=source, test_source=test_source))[0]["long_prompts"] == 1.0


@pytest.mark.parametrize(("asked", "words"), [({"test": 9}, "8 test prompts, but 9"), ({"test": 8}, "0 train prompts")])
def test_too_few_prompts_are_an_error_with_both_numbers(tmp_path: Path, asked: dict[str, int], words: str) -> None:
    source = questions(tmp_path, "a", [f"question {number}" for number in range(8)])
    with pytest.raises(ValueError, match=words):
        prompts(PromptsConfig(source=source, **asked), tmp_path)


@pytest.mark.train
def test_the_tokenizer_counts_tokens_without_special_ones(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    characters = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "<s>": 1}, unk_token="<unk>"))
    characters.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    characters.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=characters, unk_token="<unk>").save_pretrained(tmp_path / "tokenizer")
    tokenizer = LocalPath(path=str(tmp_path / "tokenizer"), sha256="of a folder")
    texts = ["ab", "abc", "abcd"]
    limit = len("\n\nHuman: abc\n\nAssistant:")
    source = questions(tmp_path, "a", texts)
    metrics, found = made(tmp_path, PromptsConfig(source=source, test=1, max_tokens=limit, tokenizer=tokenizer))
    assert metrics["long_prompts"] == 1.0
    assert not any("abcd" in prompt for prompt in found["train"] + found["test"])


@pytest.mark.train
def test_a_tokenizer_out_of_reach_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    config = PromptsConfig(source=questions(tmp_path, "a", ["a", "b"]), test=1, tokenizer=HubModel(hub="no/body"))
    with pytest.raises(OSError, match="count words"):
        prompts(config, tmp_path)


def test_a_torn_gzip_file_half_a_surrogate_and_a_prompt_that_is_answered_already_are_named(tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"prompt": "a", "response": "b"}\n' * 100)[:-12])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        read_dialogues(local(torn), incomplete_rows="skip")
    faults = tmp_path / "faults.jsonl"
    faults.write_text(
        '{"prompt": "a", "response": "b"}\n'
        '{"prompt": "\\ud800", "response": "b"}\n'
        '{"prompt": "\\n\\nHuman: a\\n\\nAssistant: b", "response": "c"}\n'
        '{"prompt": "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: ", "response": "c"}\n'
        "[1]\n"
    )
    with pytest.raises(ValueError, match="4 of 5 rows") as caught:
        read_dialogues(local(faults), incomplete_rows="error")
    for words in ("line 2: prompt is not valid Unicode", "line 3: the prompt ends with an answer",
                  "line 4: the last human turn", "line 5: a JSON list"):  # fmt: skip
        assert words in str(caught.value)


def test_rows_are_shuffled_by_their_content_and_the_seed_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {number}", "chosen": "a", "rejected": "b"} for number in range(30)]

    def first_five(stage: str, order: list[dict[str, str]], seed: int) -> list[str]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in order))
        if stage == "demonstrations":
            demonstrations(DemonstrationsConfig(source=local(path), limit=5, seed=seed), tmp_path)
            table = tables.DEMONSTRATIONS.read(tmp_path)
        else:
            preferences(PreferencesConfig(source=local(path), limit=5, seed=seed), tmp_path)
            table = tables.PREFERENCES.read(tmp_path)
        return list(table["prompt"].to_pylist())

    for stage in ("demonstrations", "preferences"):
        assert first_five(stage, rows, 0) == first_five(stage, rows[::-1], 0)
        assert first_five(stage, rows, 0) != first_five(stage, rows, 1)


@pytest.mark.skipif(not HH.exists(), reason=f"the real hh-rlhf file is not at {HH} (set SHARED_DATA)")
def test_real_hh_rlhf_rows_with_an_empty_answer_or_two_prompts_are_named(tmp_path: Path) -> None:
    # 4 chosen answers are empty; in 5 more rows the transcripts part in an earlier turn, which only matters for pairs.
    with pytest.raises(ValueError, match="4 of 2312 rows are incomplete\n  line 87: the answer in chosen is empty"):
        prompts(PromptsConfig(source=local(HH), test=100), tmp_path)
    config = PreferencesConfig(source=local(HH), incomplete_rows="skip")
    assert preferences(config, tmp_path) == {"preferences": 2303.0, "skipped_rows": 9.0, "held_out_rows": 0.0}
    metrics, _ = made(tmp_path, PromptsConfig(source=local(HH), test=100, incomplete_rows="skip"))
    assert metrics["skipped_rows"] == 4.0
    assert metrics["train_prompts"] + metrics["test_prompts"] + metrics["long_prompts"] == 2306.0
