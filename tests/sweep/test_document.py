"""A sweep file is YAML 1.2 whose every part knows its line; what is wrong with the text is said at that line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import toy_sweep
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sample_document import document

from orchestrator.sweep.document import parse_value, read_document
from orchestrator.sweep.problems import Problem, SweepError, format_path
from orchestrator.texts import nearest

characters = st.characters(codec="utf-8", max_codepoint=0xFFFF)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(characters),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(characters, max_size=20), inner, max_size=4),
    max_leaves=12,
)


def refusal(folder: Path, text: str | bytes) -> Problem:
    """The one mistake that a text is refused for."""
    path = folder / "sample.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SweepError) as caught:
        read_document(path)
    (problem,) = caught.value.problems
    return Problem(problem.place.replace(str(path), "FILE"), problem.path, problem.message)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5), ("1E3", 1000.0), ("+.5", 0.5), ("-1.", -1.0), (".inf", math.inf), ("-.INF", -math.inf),
        ("010", 10), ("-0", 0), ("+7", 7), ("1_000", "1_000"), ("0x1F", "0x1F"), ("0b1", "0b1"),
        ("no", "no"), ("Yes", "Yes"), ("off", "off"), ("y", "y"), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("null", None), ("Null", None), ("", None), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"), ("e5", "e5"), ("'5e-5'", "5e-5"), ('"010"', "010"), ("$beta", "$beta"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number_so_that_it_can_be_refused_by_name() -> None:
    found = parse_value(".nan")
    assert type(found) is float
    assert math.isnan(found)


@given(json_values)
def test_json_is_yaml(value: object) -> None:
    assert parse_value(json.dumps(value)) == value


@given(json_values, json_values)
def test_every_part_of_a_value_is_placed_inside_the_file(
    tmp_path_factory: pytest.TempPathFactory, one: object, other: object
) -> None:
    folder = tmp_path_factory.mktemp("document")
    found = document(folder, f"first: {json.dumps(one)}\n\nsecond: {json.dumps(other)}\n")
    assert found.value == {"first": one, "second": other}
    for path, place in found.places.items():
        assert place == f"{found.path}:{3 if path[:1] == ('second',) else 1}"


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "---\n", "~\n"])
def test_an_empty_file_says_that_it_is_empty_and_where_the_grammar_is(tmp_path: Path, text: str) -> None:
    problem = refusal(tmp_path, text)
    assert problem.place == "FILE"
    assert problem.message == "the file is empty; sweeps/README.md shows the grammar on one page"


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("only words\n", "str"), ("5\n", "int")])
def test_a_file_that_is_no_mapping_says_what_it_is_instead(tmp_path: Path, text: str, kind: str) -> None:
    problem = refusal(tmp_path, text)
    assert problem.place == "FILE:1"
    assert problem.message == f"a sweep is a mapping (name:, axes:, stages:), found {kind}"


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("name: a\nname: b\n", 2, "name"),
        ("axes:\n  x: [1]\n  y: [1]\n  x: [2]\n", 4, "axes.x"),
        ("stages: [{a: 1}, {b: 1, b: 2}]\n", 1, "stages[1].b"),
        ("axes:\n  kind:\n    1: {}\n    '1': {}\n", 4, "axes.kind.1"),
    ],
)
def test_a_key_that_is_written_twice_is_named_at_its_second_line(
    tmp_path: Path, text: str, line: int, path: str
) -> None:
    assert refusal(tmp_path, text) == Problem(f"FILE:{line}", path, "is written twice; keep one")


def test_all_keys_that_are_written_twice_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as caught:
        document(tmp_path, "a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [problem.path for problem in caught.value.problems] == ["a", "b.c"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\naxes: [1, 2\nstages: {}\n", 3),
        ("name: a\naxes:\n\tx: [1]\n", 3),
        ("name: a\n  axes: b\n", 2),
        ("name: a\nquestion: 'unclosed\n", 3),
        ("name: a\nquestion: what: why\n", 2),
        ("name: a\ndata: *nowhere\n", 2),
        ("name: a\ndata: !!python/object:os.system {}\n", 2),
        ("name: a\ndata: !!int abc\n", 2),
        ("name: a\ndata: !!float abc\n", 2),
        ("name: a\ndata: !!bool abc\n", 2),
        ("name: a\ndata: !!null abc\n", 2),
        ("name: a\ndata: !!timestamp 2024-01-01\n", 2),
        ("name: a\ndata: &x [*x]\n", 2),
        ("name: a\ndata: {[b]: c}\n", 2),
        ("name: a\n---\nname: b\n", 2),
    ],
)
def test_malformed_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    problem = refusal(tmp_path, text)
    assert problem.place == f"FILE:{line}"
    assert problem.message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", [b"name: \x07\n", b"name: \x00\n", b"name: \xff\xfe\n"])
def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    problem = refusal(tmp_path, text)
    assert problem.place == "FILE"
    assert problem.message.startswith(("not valid YAML: ", "cannot be read: "))


def test_a_missing_file_suggests_its_nearest_neighbour(tmp_path: Path) -> None:
    for name in ("full.yaml", "quickstart.yaml"):
        toy_sweep.write_sweep(tmp_path, name=name)
    with pytest.raises(SweepError, match=r"fulll\.yaml: no such file; did you mean 'full\.yaml'\?"):
        read_document(tmp_path / "fulll.yaml")
    with pytest.raises(SweepError, match=r"zzz: no such file; choose from "):
        read_document(tmp_path / "zzz")
    with pytest.raises(SweepError, match="no such file; check the path"):
        read_document(tmp_path / "nowhere" / "full.yaml")


def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="cannot be read"):
        read_document(tmp_path)


def test_every_part_of_a_document_knows_its_line(tmp_path: Path) -> None:
    found = document(tmp_path)
    lines = {format_path(path): int(place.rpartition(":")[2]) for path, place in found.places.items() if path}
    assert lines == {
        "name": 1, "axes": 2, "axes.beta": 3, "axes.beta[0]": 3, "axes.beta[1]": 3, "axes.kind": 4,
        "axes.kind.plain": 5, "axes.kind.plain.depth": 6, "axes.kind.5000": 7, "axes.kind.5000.depth": 7,
        "stages": 8, "stages.fit": 9, "stages.fit.config": 10, "stages.fit.config[0]": 11,
        "stages.fit.config[0].rate": 11, "stages.fit.config[1]": 12, "stages.fit.config[1].other": 12,
    }  # fmt: skip


def test_what_was_never_written_is_placed_at_the_nearest_part_that_was(tmp_path: Path) -> None:
    found = document(tmp_path)
    assert str(found.problem(("stages", "fit", "inputs", "scores"), "is missing")) == (
        f"{found.path}:9: stages.fit.inputs.scores: is missing"
    )


def test_several_equal_mistakes_are_told_once() -> None:
    error = SweepError([Problem("FILE:1", "a", "wrong"), Problem("FILE:1", "a", "wrong"), Problem("FILE:2", "", "bad")])
    assert str(error) == "FILE:1: a: wrong\nFILE:2: bad"


@pytest.mark.parametrize(
    ("name", "valid", "hint"),
    [
        ("epoch", ["epochs", "seed"], "did you mean 'epochs'?"),
        ("zzz", ["a", "b"], "choose from a, b"),
        ("zzz", [], "there are none to choose from"),
        ("zzz", [f"a{number}" for number in range(20)],
         "choose from a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, …"),
        (3, [30, 1], "did you mean '30'?"),
    ],
)  # fmt: skip
def test_a_hint_is_the_nearest_name_or_the_few_there_are(name: object, valid: list[object], hint: str) -> None:
    assert nearest(name, valid) == hint


def test_a_value_that_is_not_yaml_raises_yaml_s_own_error() -> None:
    for text in ("[1", "!!int abc", "&x [*x]"):
        with pytest.raises(yaml.YAMLError):
            parse_value(text)
