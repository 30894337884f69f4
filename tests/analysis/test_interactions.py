"""How a difference depends on other axes: tables whose answer is known, and literal restatements."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import command_server
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from orchestrator.analysis.comparisons import compare
from orchestrator.analysis.effect import Sample
from orchestrator.analysis.interactions import Interaction, dependences, format_dependence, interactions, record
from orchestrator.results.parquet import SCHEMA_VERSION

AXES: dict[str, list[Any]] = {
    "model": ["bt", "clf"], "data": ["a", "b"], "beta": [0.5, 1.0, 10.0], "seed": [0, 1, 2, 3, 4],
}  # fmt: skip


def table_of(value: Callable[[Mapping[str, Any]], float | None], axes: Mapping[str, list[Any]] = AXES) -> pa.Table:
    """A results table with one metric, `gain`; cells without a value have failed."""
    rows = []
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        gain = value(cell)
        rows.append({**cell, "status": "failed" if gain is None else "succeeded", "gain": gain})
    metadata = {"schema_version": str(SCHEMA_VERSION), "axes": json.dumps(axes), "metrics": json.dumps(["gain"])}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def lucky(*missing: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], float | None]:
    """clf is .18 better at beta .5, nothing at 1, and .06 worse at 10; what a seed's cells share, and luck."""
    random = np.random.default_rng(0)
    ahead = {0.5: 0.18, 1.0: 0.0, 10.0: -0.06}

    def value(cell: Mapping[str, Any]) -> float | None:
        gain = cell["seed"] + (cell["model"] == "clf") * ahead[cell["beta"]] + 0.01 * random.standard_normal()
        return None if any(each.items() <= cell.items() for each in missing) else gain

    return value


def found_in(table: pa.Table, *within: str) -> list[Interaction]:
    sample = Sample(table)
    return interactions(sample, compare(sample, "model", ["clf", "bt"], within=within))


def differences(table: pa.Table) -> np.ndarray:
    """clf - bt of each (data, beta, seed)."""
    rows = {tuple(row[axis] for axis in AXES): row["gain"] for row in table.to_pylist()}
    _, data, betas, seeds = AXES.values()
    return np.array([[[rows["clf", d, b, s] - rows["bt", d, b, s] for s in seeds] for b in betas] for d in data])


def test_the_numbers_are_those_of_t_tests_over_the_seeds_and_one_family() -> None:
    table = table_of(lucky())
    found = found_in(table)
    assert [(each.other, each.value) for each in found] == [
        ("data", "a"), ("data", "b"), ("beta", 0.5), ("beta", 1.0), ("beta", 10.0),
    ]  # fmt: skip
    by_seed = {"data": differences(table).mean(axis=1), "beta": differences(table).mean(axis=0)}
    p = {}
    for each in found:
        place = AXES[each.other].index(each.value)
        here, apart = by_seed[each.other][place], by_seed[each.other][place] - by_seed[each.other].mean(axis=0)
        difference, deviation = ttest_1samp(here, 0), ttest_1samp(apart, 0)
        interval = difference.confidence_interval()
        assert each.difference.fixed is not None
        assert each.difference.estimate == pytest.approx(here.mean(), rel=1e-9)
        assert (each.difference.fixed.low, each.difference.fixed.high) == pytest.approx(tuple(interval), rel=1e-9)
        assert each.deviation.estimate == pytest.approx(apart.mean(), abs=1e-12)
        assert each.p == pytest.approx(deviation.pvalue, rel=1e-7)
        p[each.other, each.value] = each.p
    # Two values deviate from their mean by the same: one test.
    family = [p["data", "a"], *(p["beta", beta] for beta in AXES["beta"])]
    assert all(each is not None for each in family)
    adjusted = multipletests(family, method="holm")[1].tolist()
    assert [each.holm_p for each in found] == pytest.approx([adjusted[0], *adjusted])


def test_a_difference_that_changes_its_sign_is_told_and_one_that_does_not_depend_is_not() -> None:
    data, beta = dependences(found_in(table_of(lucky())))
    assert not data.clear
    assert beta.clear
    said = format_dependence(beta)
    assert said.startswith("the difference clf - bt in gain depends on beta (Holm p ")
    ends = re.findall(r"([+-][.\d]+) at ([.\d]+)", said)
    assert [float(difference) for difference, _ in ends] == pytest.approx([0.18, -0.06], abs=0.02)
    assert [float(where) for _, where in ends] == [0.5, 10]
    assert said.endswith("at 10.0; the average hides that")


