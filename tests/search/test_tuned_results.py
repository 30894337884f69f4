"""A config takes the best values of another sweep's study, and keys contain these values and nothing else of it."""

# ruff: noqa: E501 (one mistake per line reads best)
from __future__ import annotations

from pathlib import Path

import pytest
import toy_runs
from command_server import sweep
from search_runs import edited, mistakes, opened, run
from toy_sweep import SEARCH, TUNED, write_sweep

from orchestrator.cli.job.package import check_package
from orchestrator.plan.build import build_plan
from orchestrator.session import open_session
from orchestrator.sweep.load import load_sweep
from orchestrator.sweep.problems import SweepError
from orchestrator.sweep.tuned import other_sweeps

ADD = "{add: {tuned: tune.yaml#tuning.add, for: {kind: $kind}}}"
VALUE = "{value: {tuned: tune.yaml#tuning.value, for: {kind: $kind}}}"


def best(folder: Path) -> list[dict[str, object]]:
    session = opened(folder, SEARCH)
    found = [session.spec.search["tuning"].meant(study.best.values) for study in session.study_views() if study.best]
    assert len(found) == 2
    return found


def written_out(folder: Path, text: str) -> str:
    """The sweep with the best values in the place of what is tuned."""
    one, two = best(folder)
    values = f"  kind:\n    1: {{add: {one['add']}, value: {one['value']}}}\n    2: {{add: {two['add']}, value: {two['value']}}}\n"
    text = text.replace("axes: {kind: [1, 2]}", f"axes:\n{values.replace('1: {', 'one: {').replace('2: {', 'two: {')}")
    return text.replace(ADD, "{add: $kind.add}").replace(VALUE, "{value: $kind.value}")


def test_keys_are_those_of_the_chosen_values_written_out(searched: Path) -> None:
    tuned = opened(searched, TUNED, "tuned.yaml").plan
    assert tuned.keys == opened(searched, written_out(searched, TUNED), "plain.yaml").plan.keys


def test_a_whole_study_is_a_layer_of_a_config_and_later_layers_win(searched: Path) -> None:
    whole = edited(
        TUNED,
        (VALUE, "{value: $kind}"),
        (f"[{ADD}]", "[{marker: a}, {tuned: tune.yaml#few, for: {kind: $kind}}, {marker: b}]"),
    )
    few = edited(
        SEARCH,
        ("  tuning:", "  few:"),
        ("$tuning.value", "1"),
        ("$tuning", "$few"),
        ("      value: {choice: {small: 1, large: 100}, default: small}\n", ""),
    )
    run(searched, edited(few, ("name: tune", "name: few")))
    plan = opened(searched, whole, "tuned.yaml").plan
    found = [plan.step(number).config for number in plan.by_entry["total"].steps]
    views = open_session(searched / "tune.yaml", outputs=str(searched / "out")).study_views()
    assert [(each["add"], each["marker"]) for each in found] == [
        (view.best.values["add"], "b") for view in views if view.best
    ]


def test_a_field_that_the_study_lacks_is_as_if_it_were_not_written(searched: Path) -> None:
    run(searched, edited(SEARCH, ("[0, 10]}", "[0, 10], when: {kind: 1}}")))
    plan = opened(searched, TUNED, "tuned.yaml").plan
    adds = [plan.step(number).config["add"] for number in plan.by_entry["total"].steps]
    assert adds[0] > 0
    assert adds[1] == 0


