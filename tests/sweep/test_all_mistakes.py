"""All mistakes of a sweep are told at once: none hides another, and none is told that only follows from another."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

import copy
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import toy_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.build import build_plan
from orchestrator.session import open_session
from orchestrator.sweep.document import parse_value
from orchestrator.sweep.load import draft_sweep, load_sweep
from orchestrator.sweep.problems import SweepError

DOUBLE = "double: {stage: toy_double, inputs: {number: source}}"
RESULTS = "results: [total]"


def mistakes(folder: Path, *edits: tuple[str, str]) -> list[str]:
    text = toy_sweep.SWEEP
    for before, after in edits:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path = toy_sweep.write_sweep(folder, text)
    with pytest.raises(SweepError) as caught:
        build_plan(draft_sweep(path))
    return [str(problem).replace(str(path), "FILE") for problem in caught.value.problems]


FOUR = (
    ("name: toy", "name: my sweep"),
    ("question: Does adding work?\n", ""),
    ("stage: toy_double,", "stage: toy_duoble,"),
    ("{add: $y}", "{add: $y, marker: $seeed}"),
)


def test_a_bad_name_a_missing_question_a_misspelt_stage_and_an_unknown_axis_are_four_mistakes_by_line(
    tmp_path: Path,
) -> None:
    assert mistakes(tmp_path, *FOUR) == [
        "FILE:1: name: a name has up to 100 letters, digits and . _ -, and begins with a letter or digit; found 'my sweep'",
        "FILE:1: question: is missing",
        "FILE:9: stages.double.stage: there is no stage 'toy_duoble'; did you mean 'toy_double'?",
        "FILE:13: stages.total.config[0].marker: $seeed refers to no axis; choose from x, y, kind, data",
    ]


def test_a_misspelt_field_of_an_entry_hides_nothing_else_of_it(tmp_path: Path) -> None:
    edits = [("  source: {", "  source: {xyz: 3, "), ("{value: $x}", "{value: $seeed, valeu: 1}")]
    assert mistakes(tmp_path, *FOUR[:1], *edits) == [
        "FILE:1: name: a name has up to 100 letters, digits and . _ -, and begins with a letter or digit; found 'my sweep'",
        "FILE:9: stages.source.xyz: unknown field; choose from config, inputs, metrics, otherwise, shards, stage, version, when",
        "FILE:9: stages.source.config.value: $seeed refers to no axis; choose from x, y, kind, data",
        "FILE:9: stages.source.config.valeu: unknown field; did you mean 'value'?",
    ]


def test_whoever_opens_a_sweep_is_told_all_and_whoever_only_loads_it_what_is_wrong_with_its_text(
    tmp_path: Path,
) -> None:
    text = toy_sweep.SWEEP
    for before, after in FOUR:
        text = text.replace(before, after)
    path = toy_sweep.write_sweep(tmp_path, text)
    with pytest.raises(SweepError) as opened:
        open_session(path)
    with pytest.raises(SweepError) as loaded:
        load_sweep(path)
    assert (len(opened.value.problems), len(loaded.value.problems)) == (4, 2)


#: Mistakes of all kinds in places that have nothing to do with each other.
APART = (
    ("name: toy", "name: a b"),
    ("Does adding work?", "''"),
    ("y: [10, 20]", "y: [ten, 20]"),
    ("behaviour: work", "behavior: work"),
    ("{value: $x}", "{value: $z, marker: $x}"),
    ("inputs: {number: source}", "inputs: {number: sorce}"),
    ("{numbers: double}", "{numbers: double, more: double}"),
    ("tracking: false", "runtime: {totl: {cpus: 1}, total: {cups: 2}}"),
    (RESULTS, f"{RESULTS}\nexclude: [{{w: 1}}, {{kind: plian}}]\nsummary: {{by: [w]}}"),
)


@pytest.mark.parametrize("count", [2, len(APART)])
def test_mistakes_that_have_nothing_to_do_with_each_other_are_told_together_as_they_are_told_alone(
    tmp_path: Path, count: int
) -> None:
    # The last edit adds lines; it stands last so that the lines of the others stay.
    alone = {edit: mistakes(tmp_path, edit) for edit in APART}
    for edits in combinations(APART, count):
        together = mistakes(tmp_path, *edits)
        expected = [message for edit in edits for message in alone[edit]]
        if edits[-1] == APART[-1] and APART[-2] in edits:
            together, expected = ([m.partition(": ")[2] for m in each] for each in (together, expected))
        assert sorted(together) == sorted(expected)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([("axes:", "axis:")], ["FILE:1: axes: is missing", "FILE:3: axis: unknown field; did you mean 'axes'?"]),
        ([("uses:", "ues:")], ["FILE:17: ues: unknown field; did you mean 'uses'?"]),
        ([("stages:", "stage:")], ["FILE:1: stages: is missing", "FILE:8: stage: unknown field; did you mean 'stages'?"]),
        ([("  x: [1, 2, 3]\n  y: [10, 20]\n  kind:\n    plain: {behaviour: work}\n", "  {}\n")],
         ["FILE:3: axes: a sweep has at least one axis, e.g. seed: [0]"]),
        ([("results:", "reslts:")], ["FILE:15: reslts: unknown field; did you mean 'results'?"]),
        ([("{value: $x}", "{value: $data.n, shard: $x}"), (RESULTS, "dta: {n: 1}")],
         ["FILE:15: dta: unknown field; did you mean 'data'?"]),
        ([(DOUBLE, "double: 3")], ["FILE:10: stages.double: should be a mapping; found 3"]),
        ([("inputs: {number: source}", "inptus: {number: source}")],
         ["FILE:10: stages.double.inptus: unknown field; did you mean 'inputs'?"]),
        ([("inputs: {number: source}", "inputs: [source]")],
         ["FILE:10: stages.double.inputs: should be a mapping; found ['source']"]),
        ([("    config: [{add", "    cofnig: [{add")], ["FILE:14: stages.total.cofnig: unknown field; did you mean 'config'?"]),
        ([("stage: toy_double", "sage: toy_double")], ["FILE:10: stages.double.sage: unknown field; did you mean 'stage'?"]),
        ([("stage: toy_double", "stage: $kidn.stage")],
         ["FILE:10: stages.double.stage: $kidn.stage refers to no axis; did you mean 'kind'?"]),
        ([("stage: toy_double", "stage: toy_double, when: $x.y")],
         ["FILE:10: stages.double.when: $x.y: the values of 'x' are plain, they have no fields; write $x"]),
        ([("shards: 2", "shards: $y.n")],
         ["FILE:9: stages.source.shards: $y.n: the values of 'y' are plain, they have no fields; write $y"]),
        ([("stage: toy_double", "stage: toy_double, shards: 2")],
         ["FILE:10: stages.double.shards: stage 'toy_double' cannot be cut into shards; did you mean 'toy_source'?"]),
        ([("stage: toy_double", "stage: toy_double, when: 3")],
         ["FILE:10: stages.double.when: should be a valid boolean; found 3"]),
        ([("    config: [{add: $y}, $kind]", "    config: 3")], ["FILE:14: stages.total.config: is neither a mapping of config fields, nor a reference to one, nor a list of these; found 3"]),
        ([("x: [1, 2, 3]", "x: [1, null]"), ("{value: $x}", "{value: $x, shrad: 1}")],
         ["FILE:4: axes.x[1]: is no value of an axis (text, number, true or false); found None",
          "FILE:9: stages.source.config.shrad: unknown field; did you mean 'shard'?"]),
        ([("x: [1, 2, 3]", "x: [1, 2, 2]"), (RESULTS, "exclude: [{x: 4}]\nsummary: {by: [x]}")],
         ["FILE:4: axes.x[2]: 2 is there twice; keep one"]),
        ([("$kind]", "$kidn]"), ("{add: $y}", "{add: much, marker: $y}")],
         ["FILE:5: axes.y[0]: should be text; found 10", "FILE:5: axes.y[1]: should be text; found 20",
          "FILE:14: stages.total.config[1]: $kidn refers to no axis; did you mean 'kind'?",
          "FILE:14: stages.total.config[0].add: should be a valid number; found 'much'"]),
        ([("{value: $x}", "{shard: $x}"), ("    config: [{add", "    config: [3, {add")],
         ["FILE:9: stages.source.config.value: is missing", "FILE:14: stages.total.config: is neither a mapping of config fields, nor a reference to one, nor a list of these; found [3, {'add': '$y'}, '$kind']"]),
        ([(RESULTS, f"{RESULTS}\ndata: {{path: $env.NO_SUCH_FILE}}"), ("{value: $x}", "{value: $x, marker: $data.pth}")],
         ["FILE:9: stages.source.config.marker: $data.pth: data has no 'pth'; did you mean 'path'?",
          "FILE:16: data.path: environment variable NO_SUCH_FILE is not set; export NO_SUCH_FILE=FILE, or pass -s data.path=FILE"]),
        ([(RESULTS, "results: [totl]\nsummary: {metrics: [total]}")],
         ["FILE:15: results[0]: there is no entry 'totl'; did you mean 'total'?"]),
        ([(RESULTS, "results: [total, double]"), ("behaviour: work", "behavior: work")],
         ["FILE:7: axes.kind.plain.behavior: unknown field; did you mean 'behaviour'?"]),
        ([(RESULTS, "summary: {metrics: [totl]}"), ("{value: $x}", "{value: $x, valu: 1}")],
         ["FILE:9: stages.source.config.valu: unknown field; did you mean 'value'?",
          "FILE:15: summary.metrics[0]: there is no metric 'totl'; did you mean 'total'?"]),
        ([("number: source}", "number: total}"), ("name: toy", "name: a b"), ("{value: $x}", "{value: much, shard: $x}")],
         ["FILE:1: name: a name has up to 100 letters, digits and . _ -, and begins with a letter or digit; found 'a b'",
          "FILE:8: stages: the entries feed each other in a circle: double -> total -> double",
          "FILE:9: stages.source.config.value: should be a valid number; found 'much'"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_all_others_but_without_what_follows_from_it(
    tmp_path: Path, edits: list[tuple[str, str]], expected: list[str]
) -> None:
    assert mistakes(tmp_path, *edits) == expected


def test_inputs_that_are_missing_at_some_points_are_told_for_every_entry_at_the_first_of_them(tmp_path: Path) -> None:
    edits = [
        ("plain: {behaviour: work}", "one: {config: {}, twice: true}\n    two: {config: {}, twice: false}"),
        ("$kind]", "$kind.config]"),
        ("double: {", "double: {when: $kind.twice, "),
        (RESULTS, "  again: {stage: toy_double, inputs: {number: double}}\n" + RESULTS),
    ]
    missing = "the input is missing at {'x': 1, 'kind': 'two'}: entry 'double' does not exist there"
    found = mistakes(tmp_path, *edits)
    assert [message.partition(": the")[0] for message in found] == [
        "FILE:14: stages.total.inputs.numbers", "FILE:16: stages.again.inputs.number",
    ]  # fmt: skip
    assert found[1].endswith(missing)


def test_the_value_of_an_axis_is_not_filled_in_even_where_a_layer_of_a_config_takes_it_whole(tmp_path: Path) -> None:
    assert mistakes(tmp_path, ("behaviour: work", "marker: $x")) == [
        "FILE:7: axes.kind.plain.marker: $x is not filled in inside an axis; write it in the config of the entry"
    ]


def test_a_wrong_value_of_an_axis_is_placed_at_itself_and_not_where_its_label_would_be(tmp_path: Path) -> None:
    assert mistakes(tmp_path, ("x: [1, 2, 3]", "x: [1.5,\n    2, 1]"), ("value: $x}", "value: 0, marker: $x}"))[1:] == [
        "FILE:5: axes.x[1]: should be text; found 2",
        "FILE:5: axes.x[2]: should be text; found 1",
    ]


junk = st.sampled_from([None, True, -1, 0, 1.5, "", "$", "$x", "$x.y", "$kind.behaviour", "$data", "$env.X", "total", [], ["a"],
                        [1, {}], {}, {"a": 1}, {"stage": "toy_total"}, {"path": "x"}, {"path": "$env.NO_SUCH_FILE"}])  # fmt: skip


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_written_in_a_sweep_it_is_planned_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = parse_value(
        toy_sweep.SWEEP + "runtime: {total: {rules: [{at: {x: 1}, cpus: 2}]}}\nexclude: [{x: 3}]\ndata: {n: 1}\n"
    )
    for _ in range(data.draw(st.integers(1, 4))):
        owner = whole
        while True:
            names = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
            if not names:
                break
            name = data.draw(st.sampled_from(names))
            inside = owner[name]
            if isinstance(inside, dict | list) and data.draw(st.booleans()):
                owner = inside
                continue
            change = data.draw(st.sampled_from(["replace", "rename", "remove"]))
            value: Any = copy.deepcopy(data.draw(junk)) if change == "replace" else owner.pop(name)
            if change == "replace":
                owner[name] = value
            elif change == "rename" and isinstance(owner, dict):
                owner[data.draw(st.sampled_from([f"{name}x", "x", "data", "stage", "inputs", "a b"]))] = value
            break
    path = toy_sweep.write_sweep(tmp_path_factory.mktemp("sweep"), json.dumps(whole))
    try:
        build_plan(draft_sweep(path))
    except SweepError:
        return