def test_without_luck_a_difference_that_is_the_same_everywhere_has_no_deviation_and_no_p() -> None:
    found = found_in(table_of(lambda cell: cell["seed"] + 0.5 * (cell["model"] == "clf") + cell["beta"]))
    assert [each.difference.estimate for each in found] == pytest.approx([0.5] * 5)
    assert [each.deviation.estimate for each in found] == pytest.approx([0.0] * 5)
    assert [each.p for each in found] == [None] * 5
    assert not any(each.clear for each in dependences(found))


def test_missing_cells_are_made_up_for_by_the_pairs_that_are_there() -> None:
    whole = [each.difference.estimate for each in found_in(table_of(lucky()))]
    found = found_in(table_of(lucky({"model": "clf", "data": "a", "beta": 0.5, "seed": 3})))
    estimates = [each.difference.estimate for each in found]
    assert estimates == pytest.approx(whole, abs=0.01)
    assert estimates != whole
    assert sum(each.deviation.estimate or 0 for each in found if each.other == "beta") == pytest.approx(0, abs=1e-12)
    assert any("1 of 60 cells have no number (1 failed)" in note for each in found for note in each.difference.notes)


def test_a_value_at_which_one_of_the_two_has_no_results_is_left_out_and_named() -> None:
    found = [each for each in found_in(table_of(lucky({"model": "clf", "beta": 1.0}))) if each.other == "beta"]
    assert [each.difference.estimate is None for each in found] == [False, True, False]
    assert found[1].difference.notes == ("clf and bt have no common results at beta = 1.0",)
    assert found[0].deviation.estimate == pytest.approx(0.12, abs=0.01)
    assert found[0].holm_p == found[2].holm_p
    (beta,) = (each for each in dependences(found) if each.lines[0].other == "beta")
    assert beta.clear
    assert json.loads(json.dumps([record(each) for each in found]))[1]["difference"]["estimate"] is None


def test_axes_that_are_held_fixed_have_lines_for_each_of_their_values() -> None:
    found = found_in(table_of(lucky()), "data")
    assert [(each.at["data"], each.other) for each in found] == [(data, "beta") for data in "ab" for _ in range(3)]
    expected = differences(table_of(lucky())).mean(axis=2).ravel().tolist()
    assert [each.difference.estimate for each in found] == pytest.approx(expected)


def test_one_seed_has_differences_without_intervals_and_says_nothing_is_clear() -> None:
    found = found_in(table_of(lucky(), AXES | {"seed": [0]}))
    assert all(each.difference.estimate is not None and each.difference.fixed is None for each in found)
    assert [each.holm_p for each in found] == [None] * 5
    assert not any(each.clear for each in dependences(found))


SWEEP = """\
name: depends
question: Does the order depend on y?
axes: {x: [1, 2], y: {low: {add: 10}, odd: {add: 20}}, seed: [0, 1]}
stages:
  source: {stage: toy_source, config: {value: $seed}}
  double: {stage: toy_double, inputs: {number: source}, config: {add: $x}}
  total: {stage: toy_total, inputs: {numbers: double}, config: {add: $y.add}}
results: [total]
tracking: false
uses: [toy]
namespace: toy
"""


def test_compare_of_two_values_shows_how_their_difference_depends_on_other_axes(tmp_path: Path) -> None:
    (tmp_path / "depends.yaml").write_text(SWEEP)
    ran = command_server.sweep(tmp_path, "run", "depends.yaml", "--inline")
    assert ran.returncode == 0, ran.stderr
    told = command_server.sweep(tmp_path, "compare", "depends.yaml", "x=2,1")
    assert told.returncode == 0, told.stderr
    assert "the same difference at each value of the other axes:" in told.stdout
    assert "y = odd" in told.stdout
    answer = json.loads(command_server.sweep(tmp_path, "compare", "depends.yaml", "x=2,1", "--json").stdout)
    lines = answer["interactions"]
    assert [(each["other"], each["value"], each["difference"]["estimate"]) for each in lines] == [
        ("y", "low", 1.0), ("y", "odd", 1.0),
    ]  # fmt: skip
    whole = json.loads(command_server.sweep(tmp_path, "compare", "depends.yaml", "x", "--json").stdout)
    assert whole["interactions"] == []
