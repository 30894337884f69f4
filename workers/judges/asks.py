"""Requests for judgments: each has a pair of answers, their order, a hint and a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import Shown, hinted_request, request
from workers.seeding import generator
from workers.tables import PREFERENCES


@dataclass(frozen=True)
class ShownPair:
    """A pair of answers in the order in which the judge sees it."""

    prompt: str
    first: str
    second: str
    drawn: bool
    """Whether it is the order that was drawn for the pair, and not the other one."""
    wording: int
    """Index in `requests.WORDINGS`."""

    def request(self, config: JudgeSampleConfig) -> str:
        """Return the dialogue that requests a judgment without a hint."""
        return request(self.prompt, self.first, self.second, config.form, config.rationale, self.wording)


@dataclass(frozen=True)
class Ask:
    """A request for one judgment."""

    pair: ShownPair
    hint: int
    """The answer (1 or 2, by place) that it gives as the better one; 0 gives none."""
    sample: int
    """Its number among the requests that are otherwise the same, from 0."""

    @property
    def shown(self) -> Shown:
        """The pair as the judge sees it."""
        return Shown(self.pair.prompt, self.pair.first, self.pair.second, self.hint)

    @property
    def label(self) -> str:
        """Name of the random stream of the judgment, a digest of its texts, so that nothing else matters to it."""
        return f"judge_sample/{_digest(*self.shown, self.sample)}"

    @property
    def samples_label(self) -> str:
        """The name that it shares with the requests that are otherwise the same."""
        return f"judge_sample/{_digest(*self.shown)}"

    def dialogue(self, config: JudgeSampleConfig) -> str:
        """Return the dialogue for the judge."""
        pair = self.pair
        if self.hint:
            return hinted_request(pair.prompt, pair.first, pair.second, config.form, pair.wording, self.hint)
        return pair.request(config)


def draw_pairs(config: JudgeSampleConfig, preferences: Path, recorded: Container[Shown]) -> list[ShownPair]:
    """Draw order and wording of each pair of the shard.

    A pair that several rows have counts once. A shard is a contiguous block of the pairs in the order of their first
    rows (`numpy.array_split`). What is drawn depends on the seed and the texts alone.

    Args:
        config: number and shard of the pairs, and the settings of order and wording.
        preferences: artifact of the pairs; which answer is preferred matters only where `chosen_first` is not 0.5.
        recorded: pairs with a recorded judgment. Where that is one order of a pair, it is the drawn one, unless
            `chosen_first` asks for a certain order.

    Returns:
        Each pair in the drawn order; with `orders: both` also in the other one, right behind it.

    Raises:
        ValueError: the shard is empty.
    """
    path = PREFERENCES.path(preferences)
    table = PREFERENCES.read(preferences)
    chosen_of: dict[tuple[str, str, str], str] = {}
    for row in table.select(["prompt", "chosen", "rejected"]).to_pylist():
        low, high = sorted((row["chosen"], row["rejected"]))
        chosen_of.setdefault((row["prompt"], low, high), row["chosen"])
    distinct = list(chosen_of.items())[: config.limit]
    block = np.array_split(np.arange(len(distinct)), config.shards)[config.shard]
    if not len(block):
        raise ValueError(f"{path}: shard {config.shard} of {config.shards} is empty: {len(distinct)} pairs")
    pairs = []
    for (prompt, low, high), chosen in (distinct[i] for i in block):
        drawn = generator(config.seed, f"judge_sample/order/{_digest(prompt, low, high)}")
        uniform, wording = float(drawn.random()), int(drawn.integers(config.wordings))
        first, second = low, high
        if config.chosen_first == 0.5:
            turned = uniform >= 0.5
            straight_seen, turned_seen = (
                any(Shown(prompt, *pair, hint) in recorded for hint in (0, 1, 2)) for pair in ((low, high), (high, low))
            )
            if straight_seen != turned_seen:
                turned = turned_seen
        else:
            turned = (first == chosen) != (uniform < config.chosen_first)
        if turned:
            first, second = second, first
        pairs.append(ShownPair(prompt, first, second, True, wording))
        if config.orders == "both":
            pairs.append(ShownPair(prompt, second, first, False, wording))
    return pairs


def _digest(*values: str | int) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
