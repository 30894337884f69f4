"""Whatever lies in a store, it is read as what it is, refused by name, or left out; nothing else happens."""

# ruff: noqa: E501, PT017 (one strategy a line; what is refused is looked at)
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from mutations import ODD, damaged, examples, mutated, values

from orchestrator.store import DamagedArtifactError, StoreError, open_store
from orchestrator.store.lease import Claim, parse_claim
from orchestrator.store.process import Process
from orchestrator.store.records import (
    attempt_to_json,
    manifest_to_json,
    name_of_record,
    parse_attempt,
    parse_manifest,
    parse_pin,
    pin_to_json,
)
from orchestrator.types import Artifact, Attempt, Manifest, Outcome

ADDRESS = Artifact("toy_source", "0" * 32)
MANIFEST = Manifest(
    ADDRESS, '{"a":1}', {"sub/file": (5, "0" * 64)}, {"m": 1.5}, 1, 0.5, 100.0, "host", "abc", "a.log", {"numpy": "2"},
    "1a", {"n": "why"}, "0" * 32, "1" * 32, Artifact("toy.base", "2" * 32),
)  # fmt: skip
ATTEMPT = Attempt(
    ADDRESS, "source", 2, Outcome.FAILED, 0.1, 1.0, "here", "abc", "ValueError", "no", "a.log", (ADDRESS,), {"m": 1.0},
    {"n": "why"}, "holder",
)  # fmt: skip
CLAIM = Claim(3, "0123456789abcdef", "driver", 1, Process("0a1b2c", 1234, 567890), "host.example", "17")


def signed(content: Any) -> bytes:
    """A manifest of any content with a digest that fits."""
    body = json.dumps(content).encode()
    return b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'", "manifest": ' + body + b"}"


def read_manifest(text: bytes) -> None:
    """It is refused by name, or can be written anywhere."""
    try:
        found = parse_manifest(ADDRESS, text)
    except DamagedArtifactError as error:
        str(error).encode()
        return
    assert parse_manifest(ADDRESS, manifest_to_json(found)) == found
    repr(found).encode()
    assert all(
        isinstance(value, int | float) and value - value == 0 for value in (*found.metrics.values(), found.seconds)
    )
    assert all(type(size) is int for size, _ in found.files.values())


CONTENT = json.loads(manifest_to_json(MANIFEST))["manifest"]


@examples(300)
@given(mutated(CONTENT) | values)
@example({**CONTENT, "metrics": {"m": "1"}})
@example({**CONTENT, "host": "\ud800"})
@example({**CONTENT, "\ud800": 1})
@example({**CONTENT, "address": ["\ud800", "x" * 1000]})
@example({**CONTENT, "files": {"a": ["5", 5]}})
@example({**CONTENT, "seconds": float("nan")})
@example({**CONTENT, "refers_to": []})
@example({**CONTENT, "refers_to": ["toy_source", 1]})
def test_a_manifest_with_something_wrong_in_it_is_damaged_or_whole(content: Any) -> None:
    read_manifest(signed(content))


@examples(150)
@given(damaged(manifest_to_json(MANIFEST)))
@example(signed([])[:77] + b"[" * 100_000)
def test_a_manifest_that_was_torn_or_altered_is_damaged(text: bytes) -> None:
    read_manifest(text)


def test_a_manifest_of_thousands_of_levels_is_damaged() -> None:
    body = b"[" * 100_000
    lead = b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'", "manifest": '
    read_manifest(lead + body + b"}")


@examples(300)
@given(mutated(json.loads(attempt_to_json(ATTEMPT))).map(json.dumps).map(str.encode) | damaged(attempt_to_json(ATTEMPT).encode()))  # fmt: skip
@example(b"[" * 100_000)
@example(attempt_to_json(ATTEMPT).replace('"number": 2', '"number": "2"').encode())
@example(attempt_to_json(ATTEMPT).replace('"seconds": 0.1', '"seconds": NaN').encode())
def test_a_record_of_an_attempt_is_read_or_left_out(text: bytes) -> None:
    found = parse_attempt(text)
    if found:
        repr(found).encode()
        assert parse_attempt(attempt_to_json(found).encode()) == found
        assert found.seconds + found.started + found.number < 1e301


@examples(200)
@given(mutated(json.loads(pin_to_json([ADDRESS]))).map(json.dumps).map(str.encode) | damaged(pin_to_json([ADDRESS])))
@example(b"[" * 100_000)
@example(b'{"artifacts": {"ab": 1}}')
@example(b'{"artifacts": [[1, 2]]}')
def test_a_pin_is_read_or_an_error_with_its_remedy(text: bytes) -> None:
    try:
        found = parse_pin("store/pins/paper", text)
    except StoreError as error:
        assert "sweep unpin paper" in str(error)
        str(error).encode()
    else:
        assert parse_pin("", pin_to_json(found)) == found
        repr(found).encode()


@examples(300)
@given(
    st.lists(st.sampled_from([*CLAIM.name.split("-"), "-", " ", "٣", "007", "9" * 25, "9" * 5000, ""]) | st.text(max_size=5)).map("-".join)
    | damaged(CLAIM.to_text().encode(), CLAIM.name.encode()).map(lambda text: text.decode(errors="surrogateescape")),
    st.none() | st.text(max_size=5),
)  # fmt: skip
@example("9" * 5000 + CLAIM.name[1:], None)
@example("0" + CLAIM.name, None)
@example("٣" + CLAIM.name[1:], None)
def test_a_claim_is_read_as_what_its_name_says_or_is_none(text: str, beat: str | None) -> None:
    found = parse_claim(text, beat)
    if found:
        # Otherwise nobody could evict it.
        assert text.partition(" ")[0] == found.name
        assert found.process.gone() in (True, False)


@examples(200)
@given(st.text("0a.١²9jsonlg\n-", max_size=14) | st.sampled_from(["a.1.json", "a.01.json", "a." + "9" * 200 + ".json"]))
def test_the_name_of_a_record_has_a_number_or_is_another_file(name: str) -> None:
    found = name_of_record(name, "json")
    assert found is None or (name.startswith(f"{found[0]}.") and found[1] >= 0)


#: Names that a file can have.
NAMES = st.sampled_from(
    [
        each
        for each in ODD
        if isinstance(each, str) and 0 < len(each) < 256 and not set(each) & set("/\0\ud800") and each != ".."
    ]
)


@examples(20)
@given(
    NAMES, NAMES, st.sampled_from(["file", "folder", "fifo", "loop"]), st.sampled_from(["claims", "attempts", "pins"])
)
def test_a_store_with_something_foreign_in_it_is_read_and_tidied_all_the_same(
    tmp_path_factory: Any, name: str, inside: str, kind: str, room: str
) -> None:
    import os

    root: Path = tmp_path_factory.mktemp("store")
    place = root / room / "toy_source" / name / inside
    place.parent.mkdir(parents=True)
    {
        "file": lambda: place.write_text("foreign"),
        "folder": place.mkdir,
        "fifo": lambda: os.mkfifo(place),
        "loop": lambda: place.symlink_to(place),
    }[kind]()
    store = open_store(str(root))
    assert store.claims() == {}
    assert store.histories([ADDRESS]) == {}
    assert store.pins() == {}
    store.sweep("driver")
    store.tried(["toy_source"])
    with store.lease(ADDRESS, "driver"):
        assert set(store.claims()) == {ADDRESS}
