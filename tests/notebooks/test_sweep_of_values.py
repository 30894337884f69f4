"""A sweep that is given as values: what it may hold, and the file that says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hypothesis
import numpy as np
import pytest
import toy_sweep
import yaml
from command_server import sweep as command
from hypothesis import strategies as st

from orchestrator import open_sweep
from orchestrator.notebook import Sweep
from orchestrator.session import open_session
from orchestrator.sweep.document import parse_value, read_document
from orchestrator.sweep.mapping import document_of, to_yaml
from orchestrator.sweep.problems import SweepError

TOY: dict[str, Any] = parse_value(toy_sweep.SWEEP)


def mistakes(sweep: Mapping[Any, Any], *overrides: str) -> list[str]:
    with pytest.raises(SweepError) as caught:
        open_sweep(sweep, overrides)
    return str(caught.value).splitlines()


def digest(sweep: Sweep) -> str:
    return sweep._session.plan.digest


def test_it_is_the_same_sweep_as_its_file(tmp_path: Path) -> None:
    values = {**TOY, "axes": {**TOY["axes"], "x": range(1, 4), "y": (10, np.float64(20))}}
    session = open_session(toy_sweep.write_sweep(tmp_path))
    assert digest(open_sweep(MappingProxyType(values))) == session.plan.digest


def test_what_was_given_is_not_changed_and_may_change_afterwards(tmp_path: Path) -> None:
    values = json.loads(json.dumps(TOY))
    sweep = open_sweep(values, ["axes.x=[7]"], outputs=tmp_path)
    assert values == TOY
    values["axes"]["y"].append(30)
    assert sweep.run(inline=True).cells == {"succeeded": 2}


def test_mistakes_are_named_by_their_path() -> None:
    stages = {**TOY["stages"], "double": {"stage": "toy_double", "inputs": {"numbr": "source"}}}
    assert mistakes({**TOY, "axes": {**TOY["axes"], "x": []}, "stages": stages, "limit": 1}, "summary.by=[z]") == [
        "limit: unknown field; did you mean 'limits'?",
        "axes.x: has no values, so the sweep has zero cells",
        "-s summary.by=[z]: summary.by[0]: there is no axis 'z'; choose from y, kind",
        "stages.double.inputs.numbr: stage 'toy_double' has no input 'numbr'; did you mean 'number'?",
        "stages.double.inputs: stage 'toy_double' needs the input 'number'; e.g. number: source",
    ]
    assert mistakes({"name": "x", "axes": {"seed": [0]}}) == ["question: is missing", "stages: is missing"]
    with pytest.raises(SweepError, match=r"^--only and --exclude leave no cell$"):
        open_sweep(TOY, only=["x=1"], exclude=["x=1"])


def test_values_that_no_file_can_hold_are_all_named() -> None:
    inside: list[Any] = []
    inside.append({"again": inside})
    bad = {**TOY, "data": {"a": np.arange(2), "b": {1, 2}, "c": inside, "d": np.float32(1)}, "axes": {"x": {5000: {}}}}
    wanted = "give a mapping, a list, a text, a plain number, a bool or None"
    assert mistakes(bad) == [
        "axes.x: has the key 5000; a key is a text, '5000'",
        f"data.a: is of type ndarray; {wanted}",
        f"data.b: is of type set; {wanted}",
        "data.c[0].again: contains itself",
        f"data.d: is of type float32; {wanted}",
    ]


def test_relative_paths_start_from_the_folder_at_the_time_of_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    Path(tmp_path / "there/rows.txt").write_text("rows")
    Path(tmp_path / "there/beside_a_notebook.py").write_text("from toy import STAGES\n")
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("ROWS", "rows.txt")
    data = {"rows": {"path": Path("rows.txt")}, "same": {"path": "$env.ROWS"}}
    sweep = open_sweep({**TOY, "uses": ["beside_a_notebook"], "data": data, "store": "kept"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROWS")
    assert sweep.run(inline=True, max_cells=1).finished
    assert sweep.file == tmp_path / "there/kept/sweeps/toy/sweep.yaml"
    written = read_document(sweep.file).value
    assert [each["path"] for each in written["data"].values()] == [str(tmp_path / "there/rows.txt")] * 2
    assert written["store"] == str(tmp_path / "there/kept")
    assert f"lie in {tmp_path}/there" in sweep.file.read_text()
    assert mistakes({**TOY, "data": {"path": "gone.txt"}}) == [
        f"data.path: cannot read {tmp_path}/gone.txt: No such file or directory; check it, or pass -s data.path=FILE"
    ]


def test_a_function_that_was_edited_since_the_sweep_was_opened_is_not_run_until_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "edited_beside_a_notebook.py"
    module.write_text("def train(x: int):\n    return {'loss': x}\n")
    monkeypatch.chdir(tmp_path)
    train = {"stage": f"{module.stem}:train", "config": {"x": "$x"}}
    values = {"name": "own", "question": "?", "axes": {"x": [1, 2]}, "stages": {"train": train}, "tracking": False}
    sweep = open_sweep(values)
    assert sweep.run(inline=True, max_cells=1).finished
    module.write_text("def train(x: int):\n    return {'loss': -x}\n")
    with pytest.raises(SweepError, match=f"{module.stem}:train or a module that it imports was edited since"):
        sweep.run(inline=True)
    # What is there can be looked at.
    assert sweep.table()["loss"].to_pylist() == [1, None]
    again = open_sweep(values)
    assert again.run(inline=True).finished
    assert again.table()["loss"].to_pylist() == [-1, -2]


def test_the_file_that_a_run_writes_is_the_same_sweep_for_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sweep = open_sweep({**TOY, "question": "Ist 5e-5 \u00fcber: no?\n# \x85"}, ["axes.x=[1]"], store="kept")
    assert not sweep.file.exists()
    assert sweep.run(inline=True).finished
    assert open_session(sweep.file).plan.digest == digest(sweep)
    done = command(tmp_path, "status", str(sweep.file), "--store", sweep.store, "--json")
    assert json.loads(done.stdout) == sweep.status()
    assert done.stderr == ""
    again = command(tmp_path, "run", str(sweep.file), "--store", sweep.store)
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)
    first = sweep.file.read_text().splitlines()[0]
    assert first.startswith("# Written by orchestrator.open_sweep. In a shell: ")
    assert first.endswith(f" status {sweep.file} --store {sweep.store}")
    assert sweep.why("x=1,y=10")["file"] == str(sweep.file)


class _Word(StrEnum):
    NO = "no"


class _Number(IntEnum):
    SEVEN = 7


def test_values_of_derived_types_count_as_what_they_are_derived_from() -> None:
    given = {"a": _Word.NO, "b": _Number.SEVEN, "c": np.float64(0.5), "d": np.int8(3), _Word.NO: Path("x/y")}
    value = document_of(given, Path()).value
    assert value == {"a": "no", "b": 7, "c": 0.5, "d": 3, "no": "x/y"}
    assert [type(each) for each in (*value, *value.values())] == [*[str] * 6, int, float, int, str]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside), max_leaves=8)
WORDS = (
    "no",
    "5e-5",
    "1:30",
    "010",
    "~",
    "0x1f",
    "1_000",
    "2001-01-01",
    "<<",
    "=",
    "",
    " a",
    "- b",
    "#",
    "é\x00",
    "\ud800",
)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.dictionaries(st.text() | st.sampled_from(WORDS), VALUES | st.sampled_from(WORDS)))
def test_what_is_written_is_read_as_the_same_values(value: dict[str, Any]) -> None:
    document = document_of(value, Path())
    assert document.value == value
    text = to_yaml(document, "/somewhere", ["a comment\nof two lines"]).decode()
    read = parse_value(text)
    assert repr(read) == repr({**value, "store": "/somewhere"})
    # Other readers of YAML do not take a text for anything else either.
    texts = {name: item for name, item in value.items() if isinstance(item, str)}
    assert {name: item for name, item in yaml.safe_load(text).items() if name in texts and name != "store"} == {
        name: item for name, item in texts.items() if name != "store"
    }
