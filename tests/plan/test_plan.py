"""Cells, shared steps and keys: what is the same question has the same key, and nothing else has."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import toy
import toy_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.keys import digest_of
from orchestrator.plan.build import build_plan
from orchestrator.plan.columns import Plan
from orchestrator.plan.needed import heights, needed_steps, priorities, turns
from orchestrator.plan.select import find_cell, select
from orchestrator.session import open_session
from orchestrator.sweep.load import load_sweep
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Artifact, Step

SWEEPS = Path(__file__).parents[2] / "sweeps"


def plan_of(folder: Path, text: str = toy_sweep.SWEEP, *overrides: str) -> Plan:
    return build_plan(load_sweep(toy_sweep.write_sweep(folder, text), overrides))


def keys(plan: Plan) -> set[str]:
    return set(plan.keys)


def step_at(plan: Plan, address: Artifact) -> Step:
    number = plan.number(address)
    assert number is not None
    return plan.step(number)


def by_entry(plan: Plan) -> dict[str, list[Step]]:
    steps: dict[str, list[Step]] = {name: [] for name in plan.entries}
    for number in range(len(plan)):
        steps[plan.entry_of(number)].append(plan.step(number))
    return steps


def test_these_keys_are_pinned_because_stores_depend_on_them(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cell = plan.cells[0]
    assert {name: [each.key for each in group] for name, group in cell.steps.items()} == {
        "source": ["f8ae460e228dc2c0350a1b5389d6058a", "9a5423e61bde974b73250fc3c716b98c"],
        "double": ["7ea8f670cd7cb9b1b46d8c8ea3532d66", "34fc2c3485f5ba139e7a9dacc43867be"],
        "total": ["493e96affa535eec918efd8fcc1ee132"],
    }
    assert cell.id == "c54e12404333"


def test_a_plan_has_a_cell_per_point_and_a_step_per_question(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert [(cell.coords["x"], cell.coords["y"]) for cell in plan.cells] == list(product((1, 2, 3), (10, 20)))
    assert {name: len(steps) for name, steps in by_entry(plan).items()} == {"source": 6, "double": 6, "total": 6}
    assert plan.targets == ("total",)
    assert len({cell.id for cell in plan.cells}) == 6


def test_shards_propagate_one_to_one_and_are_gathered_in_order(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cell = plan.cells[0]
    for shard, address in enumerate(cell.steps["double"]):
        assert step_at(plan, address).inputs == {"number": (cell.steps["source"][shard],)}
        assert step_at(plan, cell.steps["source"][shard]).config["shard"] == shard
    assert step_at(plan, cell.steps["total"][0]).inputs == {"numbers": cell.steps["double"]}


@pytest.mark.parametrize(
    "edits",
    [
        [("name: toy", "name: other"), ("question: Does", "question: Why does")],
        [("  x: [1", "  ex: [1"), ("$x", "$ex")],
        [("source:", "origin:"), ("number: source", "number: origin")],
        [("x: [1, 2, 3]", "x: [1.0, 2.0, 3.0]")],
        [
            (
                "results: [total]",
                "results: [total]\nruntime: {default: {batch_size: 3}}\nlimits: {running: 3}\nstore: /else",
            )
        ],
        [("{add: $y}", "{add: $y, marker: ''}")],
    ],
)
def test_names_runtime_and_spelled_out_defaults_leave_every_key_alone(
    tmp_path: Path, edits: list[tuple[str, str]]
) -> None:
    text = toy_sweep.SWEEP
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    assert keys(plan_of(tmp_path, text)) == keys(plan_of(tmp_path))


def test_a_changed_value_changes_exactly_the_keys_below_it(tmp_path: Path) -> None:
    before, after = plan_of(tmp_path), plan_of(tmp_path, toy_sweep.SWEEP, "stages.double.config.add=1")
    for name, shared in (("source", True), ("double", False), ("total", False)):
        one, other = ({step.key for step in by_entry(plan)[name]} for plan in (before, after))
        assert one == other if shared else not one & other


def test_a_raised_stage_version_changes_the_keys_of_the_stage_and_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_of(tmp_path)
    monkeypatch.setitem(toy.STAGES, "toy_double", dataclasses.replace(toy.STAGES["toy_double"], version=2))
    after = plan_of(tmp_path)
    assert {step.key for step in by_entry(before)["source"]} <= keys(after)
    assert not {step.key for name in ("double", "total") for step in by_entry(before)[name]} & keys(after)


def test_a_local_file_counts_by_content_and_not_by_place(tmp_path: Path) -> None:
    def quickstart_keys(folder: str, extra: str = "") -> set[str]:
        data = tmp_path / folder / "data"
        shutil.copytree(SWEEPS / "data", data)
        with (data / "helpful.jsonl").open("a") as stream:
            stream.write(extra)
        return keys(plan_of(tmp_path / folder, (SWEEPS / "quickstart.yaml").read_text()))

    first = quickstart_keys("a")
    assert quickstart_keys("b") == first
    changed = quickstart_keys("c", "\n")
    assert len(first & changed) == len(first) // 2


def test_two_entries_that_ask_the_same_question_share_one_step(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("  total:", "  again: {stage: toy_double, inputs: {number: source}}\n  total:")
    plan = plan_of(tmp_path, text)
    assert plan.cells[0].steps["again"] == plan.cells[0].steps["double"]
    assert keys(plan) == keys(plan_of(tmp_path))


def test_where_when_is_false_the_other_entry_stands_in(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace(
        "plain: {behaviour: work}", "plain: {config: {}, twice: true}\n    once: {config: {}, twice: false}"
    )
    text = text.replace("$kind]", "$kind.config]").replace(
        "double: {", "double: {when: $kind.twice, otherwise: source, "
    )
    plan = plan_of(tmp_path, text)
    for cell in plan.cells:
        stands_in = cell.steps["double"] == cell.steps["source"]
        assert stands_in is (cell.coords["kind"] == "once")


def test_excluded_points_are_not_planned(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, toy_sweep.SWEEP + "exclude: [{x: [1, 2], y: 10}, {x: 3}]\n")
    assert [(cell.coords["x"], cell.coords["y"]) for cell in plan.cells] == [(1, 20), (2, 20)]


def test_cells_are_selected_by_value_and_found_by_id_or_coordinates(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    chosen = select(plan, ["x=1,2.0", "y=20"], ["x=2"])
    assert [dict(cell.coords) for cell, kept in zip(plan.cells, chosen, strict=True) if kept] == [
        {"x": 1, "y": 20, "kind": "plain"}
    ]
    assert plan.steps_of(chosen).sum() == 5
    assert find_cell(plan, plan.cells[3].id[:6]) == 3
    assert find_cell(plan, "x=2,y=20") == 3
    for text, words in (("x=2", "names 2 cells"), ("zzz", "names no cell"), ("w=1", "there is no axis 'w'")):
        with pytest.raises(SweepError, match=words):
            find_cell(plan, text)
    with pytest.raises(SweepError, match="'9' is no value of 'x'"):
        select(plan, ["x=9"], [])
    with pytest.raises(SweepError, match="leave no cell"):
        select(plan, ["x=1"], ["x=1"])


#: A sweep with everything: shards that are read one by one and all at once, entries that do not exist everywhere,
#: two that ask the same question, points that are left out.
RICH = """\
name: rich
question: What is needed?
axes:
  x: [1, 2, 3]
  y: [10, 20]
  kind: {one: {twice: true}, two: {twice: false}}
