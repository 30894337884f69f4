from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.seeding import derive_seed, generator


def test_the_numbers_of_a_seed_and_label_never_change() -> None:
    assert derive_seed(0, "a") == 5690829181965289459
    assert generator(3, "annotate/noise").integers(2**31, size=2).tolist() == [708264567, 1147175736]


def test_other_seeds_and_other_labels_give_other_streams() -> None:
    streams = [generator(seed, label).random(4) for seed in (0, 1) for label in ("a", "b")]
    assert len({tuple(stream) for stream in streams}) == 4


@given(seed=st.integers(0, 2**63 - 1), label=st.text(max_size=20), bits=st.integers(1, 63))
def test_derived_seeds_fit_their_bits_and_repeat(seed: int, label: str, bits: int) -> None:
    value = derive_seed(seed, label, bits)
    assert 0 <= value < 2**bits
    assert value == derive_seed(seed, label, bits)
    assert np.array_equal(generator(seed, label).random(3), generator(seed, label).random(3))


def test_the_seed_ends_where_the_label_begins() -> None:
    assert derive_seed(1, "1:a") != derive_seed(11, "a")
