"""How numbers and small tables are written down, for people and for other programs."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.texts import plain_text

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    """How a table is written down."""

    TABLE = "table"
    """For the eye."""
    CSV = "csv"
    MD = "md"
    LATEX = "latex"
    """A `tabular` for the packages booktabs and siunitx."""
    PARQUET = "parquet"


#: What a file name says about its format.
SUFFIXES = {
    ".csv": Format.CSV, ".md": Format.MD, ".tex": Format.LATEX, ".parquet": Format.PARQUET, ".txt": Format.TABLE,
}  # fmt: skip

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "…": r"\ldots{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


# --- values


def format_value(value: Any) -> str:
    """Format a value of a table: numbers with four significant digits, whole ones whole, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def format_short(value: float | None) -> str:
    """Format a number where there is little room: three significant digits, no exponent from 0.0001 on, – for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def format_mean_sd(mean: float | None, sd: float | None) -> str:
    """Format a mean over seeds as mean ± standard deviation; without ± where there is none, empty without a mean."""
    if mean is None:
        return ""
    return _three_decimals(mean) if sd is None else f"{_three_decimals(mean)} ± {_three_decimals(sd)}"


def _three_decimals(value: float) -> str:
    """Three decimals, or three significant digits where these would leave nothing of the number."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"


def format_p_value(value: float | None) -> str:
    """Format a p value with four decimals; smaller ones as such."""
    return "" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format both ends of an interval with their signs."""
    return "" if low is None or high is None else f"{format_signed(low)} … {format_signed(high)}"


def format_signed(value: float | None, digits: int = 4) -> str:
    """Format a number with its sign and so many decimals; three significant digits where these would leave nothing."""
    if value is None:
        return ""
    return f"{value:+.{digits}f}" if value == 0 or abs(value) >= 10 ** (1 - digits) else f"{value:+.3g}"


def format_percent(share: float | None) -> str:
    """Format a share in per cent; 0 % and 100 % only where it is exactly that."""
    if share is None:
        return ""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    return "<0.1 %" if share < 0.001 else ">99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


# --- tables


def export(table: pa.Table, form: Format) -> bytes:
    """Write a table down in a format; the same table gives the same bytes.

    CSV and Parquet keep every digit, the others are for people. Texts are escaped for the format, so that they are
    neither markup nor commands of a terminal; Parquet keeps them as they are. In CSV a text that a spreadsheet would
    take for a formula begins with a ' (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    import pyarrow as pa

    if form == Format.CSV:
        import pyarrow.csv

        columns = [_without_formulas(column) if _is_text(column.type) else column for column in table.columns]
        buffer = pa.BufferOutputStream()
        pyarrow.csv.write_csv(pa.table(columns, list(map(_no_formula, table.column_names))), buffer)
        return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]
    if form == Format.PARQUET:
        from orchestrator.results.parquet import to_parquet

        return to_parquet(table)
    rows = [[_line(format_value(value)) for value in row] for row in zip(*map(_values, table.columns), strict=True)]
    numeric = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in table.schema]
    write = {Format.MD: markdown, Format.LATEX: _latex, Format.TABLE: _plain}[form]
    return write(list(map(_line, table.column_names)), rows, numeric).encode()


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _line(text: str) -> str:
    """One line of plain text."""
    return re.sub(r"\s+", " ", plain_text(text))


#: What a spreadsheet would compute; numbers are none, whatever their sign.
_FORMULA = re.compile(r"\s*([=@\uff1d\uff20]|[-+\uff0b\uff0d](?!(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$))")


def _no_formula(text: str) -> str:
    text = plain_text(text)
    return f"'{text}" if _FORMULA.match(text) else text


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column has texts, however a query's answer keeps them."""
    import pyarrow as pa

    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(of_kind(kind.value_type if pa.types.is_dictionary(kind) else kind) for of_kind in kinds)


def _without_formulas(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if text is None else _no_formula(text) for text in column.to_pylist()], pa.string())


def markdown(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """Write a Markdown table; what would be markup in it is escaped."""
    lines = [columns, ["---:" if right else "---" for right in numeric]]
    escaped = [[escape_markdown(value) for value in row] for row in (columns, *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (escaped[0], lines[1], *escaped[1:]))


#: What siunitx aligns: a number, perhaps with its uncertainty, or nothing.
_ALIGNED = re.compile(r"([+-]?\d+(\.\d+)?(e[+-]?\d+)?( ± \d+(\.\d+)?(e[+-]?\d+)?)?)?")
#: A p value that is too small to be told.
_SMALL = re.compile(r"<\d+(\.\d+)?")


def _latex(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """Write a LaTeX `tabular` with the rules of the package booktabs and columns of numbers of siunitx (`S`)."""
    values = [[row[place] for row in rows] for place in range(len(columns))]
    aligned = [
        any(column) and all(_ALIGNED.fullmatch(each) or _SMALL.fullmatch(each) for each in column) for column in values
    ]

    def escaped(value: str) -> str:
        return "".join(_LATEX.get(each, each) for each in value)

    def line(texts: list[str], heading: bool = False) -> str:
        cells = []
        for value, number in zip(texts, aligned, strict=True):
            if number and not heading and _ALIGNED.fullmatch(value):
                cells.append(value.replace("±", r"\pm"))
            else:
                # What siunitx is not to read stands in braces.
                cells.append(f"{{{escaped(value)}}}" if number else escaped(value))
        text = " & ".join(cells)
        # A bracket or star would be an argument of the \\ or rule before it.
        return ("{}" if text.lstrip().startswith(("[", "*")) else "") + text + r" \\" + "\n"

    kinds = ("S" if number else "r" if right else "l" for number, right in zip(aligned, numeric, strict=True))
    head = rf"\begin{{tabular}}{{{''.join(kinds)}}}" + "\n"
    body = "".join(map(line, rows))
    return f"{head}\\toprule\n{line(columns, heading=True)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


def _plain(columns: list[str], rows: list[list[str]], numeric: list[bool]) -> str:
    """Write columns of equal width, for a terminal."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, numeric, strict=True)
        lines.append("  ".join(f"{each:>{width}}" if right else f"{each:<{width}}" for each, width, right in cells))
    return "".join(f"{each.rstrip()}\n" for each in lines)


def escape_markdown(text: str) -> str:
    """Write a text as one line of Markdown that shows just that text, within a paragraph or a table."""
    escaped = re.sub(r"([\\`*_\[\]|]|~(?=~)|(?<=~)~)", r"\\\1", _line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_code(text: str) -> str:
    """Write a text as a code span of Markdown (CommonMark, section 6.1), on one line."""
    text = _line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{edge}{text}{edge}{fence}"
