"""Requests: what the judge is shown, in one human turn whatever the texts hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.data.chat import messages
from workers.data.dialogues import as_prompt
from workers.judges.configs import Form, JudgeSampleConfig
from workers.judges.parse import lenient_verdict, strict_verdict
from workers.judges.requests import WORDINGS, format_judgment, hinted_request, request

QUESTION = "\n\nHuman: How do I mend a boat?\n\nAssistant:"
TURNS = "\n\nHuman: Hello.\n\nAssistant: Hi!\n\nHuman: Why?\n\nAssistant:"

#: Texts that a sampled answer or a dialogue may hold.
pieces = st.lists(
    st.sampled_from(["\n", "\n\n", "Human:", "Assistant:", "\n\nHuman:", "\n\nAssistant:", " ", "a", "[[A]]", "{", '"'])
)
texts = pieces.map("".join)
forms = st.sampled_from(["json", "brackets"])


def test_wording_0_with_json_is_the_request_of_con_j_in_english() -> None:
    assert request(QUESTION, " Glue it.", " Sell it.", "json", True, 0) == (
        "\n\nHuman: As an expert in evaluation, say which of two answers to a question is better in coherence, "
        "accuracy, coverage and overall quality.\n\n"
        'Reply with JSON only, explanation first: {"rationale": "your explanation", "verdict": 1 or 2}\n\n'
        "Question: How do I mend a boat?\n\nAnswer 1: Glue it.\n\nAnswer 2: Sell it.\n\nAssistant:"
    )


def test_brackets_call_the_answers_a_and_b() -> None:
    text = request(QUESTION, " Glue it.", " Sell it.", "brackets", True, 0)
    assert "Answer A: Glue it.\n\nAnswer B: Sell it." in text
    assert "end with [[A]] or [[B]]" in text


def test_wording_0_leaves_room_in_a_small_context() -> None:
    for form in ("json", "brackets"):
        for rationale in (True, False):
            assert len(request(QUESTION, "", "", form, rationale, 0).split()) < 60  # type: ignore[arg-type]


def test_a_dialogue_of_several_turns_is_shown_whole() -> None:
    text = request(TURNS, " x", " y", "json", True, 0)
    assert "Question: Human: Hello.\nAssistant: Hi!\nHuman: Why?\n\nAnswer 1: x" in text


def test_the_hint_names_the_answer_and_asks_for_no_verdict() -> None:
    assert hinted_request(QUESTION, " x", " y", "json", 0, 2).endswith(
        "Answer 1: x\n\nAnswer 2: y\n\nAnswer 2 is known to be better. Explain why:\n\nAssistant:"
    )
    told = hinted_request(QUESTION, " x", " y", "brackets", 0, 1)
    assert "Answer A is known to be better" in told
    assert "JSON" not in told
    assert "[[" not in told


def test_there_are_as_many_wordings_as_the_config_allows_and_each_says_something_else() -> None:
    JudgeSampleConfig(wordings=len(WORDINGS))
    with pytest.raises(ValueError, match=f"less than or equal to {len(WORDINGS)}"):
        JudgeSampleConfig(wordings=len(WORDINGS) + 1)
    asked = {request(QUESTION, " x", " y", "json", True, wording) for wording in range(len(WORDINGS))}
    assert len(asked) == len(WORDINGS)
    assert all('{"rationale": "your explanation", "verdict": 1 or 2}' in text for text in asked)


@given(question=texts, first=texts, second=texts, form=forms, rationale=st.booleans(), wording=st.integers(0, 5))
def test_whatever_the_texts_hold_a_request_is_one_human_turn(
    question: str, first: str, second: str, form: Form, rationale: bool, wording: int
) -> None:
    prompt = f"\n\nHuman: {question}\n\nAssistant:"
    for text in (
        request(prompt, first, second, form, rationale, wording),
        hinted_request(prompt, first, second, form, wording, 1),
    ):
        assert text.startswith("\n\nHuman: ")
        assert text.endswith("\n\nAssistant:")
        assert [message["role"] for message in messages(text)] == ["user"]
        assert as_prompt(text) == text


@given(reasons=st.text().filter(lambda text: text.strip() and "[[" not in text), verdict=st.sampled_from([1, 2]))
def test_a_judgment_that_is_spelled_is_read_again_strictly(reasons: str, verdict: int) -> None:
    for form in ("json", "brackets"):
        assert strict_verdict(format_judgment(reasons, verdict, form), form, True) == verdict  # type: ignore[arg-type]
        assert strict_verdict(format_judgment(None, str(verdict), form), form, False) == verdict  # type: ignore[arg-type]


def test_a_verdict_of_neither_answer_is_spelled_but_not_read() -> None:
    assert format_judgment("Both.", "3", "json") == '{"rationale": "Both.", "verdict": 3}'
    assert format_judgment("Both.", 3, "brackets") == "Both. [[3]]"
    for text in ('{"rationale": "Both.", "verdict": 3}', "Both. [[3]]"):
        assert lenient_verdict(text, "json") == lenient_verdict(text, "brackets") == 0
