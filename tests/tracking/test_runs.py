"""What MLflow is shown of a sweep: groups, means, the page that explains it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import toy_sweep

from orchestrator.analysis.summary import summarise
from orchestrator.drive import drive
from orchestrator.plan.build import build_plan
from orchestrator.session import Session, open_session
from orchestrator.sweep.load import load_sweep
from orchestrator.tracking import runs as projection
from orchestrator.tracking.experiment import datasets, describe, markdown
from orchestrator.tracking.groups import aggregates
from orchestrator.tracking.runs import Projection, Run

SWEEPS = Path(__file__).parents[2] / "sweeps"


def opened(folder: Path, text: str) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))


def all_runs(session: Session) -> list[Run]:
    """Runs of every cell, as if all had succeeded."""
    table = session.results().table()
    rows = [{**row, "status": "succeeded", "total": row["x"]} for row in table.to_pylist()]
    return list(Projection(session.plan).runs(table.from_pylist(rows, schema=table.schema), range(table.num_rows)))


@pytest.mark.parametrize(
    ("x", "y", "groups"),
    [
        (3, 4, {("x=0",), ("x=1",), ("x=2",)}),
        # More groups than a parent may have children: counted off instead.
        (7, 2, {("cells 1–5",), ("cells 6–10",), ("cells 11–14",)}),
        # No axis is short enough.
        (1, 12, {("cells 1–5",), ("cells 6–10",), ("cells 11–12",)}),
        # More than so many times so many: one level more.
        (1, 27, {("cells 1–25", f"cells {n}–{n + 4}") for n in (1, 6, 11, 16, 21)} | {("cells 26–27", "cells 26–27")}),
    ],
)
def test_no_parent_has_more_children_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: int, y: int, groups: set[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(projection, "CHILDREN_PER_PARENT", 5)
    text = toy_sweep.SWEEP.replace("[1, 2, 3]", str(list(range(x)))).replace("[10, 20]", str(list(range(y))))
    text = text.replace("  kind:\n    plain: {behaviour: work}\n", "").replace("[{add: $y}, $kind]", "{add: $y}")
    runs = all_runs(opened(tmp_path, text))
    assert len({run.id for run in runs}) == x * y
    assert {run.group for run in runs} == groups
    children: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        children.setdefault(run.group, set()).add(run.id)
        for length in range(len(run.group)):
            children.setdefault(run.group[:length], set()).add(run.group[length])
    assert max(map(len, children.values())) <= 5


def test_the_papers_grid_has_36_groups_of_360(tmp_path: Path) -> None:
    plan = build_plan(load_sweep(SWEEPS / "full.yaml"))
    assert Projection(plan).group_axes == ("policy", "dataset", "sampling")


def test_a_run_says_what_the_row_says_and_which_steps_it_used(tmp_path: Path) -> None:
    session = opened(tmp_path, toy_sweep.SWEEP.replace("[10, 20]", "[0.5, 20]"))
    runs = all_runs(session)
    assert runs[1].name == "x=1,y=20.0,plain"
    assert runs[1].group == ("x=1",)
    assert runs[1].params == {"x": "1", "y": "20.0", "kind": "plain"}
    assert runs[1].metrics == {"total": 1.0, "attempts": 0}
    plan = session.plan
    assert runs[1].tags["sweep.key"] == plan.cell_key(1)
    # Sources and doubles are cut into shards: there is no one step to name.
    assert runs[1].tags["sweep.keys"] == f"total={plan.cell_key(1)}"
    # A page shows them in this order.
    assert list(runs[1].tags) == [
        "sweep.kind",
        "sweep.status",
        "sweep.group",
        "sweep.cell_id",
        "sweep.key",
        "sweep.keys",
    ]


def test_a_sweep_of_many_entries_names_the_keys_of_all_in_few_tags(tmp_path: Path) -> None:
    more = "".join(f"  {'x' * 90}{number}: {{stage: toy_source, config: {{value: $x}}}}\n" for number in range(60))
    (run, *_) = all_runs(opened(tmp_path, toy_sweep.SWEEP.replace("stages:\n", f"stages:\n{more}")))
    tags = [run.tags[name] for name in ("sweep.keys", "sweep.keys.2")]
    assert max(map(len, tags)) <= 5000
    assert [each.partition("=")[0] for each in " ".join(tags).split()] == [
        *(f"{'x' * 90}{n}" for n in range(60)),
        "total",
    ]


def test_a_name_says_all_coordinates_and_each_cell_has_its_own(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("[1, 2, 3]", "[1, 2]")
    kinds = ("plain", "1e-5", "y,1", " ", "a" * 200, "a" * 199 + "b", "ü\n|**")
    text = text.replace(
        "    plain: {", "".join(f"    {json.dumps(each)}: {{behaviour: work}}\n" for each in kinds) + "    10: {"
    )
    names = [run.name for run in all_runs(opened(tmp_path, text))]
    assert names[:4] == ["x=1,y=10,plain", "x=1,y=10,kind=1e-5", "x=1,y=10,kind=y,1", "x=1,y=10,kind= "]
    assert names[6:8] == ["x=1,y=10,ü\n|**", "x=1,y=10,kind=10"]
    assert len(set(names)) == len(names) == 32
    assert max(map(len, names)) == 125


def test_a_label_that_two_axes_have_is_named_with_its_axis_and_long_groups_stay_apart(tmp_path: Path) -> None:
    long = "of a kind that nobody can tell from another one by what it begins with, " * 3
    labels = [json.dumps(each) for each in ("helpful", f"{long}1", f"{long}2")]
    configs = ("{behaviour: work}", "{behaviour: slow}", "{behaviour: raise}")
    axis = "".join(f"    {label}: {config}\n" for label, config in zip(labels, configs, strict=True))
    axes = f"  train:\n{axis}  test:\n{axis}"
    text = toy_sweep.SWEEP.replace("axes:\n", f"axes:\n{axes}").replace("[{add: $y}", "[{add: $y}, $train, $test")
    runs = all_runs(opened(tmp_path, text))
    assert runs[0].name.startswith("train=helpful,test=helpful,")
    assert len({run.group for run in runs}) == 3


def test_pending_cells_have_no_run(tmp_path: Path) -> None:
    session = opened(tmp_path, toy_sweep.SWEEP)
    assert list(Projection(session.plan).runs(session.results().table(), range(6))) == []


def test_a_step_has_an_owner_exactly_if_one_cell_alone_uses_it(tmp_path: Path) -> None:
    plan = opened(tmp_path, toy_sweep.SWEEP).plan
    owners = Projection(plan).owners.tolist()
    for number in range(len(plan)):
        users = [i for i, cell in enumerate(plan.cells) if any(plan.address(number) in g for g in cell.steps.values())]
        assert owners[number] == (users[0] if len(users) == 1 else -1)


def test_means_are_of_what_succeeded_and_failures_are_counted() -> None:
    def run(value: float, succeeded: bool = True, kind: str = "cell") -> Run:
        metrics, params = {"m": value, "attempts": 2}, {"x": str(value)}
        return Run("a", "a", (), succeeded, 0, 0, params, metrics, {"sweep.kind": kind})

    def whole(*runs: Run) -> dict[str, float]:
        return aggregates({(): runs}, ())[()]

    assert whole(run(1), run(2), run(4), run(99, succeeded=False), run(7, kind="step")) == {
        "cells": 4,
        "cells_succeeded": 3,
        "cells_failed": 1,
        "m_cells": 3,
        "m_mean": statistics.fmean([1, 2, 4]),
        "m_sd": pytest.approx(statistics.stdev([1, 2, 4])),
    }
    # A single value has no spread, and nothing has no mean: a missing number is not 0.
    assert whole(run(3)) == {"cells": 1, "cells_succeeded": 1, "cells_failed": 0, "m_cells": 1, "m_mean": 3}
    assert whole(run(3, succeeded=False)) == {"cells": 1, "cells_succeeded": 0, "cells_failed": 1}
    assert whole() == {}
    with pytest.raises(ValueError, match="1 of 2 cells are where another one is"):
        whole(run(1), run(1))


def test_the_page_names_question_axes_metrics_and_a_filter_that_finds_cells(tmp_path: Path) -> None:
    session = opened(tmp_path, toy_sweep.SWEEP.replace("[10, 20]", "[0.5, 20]"))
    page = describe(Projection(session.plan), session.file, "results.parquet")
    assert "**Does adding work?**" in page
    assert "6 cells (3 x × 2 y × 1 kind), one run each, in groups by x" in page
    assert "| y | 0.5, 20.0 |" in page
    assert "| total | total |" in page
    assert f"sweep run {session.file}" in page
    excluding = opened(tmp_path, toy_sweep.SWEEP + "exclude: [{x: 1, y: 10}]\n")
    assert "5 cells (of 3 x × 2 y × 1 kind)" in describe(Projection(excluding.plan), session.file, "results.parquet")
    # As `params` of a run have it: 20 would find nothing.
    assert '`params.x = "3" and params.y = "20.0"`' in page


def test_data_are_named_once_each_by_content_and_published_ones_by_name(tmp_path: Path) -> None:
    quickstart = datasets(load_sweep(SWEEPS / "quickstart.yaml"))
    assert [each["name"] for each in quickstart] == ["helpful.jsonl", "harmless.jsonl"]
    assert quickstart[0]["context"] == "axes.dataset.helpful.source"
    full = datasets(load_sweep(SWEEPS / "full.yaml"))
    assert [each["name"] for each in full][:2] == [
        "Anthropic/hh-rlhf (harmless-base, train)",
        "Anthropic/hh-rlhf (harmless-base, test)",
    ]
    assert json.loads(full[0]["source"])["path"] == "Anthropic/hh-rlhf"
    # MLflow refuses longer ones.
    assert all(len(each["digest"]) <= 36 for each in (*quickstart, *full))
    assert len({each["digest"] for each in full}) == len(full) == 4


def test_the_summary_is_a_small_table_of_means_and_spreads(tmp_path: Path) -> None:
    session = opened(tmp_path, toy_sweep.SWEEP)
    table = session.results().table()
    rows = [{**row, "status": "succeeded", "total": row["y"] / 3} for row in table.to_pylist()]
    summary = summarise(table.from_pylist(rows, schema=table.schema), session.spec, by=("x",))
    assert markdown(summary).splitlines() == [
        "| x | cells | total |",
        "| ---: | ---: | --- |",
        *(f"| {x} | 2 | 5.000 ± {10 / 3 / 2**0.5:.3f} |" for x in (1, 2, 3)),
    ]


def test_a_metric_that_is_undefined_is_a_tag_with_its_reason_and_no_number(tmp_path: Path) -> None:
    session = opened(tmp_path, toy_sweep.SWEEP.replace("{behaviour: work}", "{behaviour: undefined}"))
    drive(session, None, True, None)
    table = opened(tmp_path, session.file.read_text()).results().table()
    run, *_ = Projection(session.plan).runs(table, range(table.num_rows))
    assert "total" not in run.metrics
    assert run.tags["sweep.status"] == "succeeded"
    assert run.tags["sweep.undefined"] == "total: the toy was told not to know"
