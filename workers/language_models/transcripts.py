"""Prompts and answers as a model reads them: plain text, or turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from workers.data.chat import messages, render
from workers.language_models.models import tokenise


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, chat: bool) -> list[list[int]]:
    """Tokenise each prompt, with the special tokens that stand before an answer.

    Raises:
        ValueError: `chat`, but the tokenizer has no chat template.
    """
    texts = [render(tokenizer, prompt) for prompt in prompts] if chat else prompts
    # A chat template writes special tokens itself.
    return tokenise(tokenizer, texts, None, special=not chat)


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
    if not chat:
        return tokenise(tokenizer, [p + a for p, a in zip(prompts, answers, strict=True)], max_tokens)
    if not tokenizer.chat_template:
        raise ValueError(f"{tokenizer.name_or_path}: no chat template (a base model?), so set chat: false")
    turns = (messages(p) + answer_message(a) for p, a in zip(prompts, answers, strict=True))
    texts = [str(tokenizer.apply_chat_template(each, tokenize=False)) for each in turns]
    return tokenise(tokenizer, texts, max_tokens, special=False)


def answer_message(answer: str) -> list[dict[str, str]]:
    """Make the answer a turn of a chat, without the space that separates it from the prompt in plain text."""
    return [{"role": "assistant", "content": answer.removeprefix(" ")}]
