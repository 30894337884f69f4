"""Sections of curves: best-of-N, and metrics against the axes of the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dashboards.report.differences import difference_figures
from dashboards.report.figures import Axis, Figure, curves, format_name
from dashboards.report.section import Section, capital, file_name, title_of
from dashboards.report.study import Study
from orchestrator.analysis.interactions import Dependence


def best_of_n(study: Study) -> Iterator[Section]:
    """Draw the golden reward of the best of N against N, where the sweep has it for two N or more."""
    counts = sorted(int(name.removeprefix("best_of_")) for name in study.filled if _is_best_of(name))
    if len(counts) < 2:
        return
    n = Axis("n", tuple(counts))
    figures, text = [], []
    for page in study.each_page():
        names = [f"best_of_{count}" for count in counts]
        summary, notes = study.means([study.colour], names, [*study.pages, study.panels], page)
        rows = [{**_point(row, f"best_of_{count}"), "n": count} for row in summary.to_pylist() for count in counts]
        if not _any(rows):
            text.append(f"No figure{title_of('', page)}: {notes}")
            continue
        what = "Golden reward of the response that the reward model likes best among N."
        figures.append(
            Figure(
                file_name("best-of-n", page),
                title_of("Best-of-N", page),
                " ".join(filter(None, (what, study.band, notes))),
                curves(rows, n, "best_of_N", study.colour, study.panels),
                study.panels is None,
            )
        )
    yield Section("best-of-n", "Best-of-N", text, figures)


def metric_curves(study: Study, depends: Sequence[Dependence]) -> Iterator[Section]:
    """Draw each metric against each axis that is not a colour, panel or page; of the first one also differences.

    Args:
        study: the sweep.
        depends: how the differences of the first metric depend on other axes.
    """
    for metric in study.metrics:
        figures, text = [], []
        for x in study.across:
            for page in study.each_page():
                summary, notes = study.means([study.colour, x], [metric], [*study.pages, study.panels], page)
                rows = [_point(row, metric) for row in summary.to_pylist()]
                title = title_of(f"{capital(format_name(metric))} against {x.name}", page)
                if not _any(rows):
                    text.append(f"No figure of {title}: {notes}")
                    continue
                colour = study.colour
                same = ""
                if colour and _same(rows, colour, (x, study.panels)):
                    same = f"It is the same for all values of {colour.name}."
                    rows, colour = [row for row in rows if row[colour.name] == colour.labels[0]], None
                figures.append(
                    Figure(
                        file_name(f"{metric}-by-{x.name}", page),
                        title,
                        " ".join(filter(None, (study.band, same, notes))),
                        curves(rows, x, metric, colour, study.panels),
                        study.panels is None,
                    )
                )
        if metric == study.metrics[0]:
            figures += difference_figures(study, depends)
        if figures or text:
            yield Section(f"figures-{metric}", capital(format_name(metric)), text, figures)


def _is_best_of(name: str) -> bool:
    return name.startswith("best_of_") and name.removeprefix("best_of_").isdigit()


def _point(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """A row of a summary with the `mean` and `sd` of one of its metrics."""
    return {**row, "mean": row[f"{metric}_mean"], "sd": row[f"{metric}_sd"]}


def _any(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["mean"] is not None for row in rows)


def _same(rows: Sequence[Mapping[str, Any]], colour: Axis, others: Sequence[Axis | None]) -> bool:
    """Whether all values of the colour are there and nothing depends on it, as flip rates not on the reward model."""
    seen: dict[tuple[Any, ...], float] = {}
    known = set()
    for row in rows:
        where = tuple(row[axis.name] for axis in others if axis)
        if row["mean"] is not None:
            known.add(row[colour.name])
            if not np.isclose(seen.setdefault(where, row["mean"]), row["mean"], rtol=1e-9):
                return False
    return known == set(colour.labels)
