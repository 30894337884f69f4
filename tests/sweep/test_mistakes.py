"""A wrong sweep file gets one message per mistake: its place, what was found, and the nearest valid name."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

import re
from pathlib import Path

import pytest
import toy_sweep
from sweep_files import KIND, RESULTS, edit, judged_by, load, mistakes

from orchestrator.sweep.document import read_document
from orchestrator.sweep.problems import SweepError


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
    toy_sweep.write_sweep(tmp_path, name="quickstart.yaml")
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
    quickstart = (Path(__file__).parents[2] / "sweeps" / "quickstart.yaml").read_text()
    text = quickstart.replace("inputs: {scores: score_train}", "inputs: {scores: embed_train}")
    (tmp_path / "data").symlink_to(Path(__file__).parents[2] / "sweeps" / "data")
    (message,) = mistakes(tmp_path, text)
    assert "stage 'annotate' reads 'scores' here, but entry 'embed_train' makes 'embeddings'" in message


def test_a_missing_data_file_and_an_unset_variable_name_the_place_and_the_remedy(tmp_path: Path) -> None:
    hh = (Path(__file__).parents[2] / "sweeps" / "hh-local.yaml").read_text()
    (message,) = mistakes(tmp_path, hh)
    assert message.startswith("FILE:8: data.path: environment variable HH_RLHF is not set; export HH_RLHF=FILE")
    assert "-s data.path=FILE" in message
    (message,) = mistakes(tmp_path, hh, "data.path=/nowhere/file.jsonl")
    assert message.startswith(
        "-s data.path=/nowhere/file.jsonl: data.path: cannot read /nowhere/file.jsonl: No such file"
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (RESULTS, "colour: red", "FILE:15: colour: unknown field; choose from analysis, axes, data, exclude, hooks, limits, name, namespace, question, results, runtime, search, stages, store, summary, tracking"),
        ("x: [1, 2, 3]", "x: 3", "FILE:4: axes.x: is neither a list of values nor a mapping of names to fields; found 3"),
        ("x: [1, 2, 3]", "x: [1, null]", "FILE:4: axes.x[1]: is no value of an axis (text, number, true or false); found None"),
        ("x: [1, 2, 3]", "x: [1, [2]]", "FILE:4: axes.x[1]: is no value of an axis (text, number, true or false); found [2]"),
        ("x: [1, 2, 3]", "x: [true, true]", "FILE:4: axes.x[1]: True is there twice; keep one"),
        ("x: [1, 2, 3]", "x: [1, '1']", "FILE:4: axes.x[1]: '1' reads like 1; keep one"),
        ("x: [1, 2, 3]", "x: ['0.5', 0.5]", "FILE:4: axes.x[1]: 0.5 reads like '0.5'; keep one"),
        ("x: [1, 2, 3]", "x: [1, true]", "FILE:4: axes.x[1]: True is there twice; keep one"),
        ("x: [1, 2, 3]", "x: []", "FILE:4: axes.x: has no values, so the sweep has zero cells"),
        (KIND, "{}", "FILE:6: axes.kind: has no values, so the sweep has zero cells"),
        ("x: [1, 2, 3]", "x: [1, .inf]", "FILE:4: axes.x[1]: inf is not a coordinate; give a number"),
        ("{value: $x}", "{value: $X}", "FILE:9: stages.source.config.value: $X refers to no axis; did you mean 'x'?"),
        ("{value: $x}", "{value: $data.n, shard: $x}", "FILE:9: stages.source.config.value: $data.n refers to data:, which the sweep does not have"),
        ("{value: $x}", "{value: .nan, shard: $x}", "FILE:9: stages.source.config.value: nan cannot be part of a key; give a finite number"),
        (KIND, "plain: {add: .nan}", "FILE:7: axes.kind.plain.add: nan cannot be part of a key; give a finite number"),
        (KIND, "plain: {behaviour: wrok}", "FILE:7: axes.kind.plain.behaviour: should be 'work', 'raise',"),
        (KIND, "plain: work", "FILE:7: axes.kind.plain: must be a mapping of config fields, found 'work'"),
        ("[{add: $y}, $kind]", "[{add: $y, addd: 1}, $kind]", "FILE:14: stages.total.config[0].addd: unknown field; did you mean 'add'?"),
        ("stage: toy_total", "stage: $kind.behaviour", "FILE:12: stages.total.stage: there is no stage 'work';"),
        ("number: source}", "number: source, extra: source}", "FILE:10: stages.double.inputs.extra: stage 'toy_double' has no input 'extra'; choose from number"),
        ("inputs: {numbers: double}", "inputs: {}", "FILE:13: stages.total.inputs: stage 'toy_total' needs the input 'numbers'; e.g. numbers: source"),
        ("number: source}", "number: double}", "FILE:8: stages: the entries feed each other in a circle: double -> double"),
        ("shards: 2", "shards: true", "FILE:9: stages.source.shards: is True; it must be a whole number from 1"),
        ("shards: 2", "shards: many", "FILE:9: stages.source.shards: 'many' is neither a value nor a reference ($axis.field)"),
        ("stage: toy_double,", "stage: toy_double, when: $x,", "FILE:10: stages.double.when: is 1 at {'x': 1}; it must be true or false"),
        ("stage: toy_double,", "stage: toy_double, otherwise: source,", "FILE:10: stages.double.otherwise: stands in where `when` is false, but there is no `when`"),
        (RESULTS, "exclude: [{x: 1}, {y: [10, 20]}]", "FILE:15: exclude: every cell is excluded, nothing is left to run"),
        (RESULTS, "exclude: [{y: [10, 11]}]", "FILE:15: exclude[0].y: 11 is no value of 'y'; did you mean '10'?"),
        (RESULTS, "limits: {running: 0}", "FILE:15: limits.running: should be greater than or equal to 1; found 0"),
        (RESULTS, "runtime: {total: {memory: infGB}}", "FILE:15: runtime.total.memory: 'infGB' is not a size; write bytes, or 512MB, 16GiB"),
        (RESULTS, "runtime: {total: {memory: -1GB}}", "FILE:15: runtime.total.memory: should be greater than 0;"),
        (RESULTS, "runtime: {total: {timeout: 0}}", "FILE:15: runtime.total.timeout: should be greater than 0; found 0"),
        (RESULTS, "runtime: {total: {timeout: xs}}", "FILE:15: runtime.total.timeout: 'xs' is not a duration; write seconds, or 90s, 30m, 2h, 1d; found 'xs'"),
        (RESULTS, "runtime: {total: {rules: [{cpus: 2}]}}", "FILE:15: runtime.total.rules[0].at: is missing"),
        (RESULTS, "runtime: {total: {rules: [{at: {z: 1}}]}}", "FILE:15: runtime.total.rules[0].at.z: there is no axis 'z'; choose from x, y, kind"),
        (RESULTS, "summary: {by: [x, knid]}", "FILE:15: summary.by[1]: there is no axis 'knid'; did you mean 'kind'?"),
        (RESULTS, "summary: {bi: [x]}", "FILE:15: summary.bi: unknown field; did you mean 'by'?"),
        (RESULTS, "summary: {metrics: [totl]}", "FILE:15: summary.metrics[0]: there is no metric 'totl'; did you mean 'total'?"),
        (RESULTS, "summary: {metrics: [value]}", "FILE:15: summary.metrics[0]: there is no metric 'value'; choose from total"),
        (RESULTS, "tracking: true", "FILE:15: tracking: is neither a mapping (uri:, experiment:) nor false; found True"),
        ("name: toy", "name: [a]", "FILE:1: name: should be text; found ['a']"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_message(tmp_path: Path, before: str, after: str, expected: str) -> None:
    text = edit(before, after)
    if after.startswith("tracking"):
        text = text.replace("\ntracking: false", "")
    (message,) = mistakes(tmp_path, text)
    assert message.startswith(expected)


@pytest.mark.parametrize(
    "name",
    ["cell_id", "status", "error_class", "error", "attempts", "seconds", "key", "code_commit", "log", "data", "env",
     "Status"],
)  # fmt: skip
def test_a_name_of_the_results_table_cannot_name_an_axis(tmp_path: Path, name: str) -> None:
    text = edit("  x:", f"  {name}:").replace("$x", f"${name}")
    assert mistakes(tmp_path, text) == [f"FILE:4: axes.{name}: {name!r} cannot name an axis: it is a name of our own"]


@pytest.mark.parametrize("name", ["a-b", "2x", "a b"])
def test_a_name_that_is_no_identifier_cannot_name_an_axis(tmp_path: Path, name: str) -> None:
    text = edit("  x:", f"  {name}:").replace("$x", f"${name}")
    assert mistakes(tmp_path, text)[0] == (
        f"FILE:4: axes.{name}: {name!r} cannot name an axis: use letters, digits and _"
    )


@pytest.mark.parametrize("name", ["total", "Total"])
def test_an_axis_cannot_have_the_name_of_a_reported_metric_since_both_would_be_one_column(
    tmp_path: Path, name: str
) -> None:
    text = edit("  x:", f"  {name}:").replace("$x", f"${name}")
    assert mistakes(tmp_path, text) == [
        f"FILE:4: axes.{name}: is also the metric 'total' of 'total', which would be one column; rename the axis"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("error", "the results have that name already; return it under another name"),
        ("Status", "the results have that name already; return it under another name"),
        ("top-1", "use letters, digits and _"),
    ],
)
def test_a_metric_that_cannot_be_a_column_of_the_results_is_refused_before_it_is_computed(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "mine.py").write_text("def train(add: int, behaviour: str): ...\n")
    text = edit("stage: toy_total\n    inputs: {numbers: double}", f"stage: mine:train\n    metrics: [{name}]")
    assert mistakes(tmp_path, text) == [f"FILE:11: stages.total: cannot return a metric {name!r}: {reason}"]


def test_a_function_that_does_not_take_shards_is_told_how_to(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def train(add: int, behaviour: str): ...\n")
    text = edit("stage: toy_total\n    inputs: {numbers: double}", "stage: mine:train\n    shards: 2")
    assert mistakes(tmp_path, text) == [
        "FILE:13: stages.total.shards: stage 'mine:train' cannot be cut into shards; give it the parameters shard: int and shards: int"
    ]


def test_two_axes_cannot_differ_only_in_case_since_sql_reads_them_as_one_column(tmp_path: Path) -> None:
    assert mistakes(tmp_path, edit("  y:", "  X:").replace("$y", "$X")) == [
        "FILE:5: axes.X: 'X' cannot name an axis: it differs from 'x' only in case"
    ]


def test_a_mistake_in_a_layer_of_an_axis_is_placed_at_each_value_that_has_it(tmp_path: Path) -> None:
    text = edit(KIND, "one: {config: {ad: 1}}\n    two: {config: {add: 2}}\n    three: {config: {ad: 3}}")
    text = text.replace("$kind]", "$kind.config]")
    assert mistakes(tmp_path, text) == [
        "FILE:7: axes.kind.one.config.ad: unknown field; did you mean 'add'?",
        "FILE:9: axes.kind.three.config.ad: unknown field; did you mean 'add'?",
    ]


def test_an_input_that_does_not_exist_at_some_coordinates_is_placed_and_says_where(tmp_path: Path) -> None:
    text = edit(KIND, "one: {config: {}, twice: true}\n    two: {config: {}, twice: false}")
    text = text.replace("$kind]", "$kind.config]").replace("double: {", "double: {when: $kind.twice, ")
    (message,) = mistakes(tmp_path, text)
    assert message.startswith("FILE:14: stages.total.inputs.numbers: the input is missing at {")
    assert "'kind': 'two'" in message
    assert message.endswith("entry 'double' does not exist there")


def test_mistakes_in_all_parts_of_a_file_are_reported_at_once_each_at_its_line(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP
    for before, after in (
        ("value: $x", "valeu: $x"),
        ("{add: $y}", "{add: much, marker: $y}"),
        ("  y: [10, 20]", "  y: ['10', '20']\n  spare: [1]"),
        (RESULTS, "results: [totl]\nruntime: {a: {}}"),
    ):
        assert before in text
        text = text.replace(before, after)
    assert sorted(message.split(": ")[0] + " " + message.split(": ")[1] for message in mistakes(tmp_path, text)) == [
        "FILE:10 stages.source.config.valeu",
        "FILE:10 stages.source.config.value",
        "FILE:15 stages.total.config[0].add",
        "FILE:16 results[0]",
        "FILE:17 runtime.a",
        "FILE:6 axes.spare",
    ]


@pytest.mark.parametrize(("value", "words"), [(None, "is not set"), ("", "is not set")])
def test_a_variable_that_is_unset_or_empty_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, words: str
) -> None:
    monkeypatch.delenv("TOY_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("TOY_DATA", value)
    (message,) = mistakes(tmp_path, toy_sweep.SWEEP + "data: {path: $env.TOY_DATA}\n")
    assert message.startswith("FILE:19: data.path: environment variable TOY_DATA is not set; export TOY_DATA=FILE")


def test_a_missing_data_file_is_placed_in_the_sweep_with_the_override_that_repairs_it(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, toy_sweep.SWEEP + "data: {deep: {path: gone.jsonl}}\n")
    assert message == (
        f"FILE:19: data.deep.path: cannot read {tmp_path / 'gone.jsonl'}: No such file or directory; "
        "check it, or pass -s data.deep.path=FILE"
    )


@pytest.mark.parametrize("url", ["https://user:pa55@host/v1", "https://t0ken@host/v1", "https://host/v1?key=pa55"])
def test_an_endpoint_with_a_secret_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    (message,) = mistakes(tmp_path, judged_by(f'endpoint: "{url}", model: m'))
    assert "FILE:8: stages.judge_sample.config.backend.endpoint: an endpoint has no user name, password" in message
    assert "pa55" not in message
    assert "t0ken" not in message


@pytest.mark.parametrize("field", ["key_env", "requests_per_minute", "parallel", "timeout", "max_cost"])
def test_a_field_that_belongs_one_level_deeper_is_named_with_its_place(tmp_path: Path, field: str) -> None:
    assert mistakes(tmp_path, judged_by(f"endpoint: 'http://x/v1', model: m, {field}: 1")) == [
        f"FILE:8: stages.judge_sample.config.backend.{field}: unknown field; did you mean 'access.{field}'?"
    ]


def test_a_batch_size_of_forward_passes_is_asked_for_at_runtime(tmp_path: Path) -> None:
    text = f"""\
