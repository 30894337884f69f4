"""Prompts and answers as a model reads them: plain text, or turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from workers.data.chat import render
from workers.language_models.batches import tokenise

#: Token ids of the "chosen" and of the "rejected" transcript of each row.
AnswerIds = dict[str, list[list[int]]]


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, chat: bool, max_tokens: int | None = None
) -> list[list[int]]:
    """Tokenise each prompt, with the special tokens that stand before an answer.

    Args:
        tokenizer: of the model.
        prompts: ending with "\\n\\nAssistant:".
        chat: through the chat template, as messages.
        max_tokens: longer ones lose their beginning.

    Raises:
        ValueError: `chat`, but the tokenizer has no chat template.
    """
    texts = [render(tokenizer, prompt) for prompt in prompts] if chat else prompts
    # A chat template writes special tokens itself.
    return tokenise(tokenizer, texts, max_tokens, special=not chat)


def transcript_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    chat: bool,
    max_tokens: int | None = None,
) -> list[list[int]]:
    """Tokenise each prompt with its answer.

    Plain text has no EOS token; of a chat, the template ends the answer as it ends every turn.

    Args:
        tokenizer: of the model.
        prompts: ending with "\\n\\nAssistant:".
        answers: one for each prompt.
        chat: through the chat template, as messages.
        max_tokens: longer ones lose their beginning.

    Raises:
        ValueError: `chat`, but the tokenizer has no chat template.
    """
    pairs = zip(prompts, answers, strict=True)
    texts = [render(tokenizer, prompt, answer) if chat else prompt + answer for prompt, answer in pairs]
    return tokenise(tokenizer, texts, max_tokens, special=not chat)


def answer_ids(
    table: pa.Table, tokenizer: PreTrainedTokenizerBase, *, chat: bool = False, max_tokens: int | None = None
) -> AnswerIds:
    """Tokenise the prompt of each preference with its chosen and with its rejected answer, as `transcript_ids` does.

    Args:
        table: rows of `tables.PREFERENCES`.
        tokenizer: of the model.
        chat: through the chat template, as messages.
        max_tokens: longer transcripts lose their beginning.

    Raises:
        ValueError: `chat`, but the tokenizer has no chat template.
    """
    prompts = table["prompt"].to_pylist()
    return {
        answer: transcript_ids(tokenizer, prompts, table[answer].to_pylist(), chat=chat, max_tokens=max_tokens)
        for answer in ("chosen", "rejected")
    }


def short_rows(ids: AnswerIds, limit: int, path: Path, *, end: int = 0) -> list[int]:
    """Return the rows whose transcripts both have at most `limit` tokens, `end` more included.

    Raises:
        ValueError: there are none; names `path`, the file of the preferences.
    """
    longest = [max(map(len, pair)) + end for pair in zip(*ids.values(), strict=True)]
    kept = [row for row, length in enumerate(longest) if length <= limit]
    if not kept:
        raise ValueError(
            f"{path}: none of its {len(longest)} rows has at most {limit} tokens: raise max_tokens, or train a model "
            "that reads more"
        )
    return kept
