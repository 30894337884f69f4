"""Rows of the published preference sets, in their true columns: nothing altered, mis-split or lost without a word."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.configs import Columns, Data, HubData, LocalPath
from workers.data.dialogues import ASSISTANT, HUMAN, Dialogue, read_dialogues
from workers.data.rows import read_rows

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))

Write = Callable[..., LocalPath]


def local(path: Path) -> LocalPath:
    return LocalPath(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON lines, or any text."""

    def written(*rows: dict[str, Any], text: str | None = None) -> LocalPath:
        path = tmp_path / "data"
        path.write_text(text if text is not None else "".join(json.dumps(row) + "\n" for row in rows))
        return local(path)

    return written


def pairs(source: Data, **options: Any) -> list[Dialogue]:
    return read_dialogues(source, incomplete_rows="error", pairs=True, **options)[0]


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def fault(source: Data, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        pairs(source, **options)
    return str(caught.value)


# --- lists of messages -----------------------------------------------------------------------------------------------


def test_messages_are_a_transcript_and_the_last_one_is_the_answer(write: Write) -> None:
    turns = (("user", "One?"), ("assistant", "Two."), ("user", " Three? \n"))
    (found,) = pairs(
        write({"chosen": said(*turns, ("assistant", "Four.")), "rejected": said(*turns, ("assistant", "5"))})
    )
    prompt = "\n\nHuman: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nAssistant:"
    assert found == Dialogue(prompt, " Four.", " 5")


def test_a_system_message_is_the_first_paragraph_of_the_human_turn_that_follows(write: Write) -> None:
    turns = (("system", "Be brief."), ("user", "Why?"))
    (found,) = pairs(write({"chosen": said(*turns, ("assistant", "a")), "rejected": said(*turns, ("assistant", "b"))}))
    assert found.prompt == "\n\nHuman: Be brief.\n\nWhy?\n\nAssistant:"


def test_an_empty_system_message_says_nothing(write: Write) -> None:
    turns = (("system", ""), ("user", "Why?"))
    (found,) = pairs(write({"chosen": said(*turns, ("assistant", "a")), "rejected": said(*turns, ("assistant", "b"))}))
    assert found.prompt == "\n\nHuman: Why?\n\nAssistant:"


def test_whole_dialogues_with_a_prompt_beside_them_read_as_without_it(write: Write) -> None:
    turns = (("user", "One?"), ("assistant", "Two."), ("user", "Three?"))
    row = {"chosen": said(*turns, ("assistant", "a")), "rejected": said(*turns, ("assistant", "b"))}
    # As in UltraFeedback, where the prompt is one text.
    assert (
        pairs(write(row)) == pairs(write({"prompt": "Three?", **row})) == pairs(write({"prompt": said(*turns), **row}))
    )
    assert "different messages" in fault(write({"prompt": said(("system", "x"), *turns), **row}))


@pytest.mark.parametrize("prompt", ["Why?", said(("user", "Why?"))])
def test_answers_as_lists_of_one_message_take_their_question_from_the_prompt(write: Write, prompt: object) -> None:
    answers = {"chosen": said(("assistant", "a")), "rejected": said(("assistant", "b"))}
    assert pairs(write({"prompt": prompt, **answers})) == [Dialogue("\n\nHuman: Why?\n\nAssistant:", " a", " b")]
    assert "an answer without a question" in fault(write(answers))


MISTAKES = [
    (said(("user", "q")), "ends with the human's turn"),
    (said(("user", "q"), ("tool", "x"), ("assistant", "a")), "message 2 of chosen has no role"),
    (said(("user", ""), ("assistant", "a")), "message 1 of chosen is empty"),
    (said(("user", "q"), ("assistant", " \n")), "message 2 of chosen is empty"),
    ([{"role": "user"}], "message 1 of chosen is a NoneType"),
    ([], "chosen has no messages"),
    (said(("user", "other"), ("assistant", "a")), "different prompts"),
    (said(("user", "q"), ("assistant", "b")), "no preference"),
]


@pytest.mark.parametrize(("chosen", "words"), MISTAKES)
def test_messages_that_are_no_dialogue_are_an_incomplete_row(write: Write, chosen: object, words: str) -> None:
    rejected = said(("user", "q"), ("assistant", "b"))
    good = {"chosen": said(("user", "q"), ("assistant", "a")), "rejected": rejected}
    source = write(good, {"chosen": chosen, "rejected": rejected})
    assert words in (message := fault(source))
    assert "line 2" in message
    assert read_dialogues(source, incomplete_rows="skip", pairs=True)[1] == 1


# --- columns of their own --------------------------------------------------------------------------------------------


def test_an_answer_keeps_every_letter_and_only_the_white_space_around_it_goes(write: Write) -> None:
    code = "\n\n    for i in range(3):\n        print(i)\n\n\n    return i\n"
    (found,) = pairs(write({"prompt": "def f():\n", "chosen": code, "rejected": " \n Sorry,\tno.  \n"}))
    assert found.response == "     for i in range(3):\n        print(i)\n\n\n    return i"
    assert found.rejected == " Sorry,\tno."


@settings(deadline=None)
@given(answer=st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip()))
def test_an_answer_of_any_text_differs_from_its_source_in_outer_white_space_only(
    answer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    path.write_text(json.dumps({"prompt": "q", "response": answer}))
    ((found,), _) = read_dialogues(local(path), incomplete_rows="error")
    assert found.response.startswith(" ")
    assert found.response.strip() == answer.strip()
    assert found.response == found.response.rstrip()


MARKED = "Go on:\n\nHuman: hi\n\nAssistant: hello\n\n\nHuman: bye"


def test_markers_inside_a_prompt_or_an_answer_of_their_own_are_no_turns(write: Write) -> None:
    (found,) = pairs(write({"prompt": MARKED, "chosen": MARKED, "rejected": "no"}))
    assert found.prompt == "\n\nHuman: Go on:\nHuman: hi\nAssistant: hello\nHuman: bye\n\nAssistant:"
    assert found.response == f" {MARKED}"
    turns = said(("user", MARKED), ("assistant", MARKED), ("user", "So?"))
    row = {"chosen": said(*turns[0:0])} | {
        column: turns + said(("assistant", answer)) for column, answer in (("chosen", MARKED), ("rejected", "b"))
    }
    (found,) = pairs(write(row))
    assert [found.prompt.count(marker) for marker in (HUMAN, ASSISTANT)] == [2, 2]
    assert found.response == f" {MARKED}"


def test_a_prompt_that_is_a_transcript_stays_one(write: Write) -> None:
    whole = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    for written in (whole, whole.strip(), whole.removesuffix(ASSISTANT), f"Preamble.{whole}"):
        (found,) = pairs(write({"prompt": written, "chosen": "d", "rejected": "e"}))
        assert found.prompt.endswith(whole)
        assert found.prompt.count(HUMAN) == 2
    assert "ends with an answer" in fault(write({"prompt": "Human: a\n\nAssistant: b", "chosen": "d", "rejected": "e"}))


# --- labels and names of columns -------------------------------------------------------------------------------------


def test_the_label_says_which_answer_is_the_better_one(write: Write) -> None:
    columns = Columns(prompt="q", first="a", second="b", label="best", label_of_first="A", subset="kind")
    rows = [{"q": "?", "a": "x", "b": "y", "best": label, "kind": label.lower()} for label in "AB"]
    first, second = pairs(write(*rows), columns=columns)
    assert (first.response, first.rejected, first.subset) == (" x", " y", "a")
    assert (second.response, second.rejected, second.subset) == (" y", " x", "b")
    # Demonstrations are the better answers.
    found, _ = read_dialogues(write(*rows), incomplete_rows="error", columns=columns)
    assert [each.response for each in found] == [" x", " y"]


@pytest.mark.parametrize("spelt", [1, 1.0, "1", True])
def test_a_label_means_the_same_however_it_is_spelt(write: Write, spelt: object) -> None:
    row = {"prompt": "?", "a": "x", "b": "y", "label": spelt}
    assert pairs(write(row), columns=Columns(first="a", second="b", label="label"))[0].response == " x"


def test_labels_with_a_third_value_are_an_error_and_a_missing_one_is_an_incomplete_row(write: Write) -> None:
    columns = Columns(first="a", second="b", label="label")
    row = {"prompt": "?", "a": "x", "b": "y"}
    source = write(*({**row, "label": label} for label in (1, 2, "tie")))
    assert "the values 2, tie" in fault(source, columns=columns)
    assert "label is null" in fault(write({**row, "label": 1}, {**row, "label": None}), columns=columns)


def test_a_mapping_to_columns_that_are_not_there_is_an_error_that_names_both(write: Write) -> None:
    source = write({"prompt": "?", "good": "x", "bad": "y", "source": "z"})
    assert pairs(source, columns=Columns(chosen="good", rejected="bad", subset="source"))[0].subset == "z"
    assert "expected one of: best, as `columns` says" in fault(source, columns=Columns(chosen="best", rejected="bad"))
    assert "there is no 'kind'" in fault(source, columns=Columns(chosen="good", rejected="bad", subset="kind"))


# --- kinds of file ---------------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(4)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=4),
        json.dumps({"one": ROWS[:1], "two": ROWS[1:]}, indent=4),
        json.dumps({"one": ROWS[:1], "two": ROWS[1:]}),
        "\ufeff" + "\n".join(map(json.dumps, ROWS)),
    ],
)
def test_json_arrays_objects_of_arrays_and_json_lines_read_alike(write: Write, text: str) -> None:
    assert [row.values for row in read_rows(write(text=text))] == ROWS


