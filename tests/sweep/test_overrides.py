"""`-s path=value` sets any place of a sweep, and is itself the place of what it sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_document import document

from orchestrator.sweep.overrides import override
from orchestrator.sweep.problems import SweepError, format_path


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("name=other", ("name",), "other"),
        ("axes.beta=[0, 5e-1]", ("axes", "beta"), [0, 0.5]),
        ("axes.beta.1=7", ("axes", "beta", 1), 7),
        ("axes.kind.plain.depth=9", ("axes", "kind", "plain", "depth"), 9),
        ("axes.kind.5000.depth=9", ("axes", "kind", "5000", "depth"), 9),
        ("axes.kind.6000.depth=9", ("axes", "kind", "6000", "depth"), 9),
        ("stages.fit.config.0.rate=no", ("stages", "fit", "config", 0, "rate"), "no"),
        ("stages.fit.config.1={other: 010}", ("stages", "fit", "config", 1), {"other": 10}),
        ("limits.failures=3", ("limits", "failures"), 3),
        ("data=", ("data",), None),
        ("data.text=a=b", ("data", "text"), "a=b"),
    ],
)
def test_an_override_sets_the_place_it_names_and_is_itself_that_place(
    tmp_path: Path, assignment: str, path: tuple[str | int, ...], value: object
) -> None:
    found = document(tmp_path)
    override(found, [assignment])
    target: object = found.value
    for part in path:
        target = target[part]  # type: ignore[index]
    assert target == value
    assert str(found.problem(path, "wrong")) == f"-s {assignment}: {format_path(path)}: wrong"
    assert found.problem((*path, "below"), "wrong").place == f"-s {assignment}"


def test_every_part_of_an_override_is_placed_in_it_under_its_own_path(tmp_path: Path) -> None:
    found = document(tmp_path)
    assignment = "stages.fit.config={train: {rate: 1, steps: [2]}}"
    override(found, [assignment])
    for path in ((), ("train",), ("train", "rate"), ("train", "steps", 0)):
        assert ("stages", "fit", "config", *path) in found
        assert found.problem(("stages", "fit", "config", *path), "wrong").place == f"-s {assignment}"


def test_an_override_leaves_the_lines_of_everything_else_alone(tmp_path: Path) -> None:
    before, found = document(tmp_path).places, document(tmp_path)
    override(found, ["axes.beta=[3]"])
    changed = {("axes", "beta"), ("axes", "beta", 0), ("axes", "beta", 1)}
    assert {path: place for path, place in found.places.items() if path not in changed} == {
        path: place for path, place in before.items() if path not in changed
    }


def test_the_last_of_two_overrides_of_one_place_holds(tmp_path: Path) -> None:
    found = document(tmp_path)
    override(found, ["axes.beta=[3]", "axes.beta=[4]", "axes.beta.0=5"])
    assert found.value["axes"]["beta"] == [5]


def test_a_relative_path_is_taken_from_the_working_directory_and_home_and_environment_are_left_to_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = document(tmp_path)
    for written, meant in (
        ("x.jsonl", str(tmp_path / "elsewhere" / "x.jsonl")),
        ("/data/x.jsonl", "/data/x.jsonl"),
        ("~/x.jsonl", str(tmp_path / "x.jsonl")),
        ("$env.HERE/x.jsonl", "$env.HERE/x.jsonl"),
    ):
        override(found, [f"data.path={written}"])
        assert found.value["data"] == {"path": meant}
    override(found, ["data.paths=x.jsonl"])
    assert found.value["data"]["paths"] == "x.jsonl"


@pytest.mark.parametrize(
    ("assignment", "path", "words"),
    [
        ("axes.beta", "", "write -s path=value, e.g. -s axes.seed=[0,1]"),
        ("=3", "", "write -s path=value"),
        ("axes.beta=[1", "axes.beta", "the value is not valid YAML"),
        ("axes.beta=!!int abc", "axes.beta", "the value is not valid YAML"),
        ("axes.beta=\a", "axes.beta", "the value is not valid YAML"),
        ("name.x=1", "name.x", "there is no such place"),
        ("name.x.y=1", "name.x.y", "there is no such place"),
        ("axes.beta.2=1", "axes.beta.2", "there is no such place"),
        ("axes.beta.-1=1", "axes.beta.-1", "there is no such place"),
        ("axes.beta.²=1", "axes.beta.²", "there is no such place"),
        ("axes.beta.first=1", "axes.beta.first", "there is no such place"),
        ("stages.fit.config.9.rate=1", "stages.fit.config.9.rate", "there is no such place"),
    ],
)
def test_an_override_that_cannot_be_made_repeats_itself_and_says_why(
    tmp_path: Path, assignment: str, path: str, words: str
) -> None:
    with pytest.raises(SweepError) as caught:
        override(document(tmp_path), [assignment])
    (problem,) = caught.value.problems
    assert (problem.place, problem.path) == (f"-s {assignment}", path)
    assert problem.message.startswith(words)


def test_all_overrides_that_cannot_be_made_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as caught:
        override(document(tmp_path), ["name.x=1", "axes.beta=[9]", "beta"])
    assert [problem.place for problem in caught.value.problems] == ["-s name.x=1", "-s beta"]
