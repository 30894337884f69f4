"""Means of arms are balanced, from all pairs that are there, in every table and on every page; gaps are said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy_sweep
from hypothesis import given
from hypothesis import strategies as st

from dashboards.live.tiles import square_means, tiles
from orchestrator.analysis.means import balanced_means, combine_codes, label_codes
from orchestrator.analysis.summary import left_out, spread_of, summarise
from orchestrator.results.metrics import averaged_metrics
from orchestrator.session import Session, open_session
from orchestrator.statistics.available import available
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
def test_a_mean_is_over_all_combinations_and_draws_each_counting_the_same_and_over_what_is_filled_in(
    data: st.DataObject,
) -> None:
    # Some cells are excluded, some have no number; they come in any order, numbered as it happens.
    points = [(draw, combination, arm) for draw in range(2) for combination in range(3) for arm in range(3)]
    cells = data.draw(st.lists(st.sampled_from(points), min_size=1, unique=True))
    numbers = data.draw(st.lists(st.none() | st.integers(-9, 9), min_size=len(cells), max_size=len(cells)))
    values = np.array([math.nan if number is None else number for number in numbers], np.float64)
    draw, combination, arm = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    found = balanced_means(values, arm, combination * 7 + 3, draw * 5 - 2)
    table, meant = np.full((2, 3, 3), np.nan), np.zeros((2, 3, 3), np.bool_)
    table[draw, combination, arm], meant[draw, combination, arm] = values, True
    known = [each for each in range(max(arm) + 1) if np.isfinite(table[:, :, each]).any()]
    absent = [each for each in range(max(arm) + 1) if each not in known]
    assert len(found.mean) == max(arm) + 1
    assert np.isnan(found.mean[absent]).all()
    assert not found.cells[absent].any()
    if known:
        filled = available(table[:, :, known], np.isfinite(table[:, :, known]), meant[:, :, known])
        if filled.values.size:
            assert found.mean[known] == pytest.approx(filled.values.mean(axis=(0, 1)))
            assert found.draws == len(filled.values)
            assert found.cells.sum() + filled.filled == filled.values.size
        else:
            assert np.isnan(found.mean).all()
    if np.isfinite(table).all():
        assert found.mean == pytest.approx(table.mean(axis=(0, 1)))
        assert found.sd == pytest.approx(table.mean(axis=1).std(axis=0, ddof=1))
        assert (found.cells.tolist(), found.draws, found.notes) == ([6, 6, 6], 2, ())


def test_the_standard_deviation_is_over_draws_or_else_over_combinations_and_none_of_one_value() -> None:
    values = np.array([1.0, 2.0, 5.0])
    arm, different = np.zeros(3, np.int64), np.array([4, 0, 2])
    over_draws, over_cells = (balanced_means(values, arm, *codes) for codes in ((arm, different), (different, None)))
    assert over_draws.sd == over_cells.sd == pytest.approx([values.std(ddof=1)])
    assert (over_draws.draws, over_cells.draws) == (3, 1)
    assert np.isnan(balanced_means(values[:1], arm[:1], arm[:1], arm[:1]).sd).all()
    assert np.isnan(balanced_means(values[:1], arm[:1], arm[:1], None).sd).all()
    # Of one draw there is no spread over draws, and that over combinations is another thing.
    assert np.isnan(balanced_means(values, arm, different, arm).sd).all()
    with pytest.raises(ValueError, match="1 of 3 cells are where another one is"):
        balanced_means(values, arm, arm, np.array([0, 1, 1]))
    nothing = balanced_means(np.empty(0), *(np.empty(0, np.int64) for _ in range(3)))
    assert (len(nothing.mean), nothing.draws, nothing.notes) == (0, 0, ())


def test_combinations_are_numbered_with_the_last_axis_fastest() -> None:
    codes = label_codes(pa.chunked_array([["b", "a"], ["c"]]), ("a", "b", "c"))
    assert codes.tolist() == [1, 0, 2]
    assert combine_codes(3, [(codes, 3), (np.array([1, 0, 1]), 2)]).tolist() == [3, 0, 5]
    assert combine_codes(2, []).tolist() == [0, 0]


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
        "3 of 36 cells have no number (3 pending)",
        "left out, as the arms have no pairs there: 1 of 4 values of noise",
    ]


def test_a_cell_that_is_missing_gives_up_no_other_pair(tmp_path: Path) -> None:
    # What is missing is the worst of arm 2, in the worst seed: without it a plain mean of arm 2 would be too good.
    def number(cell: Cell) -> float | str:
        if (cell["arm"], cell["noise"], cell["seed"]) == (2, 40, 2):
            return "failed"
        return float(cell["arm"]) - cell["noise"] - 100.0 * cell["seed"]

    session = opened(tmp_path)
    table = filled(session, number)
    assert table.to_pandas().groupby("arm").total.mean()[2] > -124 + 10
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert means(found) == pytest.approx([-124.0, -123.0, -122.0])
    assert found["cells"].to_pylist() == [12, 11, 12]
    assert found["total_sd"].to_pylist() == pytest.approx([100.0] * 3)
    assert left_out(found) == ["1 of 36 cells have no number (1 failed)"]


def test_a_metric_that_is_null_in_one_cell_is_undefined_there_and_other_metrics_have_their_numbers(
    tmp_path: Path,
) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: None if (cell["arm"], cell["noise"], cell["seed"]) == (1, 10, 0) else 1.0)
    found = summarise(table, session.spec, ("arm",), ("value", "total"))
    assert left_out(found) == ["total: 1 of 36 cells have no number (1 undefined)"]
    # `cells` is that of the metric with most of them.
    assert found["cells"].to_pylist() == [12, 12, 12]
    assert summarise(table, session.spec, ("arm",), ("total",))["cells"].to_pylist() == [11, 12, 12]


def test_that_cells_are_missing_more_in_some_arms_than_in_others_is_said(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: "failed" if cell["arm"] == 2 and cell["noise"] > cell["seed"] * 15 else 1.0)
    (said, *_) = left_out(summarise(table, session.spec, ("arm",), ("total",)))
    assert said == (
        "8 of 36 cells have no number (8 failed), more in some arms than in others (0, 8, 0): what is missing is not "
        "missing by chance"
    )


def test_excluded_cells_are_not_missing_but_without_them_arms_have_no_pairs(tmp_path: Path) -> None:
    session = opened(tmp_path, SWEEP + "exclude: [{arm: 3, noise: [10, 20]}]\n")
    table = filled(session, lambda cell: float(cell["noise"]))
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert means(found) == [35.0, 35.0, 35.0]
    assert left_out(found) == ["left out, as the arms have no pairs there: 2 of 4 values of noise"]
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


def test_where_no_arms_have_pairs_there_is_no_mean(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: 1.0 if cell["seed"] == cell["arm"] - 1 else "blocked")
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert (means(found), found["cells"].to_pylist()) == ([None, None, None], [0, 0, 0])
    assert left_out(found) == [
        "24 of 36 cells have no number (24 blocked)",
        "left out, as the arms have no pairs there: 4 of 4 values of noise and 3 of 3 draws of what is random",
    ]


def test_a_sweep_of_one_axis_has_the_number_of_each_value(tmp_path: Path) -> None:
    text = SWEEP.replace("  noise: [10, 20, 30, 40]\n  seed: [0, 1, 2]\n", "")
    session = opened(tmp_path, text.replace("{add: $noise}", "{add: 1}").replace("{add: $seed}", "{add: 0}"))
    table = filled(session, lambda cell: "pending" if cell["arm"] == 3 else float(cell["arm"]))
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert (means(found), found["total_sd"].to_pylist()) == ([1.0, 2.0], [None, None])
    assert left_out(found) == ["no cell has succeeded at arm=3"]


def test_values_of_axes_that_are_not_compared_have_pairs_each_by_itself(tmp_path: Path) -> None:
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


def run(group: str, seed: int, value: float | None, status: bool = True, noise: str = "1") -> Run:
    metrics = {"attempts": 1.0, "low": 3.0, **({} if value is None else {"m": value})}
    params = {"arm": group, "noise": noise, "seed": str(seed)}
    return Run(f"{group}{seed}{noise}", "", (group,), status, 0, 0, params, metrics, {"sweep.kind": "cell"})


def test_groups_in_mlflow_have_balanced_means() -> None:
    # In seed 0 everything is worse, and there b has failed: all the same it is better by 3.
    a, b = [run("a", seed, seed) for seed in (0, 1, 2)], [run("b", 2, 5.0), run("b", 1, 4.0), run("b", 0, 9.0, False)]
    c = [run("c", 0, None, False)]
    found = aggregates({(): [*a, *b, *c], ("a",): a, ("b",): b, ("c",): c}, ["arm"], ["low"])
    counts = {"cells": 3, "cells_failed": 0, "cells_succeeded": 3}
    numbers = {"m_mean": 1.5, "m_sd": pytest.approx(0.5**0.5), "m_cells": 2}
    assert found["a",] == counts | numbers
    assert found["b",] == counts | {"cells_failed": 1, "cells_succeeded": 2} | numbers | {"m_mean": 4.5}
    assert found["c",] == {"cells": 1, "cells_failed": 1, "cells_succeeded": 0, "m_cells": 0}
    # A second combination, in which all is there, ties b to a in seed 0 as well.
    far = [run(arm, seed, 100.0 + seed + 3 * (arm == "b"), noise="2") for arm in "ab" for seed in (0, 1, 2)]
    tied = aggregates({("a",): [*a, *far[:3]], ("b",): [*b, *far[3:]]}, ["arm"], ["low"])
    assert (tied["a",]["m_mean"], tied["b",]["m_mean"]) == pytest.approx((51.0, 54.0))
    assert (tied["a",]["m_cells"], tied["b",]["m_cells"]) == (6, 5)
    # Groups that are merely counted off are no values of anything.
    assert aggregates({("cells 1-3",): a}, None)["cells 1-3",] == counts


def test_the_mean_of_a_whole_sweep_in_mlflow_is_over_all_combinations() -> None:
    everything = [run(arm, seed, seed + 10.0 * (arm == "b")) for arm in "ab" for seed in (0, 1, 2)]
    found = aggregates({(): everything}, ["arm"], ["low"])[()]
    assert (found["m_cells"], found["m_mean"], found["m_sd"]) == (6, 6.0, 1.0)
    # What is missing is filled in: b is better by 10 in the other seeds.
    lacking = aggregates({(): everything[:-1]}, ["arm"], ["low"])[()]
    assert (lacking["m_cells"], lacking["m_mean"]) == (5, pytest.approx(6.0))


def test_the_squares_of_the_live_page_are_balanced_means(tmp_path: Path) -> None:
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
    told = square_means(cells, "arm", "seed", "total").notes
    assert told == (
        "3 of 36 cells have no number (3 pending)",
        "left out, as the arms have no pairs there: 1 of 4 values of noise",
    )
    # A filter that leaves the missing ones out leaves nothing to be told.
    assert square_means(cells[cells["noise"] != "10"], "arm", "seed", "total").notes == ()
    # Squares by one axis twice are its values, over the seeds like the table.
    diagonal = tiles(cells, "arm", "arm", "total")
    table = summarise(filled(session, number), session.spec, ("arm",), ("total",))
    assert diagonal["mean"].tolist() == means(table)
    assert diagonal["sd"].tolist() == table["total_sd"].to_pylist()


def test_what_is_left_out_goes_with_the_table(tmp_path: Path) -> None:
    session = opened(tmp_path)
    table = filled(session, lambda cell: "failed" if (cell["arm"], cell["noise"]) == (2, 10) else 1.0)
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert json.loads(found.schema.metadata[b"left_out"]) == left_out(found) != []


def test_of_one_seed_there_is_a_mean_and_no_spread_over_seeds(tmp_path: Path) -> None:
    session = opened(tmp_path, SWEEP.replace("seed: [0, 1, 2]", "seed: [0]"))
    table = filled(session, lambda cell: 10.0 * cell["arm"] + cell["noise"])
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert found["total_mean"].to_pylist() == [35.0, 45.0, 55.0]
    assert found["total_sd"].to_pylist() == [None, None, None]
    assert found["seeds"].to_pylist() == [1, 1, 1]


def test_where_the_analysis_declares_other_axes_random_a_draw_is_one_of_these(tmp_path: Path) -> None:
    folds = SWEEP.replace("seed: [0, 1, 2]", "fold: [0, 1, 2]").replace("$seed", "$fold")
    declared = "analysis: {primary: {metric: total, better: higher}, random: {fold: fold}}\n"
    session = opened(tmp_path, folds + declared)
    table = filled(session, lambda cell: 10.0 * cell["arm"] + cell["fold"] + cell["noise"])
    found = summarise(table, session.spec, ("arm",), ("total",))
    assert found["seeds"].to_pylist() == [3, 3, 3]
    assert found["total_sd"].to_pylist() == pytest.approx([1.0, 1.0, 1.0])
    assert spread_of(found) == "mean ± sd over fold; the cells of a draw are averaged first"
    # By default the rows of the summary are by axes that are compared.
    assert summarise(table, session.spec).column_names[:2] == ["arm", "noise"]
    without = opened(tmp_path, folds)
    over_cells = summarise(table, without.spec, ("arm",), ("total",))
    assert "seeds" not in over_cells.column_names
    assert spread_of(over_cells) == "mean ± sd over cells"
