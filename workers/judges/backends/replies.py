"""Replies of OpenAI-compatible servers: a text, or a fault and its kind.

Servers and proxies differ in the form of their errors, and some give status 200 to anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Statuses that speak of the key, the account or the address, never of a single request.
_CONFIGURATION = (401, 402, 403, 404, 405, 407, 410)
#: Statuses of a server that is busy, beside all from 500.
_BUSY = (408, 409, 425, 429)

_CODE_OF_CONTENT = re.compile(r"content|moderat|safety|inspection|sensitive|policy|invalid_prompt", re.IGNORECASE)
_WORDS_OF_CONTENT = re.compile(r"content (management )?policy|usage policy|content.?filter|was flagged", re.IGNORECASE)
_WORDS_OF_LENGTH = re.compile(
    r"context_?\s?(length|window|size)|prompt is too long|reduce the length|too many (input )?tokens", re.IGNORECASE
)
_HALF = re.compile(r"[\ud800-\udfff]")
#: Parameters of a request, but for model, messages and seed: errors use these words for other things too.
_PARAMETERS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "repetition_penalty")

#: Four of them are reasons why a judgment has no text (`workers.judges.requests`). busy: the server is full, broken or
#: not there. configuration: no request can be answered.
Kind = Literal["busy", "configuration", "too long", "refused", "filtered", "garbled"]


@dataclass(frozen=True)
class Usage:
    """Tokens that the server bills for; None where it does not report them."""

    prompt: int | None = None
    answer: int | None = None

    def plus(self, other: Usage) -> Usage:
        """Add the tokens of another reply; None counts as none, unless both are."""
        return Usage(_added(self.prompt, other.prompt), _added(self.answer, other.answer))


@dataclass(frozen=True)
class Text:
    """A reply that is an answer."""

    text: str
    usage: Usage


@dataclass(frozen=True)
class Fault:
    """A reply that is no answer, or the lack of any reply."""

    kind: Kind
    message: str
    """The server's own words, secrets included."""
    status: int = 200
    blames: str = ""
    """The parameter that the server names as the cause, or ""."""
    retry_after: str | None = None
    """The header of this name."""
    usage: Usage = Usage()
    """Billed for nonetheless."""


def read_reply(content: str, headers: Mapping[str, str]) -> Text | Fault:
    """Read a reply with status 200."""
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        return Fault("garbled", f"a reply that is not JSON: {content}")
    body = reply if isinstance(reply, dict) else {}
    usage = _usage(body.get("usage"))
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        error = body.get("error")
        if isinstance(error, dict) and isinstance(error.get("code"), int) and error["code"] >= 400:
            return read_error(error["code"], error, content, headers)
        return Fault("garbled", f"no choices in {content}", usage=usage)
    found = choice.get("message")
    message = found if isinstance(found, dict) else {}
    text, ended = message.get("content"), choice.get("finish_reason")
    if ended == "content_filter":
        return Fault("filtered", "the server's content filter ended the reply", usage=usage)
    if message.get("refusal") and not text:
        return Fault("filtered", f"the model refuses: {message['refusal']}", usage=usage)
    if text is None and ended == "length":  # a reasoning model that did not get to its answer
        return Text("", usage)
    if not isinstance(text, str):
        return Fault("garbled", f"no text in {content}", usage=usage)
    return Text(writable(text), usage)


def read_error(status: int, error: object, content: str, headers: Mapping[str, str]) -> Fault:
    """Read a reply with an error status.

    Args:
        status: of HTTP, or the one that the error names.
        error: the object `error` of the reply, if it has one.
        content: the whole reply.
        headers: those of the reply.
    """
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {}
    inner = fields.get("innererror")
    names = [fields.get("code"), fields.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    codes = " ".join(str(name) for name in names if name is not None)
    message = fields.get("message")
    words = message if isinstance(message, str) else ""
    kind: Kind = "refused"
    if status in _CONFIGURATION:
        kind = "configuration"
    elif status in _BUSY or status >= 500:
        kind = "busy"
    elif _CODE_OF_CONTENT.search(codes) or _WORDS_OF_CONTENT.search(words):
        kind = "filtered"
    elif status == 413 or _WORDS_OF_LENGTH.search(f"{codes} {words or content}"):
        kind = "too long"
    blames = ""
    if kind == "refused":
        param = fields.get("param")
        blamed = next((name for name in _PARAMETERS if re.search(rf"\b{name}\b", words)), "")
        blames = param if isinstance(param, str) and param in (*_PARAMETERS, "model", "seed") else blamed
    shown = f"HTTP {status}: {words or content}" + (f" ({codes})" if codes else "")
    return Fault(kind, shown, status=status, blames=blames, retry_after=headers.get("retry-after"))


def writable(text: str) -> str:
    """Replace halves of characters: JSON can spell them (an emoji cut in two), but no table can hold them."""
    return _HALF.sub("\ufffd", text)


def _usage(usage: object) -> Usage:
    fields = usage if isinstance(usage, dict) else {}
    prompt, answer = fields.get("prompt_tokens"), fields.get("completion_tokens")
    return Usage(prompt if isinstance(prompt, int) else None, answer if isinstance(answer, int) else None)


def _added(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)