name: batches
question: How large?
axes: {{seed: [0]}}
stages:
  prompts: {{config: {{source: {{path: {Path(__file__).parents[2] / "sweeps/data/helpful.jsonl"}}}, train: 2, test: 2}}}}
  policy: {{config: {{model: some/model}}}}
  generate:
    inputs: {{policy: policy, prompts: prompts}}
    config: {{split: train, responses: 2, seed: $seed, batch_size: 8}}
runtime:
  prompts: {{batch_size: 4}}
  generate: {{rules: [{{at: {{seed: 0}}, batch_size: 16}}]}}
"""
    assert mistakes(tmp_path, text) == [
        "FILE:9: stages.generate.config.batch_size: unknown field; how a step is run is no part of what it is: write "
        "runtime.generate.batch_size",
        "FILE:11: runtime.prompts.batch_size: stage 'prompts' takes no batch_size here; where it trains, that is a field "
        "of its config",
    ]
    sound = text.replace(", batch_size: 8}", "}").replace("  prompts: {batch_size: 4}\n", "")
    assert load(toy_sweep.write_sweep(tmp_path, sound)).runtime_of("generate", {"seed": 0}).batch_size == 16


def test_modules_of_one_name_in_two_studies_are_never_taken_for_each_other(tmp_path: Path) -> None:
    paths = []
    for study in ("one", "other"):
        (tmp_path / study).mkdir()
        version = {"one": 1, "other": 2}[study]
        stage = f"Stage('toy:source', {version}, toy.SourceConfig, 'number')"
        content = f"import toy\nfrom workers.stage import Stage\nSTAGES = {{'distil': {stage}}}\n"
        (tmp_path / study / "stages_of_a_study.py").write_text(content)
        text = toy_sweep.SWEEP.replace("uses: [toy]", "uses: [toy, stages_of_a_study]").replace("toy_source", "distil")
        paths.append(toy_sweep.write_sweep(tmp_path / study, text))
    assert load(paths[0]).table["distil"].version == 1
    assert load(paths[1]).table["distil"].version == 2
    assert load(paths[0]).table["distil"].version == 1


def test_a_module_that_an_installed_one_hides_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("STAGES = {}\n")
    (found,) = mistakes(tmp_path, toy_sweep.SWEEP.replace("uses: [toy]", "uses: [toy, yaml]"))
    assert re.search(r"uses\[1\]: module 'yaml' is .*, which hides .*: give yours another name", found)
