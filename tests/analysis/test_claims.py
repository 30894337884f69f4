"""Declared claims: tables whose answer is known, and the numbers against literal restatements."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp

from orchestrator.analysis.claims import Finding, find, verdict_of
from orchestrator.analysis.effect import Sample
from orchestrator.results.parquet import SCHEMA_VERSION
from orchestrator.sweep.analysis import Analysis
from orchestrator.sweep.load import load_sweep

SYNTHETIC = Path(__file__).parents[2] / "sweeps" / "synthetic.yaml"

AXES: dict[str, list[Any]] = {
    "sampling": ["random", "similar", "diversified"],
    "pairing": ["cross", "same"],
    "beta": [10, 5, 3, 1, 0.7, 0.5],
    "reward_model": ["bt_mlp", "clf_mlp", "clf_lgb"],
    "annotations": [400, 1600],
    "seed": [0, 1, 2, 3, 4, 5],
}
#: What the claims say, as sizes: flips at each beta, classification minus Bradley-Terry under noise and without, the
#: gain of cross-prompt pairs in each sampling, and the gain of four times the annotations.
TRUE: dict[str, Any] = {
    "flips": {0.5: 0.4, 0.7: 0.35, 1: 0.3, 3: 0.2, 5: 0.09, 10: 0.05},
    "noisy": 0.1,
    "accuracy": 0.05,
    "clean": -0.05,
    "cross": {"similar": 0.4, "random": 0.1, "diversified": 0.01},
    "more": 0.1,
}
FLIPS, STRONG, FEW, ORDER = (
    "noise-flips-labels",
    "beats-bt-under-noise",
    "bt-beats-{}-with-few-errors",
    "orders-better-under-noise",
)
CROSS = [
    "cross-beats-same", "cross-helps-similar-more-than-random", "cross-helps-similar-more-than-diversified",
    "cross-hardly-matters-when-diversified",
]  # fmt: skip
MORE = "more-annotations-help"
DIRECTIONS: Any = {"improvement": "higher", "pairwise_accuracy": "higher"}


def metrics_of(sizes: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, float]:
    clf, noisy = cell["reward_model"] != "bt_mlp", cell["beta"] <= 1
    gain = sizes["cross"][cell["sampling"]] * (cell["pairing"] == "cross")
    return {
        "flip_rate": sizes["flips"][cell["beta"]],
        "improvement": 1
        + clf * (sizes["noisy"] if noisy else sizes["clean"])
        + gain
        + sizes["more"] * math.log2(cell["annotations"] / 400) / 2,
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


@pytest.fixture(scope="module")
def declared() -> Analysis:
    """The claims of the shipped sweep."""
    analysis = load_sweep(SYNTHETIC).analysis
    assert analysis is not None
    return analysis


def findings(declared: Analysis, table: pa.Table, **claims: Any) -> list[Finding]:
    analysis = declared
    if claims:
        written = {"primary": declared.primary, "random": {"seed": "seed"}, "claims": claims}
        analysis = Analysis.model_validate(written)
    return find(Sample(table, analysis), analysis, DIRECTIONS)


def verdicts(found: list[Finding]) -> dict[str, str]:
    names = dict.fromkeys(each.claim for each in found)
    return {name: verdict_of([each for each in found if each.claim == name]) for name in names}


def test_what_is_true_of_the_table_holds(declared: Analysis) -> None:
    assert set(verdicts(findings(declared, table_of())).values()) == {"holds"}
    assert len(declared.claims) == 12


@pytest.mark.parametrize(
    ("wrong", "refuted"),
    [
        ({"flips": {0.5: 0.4, 0.7: 0.35, 1: 0.3, 3: 0.2, 5: 0.05, 10: 0.09}}, {FLIPS}),
        ({"noisy": -0.1}, {f"clf-{STRONG}", f"lgb-{STRONG}"}),
        ({"accuracy": -0.05}, {f"clf-{ORDER}", f"lgb-{ORDER}"}),
        ({"clean": 0.05}, {FEW.format("clf"), FEW.format("lgb")}),
        ({"cross": {"similar": -0.4, "random": -0.1, "diversified": -0.01}}, set(CROSS[:3])),
        ({"cross": {"similar": 0.1, "random": 0.4, "diversified": 0.01}}, {CROSS[1]}),
        ({"cross": {"similar": 0.4, "random": 0.1, "diversified": 0.3}}, {CROSS[3]}),
        ({"cross": {"similar": 0.5, "random": 0.1, "diversified": -0.3}}, {CROSS[3]}),
        ({"more": -0.1}, {MORE}),
    ],
)
def test_what_is_false_of_the_table_does_not_hold_and_the_others_do(
    wrong: dict[str, Any], refuted: set[str], declared: Analysis
) -> None:
    found = verdicts(findings(declared, table_of(TRUE | wrong)))
    assert found == {name: "does not hold" if name in refuted else "holds" for name in declared.claims}


@pytest.mark.parametrize(
    ("absent", "open_"),
    [
        ({"noisy": 0.0, "accuracy": 0.0}, {f"{a}-{b}" for a in ("clf", "lgb") for b in (STRONG, ORDER)}),
        ({"clean": 0.0}, {FEW.format("clf"), FEW.format("lgb")}),
        ({"more": 0.0}, {MORE}),
        ({"cross": {"similar": 0.4, "random": 0.1, "diversified": 0.05}}, {CROSS[3]}),  # just at the bound
    ],
)  # fmt: skip
def test_what_the_table_does_not_show_is_undecided(absent: dict[str, Any], open_: set[str], declared: Analysis) -> None:
    found = verdicts(findings(declared, table_of(TRUE | absent)))
    assert found == {name: "undecided" if name in open_ else "holds" for name in declared.claims}


def test_an_effect_that_drowns_in_its_spread_is_undecided(declared: Analysis) -> None:
    assert set(verdicts(findings(declared, table_of(spread=5.0))).values()) == {"undecided"}


@pytest.mark.usefixtures("quick_collector")
def test_pure_noise_is_seldom_taken_for_anything(declared: Analysis) -> None:
    nothing = {
        "flips": dict.fromkeys(AXES["beta"], 0.1), "noisy": 0, "accuracy": 0, "clean": 0, "more": 0,
        "cross": dict.fromkeys(AXES["sampling"], 0),
    }  # fmt: skip
    axes = AXES | {"beta": [0.5, 10], "seed": [0, 1, 2, 3]}
    claims: dict[str, Any] = {
        "flips": {"compare": {"beta": [0.5, 10]}, "metric": "flip_rate", "expect": "positive"},
        "strong": {"compare": {"reward_model": ["clf_mlp", "bt_mlp"]}, "within": {"beta": 0.5}},
        "few": {"compare": {"reward_model": ["bt_mlp", "clf_mlp"]}, "within": {"beta": 10}},
        "cross": {"compare": {"pairing": ["cross", "same"]}, "each": "sampling"},
        "more": {"compare": {"annotations": [1600, 400]}, "each": "reward_model"},
    }
    found = [findings(declared, table_of(nothing, axes, luck=luck), **claims) for luck in range(150)]
    for verdict in ("holds", "does not hold"):
        # At most 2.5 % are expected, that is 3.75; more than 9 have a chance below 1 %.
        assert sum(any(each.verdict == verdict for each in some) for some in found) <= 9


def test_a_comparison_is_the_t_test_over_seeds_of_paired_differences(declared: Analysis) -> None:
    table = table_of()
    (line,) = (each for each in findings(declared, table) if each.claim == f"lgb-{STRONG}")
    coordinates = [axis for axis in AXES if axis != "reward_model"]
    by_cell = {
        (row["reward_model"], *(row[axis] for axis in coordinates)): row["improvement"]
        for row in table.to_pylist()
        if row["pairing"] == "cross" and row["beta"] <= 1
    }
    differences: dict[int, list[float]] = {seed: [] for seed in AXES["seed"]}
    for (model, *where), value in by_cell.items():
        if model == "clf_lgb":
            differences[where[-1]].append(value - by_cell["bt_mlp", *where])
    assert {len(each) for each in differences.values()} == {3 * 3 * 2}
    means = [np.mean(each) for each in differences.values()]
    literal = ttest_1samp(means, 0, alternative="greater")
    both_sides = ttest_1samp(means, 0).confidence_interval(0.95)
    assert line.found is not None
    assert line.found.fixed is not None
    assert line.found.estimate == pytest.approx(np.mean(means))
    assert line.p == pytest.approx(literal.pvalue)
    assert (line.found.fixed.low, line.found.fixed.high) == pytest.approx((both_sides.low, both_sides.high))


def test_a_slope_is_the_mean_of_the_seeds_least_squares_slopes(declared: Analysis) -> None:
    table = table_of(spread=0.1)
    gap = {"slope": "beta", "log": True, "of": {"compare": {"reward_model": ["clf_mlp", "bt_mlp"]}}}
    (line,) = findings(declared, table, gap=gap)
    rows = table.to_pylist()

    def mean(model: str, beta: float, seed: int) -> float:
        some = [r["improvement"] for r in rows if (r["reward_model"], r["beta"], r["seed"]) == (model, beta, seed)]
        return float(np.mean(some))

    x = np.log2(AXES["beta"])
    slopes = [
        np.polyfit(x, [mean("clf_mlp", beta, seed) - mean("bt_mlp", beta, seed) for beta in AXES["beta"]], 1)[0]
        for seed in AXES["seed"]
    ]
    assert line.found is not None
    assert line.found.estimate == pytest.approx(np.mean(slopes))
    # That there is a slope, of either sign, is what is claimed.
    assert line.p == pytest.approx(ttest_1samp(slopes, 0).pvalue)
    assert line.p_opposite is None
    assert line.effect == "slope of (clf_mlp - bt_mlp) per doubling of beta"


def test_a_margin_is_claimed_by_one_sided_tests_against_it(declared: Analysis) -> None:
    compare: dict[str, Any] = {"compare": {"reward_model": ["clf_mlp", "bt_mlp"]}, "within": {"beta": [0.5, 0.7, 1]}}
    margins: dict[str, Any] = {
        "worse": {}, "margin": {"no_worse": 0.05}, "tight": {"no_worse": 0.02}, "same": {"equivalent": 0.05},
        "other": {"equivalent": 0.02},
    }  # fmt: skip
    claims = {name: compare | margin for name, margin in margins.items()}
    found = verdicts(findings(declared, table_of(TRUE | {"noisy": -0.03}), **claims))
    assert [name for name, verdict in found.items() if verdict == "holds"] == ["margin", "same"]
    assert [name for name, verdict in found.items() if verdict == "does not hold"] == ["worse", "tight", "other"]


def test_what_all_cells_of_a_seed_share_cancels(declared: Analysis) -> None:
    def shift(row: dict[str, Any]) -> None:
        row["improvement"] += 100.0 * row["seed"]

    before, after = findings(declared, table_of()), findings(declared, table_of(change=shift))
    for one, other in zip(before, after, strict=True):
        assert one.found
        assert other.found
        assert other.found.estimate == pytest.approx(one.found.estimate, abs=1e-9)
        assert other.verdict == one.verdict


def test_an_order_holds_only_if_every_step_of_it_does_and_the_worst_one_is_shown(declared: Analysis) -> None:
    def sag(row: dict[str, Any]) -> None:
        if row["reward_model"] == "bt_mlp" and row["annotations"] == 1600:
            row["improvement"] -= 0.3

    table = table_of(axes=AXES | {"annotations": [100, 400, 1600]}, change=sag)
    order = {"compare": {"annotations": [1600, 400, 100]}, "each": "reward_model"}
    found = {each.at["reward_model"]: each for each in findings(declared, table, order=order)}
    sagging = found["bt_mlp"]
    assert (sagging.verdict, sagging.effect) == ("does not hold", "annotations 1600 - 400")
    assert sagging.found
    assert sagging.found.estimate == pytest.approx(0.1 - 0.3, abs=0.02)
    assert [found[clf].verdict for clf in ("clf_mlp", "clf_lgb")] == ["holds", "holds"]


def test_a_claim_about_values_that_are_not_there_is_not_testable_and_the_others_are_tested(declared: Analysis) -> None:
    found = findings(declared, table_of(axes=AXES | {"beta": [10, 5, 1, 0.7, 0.5]}))
    by_claim = {each.claim: each for each in found}
    assert by_claim[FLIPS].verdict == "not testable"
    assert by_claim[FLIPS].reason == "there are no cells of beta = 3"
    assert {verdict for claim, verdict in verdicts(found).items() if claim != FLIPS} == {"holds"}
    absent = findings(declared, table_of(axes=AXES | {"beta": [10, 5, 3, 1, 0.5]}))
    (strong,) = (each for each in absent if each.claim == f"clf-{STRONG}")
    assert (strong.verdict, strong.reason) == ("not testable", "there are no cells of beta = 0.7")


def test_of_one_seed_there_are_means_and_no_verdicts(declared: Analysis) -> None:
    found = findings(declared, table_of(axes=AXES | {"seed": [0]}))
    assert {each.verdict for each in found} == {"not testable"}
    assert {each.reason for each in found} == {"one seed only: there is no interval and no p value"}
    assert all(each.found and each.found.estimate is not None for each in found)


def test_cells_that_are_missing_are_counted_and_no_other_pair_is_given_up(declared: Analysis) -> None:
    def fail(row: dict[str, Any]) -> None:
        if row["seed"] == 0 and row["beta"] == 0.5 and row["reward_model"] == "clf_mlp":
            row["status"], row["improvement"] = "failed", None

    found = {each.claim: each for each in findings(declared, table_of(change=fail))}
    strong = found[f"clf-{STRONG}"]
    assert strong.verdict == "holds"
    assert strong.found
    assert (strong.found.cells, strong.found.missing, strong.found.combinations) == (6 * 3 * 3 * 2 * 2, 6, 18)
    assert strong.found.estimate == pytest.approx(0.1, abs=0.01)
    assert "6 of 216 cells have no number (6 failed)" in strong.found.notes[0]


def test_missing_cells_that_depend_on_what_is_compared_are_called_so(declared: Analysis) -> None:
    def fail(row: dict[str, Any]) -> None:
        if row["seed"] < 3 and row["annotations"] == 1600 and row["reward_model"] == "clf_mlp":
            row["status"], row["improvement"] = "failed", None

    found = {each.claim: each for each in findings(declared, table_of(change=fail))}
    strong = found[f"clf-{STRONG}"].found
    assert strong
    assert strong.depends is not None
    assert strong.depends < 0.01
    said = (
        "27 of 216 cells have no number (27 failed), more in some arms than in others (27, 0): what is missing is not"
    )
    assert strong.notes[0] == f"{said} missing by chance"


def test_the_bias_study_is_judged_by_the_rows_that_contradict_the_bias_and_not_by_agreement_with_length() -> None:
    analysis = load_sweep(SYNTHETIC.with_name("judge-bias.yaml")).analysis
    assert analysis is not None
    axes: dict[str, list[Any]] = {
        "arm": ["con_j", "scalar"], "bias": ["verbosity", "formatting"], "biased": [0, 0.25, 0.5, 0.75, 1],
        "model": ["qwen2-7b"], "seed": [0, 1, 2],
    }  # fmt: skip

    def table(robust: str) -> pa.Table:
        random, rows = np.random.default_rng(1), []
        for values in product(*axes.values()):
            cell = dict(zip(axes, values, strict=True))
            # Both have the same accuracy where the bias helps; one of them follows the bias, and agrees with length.
            fall = 0.05 if cell["arm"] == robust else 0.5
            noise = 0.002 * random.standard_normal(3)
            found = {
                "reversed_accuracy": 0.8 - fall * cell["biased"] + noise[0], "accuracy": 0.8 + noise[1],
                "length_agreement": 0.5 + fall * cell["biased"] + noise[2],
            }  # fmt: skip
            rows.append({**cell, "status": "succeeded", **found})
        metadata = {"axes": json.dumps(axes), "metrics": json.dumps(list(found))}
        return pa.Table.from_pylist(rows).replace_schema_metadata(metadata)

    def said(robust: str) -> dict[str, str]:
        return verdicts(find(Sample(table(robust), analysis), analysis, {"reversed_accuracy": "higher"}))

    assert set(said("con_j").values()) == {"holds"}
    biased = said("scalar")
    assert biased["judge-takes-over-less-bias"] == biased["judge-beats-scalar-when-all-is-biased"] == "does not hold"
    assert biased["bias-hurts-the-judge"] == biased["bias-hurts-the-scalar-model"] == "holds"
