"""Fewer, biased and noisier preferences: nested in each other, with the same draws at every level."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workers.data.configs import PerturbConfig
from workers.data.perturb import has_markdown, perturb
from workers.seeding import derive_seed
from workers.tables import PREFERENCES

Row = dict[str, str]
ROWS = [
    {"prompt": f"q{n % 150}", "chosen": f" good {n}" * (1 + n % 5), "rejected": f" bad {n}", "subset": f"s{n % 3}"}
    for n in range(400)
]
MARGINS = np.random.default_rng(0).standard_normal(400).astype(np.float32)


class Perturb:
    """Runs the stage on rows and margins, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0

    def __call__(
        self, rows: list[Row] = ROWS, margins: np.ndarray | None = MARGINS, **settings: Any
    ) -> tuple[list[Row], dict[str, float]]:
        self.runs += 1
        out = self.folder / str(self.runs)
        given = out / "in"
        given.mkdir(parents=True)
        columns: dict[str, object] = {name: [row[name] for row in rows] for name in PREFERENCES.schema.names}
        PREFERENCES.write(columns, given)
        if margins is not None:
            np.save(given / "margins.npy", margins)
        config = PerturbConfig.model_validate(settings)
        metrics = perturb(config, out, preferences=given, margins=None if margins is None else given)
        assert set(metrics) == set(config.declared())
        return PREFERENCES.read(out).to_pylist(), metrics

    def flipped(self, **settings: Any) -> set[str]:
        """The rejected answers, as they were, of the rows that are flipped."""
        rows, metrics = self(**settings)
        found = {row["chosen"] for row in rows if "bad" in row["chosen"]}
        assert metrics["flip_rate"] == pytest.approx(len(found) / len(rows))
        return found


@pytest.fixture
def run(tmp_path: Path) -> Perturb:
    return Perturb(tmp_path)


def turned(rows: list[Row]) -> list[Row]:
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def test_without_any_change_the_rows_are_the_rows(run: Perturb) -> None:
    assert run() == (ROWS, {"kept_preferences": 400.0, "flip_rate": 0.0, "bias_removed_rows": 0.0})
    assert run(flip_rate=1) == (turned(ROWS), {"kept_preferences": 400.0, "flip_rate": 1.0, "bias_removed_rows": 0.0})


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 9), st.floats(0.01, 1))
def test_what_is_flipped_at_a_rate_is_flipped_at_every_higher_one_and_in_every_fraction(
    tmp_path_factory: pytest.TempPathFactory, first: float, second: float, seed: int, fraction: float
) -> None:
    run = Perturb(tmp_path_factory.mktemp("perturb"))
    low, high = sorted((first, second))
    fewer, more = (run.flipped(flip_rate=rate, seed=seed) for rate in (low, high))
    assert fewer <= more
    part, _ = run(fraction=fraction, seed=seed)
    assert run.flipped(flip_rate=high, seed=seed, fraction=fraction) == more & {row["rejected"] for row in part}


def test_smaller_fractions_lie_within_larger_ones_in_the_order_of_the_input(run: Perturb) -> None:
    before: list[Row] = []
    for fraction in (0.1, 0.3, 0.75, 1.0):
        rows, metrics = run(fraction=fraction)
        assert len(rows) == metrics["kept_preferences"] == round(fraction * 400)
        assert rows == [row for row in ROWS if row in rows]
        assert all(row in rows for row in before)
        before = rows
    assert run(fraction=0.3)[0] != run(fraction=0.3, seed=1)[0]
    with pytest.raises(ValueError, match=r"none is left: a fraction of 0\.001 is 0"):
        run(fraction=0.001)


def test_flips_are_drawn_by_a_uniform_number_of_the_seed_and_the_row_alone(run: Perturb) -> None:
    """A literal re-statement."""
    rows, _ = run(flip_rate=0.3, seed=4)
    for before, after in zip(ROWS, rows, strict=True):
        content = json.dumps([before["prompt"], *sorted([before["chosen"], before["rejected"]])])
        flipped = derive_seed(4, f"perturb/noise/{content}", bits=53) / 2**53 < 0.3
        assert after == (turned([before])[0] if flipped else before)
    # Neither the other rows nor the order nor noise upstream matter.
    shuffled = random.Random(0).sample(ROWS, 100)
    assert run(shuffled, flip_rate=0.3, seed=4)[0] == [rows[ROWS.index(row)] for row in shuffled]
    assert run(turned(ROWS), flip_rate=0.3, seed=4)[0] == turned(rows)
    assert 0.25 < np.mean([len(run.flipped(flip_rate=0.3, seed=seed)) for seed in range(10)]) / 400 < 0.35


def test_beta_keeps_a_label_with_the_probability_of_its_margin(run: Perturb) -> None:
    """The uniform numbers are those of the flip rates: found by bisection of nested flips, and compared with them."""
    for beta, scale, divisor in ((0.7, 1.0, 1.0), (2.0, "std", float(MARGINS.astype(np.float64).std())), (0.0, 3, 3.0)):
        flipped = run.flipped(beta=beta, scale=scale)
        for row, margin in zip(ROWS, MARGINS.astype(float), strict=True):
            content = json.dumps([row["prompt"], *sorted([row["chosen"], row["rejected"]])])
            uniform = derive_seed(0, f"perturb/noise/{content}", bits=53) / 2**53
            kept = 1 / (1 + np.exp(-beta * margin / divisor))
            assert (row["rejected"] in flipped) == (uniform < 1 - kept)
    assert run.flipped(beta=0.0) == run.flipped(flip_rate=0.5)


