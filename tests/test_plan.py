"""Cells, shared steps and keys: what is the same question has the same key, and nothing else has."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.document import SweepError
from orchestrator.execute import needed_steps
from orchestrator.plan import Plan, build_plan, find_cell, selection
from orchestrator.session import open_session
from orchestrator.spec import load_sweep
from orchestrator.types import Artifact
from orchestrator.wiring import check_wiring
from workers.stages import STAGES

SWEEPS = Path(__file__).parents[1] / "sweeps"


def plan_of(folder: Path, text: str = toy.SWEEP, *overrides: str) -> Plan:
    spec = load_sweep(toy.write_sweep(folder, text), overrides)
    check_wiring(spec)
    return build_plan(spec)


def keys(plan: Plan) -> set[str]:
    return {address.key for address in plan.steps}


def test_these_keys_are_pinned_because_stores_depend_on_them(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cell = plan.cells[0]
    assert {name: [each.key for each in group] for name, group in cell.steps.items()} == {
        "source": ["0ca0f0e4a20ce191863076d43e25c57c", "f15c20ecc1ba4c40843fa42842d8b3cd"],
        "double": ["87e8ee93388dcf7d2ea601212c100ce7", "8156c67e1f9b00f5d0cfc7974699523f"],
        "total": ["4fcec7ed884d14d21f1a5dee8ca14eba"],
    }
    assert cell.id == "c54e12404333"


def test_a_plan_has_a_cell_per_point_and_a_step_per_question(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert [(cell.coords["x"], cell.coords["y"]) for cell in plan.cells] == list(product((1, 2, 3), (10, 20)))
    assert {name: len(steps) for name, steps in plan.of_entry().items()} == {"source": 6, "double": 6, "total": 6}
    assert plan.targets == ("total",)
    assert len({cell.id for cell in plan.cells}) == 6


def test_shards_propagate_one_to_one_and_are_gathered_in_order(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cell = plan.cells[0]
    for shard, address in enumerate(cell.steps["double"]):
        assert plan.steps[address].inputs == {"number": (cell.steps["source"][shard],)}
        assert plan.steps[cell.steps["source"][shard]].config["shard"] == shard
    assert plan.steps[cell.steps["total"][0]].inputs == {"numbers": cell.steps["double"]}


@pytest.mark.parametrize(
    "edits",
    [
        [("name: toy", "name: other"), ("question: Does", "question: Why does")],
        [("  x: [1", "  ex: [1"), ("$x", "$ex")],
        [("source:", "origin:"), ("number: source", "number: origin")],
        [("x: [1, 2, 3]", "x: [1.0, 2.0, 3.0]")],
        [("results: [total]", "results: [total]\nruntime: {total: {cpus: 7}}\nlimits: {running: 3}\nstore: /else")],
        [("{add: $y}", "{add: $y, marker: ''}")],
    ],
)
def test_names_runtime_and_spelled_out_defaults_leave_every_key_alone(
    tmp_path: Path, edits: list[tuple[str, str]]
) -> None:
    text = toy.SWEEP
    for before, after in edits:
        assert before in text
        text = text.replace(before, after)
    assert keys(plan_of(tmp_path, text)) == keys(plan_of(tmp_path))


def test_a_changed_value_changes_exactly_the_keys_below_it(tmp_path: Path) -> None:
    before, after = plan_of(tmp_path), plan_of(tmp_path, toy.SWEEP, "stages.double.config.add=1")
    for name, shared in (("source", True), ("double", False), ("total", False)):
        one, other = ({step.key for step in plan.of_entry()[name]} for plan in (before, after))
        assert one == other if shared else not one & other


def test_a_raised_stage_version_changes_the_keys_of_the_stage_and_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_of(tmp_path)
    monkeypatch.setitem(STAGES, "toy_double", dataclasses.replace(STAGES["toy_double"], version=2))  # type: ignore[arg-type]
    after = plan_of(tmp_path)
    assert {step.key for step in before.of_entry()["source"]} <= keys(after)
    assert not {step.key for name in ("double", "total") for step in before.of_entry()[name]} & keys(after)


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
    text = toy.SWEEP.replace("  total:", "  again: {stage: toy_double, inputs: {number: source}}\n  total:")
    plan = plan_of(tmp_path, text)
    assert plan.cells[0].steps["again"] == plan.cells[0].steps["double"]
    assert keys(plan) == keys(plan_of(tmp_path))


def test_where_when_is_false_the_other_entry_stands_in(tmp_path: Path) -> None:
    text = toy.SWEEP.replace(
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
    plan = plan_of(tmp_path, toy.SWEEP + "exclude: [{x: [1, 2], y: 10}, {x: 3}]\n")
    assert [(cell.coords["x"], cell.coords["y"]) for cell in plan.cells] == [(1, 20), (2, 20)]


def test_cells_are_selected_by_value_and_found_by_id_or_coordinates(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    chosen = plan.select(selection(plan.spec, ["x=1,2.0", "y=20"], ["x=2"]))
    assert [dict(cell.coords) for cell in chosen.cells] == [{"x": 1, "y": 20, "kind": "plain"}]
    assert len(chosen.steps) == 5
    cell = plan.cells[3]
    assert find_cell(plan, cell.id[:6]) is cell
    assert find_cell(plan, "x=2,y=20") is cell
    for text, words in (("x=2", "names 2 cells"), ("zzz", "names no cell"), ("w=1", "there is no axis 'w'")):
        with pytest.raises(SweepError, match=words):
            find_cell(plan, text)
    with pytest.raises(SweepError, match="'9' is no value of 'x'"):
        selection(plan.spec, ["x=9"], [])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_needed_is_exactly_what_is_missing_for_the_targets(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    plan = plan_of(tmp_path_factory.mktemp("plan"))
    committed = set(data.draw(st.lists(st.sampled_from(sorted(plan.steps)), unique=True)))

    def literally(address: Artifact) -> set[Artifact]:
        if address in committed:
            return set()
        return {address}.union(*(literally(parent) for parent in plan.steps[address].parents()))

    wanted = set().union(*(literally(target) for cell in plan.cells for target in plan.targets_of(cell)))
    assert set(needed_steps(plan, committed)) == wanted


def test_the_paper_s_grid_has_12960_cells_and_shares_its_steps() -> None:
    plan = open_session(SWEEPS / "full.yaml").plan
    assert len(plan.cells) == 12_960
    counts = {name: len(steps) for name, steps in plan.of_entry().items()}
    assert {name: counts[name] for name in ("policy", "sft", "golden", "annotate", "fit", "evaluate")} == {
        "policy": 3, "sft": 6, "golden": 2, "annotate": 4_320, "fit": 12_960, "evaluate": 12_960,
    }  # fmt: skip
    # 720 pair sets are shared by the noise levels: the same seeds, whatever beta is.
    unpaired = {tuple(sorted((axis, str(label)) for axis, label in step.coords.items() if axis != "beta"))
                for step in plan.of_entry()["annotate"]}  # fmt: skip
    assert len(unpaired) == 720


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_plans_and_is_its_own_entry_point(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HH_RLHF", str(SWEEPS / "data" / "harmless.jsonl"))
    assert open_session(path).plan.cells
    assert path.read_text().startswith("#!/usr/bin/env -S python -m orchestrator run\n")
    assert os.access(path, os.X_OK)


def test_planning_imports_no_heavy_library_and_touches_no_disk(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import orchestrator.cli
from orchestrator.session import open_session
session = open_session(Path({str(SWEEPS / "full.yaml")!r}))
session.plan_counts()
heavy = {{"torch", "ray", "mlflow", "transformers", "trl", "lightgbm", "sklearn", "datasets", "pyarrow"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
    assert list(tmp_path.iterdir()) == []
