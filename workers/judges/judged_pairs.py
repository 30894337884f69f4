"""Verdicts, found by the texts of the pair that they are about; what every reader of verdicts shares."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from workers import tables

VERDICTS_FILE = "verdicts.parquet"
#: Characters of a text that an error message shows.
_SHOWN = 60


class Seen(NamedTuple):
    """A verdict about two answers, which the judge saw in some order."""

    first: str
    drawn: bool
    """Whether this is the order that was drawn for the pair."""
    verdict: int
    """1 or 2, the place of the preferred answer; 0 where the text does not say."""

    def prefers(self, answer: str) -> bool | None:
        """Whether it is for `answer` and not for the other one; None where it says nothing."""
        return None if self.verdict == 0 else (self.verdict == 1) == (self.first == answer)


class JudgedPairs:
    """A `verdicts` artifact. Judgments that were written with a hint are no verdicts of the judge, and left out."""

    def __init__(self, folder: Path) -> None:
        """Read the table.

        Raises:
            ValueError: the table has another shape, or a verdict other than 0, 1 and 2.
        """
        self.file = folder / VERDICTS_FILE
        names = ("hint", "sample", "prompt", "first", "second", "drawn", "verdict")
        table = tables.read_table(self.file, tables.VERDICTS).select(names)
        self._seen: dict[tuple[str, ...], list[tuple[int, Seen]]] = {}
        for hint, sample, prompt, first, second, drawn, verdict in zip(*table.to_pydict().values(), strict=True):
            if verdict not in (0, 1, 2):
                raise ValueError(f"{self.file}: verdict {verdict} about {_cut(prompt)}; verdicts are 0, 1 and 2")
            if hint == 0:
                pair = (prompt, *sorted((first, second)))
                self._seen.setdefault(pair, []).append((sample, Seen(first, drawn, verdict)))

    def about(self, prompt: str, one: str, other: str) -> list[Seen]:
        """The verdicts about two different answers to a prompt, in whatever order they were shown; sample by sample.

        Raises:
            ValueError: the answers are the same, or there is no verdict; shows the prompt.
        """
        if one == other:
            raise ValueError(f"both answers to {_cut(prompt)} are {_cut(one)}: there is nothing to judge")
        found = self._seen.get((prompt, *sorted((one, other))))
        if found is None:
            raise ValueError(
                f"{self.file}: no verdict about {_cut(one)} and {_cut(other)}, answers to {_cut(prompt)}: the judge was"
                " asked about other texts, with a `limit`, or only with hints"
            )
        return [seen for _, seen in sorted(found, key=lambda each: each[0])]


def decided(seen: Iterable[Seen], one: str, other: str) -> str | None:
    """The answer that the judge prefers: the one that has most of the verdicts in each order that it was asked in.

    None where an order has no majority, because nothing was read or for a tie, or where the orders disagree.
    """
    votes = {one: 0, other: 0}  # by the answer that was shown first
    asked = set()
    for each in seen:
        asked.add(each.first)
        prefers = each.prefers(one)
        votes[each.first] += 0 if prefers is None else 1 if prefers else -1
    if all(votes[first] > 0 for first in asked):
        return one
    return other if all(votes[first] < 0 for first in asked) else None


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}")