def test_one_line_with_lists_of_messages_is_one_row(write: Write) -> None:
    row = {"chosen": said(("user", "q"), ("assistant", "a")), "rejected": said(("user", "q"), ("assistant", "b"))}
    assert [each.values for each in read_rows(write(row))] == [row]


def test_places_in_json_files_are_named_and_a_torn_array_is_an_error(write: Write) -> None:
    assert "row 2 of 'two': no rejected" in fault(
        write(text=json.dumps({"one": ROWS[:1], "two": [ROWS[1], {"prompt": "q", "chosen": "a"}]}))
    )
    assert "row 2: a JSON int" in fault(write(text=json.dumps([ROWS[0], 3])))
    assert "cannot be read" in fault(write(text=json.dumps(ROWS)[:-5]))


# --- the published sets ----------------------------------------------------------------------------------------------


def repository(folder: Path, files: dict[str, list[dict[str, Any]]], card: str = "") -> str:
    """A data set repository as the Hub serves it; `datasets` reads a local folder in the same way."""
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if card:
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{card}---\n")
    return str(folder)


def test_the_five_hub_sets_read_without_a_mapping_in_their_columns(tmp_path: Path) -> None:
    """Against folders with the layout and columns of the data cards; not run here against the Hub."""
    turns, last = said(("user", "q1"), ("assistant", "a1"), ("user", "q2")), "\n\nHuman: q2\n\nAssistant:"
    answers = {"chosen": turns + said(("assistant", "good")), "rejected": turns + said(("assistant", "bad"))}
    single = {"chosen": answers["chosen"][2:], "rejected": answers["rejected"][2:]}
    skywork = repository(
        tmp_path / "skywork",
        {"data/train-00000-of-00001.parquet": [{**answers, "source": "magpie_pro"}]},
        "  - split: train\n    path: data/train-*\n",
    )
    ultrafeedback = repository(
        tmp_path / "ultrafeedback",
        {
            f"data/{split}_prefs-00000-of-00001.parquet": [
                {"prompt": "q2", "prompt_id": "0", **single, "messages": single["chosen"],
                 "score_chosen": 8.0, "score_rejected": number}
            ]
            for number, split in enumerate(("train", "test"))
        },
        "  - split: train_prefs\n    path: data/train_prefs-*\n  - split: test_prefs\n    path: data/test_prefs-*\n",
    )  # fmt: skip
    safe = repository(
        tmp_path / "safe",
        {
            f"data/Alpaca-7B/{split}.jsonl": [
                {"prompt": "q2", "response_0": "bad", "response_1": "good", "is_response_0_safe": True,
                 "better_response_id": 1, "safer_response_id": 0},
                {"prompt": "q2", "response_0": "good", "response_1": "bad", "is_response_0_safe": True,
                 "better_response_id": 0, "safer_response_id": 0},
            ]
            for split in ("train", "test")
        },
        "  - split: train\n    path: data/*/train.jsonl\n  - split: test\n    path: data/*/test.jsonl\n",
    )  # fmt: skip
    infinity = repository(
        tmp_path / "infinity",
        {
            f"{split}-00000-of-00001.parquet": [{"id": "1", "task_category": "x", "prompt": "q2", **single}]
            for split in ("train", "test")
        },
    )
    rewardbench = repository(
        tmp_path / "rewardbench",
        {
            f"data/{split}-00000-of-00001.parquet": [
                {"prompt": "q2", "chosen": "good", "chosen_model": "m", "rejected": "bad", "rejected_model": "n",
                 "subset": "hep-python", "id": 1}
            ]
            for split in ("raw", "filtered")
        },
        "  - split: raw\n    path: data/raw-*\n  - split: filtered\n    path: data/filtered-*\n",
    )  # fmt: skip
    plain = Dialogue(last, " good", " bad")
    assert pairs(HubData(hub=skywork)) == [Dialogue(f"\n\nHuman: q1\n\nAssistant: a1{last}", " good", " bad")]
    assert pairs(HubData(hub=ultrafeedback, split="test_prefs")) == [plain]
    assert pairs(HubData(hub=safe, split="test")) == [plain, plain]
    assert pairs(HubData(hub=safe, subset="data/Alpaca-7B", split="train")) == [plain, plain]
    assert pairs(HubData(hub=infinity)) == [plain]
    assert pairs(HubData(hub=rewardbench, split="filtered")) == [Dialogue(last, " good", " bad", "hep-python")]
    source = Columns(chosen="chosen", rejected="rejected", subset="source")
    assert pairs(HubData(hub=skywork), columns=source)[0].subset == "magpie_pro"


