from __future__ import annotations

import numpy as np
from scipy.stats import chisquare

from workers.reward_models.pairs import Pairs, two_different


def test_rows_are_the_winners_and_then_the_losers_and_only_the_former_win() -> None:
    pairs = Pairs(np.array([4, 2, 9]), np.array([1, 1, 0]))
    assert pairs.rows.tolist() == [4, 2, 9, 1, 1, 0]
    assert pairs.wins.tolist() == [True] * 3 + [False] * 3


def test_all_pairs_of_different_numbers_are_equally_likely() -> None:
    one, other = two_different(np.random.default_rng(0), 4, 12_000)
    pairs, counts = np.unique(np.stack([one, other]), axis=1, return_counts=True)
    assert pairs.T.tolist() == [[a, b] for a in range(4) for b in range(4) if a != b]
    assert chisquare(counts).pvalue > 0.01
