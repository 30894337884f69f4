"""The winner map: which value of what competes is best where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dashboards.report.figures import Axis, Figure, format_name, winners
from dashboards.report.ranking import LEVEL
from dashboards.report.section import Section, Table, file_name, title_of
from dashboards.report.study import Study, combinations
from orchestrator.analysis.contrast import Weights
from orchestrator.results.format import format_p_value, format_signed, format_value
from orchestrator.statistics.estimates import holm
from orchestrator.types import Scalar


@dataclass(frozen=True)
class _Tile:
    """What is best at some values of other axes."""

    at: dict[str, Scalar]
    winner: Scalar
    mean: float
    against: Scalar
    """The value that it is ahead of least clearly."""
    lead: float
    p: float
    """Of the least clear lead; 1 where there is none, or the winner is not ahead."""
    draws: int


def winner_map(study: Study) -> Iterator[Section]:
    """Draw which value of what competes is best at each combination of two other axes, and tabulate it.

    Raises:
        StoreError: tables of single prompts cannot be read.
    """
    colour, metric, across = study.colour, study.headline, study.across
    if colour is None or metric is None or not across:
        return
    x, y = across[0], max(across[1:], key=lambda axis: len(axis.labels), default=None)
    axes = [axis for axis in (*study.pages, study.panels, x, y) if axis]
    points = combinations(axes)
    means = [study.sample.means(metric, colour.name, colour.labels, _only(at)) for at in points]
    competing = {label for each in means for label in each}
    tiles, level, gaps = [], 0, 0
    for at, found in zip(points, means, strict=True):
        if not found or found.keys() < competing:
            # Who wins where not all compete says nothing.
            gaps += 1
        elif tile := _tile(study, colour, metric, at, found):
            tiles.append(tile)
        else:
            level += 1
    out = [f"{gaps:,} without results of all {len(competing)} that can be compared"] if gaps else []
    out += [f"{level:,} in which the best are level"] if level else []
    text = [f"Of {len(points):,} tiles these have no winner: {', '.join(out)}."] if out else []
    if not tiles:
        yield Section("winners", "Winner map", text)
        return
    adjusted = holm([tile.p for tile in tiles])
    rows = [{**tile.at, colour.name: tile.winner, "clear": p < LEVEL} for tile, p in zip(tiles, adjusted, strict=True)]
    best = "lowest" if study.lower else "highest"
    caption = (
        f"The {colour.name} with the {best} mean at these values, over everything else. The lead is clear where it is "
        f"ahead of each other one with a Holm p below {LEVEL:g}, adjusted over all {len(rows):,} tiles with a winner."
    )
    figures = []
    for page in study.each_page():
        mine = [row for row in rows if all(row[name] == value for name, value in page.items())]
        if mine:
            chart = winners(mine, x, y, colour, study.panels)
            title = title_of(f"Winner by {format_name(metric)}", page)
            figures.append(Figure(file_name("winners", page), title, caption, chart))
    wins = Counter(str(row[colour.name]) for row in rows)
    led = Counter(str(row[colour.name]) for row in rows if row["clear"])
    text += [f"{label}: best in {wins[label]:,} of {len(rows):,}, clearly in {led[label]:,}." for label in colour.texts]
    yield Section("winners", "Winner map", text, figures, [_table([axis.name for axis in axes], tiles, adjusted)])


def _only(at: dict[str, Scalar]) -> dict[str, list[Scalar]]:
    return {name: [label] for name, label in at.items()}


def _tile(study: Study, colour: Axis, metric: str, at: dict[str, Scalar], means: dict[Scalar, float]) -> _Tile | None:
    """Compare the best at some values with each other one; None where one is level with it."""
    lower = study.lower
    winner = (min if lower else max)(means, key=lambda label: means[label])
    weakest: tuple[float, Scalar, float] | None = None
    draws = 0
    for other in means:
        if other == winner:
            continue
        weights = {label: float(label == winner) - float(label == other) for label in means}
        found = study.sample.effect(metric, Weights({colour.name: weights}, _only(at)), bootstrap=False)
        if found.estimate == 0 or found.estimate is None:
            return None
        draws = found.seeds
        # Of fewer prompts than the means it may have the other sign.
        ahead = found.estimate < 0 if lower else found.estimate > 0
        p = found.interval.family_p if found.interval and ahead else None
        # It is ahead of all others only if it is ahead of each: the largest p counts (Berger 1982).
        if weakest is None or (1.0 if p is None else p) > weakest[0]:
            weakest = (1.0 if p is None else p), other, found.estimate
    if weakest is None:
        return None
    return _Tile(at, winner, means[winner], weakest[1], weakest[2], weakest[0], draws)


def _table(axes: list[str], tiles: list[_Tile], adjusted: list[float]) -> Table:
    columns = [*axes, "winner", "mean", "least clear against", "lead", "draws", "Holm p", "lead is"]
    rows = [
        [
            *(str(tile.at[axis]) for axis in axes),
            str(tile.winner),
            format_value(tile.mean),
            str(tile.against),
            format_signed(tile.lead),
            f"{tile.draws:,}",
            format_p_value(p),
            "clear" if p < LEVEL else "not clear",
        ]
        for tile, p in zip(tiles, adjusted, strict=True)
    ]
    numeric = [name in ("mean", "lead", "draws", "Holm p") and place >= len(axes) for place, name in enumerate(columns)]
    return Table("winners", "Who wins where", columns, rows, numeric)
