"""Dialogues as messages of a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.data.chat import messages, render
from workers.language_models import models

pytestmark = pytest.mark.train

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_turns_become_messages_without_the_open_one() -> None:
    assert messages("\n\nHuman: Hi\n\nAssistant: Hello. \n\nHuman: Why?\nTell me.\n\nAssistant:") == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?\nTell me."},
    ]


def test_an_answer_at_the_end_is_a_message() -> None:
    assert messages("\n\nHuman: Hi\n\nAssistant: Hello.")[-1] == {"role": "assistant", "content": "Hello."}


def test_turns_of_one_speaker_in_a_row_become_one_so_that_speakers_alternate() -> None:
    assert messages("\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d\n\nHuman: e\n\nAssistant:") == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c\n\nd"},
        {"role": "user", "content": "e"},
    ]


def test_text_before_the_first_turn_is_a_system_message() -> None:
    assert messages("\n\nBe brief.\n\nHuman: a\n\nAssistant:")[0] == {"role": "system", "content": "Be brief."}


def test_a_text_without_a_human_turn_is_an_error() -> None:
    for text in ("", "hello", "\n\nAssistant: hello", "\n\nHuman: \n\nAssistant:"):
        with pytest.raises(ValueError, match="no human turn"):
            messages(text)


def test_the_template_of_the_tokenizer_is_open_for_the_assistant(tiny_policy: Path) -> None:
    tokenizer = models.load_tokenizer(models.locate(tiny_policy))
    with pytest.raises(ValueError, match=r"no chat template.*chat: false"):
        render(tokenizer, "\n\nHuman: a\n\nAssistant:")
    tokenizer.chat_template = TEMPLATE
    assert render(tokenizer, "\n\nHuman: a\n\nAssistant:") == f"{tokenizer.bos_token}<user>a</s><assistant>"
