"""Prompts and answers as a model reads them: plain text, or turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from workers.data.chat import render
from workers.language_models.batches import tokenise


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
