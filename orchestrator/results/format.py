"""A small table as text or bytes for other programs: CSV, Parquet, Markdown, LaTeX."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    """How a table is written down."""

    TABLE = "table"
    """For the eye."""
    CSV = "csv"
    MD = "md"
    LATEX = "latex"
    """A booktabs `tabular`."""
    PARQUET = "parquet"


#: What a file name says about its format.
SUFFIXES = {
    ".csv": Format.CSV, ".md": Format.MD, ".tex": Format.LATEX, ".parquet": Format.PARQUET, ".txt": Format.TABLE,
}  # fmt: skip

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def spell(value: Any) -> str:
    """One value for people: numbers to four significant digits, whole ones whole, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def p_value(value: float | None) -> str:
    """Four digits, or that it is smaller."""
    return "" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends with their signs."""
    return "" if low is None or high is None else f"{signed(low)} … {signed(high)}"


def signed(value: float | None, digits: int = 4) -> str:
    """With its sign; a number that so many decimals would make nothing of with three significant digits."""
    if value is None:
        return ""
    return f"{value:+.{digits}f}" if value == 0 or abs(value) >= 10 ** (1 - digits) else f"{value:+.3g}"


def percent(share: float | None) -> str:
    """A share in per cent; 0 % and 100 % only where it is exactly that."""
    if share is None:
        return ""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    return "<0.1 %" if share < 0.001 else ">99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def export(table: pa.Table, form: Format) -> bytes:
    """The table in a format; the same table gives the same bytes.

    CSV and Parquet keep every digit, the others are for people.
    """
    import pyarrow as pa

    if form == Format.CSV:
        import pyarrow.csv

        buffer = pa.BufferOutputStream()
        pyarrow.csv.write_csv(table, buffer)
        return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]
    if form == Format.PARQUET:
        import pyarrow.parquet

        buffer = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, buffer, compression="zstd")
        return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]
    rows = [[spell(value) for value in row.values()] for row in table.to_pylist()]
    numeric = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in table.schema]
    spelled = {Format.MD: markdown, Format.LATEX: latex, Format.TABLE: plain}[form]
    return spelled(table.column_names, rows, numeric).encode()


def markdown(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """A Markdown table; what would be markup in it is escaped."""
    lines = [columns, ["---:" if right else "---" for right in numeric]]
    escaped = [[_markdown(value) for value in row] for row in (columns, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (escaped[0], lines[1], *escaped[1:]))


def latex(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """A LaTeX `tabular` with the rules of the package booktabs."""

    def line(values: list[str]) -> str:
        return " & ".join("".join(_LATEX.get(each, each) for each in value) for value in values) + r" \\" + "\n"

    head = rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}" + "\n"
    body = "".join(map(line, rows))
    return f"{head}\\toprule\n{line(columns)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


def plain(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """Columns of equal width."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, numeric, strict=True)
        lines.append("  ".join(f"{each:>{width}}" if right else f"{each:<{width}}" for each, width, right in cells))
    return "".join(f"{each.rstrip()}\n" for each in lines)


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|])", r"\\\1", text)
    return re.sub(r"\s+", " ", escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
