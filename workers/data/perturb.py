"""Stage `perturb`: fewer, biased or noisier preferences.

A share of the rows is kept, then a bias applies to the first of these, then label noise to all. The choice of rows, and
the uniform number that decides a label, depend on nothing but the seed and the row's prompt and two answers, in
whatever order. So designs are paired: smaller fractions lie within larger ones, a row that is flipped at a rate is
flipped at every higher one, and all flip rates, betas and biases of a seed share their draws. A flip rate of 0.5 is a
beta of 0.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.annotator import reward_scale, second_wins
from workers.data.configs import PerturbConfig
from workers.seeding import derive_seed, shuffle_key
from workers.tables import PREFERENCES

#: Markdown: headings, list items and table rows at the beginning of a line; bold; code. Not 2**3, nor `__init__`.
_MARKDOWN = re.compile(
    r"""^\s* (?: \#{1,6}\s | [-*+]\s | \d{1,3}[.)]\s | \|.*\|\s*$ )
    | (?<!\w) \*\* [^\s*][^\n]*? \*\* (?!\w)
    | `[^`\n]+` | ```""",
    re.MULTILINE | re.VERBOSE,
)


def perturb(config: PerturbConfig, out: Path, *, preferences: Path, margins: Path | None = None) -> dict[str, float]:
    """Write `preferences.parquet`: the rows that are left, in their order; a flipped row has its answers swapped.

    Args:
        config: which rows, which bias, which noise.
        out: receives the table.
        preferences: artifact of the rows.
        margins: artifact of their golden margins (n,); read for `beta` only.

    Returns:
        kept_preferences: rows written. flip_rate: share of them that is flipped. bias_removed_rows: rows that the
        bias left out.

    Raises:
        ValueError: no row is left; `beta` without margins, or with margins of other rows; `scale: std` when all margins
            are equal.
    """
    path = PREFERENCES.path(preferences)
    rows = PREFERENCES.read(preferences).to_pylist()
    # Without the label, so that noise upstream changes neither the order nor the draws.
    contents = [(row["prompt"], *sorted((row["chosen"], row["rejected"]))) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: shuffle_key(config.seed, "perturb/rows", *contents[i]))
    kept = order[: round(config.fraction * len(rows))]
    removed = {i for i in kept[: round(config.biased * len(kept))] if not _fits(config, rows[i])}
    left = sorted(set(kept) - removed)
    if not left:
        raise ValueError(
            f"{path}: of {len(rows)} rows none is left: a fraction of {config.fraction} is {len(kept)}, and the bias "
            f"removes {len(removed)}; raise `fraction`, lower `biased`, or give more data"
        )
    flips = _flips(config, np.array(left), len(rows), [contents[i] for i in left], margins)
    for i, flip in zip(left, flips, strict=True):
        if flip:
            rows[i]["chosen"], rows[i]["rejected"] = rows[i]["rejected"], rows[i]["chosen"]
    columns = {name: [rows[i][name] for i in left] for name in PREFERENCES.schema.names}
    PREFERENCES.write(columns, out)
    return {
        "kept_preferences": float(len(left)),
        "flip_rate": float(flips.mean()),
        "bias_removed_rows": float(len(removed)),
    }


def has_markdown(text: str) -> bool:
    """Return whether a text has a heading, a list, a table, bold text or code in Markdown."""
    return _MARKDOWN.search(text) is not None


def _fits(config: PerturbConfig, row: dict[str, str]) -> bool:
    """Return whether the bias explains the label; with `reversed`, the opposite label."""
    favoured, other = row["chosen"].strip(), row["rejected"].strip()
    if config.reversed:
        favoured, other = other, favoured
    if config.bias == "verbosity":
        return len(favoured) > 2 * len(other)
    return has_markdown(favoured) and not has_markdown(other)


def _flips(
    config: PerturbConfig,
    left: NDArray[np.int64],
    rows: int,
    contents: list[tuple[str, ...]],
    margins: Path | None,
) -> NDArray[np.bool_]:
    """Decide for each row of `left`, positions among all `rows`, whether it is flipped."""
    label = "perturb/noise/"
    uniform = np.array([derive_seed(config.seed, label + json.dumps(each), bits=53) / 2**53 for each in contents])
    if config.beta is None:
        return uniform < (config.flip_rate or 0.0)
    if margins is None:
        raise ValueError("beta needs the golden margins of the preferences: wire the input `margins`")
    path = margins / "margins.npy"
    gaps = np.load(path).astype(np.float64)
    if gaps.shape != (rows,) or not np.isfinite(gaps).all():
        raise ValueError(f"{path}: expected {rows} finite margins, one per row; were they made of other preferences?")
    # The rejected answer is the second one: it wins with probability sigmoid(-beta * margin / scale).
    return second_wins(-gaps[left], uniform, config.beta, reward_scale(gaps, config.scale))
