"""A wrong sweep file gets one message per mistake: its place, what was found, and the nearest valid name."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

from pathlib import Path

import pytest
import toy

from orchestrator.document import SweepError, override, parse_value, read_document
from orchestrator.plan import build_plan
from orchestrator.spec import SweepSpec, load_sweep
from orchestrator.wiring import check_wiring


def load(path: Path, *overrides: str) -> SweepSpec:
    spec, document = load_sweep(path, overrides)
    check_wiring(spec, document)
    return spec


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    path = toy.write_sweep(folder, text)
    with pytest.raises(SweepError) as caught:
        build_plan(load(path, *overrides))
    return [str(problem).replace(str(path), "FILE") for problem in caught.value.problems]


def edit(before: str, after: str) -> str:
    assert before in toy.SWEEP
    return toy.SWEEP.replace(before, after)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5), ("1e3", 1000.0), ("010", 10), ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("true", True),
        ("~", None), ("'1'", "1"), ("[1, .5]", [1, 0.5]), ("{a: x}", {"a": "x"}), ("-3", -3), ("1.", 1.0),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_the_toy_sweep_is_valid(tmp_path: Path) -> None:
    assert load(toy.write_sweep(tmp_path)).name == "toy"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["FILE", "empty"]),
        ("# only a comment\n", ["empty"]),
        ("- a\n- b\n", ["FILE:1", "mapping"]),
        ("name: [unclosed\n", ["FILE:", "not valid YAML"]),
        ("name: a\nname: b\n", ["FILE:2", "name", "twice"]),
    ],
)
def test_a_file_that_is_no_sweep_at_all_says_so(tmp_path: Path, text: str, words: list[str]) -> None:
    (message,) = mistakes(tmp_path, text)
    for word in words:
        assert word in message


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    toy.write_sweep(tmp_path, name="quickstart.yaml")
    with pytest.raises(SweepError, match=r"quickstrat\.yaml: no such file; did you mean 'quickstart\.yaml'"):
        read_document(tmp_path / "quickstrat.yaml")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("axes:", "axis:", ["FILE:3: axis: unknown field; did you mean 'axes'?", "FILE:1: axes: is missing"]),
        ("name: toy", "name: 'a b'", ["FILE:1: name:"]),
        ("{value: $x}", "{value: $z}", ["FILE:9: stages.source.config.value: $z refers to no axis;"]),
        ("{value: $x}", "{value: $kind.valu}", ["$kind.valu: value 'plain' of 'kind' has no 'valu'"]),
        ("{value: $x}", "{value: $x.field}", ["they have no fields; write $x"]),
        ("{value: $x}", "{valeu: $x}", ["FILE:9: stages.source.config.valeu: unknown field; did you mean 'value'?",
                                        "stages.source.config.value: is missing"]),
        ("{value: $x}", "{value: hello}", ["FILE:9: stages.source.config.value:", "found 'hello'"]),
        ("{value: $x}", "{value: .nan, shard: $x}", ["stages.source.config"]),
        ("toy_source", "toy_sourse", ["FILE:9: stages.source.stage: there is no stage 'toy_sourse'; did you mean 'toy_source'?"]),
        ("{numbers: double}", "{number: double}", ["stage 'toy_total' has no input 'number'; did you mean 'numbers'?",
                                                   "stage 'toy_total' needs the input 'numbers'"]),
        ("{numbers: double}", "{numbers: duoble}", ["FILE:13: stages.total.inputs.numbers: there is no entry 'duoble'; did you mean 'double'?"]),
        ("{numbers: double}", "{}", ["needs the input 'numbers'; e.g. numbers: source"]),
        ("inputs: {number: source}", "inputs: {number: total}", ["circle: double -> total -> double"]),
        ("behaviour: work", "behavior: work", ["FILE:7: axes.kind.plain.behavior: unknown field; did you mean 'behaviour'?"]),
        ("x: [1, 2, 3]", "x: []", ["FILE:4: axes.x: has no values, so the sweep has zero cells"]),
        ("x: [1, 2, 3]", "x: [1, .nan]", ["FILE:4: axes.x[1]: nan is not a coordinate"]),
        ("x: [1, 2, 3]", "x: [1, 2, 1.0]", ["FILE:4: axes.x[2]: 1.0 is there twice"]),
        ("x: [1, 2, 3]", "x: [1]\n  status: [1]", ["axes.status: 'status' cannot name an axis"]),
        ("x: [1, 2, 3]", "x: [1]\n  spare: [1, 2]", ["FILE:5: axes.spare: no stage uses $spare"]),
        ("results: [total]", "results: [totl]", ["FILE:15: results[0]: there is no entry 'totl'; did you mean 'total'?"]),
        ("results: [total]", "runtime: {totel: {cpus: 2}}", ["FILE:15: runtime.totel: there is no entry 'totel'; did you mean 'total'?"]),
        ("results: [total]", "runtime: {total: {cups: 2}}", ["runtime.total.cups: unknown field; did you mean 'cpus'?"]),
        ("results: [total]", "runtime: {total: {timeout: soon}}", ["'soon' is not a duration; write seconds, or 90s, 30m, 2h, 1d"]),
        ("results: [total]", "runtime: {total: {memory: 3XB}}", ["'3XB' is not a size"]),
        ("results: [total]", "runtime: {total: {rules: [{at: {x: 9}, cpus: 2}]}}", ["9 is no value of 'x'"]),
        ("results: [total]", "exclude: [{w: 1}]", ["FILE:15: exclude[0].w: there is no axis 'w'"]),
        ("results: [total]", "exclude: [{y: 30}]", ["30 is no value of 'y'"]),
        ("results: [total]", "exclude: [{y: [10, 20]}]", ["every cell is excluded"]),
        ("results: [total]", "results: [double, total]", ["FILE:15: results: double and total both return 'total'"]),
        ("shards: 2", "shards: 0", ["stages.source.shards: is 0; it must be a whole number from 1"]),
        ("stage: toy_double,", "stage: toy_double, shards: 2,", ["cannot be cut into shards"]),
    ],
)  # fmt: skip
def test_each_mistake_is_named_at_its_place_with_the_remedy(
    tmp_path: Path, before: str, after: str, expected: list[str]
) -> None:
    found = mistakes(tmp_path, edit(before, after))
    for words in expected:
        assert any(words in message for message in found), found


def test_several_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        edit("value: $x", "valeu: $x")
        .replace("{add: $y}", "{add: much}")
        .replace("results: [total]", "runtime: {a: {}}")
    )
    found = mistakes(tmp_path, text)
    assert len(found) >= 4, found


def test_an_input_of_the_wrong_kind_says_what_is_read_and_what_is_made(tmp_path: Path) -> None:
    quickstart = (Path(__file__).parents[1] / "sweeps" / "quickstart.yaml").read_text()
    text = quickstart.replace("inputs: {scores: score_train}", "inputs: {scores: embed_train}")
    (tmp_path / "data").symlink_to(Path(__file__).parents[1] / "sweeps" / "data")
    (message,) = mistakes(tmp_path, text)
    assert "stage 'annotate' reads 'scores' here, but entry 'embed_train' makes 'embeddings'" in message


def test_a_missing_data_file_and_an_unset_variable_name_the_place_and_the_remedy(tmp_path: Path) -> None:
    hh = (Path(__file__).parents[1] / "sweeps" / "hh-local.yaml").read_text()
    (message,) = mistakes(tmp_path, hh)
    assert message.startswith("FILE:8: data.path: environment variable HH_RLHF is not set; export HH_RLHF=FILE")
    assert "-s data.path=FILE" in message
    (message,) = mistakes(tmp_path, hh, "data.path=/nowhere/file.jsonl")
    assert message.startswith(
        "-s data.path=/nowhere/file.jsonl: data.path: cannot read /nowhere/file.jsonl: No such file"
    )


def test_overrides_reach_any_place_and_a_relative_path_is_taken_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = read_document(toy.write_sweep(tmp_path))
    monkeypatch.chdir(tmp_path)
    override(document, ["axes.x=[7]", "stages.total.config.0.add=5e-1", "data.path=toy.yaml", "limits.failures=3"])
    assert document.value["axes"]["x"] == [7]
    assert document.value["stages"]["total"]["config"][0] == {"add": 0.5}
    assert document.value["data"] == {"path": str(tmp_path / "toy.yaml")}
    assert document.value["limits"] == {"failures": 3}


@pytest.mark.parametrize("text", ["axes.x", "=3", "name.x.y=1", "stages.total.config.7.add=1", "axes.x=[1"])
def test_an_override_that_fits_nowhere_is_an_error_that_repeats_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(SweepError, match="-s "):
        override(read_document(toy.write_sweep(tmp_path)), [text])


def test_durations_sizes_and_rules_become_runtime(tmp_path: Path) -> None:
    text = toy.SWEEP + (
        "runtime:\n  default: {timeout: 30m}\n  total:\n    memory: 2GiB\n    rules:\n"
        "      - {at: {x: [1, 2]}, cpus: 4}\n      - {at: {x: 2}, gpus: 1, timeout: 90s}\n"
    )
    spec = load(toy.write_sweep(tmp_path, text))
    assert spec.runtime_of("total", {"x": 3}).timeout == 1800
    two = spec.runtime_of("total", {"x": 2})
    assert (two.cpus, two.gpus, two.memory, two.timeout) == (4, 1, 2 * 2**30, 90)
    assert spec.runtime_of("source", {"x": 2}).cpus == 1