def test_a_tuned_sweep_runs_and_repeats_nothing_of_what_is_there(searched: Path) -> None:
    session = run(searched, TUNED, "tuned.yaml")
    assert [row["status"] for row in toy_runs.rows(session)] == ["succeeded"] * 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tuned: tuen.yaml#tuning.add", "tuen.yaml cannot be opened: tuen.yaml: no such file; did you mean 'tune.yaml'?"),
        ("tuned: notes.txt#tuning.add", "notes.txt cannot be opened: notes.txt:1: a sweep is a mapping (name:, axes:, stages:), found str"),
        ("tuned: bad.yaml#tuning.add", "bad.yaml cannot be opened: bad.yaml:3: axes.kind: has no values, so the sweep has zero cells; and 1 more"),
        ("tuned: grid.yaml#tuning.add", "grid.yaml has no search, so nothing in it is tuned"),
        ("tuned: tune.yaml#tunning.add", "tune.yaml has no search 'tunning'; did you mean 'tuning'?"),
        ("tuned: tune.yaml#tuning.ad", "the space of tune.yaml#tuning has no 'ad'; did you mean 'add'?"),
        ("tuned: tune.yaml", "'tune.yaml' names no search of another sweep; write FILE#SEARCH, or FILE#SEARCH.FIELD"),
        ('tuned: "a\\0b#tuning"', "'a\\x00b#tuning' names no search of another sweep; write FILE#SEARCH, or FILE#SEARCH.FIELD"),
        ("tuned: tune.yaml#tuning.", "'tune.yaml#tuning.' names no search of another sweep; write FILE#SEARCH, or FILE#SEARCH.FIELD"),
        ("tuned: tune.yaml#tuning.add, add: 1", "has 'add' too, which a tuned result has not: {tuned: FILE#SEARCH, for: {AXIS: VALUE, …}}; write other fields in a layer"),
        ("tuned: tuned.yaml#tuning.add", "tuned.yaml cannot be opened: the sweeps need each other's results, in a circle: tuned.yaml -> tuned.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_up_is_named_at_its_line(searched: Path, source: str, message: str) -> None:
    (searched / "notes.txt").write_text("nothing")
    write_sweep(searched, edited(SEARCH, ("kind: [1, 2]", "kind: []"), ("total: ", "totl: ")), "bad.yaml")
    write_sweep(searched, edited(TUNED, (ADD, "{add: $kind}"), (VALUE, "{value: $kind}")), "grid.yaml")
    text = edited(TUNED, ("tuned: tune.yaml#tuning.add", source))
    assert mistakes(searched, text, "tuned.yaml") == [f"tuned.yaml:10: stages.total.config[0].add.tuned: {message}"]


@pytest.mark.parametrize(
    ("at", "place", "message"),
    [
        ("{knd: $kind}", "for", "the studies of tune.yaml#tuning have no axis 'knd'; did you mean 'kind'?"),
        ("{kind: 3}", "for.kind", "3 is no value of 'kind' in tune.yaml; choose from 1, 2"),
        ("{kind: '2'}", "for.kind", "'2' is no value of 'kind' in tune.yaml; it has 2"),
        ("{kind: [1]}", "tuned", "for.kind: [1] is no value of an axis; write one, or $AXIS"),
        ("kind", "tuned", "for: is no mapping of axes to values; found 'kind'"),
        ("{}", "tuned", "tune.yaml#tuning has a study for each kind; say which: for: {kind: $kind}"),
        ("{kind: $knd}", "for.kind", "$knd refers to no axis; did you mean 'kind'?"),
    ],
)  # fmt: skip
def test_a_study_that_there_is_not_is_named_at_its_line(searched: Path, at: str, place: str, message: str) -> None:
    text = edited(TUNED, (ADD, ADD.replace("{kind: $kind}", at)))
    assert mistakes(searched, text, "tuned.yaml") == [f"tuned.yaml:10: stages.total.config[0].add.{place}: {message}"]


def test_an_unfinished_study_says_how_to_finish_it(searched: Path) -> None:
    write_sweep(searched, edited(SEARCH, ("trials: 3", "trials: 5")), "tune.yaml")
    found = mistakes(searched, TUNED, "tuned.yaml")
    assert len(found) == 4
    assert (
        "tuned.yaml:5: stages.source.config.value.tuned: study tuning/kind=1 has 3 of 5 trials; finish it: " in found[0]
    )
    assert found[0].endswith(" run tune.yaml --outputs out")


def test_a_study_without_one_best_trial_says_so(searched: Path) -> None:
    run(searched, edited(SEARCH, ("    trials: 3", "    constraints: {total: {at_most: -1}}\n    trials: 3")))
    (message, *_) = mistakes(searched, TUNED, "tuned.yaml")
    assert "study tuning/kind=1 has no best trial: none of its 3 is complete and keeps to the constraints; " in message
    several = edited(
        SEARCH, ("metric: total, better: higher", "metric: [total, value], better: [higher, lower]"),
        ("results: [total]", "results: [total, source]"),
        ("value: {choice", "base: {choice"), ("$tuning.value", "$tuning.base"),
    )  # fmt: skip
    run(searched, several)
    (message, *_) = mistakes(searched, edited(TUNED, (VALUE, "{value: 1}")), "tuned.yaml")
    assert "study tuning/kind=1 has several objectives (total, value), by which no trial is the best; " in message


def test_sweeps_that_tune_each_other_are_a_circle(searched: Path) -> None:
    tuned = edited(
        SEARCH,
        ("{add: $seed}", "{add: {tuned: tuned.yaml#other.add}}"),
        ("over: {seed: [0, 1]}", "over: {}"),
        ("    fresh: {seed: [7]}\n", ""),
    )
    write_sweep(searched, tuned, "tune.yaml")
    (message, *_) = mistakes(searched, TUNED, "tuned.yaml")
    assert "in a circle: tuned.yaml -> tune.yaml -> tuned.yaml" in message


def test_where_no_cell_is_left_no_study_is_asked(searched: Path) -> None:
    write_sweep(searched, edited(SEARCH, ("search:", "exclude: [{kind: 2}]\nsearch:")), "tune.yaml")
    (message, *_) = mistakes(searched, TUNED, "tuned.yaml")
    assert "tune.yaml#tuning has no study at kind=2, which tune.yaml excludes" in message
    plan = opened(searched, edited(TUNED, ("stages:", "exclude: [{kind: 2}]\nstages:")), "tuned.yaml").plan
    assert len(plan.cells) == 1


def test_a_sweep_that_was_only_loaded_is_not_planned(searched: Path) -> None:
    spec = load_sweep(write_sweep(searched, TUNED, "tuned.yaml"))
    with pytest.raises(SweepError, match="is looked up in the store when a sweep is opened"):
        build_plan(spec)


def test_a_tuned_result_outside_of_configs_is_a_mistake(searched: Path) -> None:
    text = edited(TUNED, ("stages:", "data: {lr: {tuned: tune.yaml#tuning.add}}\nstages:"))
    (message,) = mistakes(searched, text, "tuned.yaml")
    assert message == "tuned.yaml:4: data.lr: a tuned result is read in the config of an entry only; write it there"


def test_values_that_the_config_does_not_take_are_named_where_the_result_is_used(searched: Path) -> None:
    text = edited(TUNED, (f"[{ADD}]", "[{tuned: tune.yaml#tuning, for: {kind: $kind}}]"))
    (message,) = mistakes(searched, text, "tuned.yaml")
    assert message.startswith("tuned.yaml:10: stages.total.config[0].value: unknown field")


def test_a_plain_field_may_be_called_tuned(searched: Path) -> None:
    (message,) = mistakes(searched, edited(TUNED, (f"[{ADD}]", "{tuned: true}")), "tuned.yaml")
    assert message.startswith("tuned.yaml:10: stages.total.config.tuned: unknown field")


def test_the_files_that_a_sweep_needs_are_known_to_whoever_sends_it_away(searched: Path) -> None:
    session = opened(searched, TUNED, "tuned.yaml")
    assert other_sweeps(session.spec) == [searched / "tune.yaml"]
    with pytest.raises(SweepError, match=r"tune\.yaml: is not uploaded: git"):
        check_package(session, searched, Path("tuned.yaml"), {Path("tuned.yaml"): 1})
    check_package(session, searched, Path("tuned.yaml"), {Path("tuned.yaml"): 1, Path("tune.yaml"): 1})


def test_the_command_line_tells_all_at_once(searched: Path) -> None:
    write_sweep(searched, edited(SEARCH, ("trials: 3", "trials: 4")), "tune.yaml")
    write_sweep(searched, edited(TUNED, ("add: {tuned", "ad: {tuned")), "tuned.yaml")
    done = sweep(searched, "plan", "tuned.yaml", "--outputs", "out")
    assert done.returncode == 2
    assert "5 mistakes; nothing was run" in done.stderr
    assert "did you mean 'add'?" in done.stderr