exclude: [{x: 2, y: 20}]
stages:
  source: {stage: toy_source, shards: 3, config: {value: $x}}
  double: {stage: toy_double, when: $kind.twice, otherwise: source, inputs: {number: source}}
  again: {stage: toy_double, inputs: {number: source}}
  total: {stage: toy_total, inputs: {numbers: double}, config: {add: $y}}
  whole: {stage: toy_total, inputs: {numbers: again}}
  last: {stage: toy_double, inputs: {number: total}, config: {add: 1}}
results: [last]
tracking: false
uses: [toy]
namespace: toy
"""


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_needed_is_exactly_what_is_missing_for_the_targets(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plan = plan_of(tmp_path_factory.mktemp("plan"), RICH)
    committed = set(data.draw(st.lists(st.sampled_from(range(len(plan))), unique=True)))
    cells = data.draw(st.none() | st.sets(st.sampled_from(range(len(plan.cells))), min_size=1))

    def literally(number: int) -> set[int]:
        if number in committed:
            return set()
        return {number}.union(*(literally(parent) for parent in plan.parents(number)))

    wanted: set[int] = set()
    for index, cell in enumerate(plan.cells):
        if cells is None or index in cells:
            for target in plan.targets:
                for address in cell.steps[target]:
                    number = plan.number(address)
                    assert number is not None
                    wanted |= literally(number)
    mask = np.isin(np.arange(len(plan)), list(committed))
    chosen = None if cells is None else np.isin(np.arange(len(plan.cells)), list(cells))
    assert set(np.flatnonzero(needed_steps(plan, mask, chosen)).tolist()) == wanted


def test_columns_say_the_same_as_the_cells_one_by_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RICH)
    assert len(plan.cells) == 10
    users: Counter[Artifact] = Counter()
    for index, cell in enumerate(plan.cells):
        users.update({address for group in cell.steps.values() for address in group})
        assert cell.coords == plan.cell_coords(index)
        assert all(step_at(plan, address).coords.items() <= cell.coords.items() for address in cell.steps["last"])
    for number in range(len(plan)):
        step = plan.step(number)
        assert digest_of(step.identity) == step.key
        read = [each for group in step.inputs.values() for each in group]
        assert read == [plan.address(parent) for parent in plan.parents(number)]
        assert all(parent < number for parent in plan.parents(number))
    assert {plan.address(number): int(count) for number, count in enumerate(plan.users)} == dict(users)


@pytest.mark.parametrize("name", ["rich", "quickstart", "full"])
def test_keys_made_all_at_once_are_those_made_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = toy_sweep.write_sweep(tmp_path, RICH) if name == "rich" else SWEEPS / f"{name}.yaml"
    at_once = build_plan(load_sweep(path))
    monkeypatch.setattr("orchestrator.plan.build._Builder._add_all", lambda *_: False)
    one_by_one = build_plan(load_sweep(path))
    assert at_once.keys == one_by_one.keys
    for column in ("home", "at", "shard", "size"):
        assert (getattr(at_once, column) == getattr(one_by_one, column)).all()
    for entry in at_once.entries:
        assert (at_once.groups(entry) == one_by_one.groups(entry)).all()


def test_the_paper_s_grid_has_12960_cells_and_shares_its_steps() -> None:
    plan = open_session(SWEEPS / "full.yaml").plan
    assert len(plan.cells) == 12_960
    counts = {name: len(steps) for name, steps in by_entry(plan).items()}
    assert {name: counts[name] for name in ("policy", "sft", "golden", "annotate", "fit", "evaluate")} == {
        "policy": 3, "sft": 6, "golden": 2, "annotate": 4_320, "fit": 12_960, "evaluate": 12_960,
    }  # fmt: skip
    # 720 pair sets are shared by the noise levels: the same seeds, whatever beta is.
    unpaired = {tuple(sorted((axis, str(label)) for axis, label in step.coords.items() if axis != "beta"))
                for step in by_entry(plan)["annotate"]}  # fmt: skip
    assert len(unpaired) == 720


def test_steps_that_read_the_same_artifacts_follow_each_other_the_most_shared_first() -> None:
    plan = open_session(SWEEPS / "full.yaml").plan
    turns = priorities(plan)
    assert sorted(turns.tolist()) == list(range(len(plan)))
    in_turn = sorted((number for number in range(len(plan)) if plan.entry_of(number) == "fit"), key=turns.item)
    read = [{feed.input: feed.first for feed in plan.feeds(number)} for number in in_turn]
    # A node is done with the embeddings of a policy and data set before it reads the next; 12 of them, 12 changes.
    embeddings = [feeds["embeddings"] for feeds in read]
    assert len(set(embeddings)) == 12
    assert sum(now != before for before, now in pairwise(embeddings)) == 11
    annotations = [feeds["annotations"] for feeds in read]
    assert sum(now != before for before, now in pairwise(annotations)) == 4_320 - 1


def test_height_is_the_longest_way_to_a_target() -> None:
    plan = open_session(SWEEPS / "full.yaml").plan
    height = heights(plan)
    assert (height["evaluate"], height["fit"], height["annotate"]) == (0, 1, 2)
    assert height["prompts"] > height["generate_train"] > height["score_train"] > height["annotate"]


def test_what_stands_in_for_an_entry_is_as_far_from_a_target_as_that_entry() -> None:
    plan = open_session(SWEEPS / "judges.yaml").plan
    height = heights(plan)
    assert height["trained"] == height["judge"] > height["label_judgments"] > height["policy_dpo"]


def test_the_turn_of_a_step_is_the_first_cell_that_needs_it() -> None:
    plan = open_session(SWEEPS / "full.yaml").plan
    turn = turns(plan)
    evaluate, generate = plan.by_entry["evaluate"], plan.by_entry["generate_test"]
    assert turn[evaluate.first : evaluate.last].tolist() == list(range(12_960))
    # 1,080 cells have the same policy and data set; all shards have their turn at once.
    assert sorted(turn[generate.first : generate.last]) == [1_080 * pair for pair in range(12) for _ in range(32)]
    assert turn[plan.by_entry["golden"].first + 1] == 1_080
    chosen = np.zeros(12_960, np.bool_)
    chosen[5_000] = True
    assert sorted(set(turns(plan, chosen).tolist())) == [5_000, 12_960]


def test_a_step_that_no_cell_needs_has_no_turn_before_all_others() -> None:
    plan = open_session(SWEEPS / "judges.yaml").plan
    # The scalar model is made for every cell, and only the last arm asks it.
    scalar = plan.by_entry["scalar"]
    assert turns(plan)[scalar.first : scalar.last].min() == 7 * 24


@pytest.mark.parametrize("path", sorted(SWEEPS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SWEEPS)))
def test_every_shipped_sweep_plans_and_is_its_own_entry_point(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HH_RLHF", str(SWEEPS / "data" / "harmless.jsonl"))
    monkeypatch.setenv("EMBEDDINGS", str(tmp_path))
    for kind, split in product(("embd", "reward"), ("train", "test")):
        (tmp_path / f"{kind}_gemma-2b_gemma-2b_harmless_{split}.npy").touch()
    assert open_session(path).plan.cells
    assert path.read_text().startswith("#!/usr/bin/env -S python -m orchestrator run\n")
    assert os.access(path, os.X_OK)


def test_planning_imports_no_heavy_library_and_touches_no_disk(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import orchestrator.cli.app
import orchestrator.cli.show_plan
from orchestrator.explain.preview import preview
from orchestrator.session import open_session
session = open_session(Path({str(SWEEPS / "full.yaml")!r}))
preview(session)
heavy = {{"torch", "ray", "mlflow", "transformers", "trl", "lightgbm", "sklearn", "datasets", "pyarrow", "fsspec"}}
heavy |= {{"altair", "vl_convert", "streamlit", "statsmodels", "scipy", "duckdb", "jinja2", "pandas"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=400)
    assert list(tmp_path.iterdir()) == []
