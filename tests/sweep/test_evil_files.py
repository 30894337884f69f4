"""A sweep file that was made to hang, fill or crash its reader is refused with a line, before it costs anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_sweep
from sweep_files import edit, load, mistakes

from orchestrator.plan.build import build_plan
from orchestrator.sweep.document import DEEPEST, LARGEST, MOST_PARTS, read_document
from orchestrator.sweep.load import draft_sweep
from orchestrator.sweep.mapping import document_of
from orchestrator.sweep.outputs import resolve_outputs
from orchestrator.sweep.problems import MOST_TOLD, Problem, SweepError

NINE = ", ".join(["*a{0}"] * 9)
LAUGHS = "".join(f"  a{level + 1}: &a{level + 1} [{NINE.format(level)}]\n" for level in range(9))
BOMB = f"data:\n  a0: &a0 [lol, lol]\n{LAUGHS}"
LONG_NAME = "x" * 300


def refused(folder: Path, text: str | bytes) -> Problem:
    """The one mistake that a file is refused for."""
    path = folder / "toy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SweepError) as caught:
        build_plan(draft_sweep(path))
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, f"more than {MOST_PARTS:,} keys and values"),
        (f"data:\n  a: &a {'x' * 9_000}\n  b: [{'*a, ' * 200}]\n", f"or {LARGEST:,} characters, with aliases"),
        (f"data: {'[' * 5000}{']' * 5000}\n", f"below more than {DEEPEST} mappings and lists"),
        (f"data: {'[' * 200_000}\n", f"below more than {DEEPEST} mappings and lists"),
        (f"data: {'{a: ' * 5000}{'}' * 5000}\n", f"below more than {DEEPEST} mappings and lists"),
        (f"data:\n  {'- ' * 5000}1\n", f"below more than {DEEPEST} mappings and lists"),
        ("data:\n" + "".join(f"{' ' * (depth + 1)}a:\n" for depth in range(1000)), f"more than {DEEPEST} mappings"),
        (f"data: &a {'[' * 40}1{']' * 40}\nlimits: {'[' * 40}*a{']' * 40}\n", f"below more than {DEEPEST} mappings"),
        (f"data: [{'1,' * MOST_PARTS}]\n", f"more than {MOST_PARTS:,} keys and values"),
        (f"data: {'x' * 10_000_000}\n", f"has more than {LARGEST:,} bytes"),
        (f"#{'x' * 10_000_000}\n", f"has more than {LARGEST:,} bytes"),
        ("data: {a: &a {b: 1}, c: {<<: *a}}\n", "YAML 1.2 has no merge key <<"),
        ("data: !foo x\n", "unknown tag '!foo'"),
        ("data: !!python/object/apply:os.system [exit]\n", "unknown tag"),
        ('data: "\\UFFFFFFFF"\n', "not valid YAML: "),
        ('data: "\\uD800"\n', "'\\ud800' is half a character"),
        ('question: "a\\0b"\n', "'\\x00' is no character of a text"),
        ('store: "a\\0b"\n', "'\\x00' is no character of a text"),
    ],
)
def test_what_would_take_for_ever_to_read_or_nobody_can_write_is_refused(tmp_path: Path, text: str, words: str) -> None:
    sweep = toy_sweep.SWEEP.replace("question: Does adding work?\n", "") if "question" in text else toy_sweep.SWEEP
    problem = refused(tmp_path, sweep + text)
    assert words in problem.message
    assert problem.place.startswith(str(tmp_path / "toy.yaml"))


def test_a_version_of_yaml_with_thousands_of_digits_is_no_yaml(tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, f"%YAML {'9' * 5000}.1\n---\n{toy_sweep.SWEEP}").message


def test_json_of_5000_levels_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "[" * 5000 + "]" * 5000).place == f"{tmp_path / 'toy.yaml'}:1"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(5 << 30)


def link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.symlink_to(target)

    return make


ODD_FILES = {
    "a FIFO": fifo,
    "a socket": socket_file,
    "a folder": Path.mkdir,
    "/dev/zero": link("/dev/zero"),
    "/dev/urandom": link("/dev/urandom"),
    "a terminal": link("/dev/tty"),
    "a process": link("/proc/self/mem"),
    "a link to itself": link("toy.yaml"),
    "5 GB": sparse,
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_sweep_file_is_a_regular_file_of_a_sensible_size(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # The path of a socket has at most 108 bytes.
    ODD_FILES[kind](Path("toy.yaml"))
    with pytest.raises(SweepError, match=r"toy\.yaml: (cannot be read: |has more than )"):
        read_document(Path("toy.yaml"))


@pytest.mark.parametrize("kind", [*(kind for kind in ODD_FILES if kind not in ("a folder", "5 GB"))])
def test_a_local_file_that_is_no_regular_one_is_a_mistake_at_its_place(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ODD_FILES[kind](Path("it"))
    if kind == "a link to itself":
        (tmp_path / "toy.yaml").symlink_to("it")
        (tmp_path / "it").unlink()
        (tmp_path / "it").symlink_to("it")
    (message,) = mistakes(tmp_path, toy_sweep.SWEEP + "data: {path: it}\n")
    assert message.startswith(f"FILE:19: data.path: cannot read {tmp_path / 'it'}: ")
    text = edit("{value: $x}", "{value: {path: it}, shard: $x}")
    assert any("FILE:9: stages.source.config.value.path: cannot read" in each for each in mistakes(tmp_path, text))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/zero", "cannot read /dev/zero: it is a character device and no regular file"),
        ("~nobody-of-that-name/x", "there is no user 'nobody-of-that-name'"),
        ("a\\0b", "'\\x00' is no character of a path"),
        ("", "is empty"),
        ("$env.", "environment variable  is not set; export NAME=FILE"),
        (LONG_NAME, "File name too long"),
    ],
)
def test_a_path_that_no_file_has_is_a_mistake_at_its_place(tmp_path: Path, path: str, words: str) -> None:
    (message,) = mistakes(tmp_path, toy_sweep.SWEEP + f'data: {{path: "{path}"}}\n')
    assert message.startswith("FILE:19: data.path: ")
    assert words in message


def test_a_folder_with_a_fifo_counts_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "one").write_text("1")
    os.mkfifo(tmp_path / "rows" / "two")
    (tmp_path / "rows" / "again").symlink_to("../rows")
    assert load(toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP + "data: {path: rows}\n"))


def test_a_module_that_is_no_file_or_of_five_gigabytes_is_no_module(tmp_path: Path) -> None:
    text = edit("toy_total", "mine:train")
    os.mkfifo(tmp_path / "mine.py")
    assert "there is no module 'mine'" in mistakes(tmp_path, text)[0]
    (tmp_path / "mine.py").unlink()
    sparse(tmp_path / "mine.py")
    assert "has more than 10,000,000 bytes" in mistakes(tmp_path, text)[0]
    (tmp_path / "mine.py").write_text("x = " + "(" * 5000 + ")" * 5000)
    assert "is no Python" in mistakes(tmp_path, text)[0]


@pytest.mark.parametrize("place", ["uses: [toy, NAME]", "stage: NAME:train"])
def test_no_module_has_a_name_that_is_longer_than_a_file_name(tmp_path: Path, place: str) -> None:
    before = "uses: [toy]" if "uses" in place else "stage: toy_total"
    (message,) = mistakes(tmp_path, edit(before, place.replace("NAME", LONG_NAME)))
    assert LONG_NAME in message


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("axes:\n", "axes:\n" + "".join(f"  q{axis}: [{', '.join(map(str, range(10)))}]\n" for axis in range(12)),
         "FILE:3: axes: span 6,000,000,000,000 cells; a sweep has at most 10,000,000"),
        ("shards: 2", "shards: 1000000000",
         "FILE:9: stages.source.shards: is 1000000000; it must be a whole number from 1 to 10000"),
        ("x: [1, 2, 3]", "x: [9223372036854775808]", "axes.x[0]: is a whole number of more than 64 bits"),
        ("x: [1, 2, 3]", 'x: ["e\\u0301", "\\u00e9"]', "axes.x[1]: 'é' is there twice"),
        ("plain: {behaviour: work}", '"e\\u0301": {behaviour: work}\n    "\\u00e9": {behaviour: work}',
         "is shown like 'e\\u0301', which has other characters; keep one"),
        ("  x:", f"  {LONG_NAME}:", "cannot name an axis: use up to 100 characters"),
        ("results: [total]", "runtime: {default: {cpus: 1e999}}", "should be less than or equal to 1000000000"),
        ("results: [total]", "runtime: {default: {timeout: 1e308}}", "should be less than or equal to 1000000000"),
        ("results: [total]", f"limits: {{running: 1{'0' * 4000}}}", "should be less than or equal to 1000000000"),
        ("results: [total]", f"limits: {{running: 1{'0' * 5000}}}", "not valid YAML: int expected"),
    ],
)  # fmt: skip
def test_a_number_that_nothing_has_so_many_of_is_refused(tmp_path: Path, before: str, after: str, words: str) -> None:
    found = mistakes(tmp_path, edit(before, after))
    assert any(words in each for each in found), found


@pytest.mark.parametrize("field", ["memory", "memory_limit", "timeout", "silent", "cpus", "batch_size"])
def test_a_runtime_value_may_be_null_which_sets_none(tmp_path: Path, field: str) -> None:
    spec = load(toy_sweep.write_sweep(tmp_path, edit("results: [total]", f"runtime: {{total: {{{field}: null}}}}")))
    assert spec.runtime_of("total", {}) == spec.runtime_of("double", {})


@pytest.mark.parametrize(
    "name", ["a/b", "a\\\\b", "a\\nb", "a\\u202eb", "..", "~", "-rf", "$x", "", " ", "a,b", "a:b", "\\e[1m", LONG_NAME]
)
def test_an_entry_has_a_name_that_can_stand_in_a_command_and_a_column(tmp_path: Path, name: str) -> None:
    found = mistakes(
        tmp_path, edit("  double:", f'  "{name}": {{stage: toy_source, config: {{value: $x}}}}\n  double:')
    )
    assert sum("cannot name an entry: use up to 100 letters, digits and . _ -" in each for each in found) == 1


def test_an_entry_cannot_be_called_like_what_stands_for_all_entries(tmp_path: Path) -> None:
    found = mistakes(tmp_path, edit("  double:", "  default: {stage: toy_source, config: {value: $x}}\n  double:"))
    assert found[0] == "FILE:10: stages.default: 'default' cannot name an entry: stands for all entries in `runtime`"


def chain(last: str) -> str:
    """Three thousand entries, each of which feeds the next."""
    fed = [last, *(f"e{number}" for number in range(2999))]
    lines = (f"  e{number}: {{stage: toy_double, inputs: {{number: {by}}}}}\n" for number, by in enumerate(fed))
    return toy_sweep.SWEEP.replace("stages:\n", "stages:\n" + "".join(lines))


def test_a_circle_of_three_thousand_entries_is_told_and_cut_short(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, chain("e2999"))
    assert message.startswith("FILE:8: stages: the entries feed each other in a circle: e0 -> e2999 -> e2998 -> ")
    assert len(message) < 3000


def test_of_thousands_of_mistakes_of_one_kind_some_are_told(tmp_path: Path) -> None:
    names = ", ".join(f"a{number}" for number in range(3000))
    assert len(mistakes(tmp_path, edit("results: [total]", f"results: [{names}]"))) == MOST_TOLD
    values = edit("y: [10, 20]", f"y: [{', '.join(map(str, range(3000)))}]").replace("results: [total]", "")
    assert len(mistakes(tmp_path, f"{values}exclude: [{{y: [{names}]}}]\n")) == MOST_TOLD


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("data." + "a." * 5000 + "b=1", "the place is below more than"),
        ("data=" + "[" * 5000 + "]" * 5000, "below more than"),
        (f"axes.x.{'1' * 5000}=1", "there is no such place"),
        (f"data={BOMB.splitlines()[1].partition(':')[2]}", ""),
        ("data.path=/dev/zero", "it is a character device"),
        ("data.path=~nobody-of-that-name/x", "there is no user"),
        (f"axes.q=a:{'1' * 5000}", "neither a list of values nor a mapping"),
    ],
)
def test_an_override_is_bounded_like_a_file(tmp_path: Path, assignment: str, words: str) -> None:
    if words:
        found = mistakes(tmp_path, toy_sweep.SWEEP, assignment)
        assert any(words in each for each in found), found
        assert max(map(len, found)) < 5000
    else:
        assert load(toy_sweep.write_sweep(tmp_path), assignment)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"axes": {"x": range(10**9)}}, f"more than {MOST_PARTS:,}"),
        ({"data": [[0] * 1000] * 1000}, f"more than {MOST_PARTS:,}"),
        ({"data": ["x" * 500_000] * 3}, f"more than {MOST_PARTS:,} keys and values, or {LARGEST:,} characters"),
    ],
)
def test_a_sweep_of_values_is_bounded_like_a_file(value: dict[str, object], words: str) -> None:
    with pytest.raises(SweepError, match=words):
        document_of(value, Path())


def test_a_sweep_of_values_is_no_deeper_than_a_file() -> None:
    value: object = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(SweepError, match="below more than"):
        document_of({"data": value}, Path())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("~nobody-of-that-name/x", "there is no user"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("\u202ea", "control characters"),
        ("s3://", "names no place"),
        ("://x", "names no place"),
    ],
)
def test_a_root_that_is_no_place_is_refused_by_name(place: str, words: str) -> None:
    with pytest.raises(SweepError, match=words):
        resolve_outputs("toy", place, None, None)
    with pytest.raises(SweepError, match=f"--store: .*{words}"):
        resolve_outputs("toy", None, None, place)
