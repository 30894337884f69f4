"""Only what is comparable is averaged: complete blocks, in every table and on every page; what is left out is said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy_sweep
from hypothesis import given
from hypothesis import strategies as st

from dashboards.live.tiles import blocks, tiles
from orchestrator.analysis.blocks import complete_blocks
from orchestrator.analysis.summary import left_out, summarise
from orchestrator.results.metrics import averaged_metrics
from orchestrator.session import Session, open_session
from orchestrator.sweep.problems import SweepError
from orchestrator.tracking.groups import aggregates
from orchestrator.tracking.runs import Run

SWEEP = """\
name: arms
question: Which arm is better?
axes:
  arm: [1, 2, 3]
  noise: [10, 20, 30, 40]
  seed: [0, 1, 2]
stages:
  source: {stage: toy_source, config: {value: $arm}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $noise}}
  total: {stage: toy_total, inputs: {numbers: double}, config: {add: $seed}}
results: [source, total]
tracking: false
uses: [toy]
namespace: toy
"""
Cell = Mapping[str, Any]


def opened(folder: Path, text: str = SWEEP) -> Session:
    return open_session(toy_sweep.write_sweep(folder, text), outputs=str(folder / "out"))


def filled(session: Session, number: Callable[[Cell], float | str | None], metric: str = "total") -> pa.Table:
    """The results table of a sweep that was not run: of each cell a number, null, or what its status is instead."""
    table = session.results().table()
    rows = []
    for row in table.to_pylist():
        found = number(row)
        status = found if isinstance(found, str) else "succeeded"
        values = dict.fromkeys(("value", "total"), None if isinstance(found, str) else 0.5)
        rows.append({**row, **values, "status": status, metric: None if isinstance(found, str) else found})
    return pa.Table.from_pylist(rows, schema=table.schema)


def means(summary: pa.Table, metric: str = "total") -> list[float | None]:
    found: list[float | None] = summary[f"{metric}_mean"].to_pylist()
    return found


@given(st.data())
def test_a_block_is_complete_exactly_if_every_compared_value_has_a_number_in_it(data: st.DataObject) -> None:
    # Some cells are excluded, some have no number; each cell is one combination of group, value and block.
    points = list(itertools.product(range(2), range(3), range(4)))
    cells = data.draw(st.lists(st.sampled_from(points), min_size=1, unique=True))
    there = data.draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells)))
    group, value, block = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    found = complete_blocks(np.array(there), value, block, within=group)
    numbers = {cell for cell, known in zip(cells, there, strict=True) if known}
    kept = set()
    for g, b in {(g, b) for g, _, b in cells}:
        compared = {v for each, v, _ in numbers if each == g}
        if compared and all((g, v, b) in numbers for v in compared):
            kept |= {(g, v, b) for v in compared}
    assert {cell for cell, chosen in zip(cells, found.kept, strict=True) if chosen} == kept
    assert found.complete == len({(g, b) for g, _, b in kept})


def test_an_arm_whose_easier_cells_are_pending_is_not_compared_by_the_hard_ones(tmp_path: Path) -> None:
    # Arm 2 is always better by 1; its cells with little noise, where all are good, are not there yet.
    def number(cell: Cell) -> float | str:
        pending = cell["arm"] == 2 and cell["noise"] == 10
        return "pending" if pending else 10 - cell["noise"] / 4 + (cell["arm"] == 2)

    session = opened(tmp_path)
    table = filled(session, number)
    naive = table.to_pandas().groupby("arm").total.mean()
    assert naive[2] < naive[1]
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert means(found) == [2.5, 3.5, 2.5]
    assert (found["cells"].to_pylist(), found["seeds"].to_pylist()) == ([9, 9, 9], [3, 3, 3])
    assert left_out(found) == [
        "from 9 of 12 blocks (cells that agree in all but arm); 3 left out because a cell is pending (3)"
    ]


def test_a_metric_that_is_null_in_one_cell_leaves_out_its_block_for_that_metric_only(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: None if (cell["arm"], cell["noise"], cell["seed"]) == (1, 10, 0) else 1.0)
    found = summarise(table, session.spec, ("arm",), ("value", "total"))
    assert left_out(found)[0] == (
        "total: from 11 of 12 blocks (cells that agree in all but arm); 1 left out because a cell has no number (1)"
    )
    # `cells` is that of the metric with most of them.
    assert found["cells"].to_pylist() == [12, 12, 12]
    assert "the seeds are averaged over different blocks" in left_out(found)[1]


def test_excluded_cells_are_not_missing_but_their_blocks_cannot_be_compared(tmp_path: Path) -> None:
    session = opened(tmp_path, SWEEP + "exclude: [{arm: 3, noise: [10, 20]}]\n")
    table = filled(session, lambda cell: float(cell["noise"]))
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert means(found) == [35.0, 35.0, 35.0]
    assert left_out(found) == [
        "from 6 of 12 blocks (cells that agree in all but arm); 6 left out because a cell is not in the sweep "
        "(`exclude`, --only) (6)"
    ]
    # Side by side with the noise, each combination stands for itself.
    both = summarise(table, session.spec, ("arm", "noise"), ("total",))
    assert (both.num_rows, left_out(both)) == (10, [])
    # Among the other two arms nothing is missing.
    two = summarise(table.filter(pa.compute.field("arm") < 3), session.spec, ("arm",), ("total",))
    assert (means(two), left_out(two)) == ([25.0, 25.0], [])


def test_an_arm_without_any_result_is_named_and_does_not_keep_the_others_from_being_compared(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: "failed" if cell["arm"] == 3 else float(cell["arm"]))
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert (found["arm"].to_pylist(), means(found)) == ([1, 2], [1.0, 2.0])
    assert left_out(found) == ["no cell has succeeded at arm=3"]


def test_where_no_block_is_complete_there_is_no_mean(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: 1.0 if cell["seed"] == cell["arm"] - 1 else "blocked")
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert (means(found), found["cells"].to_pylist()) == ([None, None, None], [0, 0, 0])
    assert left_out(found)[0] == (
        "none of 12 blocks (cells that agree in all but arm) is complete, because a cell is blocked (12)"
    )


def test_a_sweep_of_one_axis_has_one_block(tmp_path: Path) -> None:
    text = SWEEP.replace("  noise: [10, 20, 30, 40]\n  seed: [0, 1, 2]\n", "")
    session = opened(tmp_path, text.replace("{add: $noise}", "{add: 1}").replace("{add: $seed}", "{add: 0}"))
    table = filled(session, lambda cell: "pending" if cell["arm"] == 3 else float(cell["arm"]))
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert (means(found), found["total_sd"].to_pylist()) == ([1.0, 2.0], [None, None])
    assert left_out(found) == ["no cell has succeeded at arm=3"]


def test_values_of_axes_that_are_not_compared_are_complete_each_by_itself(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: "pending" if (cell["noise"], cell["arm"]) == (10, 1) else 1.0)
    found = summarise(table, session.spec, ("arm",), ("total",), within=("noise",))
    rows = {(row["noise"], row["arm"]): row["cells"] for row in found.to_pylist()}
    assert rows == {
        (noise, arm): 3 for noise in (10, 20, 30, 40) for arm in (1, 2, 3) if (noise, arm) != (10, 1)
    }  # fmt: skip


def test_the_same_cells_in_any_order_give_the_same_bits(tmp_path: Path) -> None:
    # 12,960 cells as in the paper's grid, whose numbers are far apart in size, so that every order of a sum shows.
    text = SWEEP.replace("[10, 20, 30, 40]", str(list(range(864)))).replace("[0, 1, 2]", "[0, 1, 2, 3, 4]")
    session = opened(tmp_path, text)
    random = np.random.default_rng(0)
    table = filled(session, lambda cell: float(random.standard_normal() * 10.0 ** random.integers(-6, 6)))
    assert table.num_rows == 12_960
    bits = {summarise(table, session.spec, ("arm",), ("total",)).to_pandas().to_csv() for _ in range(3)}
    for _ in range(3):
        shuffled = table.take(random.permutation(len(table)))
        halves = pa.concat_tables([shuffled.slice(0, 5000), shuffled.slice(5000)])
        bits.add(summarise(halves, session.spec, ("arm",), ("total",)).to_pandas().to_csv())
    assert len(bits) == 1


def test_no_mean_is_taken_of_p_values_and_ends_of_intervals(tmp_path: Path) -> None:
    sweeps = Path(__file__).parents[2] / "sweeps"
    session = open_session(sweeps / "judges-quickstart.yaml", outputs=str(tmp_path))
    table = session.results().table()
    never = {"difference_low", "difference_high", "mcnemar_p"}
    assert never < set(table.column_names)
    assert not never & set(averaged_metrics(table))
    found = summarise(table, session.spec, ("arm",), tuple(averaged_metrics(table)))
    assert not any(name.startswith(tuple(never)) for name in found.column_names)
    with pytest.raises(SweepError, match="'mcnemar_p' is a p value or the end of an interval"):
        summarise(table, session.spec, ("arm",), ("mcnemar_p",))
    for place in ("summary.metrics=[mcnemar_p]", "analysis.secondary=[mcnemar_p]"):
        with pytest.raises(SweepError, match="'mcnemar_p' is a p value or the end of an interval"):
            open_session(sweeps / "judges-quickstart.yaml", [place], outputs=str(tmp_path))


def test_what_a_sweep_is_to_show_is_part_of_no_key(tmp_path: Path) -> None:
    before = opened(tmp_path).plan
    after = opened(tmp_path, SWEEP + "analysis: {primary: {metric: total, better: lower}}\n").plan
    assert (before.digest, before.keys) == (after.digest, after.keys)


def run(group: str, seed: int, value: float | None, status: bool = True) -> Run:
    metrics = {"attempts": 1.0, "low": 3.0, **({} if value is None else {"m": value})}
    params = {"arm": group, "noise": "1", "seed": str(seed)}
    return Run(f"{group}{seed}", "", (group,), status, 0, 0, params, metrics, {"sweep.kind": "cell"})


def test_groups_in_mlflow_are_compared_over_complete_blocks() -> None:
    a, b = [run("a", seed, seed) for seed in (0, 1, 2)], [run("b", 2, 5.0), run("b", 1, 4.0), run("b", 0, 9.0, False)]
    c = [run("c", 0, None, False)]
    found = aggregates({(): [*a, *b, *c], ("a",): a, ("b",): b, ("c",): c}, ["arm"], ["low"])
    counts = {"cells": 3, "cells_failed": 0, "cells_succeeded": 3}
    assert found["a",] == counts | {"m_cells": 2, "m_mean": 1.5, "m_sd": pytest.approx(0.5**0.5)}
    assert found["b",] == counts | {
        "cells_failed": 1, "cells_succeeded": 2, "m_cells": 2, "m_mean": 4.5, "m_sd": pytest.approx(0.5**0.5)
    }  # fmt: skip
    assert found["c",] == {"cells": 1, "cells_failed": 1, "cells_succeeded": 0, "m_cells": 0}
    assert (found[()]["m_cells"], found[()]["m_mean"]) == (5, 12 / 5)
    # Groups that are merely counted off are no values of anything.
    assert aggregates({("cells 1-3",): a}, None)["cells 1-3",] == counts


def test_the_squares_of_the_live_page_are_compared_over_complete_blocks(tmp_path: Path) -> None:
    from dashboards.live.watch import Subject, Watch
    from orchestrator.results.parquet import write_results

    session = opened(tmp_path)

    def number(cell: Cell) -> float | str:
        return "pending" if (cell["arm"], cell["noise"]) == (2, 10) else float(cell["noise"])

    write_results(filled(session, number), session.outputs.results)
    cells = Watch(Subject(session.file, outputs=str(tmp_path / "out"))).look().cells
    found = tiles(cells, "arm", "seed", "total")
    assert set(found["mean"]) == {30.0}
    assert found["n"].tolist() == [3] * 9
    told = blocks(cells, "arm", "seed", "total").left_out(["arm", "seed"])
    assert told == (
        "from 3 of 4 blocks (cells that agree in all but arm, seed); 1 left out because a cell is pending (1)"
    )
    # A filter that leaves the missing ones out leaves nothing to be told.
    assert blocks(cells[cells["noise"] != "10"], "arm", "seed", "total").left_out(["arm"]) is None


def test_what_is_left_out_goes_with_the_table(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: "failed" if (cell["arm"], cell["noise"]) == (2, 10) else 1.0)
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert json.loads(found.schema.metadata[b"left_out"]) == left_out(found) != []
