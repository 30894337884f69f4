from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reward_artifacts import write_annotations
from scipy.stats import chisquare

from workers.reward_models.pairs import Pairs, read_pairs, two_different


def test_rows_are_the_winners_and_then_the_losers_and_only_the_former_win() -> None:
    pairs = Pairs(np.array([4, 2, 9]), np.array([1, 1, 0]))
    assert pairs.rows.tolist() == [4, 2, 9, 1, 1, 0]
    assert pairs.wins.tolist() == [True] * 3 + [False] * 3


def test_pairs_are_read_as_written_and_none_is_an_error(tmp_path: Path) -> None:
    winner, loser = np.array([4, 2, 9]), np.array([1, 1, 0])
    read = read_pairs(write_annotations(tmp_path / "a", winner, loser))
    assert np.array_equal(read, (winner, loser))
    with pytest.raises(ValueError, match=r"b/annotations\.parquet: no annotations"):
        read_pairs(write_annotations(tmp_path / "b", winner[:0], loser[:0]))


def test_all_pairs_of_different_numbers_are_equally_likely() -> None:
    one, other = two_different(np.random.default_rng(0), 4, 12_000)
    pairs, counts = np.unique(np.stack([one, other]), axis=1, return_counts=True)
    assert pairs.T.tolist() == [[a, b] for a in range(4) for b in range(4) if a != b]
    assert chisquare(counts).pvalue > 0.01
