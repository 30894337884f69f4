"""Views of what an artifact holds: small values, ready for JSON, that a terminal and a page draw alike.

Texts are whole up to `TEXT` characters; whoever draws them shortens them further. `view` names the kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Characters that are kept of a text.
TEXT = 4000
#: Items that are kept of a list or mapping inside a table.
_ITEMS = 20


@dataclass(frozen=True)
class TableView:
    """The first rows of a table, and of a very wide one the first columns."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int | None
    """Rows of the whole table; None where counting them would mean to read it."""
    width: int
    """Columns of the whole table."""
    which: str = "first"
    """Which rows these are: "first", or the first "of split test"."""
    view: Literal["table"] = "table"


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of a training; a long one is thinned out evenly, its ends stay."""

    metric: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    points: int
    """How many points the whole curve has."""


@dataclass(frozen=True)
class CurveView:
    """The curves of a training, losses first."""

    file: str
    curves: tuple[Curve, ...]
    view: Literal["curve"] = "curve"


@dataclass(frozen=True)
class TextView:
    """The beginning of a text."""

    file: str
    text: str
    bytes: int
    """Of the whole file."""
    whole: bool
    view: Literal["text"] = "text"


@dataclass(frozen=True)
class ArrayView:
    """Shape and range of an array; the numbers are None where there are none, or none that are finite."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None
    mean: float | None
    high: float | None
    values: int
    """So many values were looked at, the first ones …"""
    total: int
    """… of so many."""
    not_finite: int
    """How many of those that were looked at are NaN or infinite."""
    view: Literal["array"] = "array"


@dataclass(frozen=True)
class Response:
    """One response to a prompt."""

    response_id: int
    response: str
    golden: float | None
    learned: float | None


@dataclass(frozen=True)
class Prompt:
    """A prompt with some of its responses."""

    prompt_id: int
    prompt: str
    responses: tuple[Response, ...]


@dataclass(frozen=True)
class Reward:
    """Where the rewards of responses come from: an entry, or why there are none."""

    entry: str | None
    note: str | None


@dataclass(frozen=True)
class ResponsesView:
    """A few prompts with their responses and the rewards of these."""

    file: str
    prompts: tuple[Prompt, ...]
    total: int
    """Prompts in the whole table."""
    each: int
    """Responses to every prompt."""
    golden: Reward
    learned: Reward
    view: Literal["responses"] = "responses"


@dataclass(frozen=True)
class Judgment:
    """A judgment beside the pair of answers that it is about."""

    prompt: str
    first: str
    second: str
    hint: int
    """The answer (1 or 2) that the judge was told to be the better one; 0 without a hint."""
    text: str
    unread: str
    """Why there is no text; "" where there is one."""
    verdict: int | None
    """The answer (1 or 2) that it prefers, 0 for neither; None where no entry of the cell has read it."""
    chosen: int | None
    """The answer (1 or 2) that the preferences which were judged prefer; None where they cannot be looked up."""


@dataclass(frozen=True)
class JudgmentsView:
    """A few judgments beside their pairs."""

    file: str
    judgments: tuple[Judgment, ...]
    total: int
    verdicts: str | None
    """The entry that read them."""
    view: Literal["judgments"] = "judgments"


@dataclass(frozen=True)
class Unshown:
    """A file that is not shown, and why."""

    file: str
    reason: str
    view: Literal["unshown"] = "unshown"


View = TableView | CurveView | TextView | ArrayView | ResponsesView | JudgmentsView | Unshown


def plain_value(value: Any) -> Any:
    """Turn a value of a table into JSON: long texts and lists are cut, bytes counted, NaN and infinities are words."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    if isinstance(value, list | tuple):
        more = [f"… {len(value) - _ITEMS:,} more"] if len(value) > _ITEMS else []
        return [plain_value(each) for each in value[:_ITEMS]] + more
    if isinstance(value, Mapping):
        return {str(name): plain_value(each) for name, each in list(value.items())[:_ITEMS]}
    return shortened(str(value))


def shortened(text: str, length: int = TEXT) -> str:
    """Cut a text to so many characters, and say so with "…"."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
