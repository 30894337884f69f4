"""`sweep report`: one HTML file that needs nothing else, the figures as PNG and PDF, the tables as Markdown.

The same results and manifests give the same bytes: no date, machine or user of the report itself is in it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

import dashboards
from dashboards.report.claims import claims
from dashboards.report.curves import best_of_n, metric_curves
from dashboards.report.differences import differences
from dashboards.report.figures import pdf, png
from dashboards.report.published import published
from dashboards.report.ranking import rankings
from dashboards.report.record import cost, failures, provenance, read_manifests
from dashboards.report.section import Section
from dashboards.report.shares import shares, splits
from dashboards.report.study import Study
from dashboards.report.tables import best_trials, comparisons, means
from dashboards.report.verdict import state, verdict
from dashboards.report.winners import winner_map
from orchestrator.analysis.comparisons import compare
from orchestrator.results.best import best_table, find_best
from orchestrator.results.format import markdown
from orchestrator.session import Session
from orchestrator.store.atomic import replace_file
from orchestrator.texts import plain_text

#: Lines of a table that are shown on the page; its file has all.
SHOWN = 60


def write_report(
    session: Session,
    table: pa.Table,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `report.html`, `figures/*.png`, `figures/*.pdf` and `tables/*.md`; return the HTML file.

    Args:
        session: the sweep; its store has cost and provenance.
        table: its results, or some rows of them.
        folder: made if need be; files in it that an earlier report left stay.
        progress: called with how many tables of single prompts are read, and of how many; then with the number of
            figures done and of all.

    Raises:
        StoreError: the folder cannot be written, or tables of single prompts cannot be read.
        SweepError: in a search no study is finished, or it has several objectives, so that nothing can be compared.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    chapters = list(_chapters(session, table, progress))
    figures = [figure for chapter in chapters for figure in chapter.figures]
    images: dict[str, str] = {}
    for done, figure in enumerate(figures):
        progress(done, len(figures))
        svg = figure.svg()
        images[figure.name] = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        replace_file(folder / "figures" / f"{figure.name}.png", png(svg))
        replace_file(folder / "figures" / f"{figure.name}.pdf", pdf(svg))
    for chapter in chapters:
        for each in chapter.tables:
            text = markdown(list(each.columns), [list(row) for row in each.rows], list(each.numeric))
            replace_file(folder / "tables" / f"{each.name}.md", text.encode())
    # Everything from tables and files is escaped: an error message may hold HTML, and marks that turn what follows.
    environment = Environment(
        loader=FileSystemLoader(Path(dashboards.__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_plain,
    )  # fmt: skip
    page = environment.get_template("report.html").render(
        name=session.spec.name, question=session.spec.question, sections=chapters, images=images, shown=SHOWN
    )
    replace_file(folder / "report.html", page.encode())
    progress(len(figures), len(figures))
    return folder / "report.html"


def _plain(value: object) -> object:
    return plain_text(value) if isinstance(value, str) else value


def _chapters(session: Session, table: pa.Table, progress: Callable[[int, int], None]) -> Iterator[Section]:
    if session.spec.searched is None:
        return sections(Study(session, table, progress=progress))
    results = session.results()
    compared, notes = results.comparable(table, session.cells)
    best = best_table(find_best(session.studies, results, session.cells))
    return sections(Study(session, compared, table, notes, progress), best_trials(best))


def sections(study: Study, *more: Section) -> Iterator[Section]:
    """Make the sections of the report in order; those that have nothing to say are left out.

    Args:
        study: the sweep.
        more: sections that come after the claims and before all else on what is compared.

    Raises:
        StoreError: tables of single prompts, or what was declared before, cannot be read.
    """
    manifests = read_manifests(study)
    if study.succeeded() and study.metrics:
        compared = compare(study.sample, study.colour.name, (), study.metrics, _held(study)) if study.colour else []
        ranked = rankings(compared, study.headline, study.lower) if study.headline else []
        depends = differences(study, compared, ranked)
        split = splits(study)
        yield claims(study)
        yield from more
        yield verdict(study, ranked, depends, split)
        yield from best_of_n(study)
        yield from metric_curves(study, depends)
        yield from winner_map(study)
        yield from shares(study, split)
        yield means(study)
        yield comparisons(study, compared, depends)
        yield from published(study)
    else:
        yield from more
        yield Section("verdict", "What was found", [state(study), "There are no results to report yet."])
    yield failures(study)
    yield cost(study, manifests)
    yield provenance(study, manifests)


def _held(study: Study) -> list[str]:
    return [axis.name for axis in study.held]
