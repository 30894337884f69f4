"""The simulated annotator: labels that follow a golden reward with Bradley-Terry noise.

Section 4 of "Rethinking Reward Modeling in Preference-based LLM Alignment" (ICLR 2025); for `annotate` and `perturb`.
A label depends on one uniform number per pair, so that noise levels are compared with the same draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def second_wins(gap: Floats, uniform: Floats, beta: float, scale: float) -> NDArray[np.bool_]:
    """Decide whether b is preferred, given `gap` = r_b - r_a (n,) and a uniform number in [0, 1) for each pair.

    b wins where uniform < sigmoid(beta * gap / scale). Negative `beta` is noise-free: the larger reward wins, and equal
    rewards are decided by uniform < 0.5.
    """
    if beta < 0:
        return np.where(gap == 0, uniform < 0.5, gap > 0)
    with np.errstate(over="ignore"):  # an infinite logit is a certain label, not a mistake
        logit = beta * gap / scale
    return np.less(uniform, sigmoid(logit))


def sigmoid(logit: Floats) -> Floats:
    """Compute 1 / (1 + exp(-logit)) without overflow: no exponential of a positive number is taken."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


def reward_scale(rewards: Floats, scale: float | str) -> float:
    """Return the divisor s of reward differences: a given number, or for "std" the standard deviation of all `rewards`.

    Where only the differences are known, they stand for the rewards.

    Raises:
        ValueError: "std" when all rewards are equal.
    """
    if not isinstance(scale, str):
        return scale
    deviation = float(rewards.std(dtype=np.float64))
    if deviation == 0:
        raise ValueError("scale: std, but all golden rewards are equal; give a number as scale")
    return deviation