def test_more_beta_flips_fewer_right_labels_and_more_wrong_ones_down_to_the_golden_order(run: Perturb) -> None:
    wrong = {row["rejected"] for row, margin in zip(ROWS, MARGINS, strict=True) if margin < 0}
    steps = [run.flipped(beta=beta) for beta in (0, 0.5, 2, 1e9, -1)]
    for weaker, stronger in pairwise(steps):
        assert stronger - wrong <= weaker - wrong
        assert stronger & wrong >= weaker & wrong
    assert steps[-2] == steps[-1] == wrong


def test_the_scale_is_that_of_all_margins_whatever_fraction_is_kept(run: Perturb) -> None:
    whole = run.flipped(beta=1.0, scale="std")
    part, _ = run(fraction=0.2)
    assert run.flipped(beta=1.0, scale="std", fraction=0.2) == whole & {row["rejected"] for row in part}


def test_beta_without_margins_or_with_those_of_other_rows_is_an_error(run: Perturb) -> None:
    with pytest.raises(ValueError, match="wire the input `margins`"):
        run(margins=None, beta=1.0)
    for margins in (MARGINS[1:], np.full(400, np.nan)):
        with pytest.raises(ValueError, match="expected 400 finite margins"):
            run(margins=margins, beta=1.0)
    assert run(margins=None, flip_rate=0.0)[0] == ROWS


def test_a_bias_keeps_only_what_it_explains_among_the_first_rows_of_the_shuffle(run: Perturb) -> None:
    long = {
        row["prompt"] + row["chosen"] for row in ROWS if len(row["chosen"].strip()) > 2 * len(row["rejected"].strip())
    }
    for biased in (0.0, 0.4, 1.0):
        first = [row["prompt"] + row["chosen"] for row in run(fraction=biased * 0.5)[0]] if biased else []
        kept = {row["prompt"] + row["chosen"] for row in run(fraction=0.5)[0]}
        rows, metrics = run(fraction=0.5, bias="verbosity", biased=biased)
        gone = {row for row in first if row not in long}
        assert {row["prompt"] + row["chosen"] for row in rows} == kept - gone
        assert metrics["bias_removed_rows"] == len(gone)
    rows, _ = run(bias="verbosity", biased=1.0, flip_rate=0.3)
    assert {row["chosen"] for row in rows if "bad" in row["chosen"]} <= run.flipped(flip_rate=0.3)


def test_reversed_keeps_what_the_bias_contradicts(run: Perturb) -> None:
    reversed_rows, _ = run(turned(ROWS), bias="verbosity", biased=1.0, reversed=True)
    assert reversed_rows == turned(run(bias="verbosity", biased=1.0)[0])
    with pytest.raises(ValueError, match="the bias removes 400"):
        run(bias="verbosity", biased=1.0, reversed=True)


def test_twice_as_long_is_not_more_than_twice_as_long(run: Perturb) -> None:
    rows = [{"prompt": "q", "chosen": chosen, "rejected": " abc", "subset": ""} for chosen in (" 123456", " 1234567")]
    assert run(rows, None, bias="verbosity", biased=1.0)[0] == rows[1:]


def test_formatting_is_markdown_in_the_chosen_answer_alone(run: Perturb) -> None:
    marked, plain = " **Yes.**", " Yes."
    rows = [
        {"prompt": "q", "chosen": chosen, "rejected": rejected + "!", "subset": ""}
        for chosen in (marked, plain)
        for rejected in (marked, plain)
    ]
    assert run(rows, None, bias="formatting", biased=1.0)[0] == [rows[1]]
    assert run(rows, None, bias="formatting", biased=1.0, reversed=True)[0] == [rows[2]]


MARKDOWN = [
    " - one\n- two",
    "So:\n 1. one",
    "x\n\n## Title",
    " a **bold** word",
    "use `x`",
    "```\nx\n```",
    "a\n| b | c |",
]


@pytest.mark.parametrize("text", MARKDOWN)
def test_lists_headings_bold_code_and_tables_are_markdown(text: str) -> None:
    assert has_markdown(text)


@pytest.mark.parametrize(
    "text", [" Yes - no.", "2**3 and 2**4", "2021. It was", "#tag", "a|b", "the __init__ method", "1.5 is 3 * 0.5"]
)
def test_plain_text_is_not_markdown(text: str) -> None:
    assert not has_markdown(text)


def test_two_kinds_of_noise_and_a_share_of_no_bias_are_refused() -> None:
    for fields in ({"flip_rate": 0.1, "beta": 1.0}, {"biased": 0.5}, {"reversed": True}):
        with pytest.raises(ValidationError, match=r"give one of them|say which bias"):
            PerturbConfig.model_validate(fields)
