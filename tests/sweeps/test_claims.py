"""The report on the paper's claims: tables whose answer is known, and the statistics against slow restatements."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp

from orchestrator.drive import drive
from orchestrator.results.parquet import SCHEMA_VERSION, read_results, write_results
from orchestrator.session import open_session

SWEEPS = Path(__file__).parents[2] / "sweeps"


# `sweeps/` is no package: python finds there what lies beside the script.
sys.path.append(str(SWEEPS))

import claims  # noqa: E402
from claims_grid import METRICS, UnfitTableError, read_grid  # noqa: E402

AXES: dict[str, list[Any]] = {
    "sampling": ["random", "similar", "diversified"],
    "pairing": ["cross", "same"],
    "beta": [10.0, 0.5, 1.0],
    "reward_model": ["bt_mlp", "clf_mlp", "clf_lgb"],
    "annotations": [100, 200],
    "seed": [0, 1, 2, 3, 4, 5],
}
#: What the claims say, as sizes: flips at each beta, CLF - BT under noise and without, the gain of cross-prompt pairs
#: in each sampling, and the gain of twice the annotations.
TRUE: dict[str, Any] = {
    "flips": {0.5: 0.4, 1.0: 0.3, 10.0: 0.05},
    "noisy": 0.1,
    "accuracy": 0.05,
    "clean": -0.05,
    "cross": {"similar": 0.4, "random": 0.1, "diversified": 0.01},
    "more": 0.1,
}

Metrics = dict[str, float]


def metrics_of(sizes: Mapping[str, Any], cell: Mapping[str, Any]) -> Metrics:
    clf, noisy = cell["reward_model"] != "bt_mlp", cell["beta"] <= 1
    gain = sizes["cross"][cell.get("sampling", "random")] * (cell.get("pairing", "cross") == "cross")
    more = sizes["more"] * math.log2(cell["annotations"] / 100)
    return {
        "flip_rate": sizes["flips"][cell["beta"]],
        "improvement": 1 + clf * (sizes["noisy"] if noisy else sizes["clean"]) + gain + more,
        "pairwise_accuracy": 0.6 + clf * noisy * sizes["accuracy"],
    }


def table_of(
    sizes: Mapping[str, Any] = TRUE,
    axes: Mapping[str, list[Any]] = AXES,
    spread: float = 0.01,
    luck: int = 0,
    change: Callable[[dict[str, Any]], None] = lambda row: None,
) -> pa.Table:
    """A results table: the stated sizes, and normal noise of deviation `spread` on every number."""
    random = np.random.default_rng(luck)
    rows: list[dict[str, Any]] = []
    for values in product(*axes.values()):
        cell = dict(zip(axes, values, strict=True))
        noisy = {name: value + spread * random.standard_normal() for name, value in metrics_of(sizes, cell).items()}
        rows.append({**cell, "status": "succeeded", **noisy})
        change(rows[-1])
    names = ["flip_rate", "improvement", "pairwise_accuracy"]
    metadata = {"schema_version": str(SCHEMA_VERSION), "axes": json.dumps(axes), "metrics": json.dumps(names)}
    return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)


def report(table: pa.Table) -> list[Any]:
    found: list[Any] = claims.findings(read_grid(table))
    return found


def verdicts(table: pa.Table) -> dict[str, str]:
    found = report(table)
    return {claim: claims.claim_verdict([each for each in found if each.claim == claim]) for claim in claims.CLAIMS}


def test_what_is_true_of_the_table_holds() -> None:
    assert verdicts(table_of()) == dict.fromkeys("abcde", "holds")


@pytest.mark.parametrize(
    ("wrong", "refuted"),
    [
        ({"flips": {0.5: 0.3, 1.0: 0.4, 10.0: 0.05}}, "a"),
        ({"noisy": -0.1}, "bc"),
        ({"accuracy": -0.05}, "b"),
        ({"clean": 0.05}, "c"),
        ({"cross": {"similar": -0.4, "random": -0.1, "diversified": -0.01}}, "d"),
        ({"cross": {"similar": 0.1, "random": 0.4, "diversified": 0.01}}, "d"),
        ({"cross": {"similar": 0.4, "random": 0.1, "diversified": 0.3}}, "d"),
        ({"cross": {"similar": 0.4, "random": 0.1, "diversified": -0.3}}, "d"),
        ({"more": -0.1}, "e"),
    ],
)
def test_what_is_false_of_the_table_does_not_hold_and_the_others_do(wrong: dict[str, Any], refuted: str) -> None:
    assert verdicts(table_of(TRUE | wrong)) == {
        claim: "does not hold" if claim in refuted else "holds" for claim in "abcde"
    }


@pytest.mark.parametrize(
    ("absent", "open_"),
    [
        ({"noisy": 0.0, "accuracy": 0.0}, "bc"),
        ({"clean": 0.0}, "c"),
        ({"more": 0.0}, "e"),
        ({"cross": {"similar": 0.4, "random": 0.1, "diversified": 0.1}}, "d"),  # just at the limit of `hardly`
    ],
)
def test_what_the_table_does_not_show_is_undecided(absent: dict[str, Any], open_: str) -> None:
    assert verdicts(table_of(TRUE | absent)) == {claim: "undecided" if claim in open_ else "holds" for claim in "abcde"}


def test_an_effect_that_drowns_in_its_spread_is_undecided() -> None:
    assert set(verdicts(table_of(spread=5.0)).values()) == {"undecided"}


@pytest.mark.usefixtures("quick_collector")
def test_pure_noise_is_seldom_taken_for_anything() -> None:
    nothing = {
        "flips": dict.fromkeys(AXES["beta"], 0.1), "noisy": 0, "accuracy": 0, "clean": 0, "more": 0,
        "cross": dict.fromkeys(AXES["sampling"], 0),
    }  # fmt: skip
    axes = AXES | {"sampling": ["similar", "diversified"], "seed": [0, 1, 2, 3]}
    found = [report(table_of(nothing, axes, luck=luck)) for luck in range(150)]
    for verdict in ("holds", "does not hold"):
        # At most 2.5 % are expected, that is 3.75; more than 9 have a chance below 1 %.
        assert sum(any(each.verdict == verdict for each in findings) for findings in found) <= 9


def test_a_line_is_the_t_test_over_seeds_of_paired_differences() -> None:
    table = table_of()
    rows = table.to_pylist()
    (line,) = (
        each
        for each in report(table)
        if (each.claim, each.metric) == ("b", "improvement") and each.statement.startswith("clf_lgb")
    )
    coordinates = [axis for axis in AXES if axis != "reward_model"]
    by_cell = {
        (row["reward_model"], *(row[axis] for axis in coordinates)): row["improvement"]
        for row in rows
        if row["pairing"] == "cross" and row["beta"] <= 1
    }
    differences: dict[int, list[float]] = {seed: [] for seed in AXES["seed"]}
    for (model, *where), value in by_cell.items():
        if model == "clf_lgb":
            differences[where[-1]].append(value - by_cell["bt_mlp", *where])
    assert {len(each) for each in differences.values()} == {3 * 2 * 2}
    literal = ttest_1samp([np.mean(each) for each in differences.values()], 0, alternative="greater")
    both_sides = ttest_1samp([np.mean(each) for each in differences.values()], 0).confidence_interval(0.95)
    assert line.estimate == pytest.approx(np.mean([np.mean(each) for each in differences.values()]))
    assert line.p == pytest.approx(literal.pvalue)
    assert (line.low, line.high) == pytest.approx((both_sides.low, both_sides.high))


def test_what_all_cells_of_a_seed_share_cancels() -> None:
    def shift(row: dict[str, Any]) -> None:
        row["improvement"] += 100.0 * row["seed"]

    for before, after in zip(report(table_of()), report(table_of(change=shift)), strict=True):
        assert after.estimate == pytest.approx(before.estimate, abs=1e-9)
        assert after.verdict == before.verdict


def test_more_annotations_must_help_at_every_step_and_the_worst_step_is_shown() -> None:
    def sag(row: dict[str, Any]) -> None:
        if row["reward_model"] == "bt_mlp" and row["annotations"] == 400:
            row["improvement"] -= 0.3

    table = table_of(axes=AXES | {"annotations": [400, 100, 200]}, change=sag)
    found = {each.statement: each for each in report(table) if each.claim == "e"}
    sagging = found["more annotations are better for bt_mlp"]
    assert (sagging.verdict, sagging.effect) == ("does not hold", "400 against 200")
    assert sagging.estimate == pytest.approx(0.1 - 0.3, abs=0.02)
    assert [found[f"more annotations are better for {clf}"].verdict for clf in claims.CLF] == ["holds", "holds"]


def test_a_noise_free_annotator_is_the_best_of_all() -> None:
    sizes = TRUE | {"flips": {-1.0: 0.0, 0.5: 0.4, 1.0: 0.3}}
    axes = AXES | {"beta": [-1.0, 0.5, 1.0]}
    line = report(table_of(sizes, axes, spread=0.001))[0]
    assert (line.verdict, line.effect) == ("holds", "beta 0.5 against 1")
    # Nor is it strong noise: with beta = -1 only, the claim cannot be tested.
    noise_free = report(table_of(TRUE | {"flips": {-1.0: 0.0}}, AXES | {"beta": [-1.0]}))
    assert {each.verdict for each in noise_free if each.claim in "ab"} == {"not testable"}


def test_which_cells_have_few_errors_is_told_by_the_mean_over_seeds() -> None:
    # In some seeds the rate at beta 10 lies above 10 %: they still count as the same cells.
    def scatter(row: dict[str, Any]) -> None:
        row["flip_rate"] = metrics_of(TRUE, row)["flip_rate"] + (0.08 if row["seed"] == 0 else -0.01)

    found = {each.statement: each for each in report(table_of(change=scatter))}
    below = found["bt_mlp better than clf_mlp below 10% errors"]
    assert below.verdict == "holds"
    assert below.estimate == pytest.approx(0.05, abs=0.01)


def test_a_sweep_without_an_axis_leaves_its_claim_open_and_tests_the_others() -> None:
    axes = {axis: labels for axis, labels in AXES.items() if axis != "pairing"}
    table = table_of(axes=axes)
    assert verdicts(table) == {"a": "holds", "b": "holds", "c": "holds", "d": "not testable", "e": "holds"}
    assert {each.reason for each in report(table) if each.claim == "d"} == {"the sweep has no pairing = cross"}
    smallest = {axis: AXES[axis] for axis in ("beta", "reward_model", "seed")} | {"annotations": [100]}
    found = verdicts(table_of(axes=smallest))
    assert (found["b"], found["c"], found["e"]) == ("holds", "holds", "not testable")


def first(row: dict[str, Any]) -> bool:
    return bool(row["seed"] == 0 and row["beta"] == 10 and row["annotations"] == 100)


def test_an_unfinished_table_is_refused_with_the_remedy() -> None:
    def fail(row: dict[str, Any]) -> None:
        if first(row):
            row["status"] = "failed" if row["pairing"] == "same" else "pending"
            row["improvement"] = None

    with pytest.raises(
        UnfitTableError, match=r"18 of 648 cells are not finished \(9 .*, 9 .*\).*finish them with `sweep run`"
    ):
        report(table_of(change=fail))


def test_a_table_with_holes_or_doubles_or_without_a_number_or_a_spread_is_refused() -> None:
    table = table_of()
    with pytest.raises(UnfitTableError, match=r"2 of the 648 cells that the axes span are missing"):
        report(table.slice(2))
    doubled = pa.concat_tables([table, table.slice(0, 3)])
    with pytest.raises(UnfitTableError, match="3 cells are in the table twice"):
        report(doubled)
    with pytest.raises(UnfitTableError, match="'improvement' has no finite number in 18 cells"):
        report(table_of(change=lambda row: row.update(improvement=None) if first(row) else None))
    with pytest.raises(UnfitTableError, match="no axis `seed` of two or more values"):
        report(table_of(axes=AXES | {"seed": [0]}))


def test_a_metric_that_no_claim_speaks_of_may_be_empty() -> None:
    table = table_of(change=lambda row: row.update(epochs=None if row["reward_model"] == "clf_lgb" else 3.0))
    names = json.dumps([*METRICS, "epochs"])
    table = table.replace_schema_metadata(table.schema.metadata | {b"metrics": names.encode()})
    assert verdicts(table) == verdicts(table_of())


def command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, str(SWEEPS / "claims.py"), *arguments], capture_output=True, text=True, timeout=400
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_prints_for_people_and_machines_and_refuses_what_is_unfinished(tmp_path: Path) -> None:
    file = tmp_path / "results.parquet"
    write_results(table_of(TRUE | {"more": -0.1}), file)
    code, text, _ = command(str(file))
    assert code == 0
    assert "(e) More annotations help: does not hold" in text
    assert "648 cells" in text
    code, text, _ = command(str(tmp_path), "--json")
    assert code == 0
    found = json.loads(text)
    assert {each["claim"]: each["verdict"] for each in found["claims"]} == {
        **dict.fromkeys("abcd", "holds"), "e": "does not hold",
    }  # fmt: skip
    assert len(found["hypotheses"]) == len(claims.HYPOTHESES)
    assert (found["cells"], found["seeds"], found["confidence"]) == (648, 6, 0.95)

    write_results(table_of(change=lambda row: row.update(status="pending") if first(row) else None), file)
    code, text, error = command(str(file))
    assert (code, text) == (2, "")
    assert "18 of 648 cells are not finished (18 pending)" in error
    code, _, error = command(str(tmp_path / "nowhere"))
    assert code == 2
    assert "does not exist" in error


#: A corner of the shipped sweep, small enough for a test: 24 cells.
CORNER = [
    "axes.sampling=[similar]", "axes.beta=[0.5, 10]", "axes.annotations=[100]", "axes.seed=[0, 1]",
    "stages.embed_train.config=[$world.shape, {split: train, prompts: 100, responses: 10, seed: $seed}]",
    "stages.score_train.config=[$world.shape, $world.reward, {split: train, prompts: 100, responses: 10, seed: $seed}]",
    "tracking=false",
]  # fmt: skip


def test_a_corner_of_the_synthetic_sweep_runs_to_the_end_and_its_claims_are_read(tmp_path: Path) -> None:
    session = open_session(SWEEPS / "synthetic.yaml", CORNER, outputs=str(tmp_path))
    assert drive(session, None, True, None) == 0
    table = read_results(session.outputs.folder)
    assert table.num_rows == 24
    assert all(0.4 < row["pairwise_accuracy_cross"] < 1 for row in table.to_pylist())
    grid = read_grid(table)
    assert set(grid.metrics) == set(METRICS)
    assert grid.metrics["improvement"].shape == (1, 1, 2, 3, 1, 2, 2)
    found = {each.claim: each for each in claims.findings(grid)}
    assert found["a"].estimate == pytest.approx(
        np.mean([row["flip_rate"] * (1 if row["beta"] < 1 else -1) for row in table.to_pylist()]) * 2
    )
    assert found["e"].verdict == "not testable"
