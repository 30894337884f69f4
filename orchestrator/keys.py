"""Canonical JSON and its digests: one text for each value that can be part of an identity, an error for all others."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

#: Hex digits of a key: 128 bits of sha256, so two of 10^9 steps collide with probability below 10^-20.
KEY_LENGTH = 32

_quote = json.JSONEncoder(ensure_ascii=False).encode


class UnhashableValueError(TypeError):
    """A value without canonical JSON (NaN, an object, a non-string mapping key …); the message names the field."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where or 'value'}: {reason}")
        self.where = where
        self.reason = reason


def canonical_json(value: Any) -> str:
    """Return the only JSON text of `value` (None, bool, int, float, str, list, tuple, dict with str keys).

    Mapping keys are sorted, no white space is written, and equal numbers have the same text: 1, 1.0 and 1e0 are all
    `1`; -0.0 is `0`.

    Raises:
        UnhashableValueError: the value is anything else, NaN and infinities included.
    """
    parts: list[str] = []
    _write(value, "", parts)
    return "".join(parts)


def digest(value: Any, length: int = KEY_LENGTH) -> str:
    """Return the first `length` hex digits of the sha256 of the canonical JSON of `value`."""
    return digest_of(canonical_json(value), length)


def digest_of(text: str, length: int = KEY_LENGTH) -> str:
    """Return the first `length` hex digits of the sha256 of a text that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _write(value: Any, where: str, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnhashableValueError(where, "text with a lone surrogate has no canonical JSON") from error
        parts.append(_quote(value))
    elif type(value) is int:
        parts.append(str(value))
    elif type(value) is float:
        if not math.isfinite(value):
            raise UnhashableValueError(where, f"{value} cannot be part of a key; give a finite number")
        parts.append(str(int(value)) if value.is_integer() else repr(value))
    elif isinstance(value, list | tuple):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(",")
            _write(item, f"{where}[{index}]", parts)
        parts.append("]")
    elif isinstance(value, dict):
        parts.append("{")
        for name in value:
            if type(name) is not str:
                raise UnhashableValueError(where, f"mapping key {name!r} is not text")
        for index, name in enumerate(sorted(value)):
            if index:
                parts.append(",")
            parts.append(_quote(name))
            parts.append(":")
            _write(value[name], f"{where}.{name}" if where else name, parts)
        parts.append("}")
    else:
        raise UnhashableValueError(
            where,
            f"{type(value).__name__} {value!r} has no canonical JSON; use numbers, text, lists and mappings",
        )
