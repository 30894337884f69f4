"""The terminal: lines, progress bars, and tables that stay readable however narrow it is."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from orchestrator.plan.select import format_coords
from orchestrator.texts import plain_text
from orchestrator.types import Scalar


class _Console(Console):
    """A terminal that nothing moves or colours but we: strings are no markup, and no text has control sequences."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Rich; whatever a text comes from, what terminals obey is taken out of it."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain_text(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Discard what is printed from now on, and raise the error; Rich would end the process, and a run in it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


console = _Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
if not console.is_terminal:
    # A log or a pipe has no edge: one row is one line there, however long.
    console = _Console(soft_wrap=True, highlight=False, markup=False, emoji=False, width=10_000)

#: A line of a paragraph is never wider than this many columns.
WIDTH = 140
#: Blanks between two columns.
_GAP = 2
#: Rows of a table that is folded into several, before the first of these begins again.
_PAGE = 40
#: What stands at the right of its column: numbers and quantities.
_NUMBER = re.compile(r"([<>≥±+−-]\s*)?[\d.]|\?|null$|$")


def say(*parts: str | tuple[str, str], style: str = "") -> None:
    """Print a line of plain text: brackets and colons in it are no markup.

    Args:
        parts: texts, or pairs of a text and its style.
        style: of the whole line.
    """
    clean = (plain_text(part) if isinstance(part, str) else (plain_text(part[0]), part[1]) for part in parts)
    console.print(Text.assemble(*clean, style=style))


def say_json(value: object) -> None:
    """Print JSON. It has no word for numbers that are not finite, so they are null; what it does not know is text."""
    print(json.dumps(_finite(value), default=str, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def paragraph(*parts: str | tuple[str, str], indent: int = 0, hanging: int = 2) -> None:
    """Print a text in lines that fit the terminal; words that do not fit are folded.

    Args:
        parts: texts, or pairs of a text and its style; nothing in them is markup.
        indent: columns before it.
        hanging: so many more before all lines but the first.
    """
    width = max(min(console.width, WIDTH) - indent - hanging, 20)
    clean = (plain_text(part) if isinstance(part, str) else (plain_text(part[0]), part[1]) for part in parts)
    for number, line in enumerate(Text.assemble(*clean).wrap(console, width, overflow="fold")):
        line.rstrip()
        console.print(Text(" " * (indent + hanging * (number > 0))) + line)


@contextlib.contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show that something takes a moment."""
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, total) that draws a progress bar with the remaining time.

    The bar is there from the first call until all is done, so what is printed before and after is not disturbed by it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(text, total=None)

    def advance(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)
        if done >= total:
            progress.stop()

    try:
        yield advance
    finally:
        progress.stop()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> Group:
    """Lay out a table so that it fits the terminal and nothing in it is cut.

    Columns without any value are left out. What is too wide is folded: first the headings, at their blanks, then the
    rows, into several tables below each other, each with the columns that tell the rows apart. Where not even one more
    column fits beside those, every row becomes a block with one line per value.

    Args:
        columns: headings.
        rows: texts, in which nothing is markup; an empty string is no value.
        keys: so many of the first columns tell the rows apart.
    """
    columns, *rows = [[plain_text(value) for value in row] for row in (columns, *rows)]
    there = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    first, others = [i for i in there if i < keys], [i for i in there if i >= keys]
    right = {i for i in others if all(_NUMBER.match(row[i]) for row in rows)}
    cells = {i: max(cell_len(row[i]) for row in rows) for i in there}
    widths = {i: max(cells[i], cell_len(columns[i])) for i in there}

    def fits(chosen: Sequence[int]) -> bool:
        return sum(widths[i] + _GAP for i in chosen) - _GAP <= console.width

    def aligned(chosen: Sequence[int], some: Sequence[Sequence[str]]) -> Table:
        made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
        for i in chosen:
            justify: Literal["left", "right"] = "right" if i in right else "left"
            made.add_column(Text(columns[i]), justify=justify, width=widths[i], vertical="bottom")
        for row in some:
            made.add_row(*(Text(row[i]) for i in chosen))
        return made

    if not there:
        return Group()
    if fits(there):
        return Group(aligned(there, rows))
    widths = {i: max([cells[i], *map(cell_len, columns[i].split())]) for i in there}
    parts: list[RenderableType] = []
    if fits(first) and all(fits([*first, i]) for i in others):
        bands: list[list[int]] = [first]
        for i in others:
            bands = [*bands[:-1], [*bands[-1], i]] if fits([*bands[-1], i]) else [*bands, [*first, i]]
        pages = [rows[start : start + _PAGE] for start in range(0, len(rows), _PAGE)]
        parts = [part for page in pages for band in bands for part in ("", aligned(band, page))]
    else:
        for row in rows:
            parts += ["", _block([(columns[i], row[i]) for i in there if row[i]])]
    return Group(*parts[1:])


def _block(fields: Sequence[tuple[str, str]]) -> Table:
    """Lay out one row, with one line per value."""
    made = Table.grid(padding=(0, _GAP, 0, 0))
    made.add_column(style="bold", overflow="fold")
    made.add_column(overflow="fold")
    for name, value in fields:
        made.add_row(Text(name), Text(value))
    return made


def counted(number: int, noun: str) -> str:
    """Format a number of things: "1 cell", "12,960 cells"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def step_name(entry: str, coords: Mapping[str, Scalar]) -> str:
    """Name a step as people do: by its entry and its coordinates."""
    return f"{entry} {format_coords(coords)}".rstrip()


def first_line(text: str) -> str:
    """Cut a text to its first line, and that to 300 characters."""
    lines = text.splitlines()
    return lines[0][:300] if lines else ""
