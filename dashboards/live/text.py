"""Texts of the live page.

What comes from a sweep is shown as text: in code blocks, on a canvas, or with its Markdown escaped (`plain`).
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable, Sequence

import streamlit as st

from orchestrator.explain.eta import format_duration
from orchestrator.texts import plain_text

_MARKS = {"succeeded": "✓", "running": "▶", "pending": "·", "blocked": "‖", "failed": "✕"}
_WORDS = {"succeeded": "finished", "pending": "waiting"}


def plain(text: str) -> str:
    """Escape a text for Markdown (CommonMark, section 2.4: every ASCII punctuation can be escaped)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(plain_text(text).split()))


def status_text(status: str) -> str:
    """Return the mark and the word of a status."""
    return f"{_MARKS[status]} {_WORDS.get(status, status)}"


def block(text: str, kind: str = "text") -> None:
    """Show a text as it is; `st.code` would load a highlighter that costs as much as the rest of the page."""
    st.html(f'<div class="{kind}"><pre class="block">{_escaped(text)}</pre></div>')


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Show rows of texts as they are, each in full length; the canvas of `st.dataframe` would cut them."""
    lines = [f"<tr>{''.join(f'<{tag}>{_escaped(cell)}</{tag}>' for cell in row)}</tr>"
             for tag, some in (("th", [columns]), ("td", rows)) for row in some]  # fmt: skip
    st.html(f'<div class="texts"><table class="texts">{"".join(lines)}</table></div>')


def _escaped(text: str) -> str:
    return html.escape(plain_text(text))


def age(when: float, now: float | None = None) -> float:
    """Return the seconds since a moment, never negative."""
    return max((now or time.time()) - when, 0.0)


def ago(when: float) -> str:
    """Say how long ago a moment was."""
    return f"{format_duration(age(when))} ago"
