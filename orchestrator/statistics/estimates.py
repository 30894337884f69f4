"""What all statistics here share: how numbers are kept, what is rounding, and p values adjusted for their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

#: Relatively smaller differences are those of rounding.
ROUNDING = 1e-12


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p values for their number (Holm 1979, step-down)."""
    if not values:
        return []
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

    adjusted: list[float] = multipletests(list(values), method="holm")[1].tolist()
    return adjusted


def adjusted(values: Sequence[float | None]) -> list[float | None]:
    """Adjust those p values that are there by Holm; None stays None."""
    found = iter(holm([value for value in values if value is not None]))
    return [None if value is None else next(found) for value in values]
