"""A secret is hidden however a text spells it, and nothing else is."""

from __future__ import annotations

import html
import json
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.redaction import Redaction

KEY = "sk-proj-Ab/9+Qz==\"x'&7kLmNoPq1234"

SPELLINGS = [
    KEY,
    quote(KEY),
    quote(KEY, safe=""),
    quote_plus(KEY),
    quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
    json.dumps(KEY),
    json.dumps(KEY).replace("/", "\\/"),
    json.dumps(json.dumps({"key": KEY})),
    repr(KEY),
    repr(f"Bearer {KEY}".encode()),
    html.escape(KEY),
    KEY[:20],
    KEY[9:],
    f"{KEY[:5]}...{KEY[-4:]}",
    f"{KEY[:8]}{'*' * 30}{KEY[-4:]}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_four_characters_of_a_secret_are_left_however_it_is_spelled(spelling: str) -> None:
    shown = Redaction(KEY).hide(f"Incorrect API key provided: {spelling}. You can find it at https://host/keys")
    assert shown.startswith("Incorrect API key provided: ")
    assert shown.endswith(". You can find it at https://host/keys")
    assert not [KEY[i : i + 4] for i in range(len(KEY) - 3) if KEY[i : i + 4] in shown]


TEXTS = st.text(string.printable, max_size=60)


@settings(max_examples=50)
@given(before=TEXTS, after=TEXTS, secret=st.text(string.printable, min_size=8, max_size=30), cut=st.integers(0, 30))
def test_a_cut_behind_the_redaction_shows_no_part_of_the_secret(before: str, after: str, secret: str, cut: int) -> None:
    shown = Redaction(secret).hide(f"{before}{secret}{after}")[: len(before) + cut]
    assert not any(secret[i : i + 4] in shown for i in range(len(secret) - 3))


def test_where_there_is_no_secret_the_text_stays_and_a_short_one_is_hidden_whole() -> None:
    assert Redaction(None).hide("busy, try later") == "busy, try later"
    assert Redaction("").hide("busy") == "busy"
    assert Redaction("abc").hide("ab abc bc") == "ab … bc"
    assert Redaction(KEY).hide("") == ""
