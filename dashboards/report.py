"""`sweep report`: one HTML file that needs nothing else, the figures as PNG and PDF, the tables as Markdown.

The same results and manifests give the same bytes: nothing is said of when, where or for whom the report was written.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from dashboards.report_figures import pdf, png
from dashboards.report_sections import SHOWN, Study, sections
from orchestrator.results.format import markdown
from orchestrator.session import Session
from orchestrator.store.atomic import replace_file


def write_report(
    session: Session,
    table: pa.Table,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `report.html`, `figures/*.png`, `figures/*.pdf` and `tables/*.md`; returns the HTML file.

    Args:
        session: the sweep; its store tells cost and provenance.
        table: its results, or some rows of them.
        folder: made if need be; files in it that an earlier report left stay.
        progress: is told how many figures are done, of how many.

    Raises:
        StoreError: the folder cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    chapters = list(sections(Study(session, table)))
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
    # Everything from tables and files is escaped: an error message may hold HTML.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html").render(
        name=session.spec.name, question=session.spec.question, sections=chapters, images=images, shown=SHOWN
    )
    replace_file(folder / "report.html", page.encode())
    progress(len(figures), len(figures))
    return folder / "report.html"
