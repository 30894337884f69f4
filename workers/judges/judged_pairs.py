"""The judgments of a judge, found by the texts of the pair of answers that they are about.

A judgment belongs to a pair through its texts: the same prompt, and the same two answers in either order. It is right
when its verdict points to the chosen answer of *this* pair, so the judgments that were sampled once serve every level
of label noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

from workers.tables import PREFERENCES, VERDICTS

#: Texts are read in parts, so that they never lie in memory twice.
_PART = 10_000
#: Characters of a text that an error message shows.
_SHOWN = 60


class Judgment(NamedTuple):
    """One judgment of a pair of answers, seen from the label of the pair."""

    row: int
    """Row of the table of verdicts."""
    sample: int
    """Its number among the judgments of the same request."""
    drawn: bool
    """Whether the answers were shown in the order that was drawn for the pair."""
    chosen_first: bool
    """Whether the chosen answer was shown first."""
    hint: int
    """The answer (1 or 2, by place) that the request gave as the better one; 0 without a hint."""
    verdict: int
    """The answer (1 or 2, by place) that it prefers; 0 where no verdict could be read."""
    unread: bool
    """Whether the judge wrote nothing: the request was too long or refused, or the reply garbled."""

    @property
    def right(self) -> bool | None:
        """Whether the verdict points to the chosen answer; None where no verdict could be read."""
        return (self.verdict == 1) == self.chosen_first if self.verdict else None

    @property
    def true_hint(self) -> bool | None:
        """Whether the hint named the chosen answer; None without a hint."""
        return (self.hint == 1) == self.chosen_first if self.hint else None


class JudgedPairs:
    """A `verdicts` artifact, read as the judgments of pairs."""

    def __init__(self, verdicts: Path, *, repeats: Literal["once", "each"]) -> None:
        """Read the table.

        Args:
            verdicts: the artifact.
            repeats: how often judgments count that agree in order, hint, sample, request and text. "once" is for stages
                that learn from the texts (Con-J, arXiv 2410.03742; RISE, arXiv 2502.11689): a copy of a judgment is no
                second one. "each" is for stages that count verdicts: those of `scalar_verdicts` have no texts, so
                all about a pair that occurs in several rows agree, although of equal rewards each row has a verdict
                against its own label.

        Raises:
            ValueError: the table has another shape, or a verdict other than 0, 1 and 2.
        """
        self.file = VERDICTS.path(verdicts)
        self._table = VERDICTS.read(verdicts)
        self._once = repeats == "once"
        names = ("sample", "drawn", "hint", "verdict", "unread")
        self._sample, self._drawn, self._hint, self._verdict, self._unread = (
            self._table.column(name).to_pylist() for name in names
        )
        #: (prompt, first, second) -> rows.
        self._rows: dict[tuple[str, str, str], list[int]] = {}
        start = 0
        for part in self._table.select(["prompt", "first", "second"]).to_batches(max_chunksize=_PART):
            for row, shown in enumerate(zip(*(column.to_pylist() for column in part.columns), strict=True), start):
                if self._verdict[row] not in (0, 1, 2):
                    message = f"verdict {self._verdict[row]} about {_cut(shown[0])}; verdicts are 0, 1 and 2"
                    raise ValueError(f"{self.file}: {message}")
                self._rows.setdefault(shown, []).append(row)
            start += part.num_rows

    def about(self, prompt: str, chosen: str, rejected: str) -> list[Judgment]:
        """Find all judgments of a pair, hinted ones too; the list is empty if there are none.

        Those that were shown the chosen answer first come first; otherwise they are in the order of the table.
        """
        return [
            Judgment(
                row=row,
                sample=self._sample[row],
                drawn=self._drawn[row],
                chosen_first=chosen_first,
                hint=self._hint[row],
                verdict=self._verdict[row],
                unread=bool(self._unread[row]),
            )
            for chosen_first, shown in ((True, (prompt, chosen, rejected)), (False, (prompt, rejected, chosen)))
            for row in self._counted(self._rows.get(shown, []))
        ]

    def verdicts_about(self, prompt: str, chosen: str, rejected: str) -> list[Judgment]:
        """Find the judgments of a pair without those that had a hint, which are no verdicts of the judge.

        Raises:
            ValueError: the answers are the same, or there is no such judgment; shows the prompt.
        """
        if chosen == rejected:
            raise ValueError(f"both answers to {_cut(prompt)} are {_cut(chosen)}: there is nothing to judge")
        found = [each for each in self.about(prompt, chosen, rejected) if not each.hint]
        if not found:
            raise ValueError(
                f"{self.file}: no verdict about {_cut(chosen)} and {_cut(rejected)}, answers to {_cut(prompt)}: the"
                " judge was asked about other texts, with a `limit`, or only with hints"
            )
        return found

    def join(self, preferences: Path) -> tuple[pa.Table, list[list[Judgment]]]:
        """Read a `preferences` artifact, which may be a part of what was judged, and find the judgments of each row.

        A row that is there twice has the same judgments twice.

        Returns:
            The table (`tables.PREFERENCES`), and what `about` finds for each of its rows.

        Raises:
            ValueError: no row has a judgment.
        """
        table = PREFERENCES.read(preferences)
        pairs = zip(*(table.column(name).to_pylist() for name in ("prompt", "chosen", "rejected")), strict=True)
        judgments = [self.about(*pair) for pair in pairs]
        if not any(judgments):
            raise ValueError(
                f"{self.file.parent}: none of its {self._table.num_rows} judgments is about one of the {len(judgments)}"
                f" rows of {preferences}. They belong together by their texts: let judge_sample judge these"
                " preferences, or those that they are a part of"
            )
        return table, judgments

    def request(self, judgment: Judgment) -> str:
        """Return the dialogue that requested a judgment, without any hint."""
        return str(self._table.column("request")[judgment.row].as_py())

    def text(self, judgment: Judgment) -> str:
        """Return the text of a judgment."""
        return str(self._table.column("text")[judgment.row].as_py())

    def _counted(self, rows: list[int]) -> list[int]:
        """Return `rows`, all about the same answers in the same order, without repeats if these count once."""
        if not self._once:
            return rows
        asked = Counter((self._hint[row], self._sample[row]) for row in rows)
        if max(asked.values(), default=1) == 1:
            return rows
        # Few come this far, so few texts are read.
        request, text = self._table.column("request"), self._table.column("text")
        first: dict[tuple[int, int, str, str], int] = {}
        for row in rows:
            first.setdefault((self._hint[row], self._sample[row], request[row].as_py(), text[row].as_py()), row)
        return [*first.values()]


def majority(judgments: Iterable[Judgment]) -> bool | None:
    """Return whether the judge prefers the chosen answer: it has most of the verdicts in each order that was shown.

    False if the rejected one has; None where an order has no majority, because nothing was read or for a tie,
        or where the orders disagree.
    """
    votes = Counter[bool]()
    for each in judgments:
        votes[each.chosen_first] += 0 if each.right is None else 1 if each.right else -1
    if all(balance > 0 for balance in votes.values()):
        return True
    return False if all(balance < 0 for balance in votes.values()) else None


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}")
