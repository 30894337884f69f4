"""What a sweep file may say: scalars, overrides, variables, durations, sizes, devices, and stages of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_sweep
from sweep_files import load, mistakes

from orchestrator.plan.build import build_plan
from orchestrator.sweep.document import parse_value, read_document
from orchestrator.sweep.load import load_sweep
from orchestrator.sweep.overrides import override
from orchestrator.sweep.problems import SweepError


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
    assert load(toy_sweep.write_sweep(tmp_path)).name == "toy"


def test_overrides_reach_any_place_and_a_relative_path_is_taken_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = read_document(toy_sweep.write_sweep(tmp_path))
    monkeypatch.chdir(tmp_path)
    override(document, ["axes.x=[7]", "stages.total.config.0.add=5e-1", "data.path=toy.yaml", "limits.failures=3"])
    assert document.value["axes"]["x"] == [7]
    assert document.value["stages"]["total"]["config"][0] == {"add": 0.5}
    assert document.value["data"] == {"path": str(tmp_path / "toy.yaml")}
    assert document.value["limits"] == {"failures": 3}


@pytest.mark.parametrize("text", ["axes.x", "=3", "name.x.y=1", "stages.total.config.7.add=1", "axes.x=[1"])
def test_an_override_that_fits_nowhere_is_an_error_that_repeats_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(SweepError, match="-s "):
        override(read_document(toy_sweep.write_sweep(tmp_path)), [text])


def test_durations_sizes_and_rules_become_runtime(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP + (
        "runtime:\n  default: {timeout: 30m, silent: 10m}\n"
        "  total:\n    memory: 2GiB\n    silent_ends: true\n    rules:\n"
        "      - {at: {x: [1, 2]}, cpus: 4}\n      - {at: {x: 2}, gpus: 1, timeout: 90s}\n"
    )
    spec = load(toy_sweep.write_sweep(tmp_path, text))
    assert spec.runtime_of("total", {"x": 3}).timeout == 1800
    assert (spec.runtime_of("total", {"x": 3}).silent, spec.runtime_of("total", {"x": 3}).silent_ends) == (600, True)
    two = spec.runtime_of("total", {"x": 2})
    assert (two.cpus, two.gpus, two.memory, two.timeout) == (4, 1, 2 * 2**30, 90)
    assert spec.runtime_of("source", {"x": 2}).cpus == 1


def test_with_device_cpu_an_entry_asks_for_no_gpus_and_the_last_word_on_it_wins(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP + (
        "runtime:\n  default: {gpus: 1}\n  source: {gpus: 2, rules: [{at: {x: 3}, device: cpu}]}\n"
        "  total: {device: gpu}\n"
    )
    path = toy_sweep.write_sweep(tmp_path, text)
    spec = load(path)
    assert [spec.runtime_of("source", {"x": x}).gpus for x in (2, 3)] == [2, 0]
    spec = load_sweep(path, ["runtime.default.device=cpu"])
    assert [spec.runtime_of(name, {"x": 2}).gpus for name in ("source", "double", "total")] == [0, 0, 1]


def test_an_interpreter_is_named_by_an_absolute_path_and_no_key_depends_on_it(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP + (
        "runtime: {default: {python: /opt/a/bin/python}, total: {rules: [{at: {x: 3}, python: null}]}}\n"
    )
    plain, spec = load(toy_sweep.write_sweep(tmp_path)), load(toy_sweep.write_sweep(tmp_path, text, "other.yaml"))
    assert [spec.runtime_of("total", {"x": x}).python for x in (2, 3)] == ["/opt/a/bin/python", None]
    plans = [build_plan(each) for each in (plain, spec)]
    addresses = [{plan.address(number) for number in range(len(plan))} for plan in plans]
    assert addresses[0] == addresses[1]


@pytest.mark.parametrize("path", ["python3", "~/vllm/bin/python", ".venv-vllm/bin/python"])
def test_an_interpreter_that_other_nodes_could_not_find_is_refused(tmp_path: Path, path: str) -> None:
    text = toy_sweep.SWEEP + f"runtime: {{total: {{python: {json.dumps(path)}}}}}\n"
    (told,) = mistakes(tmp_path, text)
    assert "runtime.total.python: " in told
    assert "is not an absolute path; write that of a Python interpreter as it is on every node" in told


def test_a_variable_may_begin_a_path_in_the_file_and_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.txt").write_text("content")
    monkeypatch.setenv("TOY_DATA", str(tmp_path))
    written = load(toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP + "data: {path: $env.TOY_DATA/some.txt}\n"))
    given = load(toy_sweep.write_sweep(tmp_path), "data.path=$env.TOY_DATA/some.txt")
    assert written.data == given.data
    assert written.data["path"] == str(tmp_path / "some.txt")
    assert len(written.data["sha256"]) == 64


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1.5h", 5400), ("45", 45)]
)
def test_a_duration_is_seconds_or_has_a_unit(tmp_path: Path, text: str, seconds: float) -> None:
    spec = load(toy_sweep.write_sweep(tmp_path), f"runtime.total.timeout={text}")
    assert spec.runtime_of("total", {}).timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("512MB", 512 * 10**6), ("16GiB", 16 * 2**30), ("1.5GiB", 3 * 2**29), ("2TB", 2 * 10**12),
     ("3KiB", 3 * 2**10)],
)  # fmt: skip
def test_a_size_is_bytes_or_has_a_unit(tmp_path: Path, text: str, size: int) -> None:
    spec = load(toy_sweep.write_sweep(tmp_path), f"runtime.total.memory={text}")
    assert spec.runtime_of("total", {}).memory == size


def test_a_sweep_uses_stages_of_modules_that_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text(
        "import toy\nfrom workers.stage import Stage\n"
        "STAGES = {'distil': Stage('toy:source', 1, toy.SourceConfig, 'number')}\n"
    )
    text = toy_sweep.SWEEP.replace("uses: [toy]", "uses: [toy, beside_it]").replace("toy_source", "distil")
    spec = load(toy_sweep.write_sweep(tmp_path, text))
    assert spec.table["distil"].function == "toy:source"
    assert spec.table["prompts"].version == 2
    assert build_plan(spec).stages == {"distil", "toy_double", "toy_total"}


@pytest.mark.parametrize(
    ("module", "content", "message"),
    [
        (
            "nowhere_at_all",
            "",
            "module 'nowhere_at_all' cannot be imported: No module named 'nowhere_at_all'; it is looked",
        ),
        ("needs_more", "import nothing_of_the_kind", "cannot be imported: No module named 'nothing_of_the_kind'"),
        ("half_written", "STAGES = {", "cannot be imported: SyntaxError: '{' was never closed"),
        (
            "needs_a_gpu",
            "raise RuntimeError('no GPU')",
            "cannot be imported: RuntimeError: no GPU; it is looked for in",
        ),
        ("ends_it_all", "raise SystemExit(0)", "cannot be imported: SystemExit: 0; it is looked for in"),
        ("without_table", "", "module 'without_table' has no STAGES; give it a table"),
        ("of_texts", "STAGES = {'distil': 'toy:source'}", "STAGES['distil'] is of type str, not a Stage"),
        ("no_mapping", "STAGES = [1]", "STAGES is of type list, not a mapping of names to stages"),
        (
            "again",
            "import toy\nSTAGES = {'prompts': toy.STAGES['toy_source']}",
            "two stages are called 'prompts': workers.data.prompts:prompts and toy:source",
        ),
    ],
)
def test_a_module_of_stages_that_cannot_be_used_is_named_with_the_remedy(
    tmp_path: Path, module: str, content: str, message: str
) -> None:
    if content or module == "without_table":
        (tmp_path / f"{module}.py").write_text(content)
    (found,) = mistakes(tmp_path, toy_sweep.SWEEP.replace("uses: [toy]", f"uses: [toy, {module}]"))
    assert found.startswith("FILE:17: uses[1]: module ") or found.startswith("FILE:17: uses[1]: the table of module ")
    assert message in found


def test_what_a_module_of_stages_prints_does_not_mix_with_the_answer_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talks.py").write_text("print('hello')\nSTAGES = {}\n")
    load(toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP.replace("uses: [toy]", "uses: [toy, talks]")))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
