"""What stages raise and print may hold anything; what is kept and shown of it has no power over a terminal."""

from __future__ import annotations

import json
import unicodedata

import pyarrow as pa
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.store.records import attempt_to_json, parse_attempt
from orchestrator.texts import plain_text
from orchestrator.types import Artifact, Attempt, Outcome


@given(st.text(st.characters(), max_size=40) | st.text("\x1b[]0;m?\x9b\x9d\x07\\\r\nA\ud800", max_size=40))
def test_any_text_becomes_one_that_files_terminals_and_tables_take(text: str) -> None:
    shown = plain_text(text)
    shown.encode()
    assert {each for each in shown if unicodedata.category(each) in ("Cc", "Cs")} <= {"\n", "\t"}
    assert plain_text(shown) == shown
    if all(each.isprintable() or each in "\n\t" for each in text):
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("never \x1b]ended", "never \\x1b]ended"),
        (" 10%\r 20%\r\ndone", " 10%\n 20%\ndone"),
        ("\udcff\x00\x08\x7f", "\\udcff\\x00\\x08\\x7f"),
        ("\x9b31mred", "red"),
        ("abc\u202efdp.exe", "abc\\u202efdp.exe"),
    ],
)
def test_control_sequences_are_dropped_and_other_odd_characters_spelled(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_a_text_that_is_too_long_is_cut() -> None:
    assert plain_text("x" * 10, 4) == "xxxx …"
    assert plain_text("x" * 4, 4) == "xxxx"


def test_records_that_hold_odd_texts_already_are_read_as_people_can_see_them() -> None:
    attempt = Attempt(
        Artifact("s", "0" * 32), "s", 1, Outcome.FAILED, 1.0, 0.0, "h", "c", "E\udcff", toy.SHADY, "/store/\udcff.log"
    )
    found = parse_attempt(attempt_to_json(attempt).encode())
    assert found is not None
    assert (found.error_class, found.log) == ("E\\udcff", "/store/\\udcff.log")
    assert found.error == "an \\udcff odd word\ndone \nsecond\tline"
    pa.array([found.error_class, found.error, found.log])
    empty = json.loads(attempt_to_json(attempt)) | {"error": "\x1b[0m", "error_class": None}
    found = parse_attempt(json.dumps(empty).encode())
    assert found is not None
    assert (found.error, found.error_class) == ("unknown", None)