def here(name: str) -> Any:
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{name} is not in {SHARED} (set SHARED_DATA)")


@here("llmbar")
def test_the_real_llmbar_files_read_with_their_known_counts_and_no_letter_changed() -> None:
    counts = {}
    for path in sorted((SHARED / "llmbar").glob("*.json")):
        rows, found = json.loads(path.read_text()), pairs(local(path))
        counts[path.stem.removeprefix("adversarial-")] = len(found)
        for row, each in zip(rows, found, strict=True):
            assert each.response.strip() == row[f"output_{row['label']}"].strip()
            assert (each.rejected or "").strip() == row[f"output_{3 - row['label']}"].strip()
            assert row["input"].split() == each.prompt.removeprefix(HUMAN).removesuffix(ASSISTANT).split()
    assert counts == {"natural": 100, "neighbor": 134, "gptinst": 92, "gptout": 47, "manual": 46}


@here("evalbiasbench")
def test_the_real_evalbiasbench_reads_with_its_six_biases() -> None:
    found = pairs(local(SHARED / "evalbiasbench" / "biasbench.json"))
    assert len(found) == 80
    assert len({each.subset for each in found}) == 6


@here("con-j")
def test_the_real_con_j_judgments_read_without_the_one_row_that_has_no_answers() -> None:
    source = local(SHARED / "con-j" / "judged-code-pairs.jsonl.gz")
    found, skipped = read_dialogues(source, incomplete_rows="skip", pairs=True)
    assert (len(found), skipped) == (1903, 1)
    assert "line 853: answer_1 is null" in fault(source)
