"""The section on shares of variation: which axes, and which of them only together, move a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dashboards.report.figures import Figure, format_name
from dashboards.report.intervals import shares_chart
from dashboards.report.section import Section, Table, file_name, title_of
from dashboards.report.study import Study
from orchestrator.analysis.axis_effects import variance_shares
from orchestrator.analysis.effect import Sample
from orchestrator.results.format import format_percent
from orchestrator.types import Scalar

#: Interactions with a smaller share, or after so many, are not named.
_LEAST, _NAMED = 0.01, 8
OTHERS = "other interactions"


@dataclass(frozen=True)
class Split:
    """The variation of a metric between cells, split among axes and their interactions."""

    metric: str
    at: Mapping[str, Scalar]
    """The values of the axes that are never averaged over."""
    parts: tuple[tuple[str, float, str], ...]
    """Name, share and kind: "axis", "interaction" or "chance"; the shares sum to 1. Nothing where cells are missing, or
    where all have the same number."""


def splits(study: Study) -> list[Split]:
    """Split the variation of the first metric, at each combination of the axes that are never averaged over."""
    metric = study.metrics[0]
    analysis = study.session.spec.analysis
    found = []
    for at in study.each_held():
        sample = Sample(study.at(at), analysis, [metric])
        alone: dict[str, float] = {}
        together: list[tuple[str, float]] = []
        chance: list[float] = []
        for part in variance_shares(sample, metric):
            if set(part.axes) & set(sample.random):
                chance.append(part.share)
            elif len(part.axes) == 1:
                alone[part.axes[0]] = part.share
            else:
                together.append((" × ".join(part.axes), part.share))
        # The largest are first.
        named = [each for each in together[:_NAMED] if each[1] >= _LEAST]
        rest = math.fsum(share for _, share in together[len(named) :])
        parts = [(name, share, "axis") for name, share in alone.items()]
        parts += [(name, share, "interaction") for name, share in named]
        parts += [(OTHERS, rest, "interaction")] if len(together) > len(named) else []
        parts.sort(key=lambda part: (part[0] == OTHERS, -part[1]))
        if chance:
            parts.append((f"chance ({' and '.join(sample.random)})", math.fsum(chance), "chance"))
        found.append(Split(metric, at, tuple(parts)))
    return found


def told(split: Split, study: Study) -> str:
    """Say what explains how much, as a sentence."""
    about = format_name(split.metric)
    if not split.parts:
        table = study.at(split.at)
        statuses = table["status"].to_pylist()
        if table[split.metric].null_count or statuses.count("succeeded") < len(statuses):
            return (
                f"How much of the variation of {about} each axis explains is not computed while cells have no result."
            )
        return f"There is no variation of {about} that axes could explain, or not all of their combinations are cells."
    parts = ", ".join(f"{name} {format_percent(share)}" for name, share, _ in split.parts)
    return f"Of the variation of {about} between cells: {parts}. Together 100 %."


def shares(study: Study, found: Sequence[Split]) -> Iterator[Section]:
    """Draw and tabulate the shares."""
    figures, tables = [], []
    for split in filter(lambda each: each.parts, found):
        title = title_of(f"What the variation of {format_name(split.metric)} goes with", split.at)
        name = file_name("shares", split.at)
        caption = (
            "Shares of the sum of squares between cells (functional analysis of variance); they add up to 100 %. An "
            "axis: what its values do on average. A × B: what they do only together. Chance: whatever goes with a draw "
            "of what is random, alone or together with axes; with few draws, some of it is in the other shares, too."
        )
        figures.append(Figure(name, title, caption, shares_chart(split.parts)))
        rows = [[each, format_percent(share)] for each, share, _ in split.parts]
        tables.append(Table(name, title, ["", "share"], rows, [False, True]))
    if figures:
        yield Section("shares", "What the variation goes with", (), figures, tables)
