"""Redaction of a known secret, in all spellings, also of parts of a key that a server quotes."""

from __future__ import annotations

import html
import json
import re
from itertools import groupby
from urllib.parse import quote

#: So many characters in a row that a text shares with a secret are hidden: servers quote keys in part, cut off or as
#: "sk-ab...1234". A random key has no four characters in common with a sentence, but for the maker's prefix.
_SHARED = 4


class Redaction:
    """A filter that hides a secret in texts, whole and in part, also as escaped in URLs, JSON, HTML and Python.

    Cut a text only after its secret has been hidden: the beginning of a secret is harder to find than the whole.
    """

    def __init__(self, secret: str | None) -> None:
        """Set the secret to hide; None hides nothing."""
        self._length = min(_SHARED, len(secret or ""))
        self._pieces = {
            spelling[i : i + self._length]
            for spelling in (spellings(secret) if secret else ())
            for i in range(len(spelling) - self._length + 1)
        }

    def hide(self, text: str) -> str:
        """Put an ellipsis in the place of each part of `text` that it shares with the secret."""
        hidden = [False] * len(text)
        for i in range(len(text) - self._length + 1 if self._pieces else 0):
            if text[i : i + self._length] in self._pieces:
                hidden[i : i + self._length] = [True] * self._length
        groups = groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
        return "".join("…" if secret else "".join(character for character, _ in run) for secret, run in groups)


def spellings(secret: str) -> set[str]:
    """Return `secret` as it is, and escaped in the ways in which messages escape texts."""
    url = quote(secret, safe="")
    return {
        secret,
        url,
        re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), url),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        repr(secret)[1:-1],
        html.escape(secret),
    }
