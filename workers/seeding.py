"""Declared randomness: every draw comes from a generator derived from (seed, label).

The same (seed, label) gives the same numbers wherever and in whatever order steps run; different labels give
independent streams. This is what makes designs *paired*: the noise draws of seed 3 are the same numbers at every beta
and for every reward model.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def derive_seed(seed: int, label: str, bits: int = 63) -> int:
    """Derive an integer in [0, 2**bits) from the sha256 of (seed, label), for torch, LightGBM and the like."""
    digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def generator(seed: int, label: str) -> np.random.Generator:
    """Return a PCG64 generator for (seed, label)."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{label}".encode()).digest()[:16], "big"))


def shuffle_key(seed: int, *texts: str) -> bytes:
    """Return a key for sorting that shuffles.

    It depends on nothing but the seed and the texts, so rows keep their relative order when others are added.
    """
    return hashlib.sha256(json.dumps([seed, *texts]).encode()).digest()
