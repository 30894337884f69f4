"""Judgments that were recorded earlier, from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.data.dialogues import as_answer, as_question
from workers.data.rows import read_rows
from workers.judges.asks import Ask
from workers.judges.backends.configs import RecordedColumns, RecordedJudge
from workers.judges.configs import Form
from workers.judges.requests import Shown, Written, format_judgment


def read_recorded(backend: RecordedJudge, form: Form, rationale: bool) -> dict[Shown, list[Written]]:
    """Read the judgments of each pair in each order and with each hint, in the order of the file.

    Prompts and answers are compared in the form that the data stages give them (`workers.data.dialogues`). Rows whose
    question or answer is empty or null belong to no pair: they are left out and printed. A row with a reason in
    `unread`, as in `judgments.parquet`, is a judgment without text.

    Args:
        backend: the file and its columns.
        form: form of the judgments that are made of rows with rationale and verdict in columns of their own.
        rationale: whether these rows must have one.

    Raises:
        ValueError: a column is missing, or a judgment is not text.
        FileNotFoundError: the file is not there.
    """
    found: dict[Shown, list[Written]] = {}
    left_out: list[str] = []
    for each in read_rows(backend.recorded):
        name, row = f"{backend.recorded.path}, {each.place}", each.values
        if each.fault:
            raise ValueError(f"{name}: {each.fault}")
        pair = [_column(row, column, name) for column in _pair_columns(backend.columns)]
        if not all(isinstance(text, str) and text.strip() for text in pair):
            left_out.append(each.place)
            continue
        prompt, first, second = as_question(pair[0]), as_answer(pair[1]), as_answer(pair[2])
        hint = int(row.get(backend.columns.hint) or 0)
        reason = str(row.get("unread") or "")
        written = Written("", reason) if reason else Written(_text(row, backend.columns, form, rationale, name))
        found.setdefault(Shown(prompt, first, second, hint), []).append(written)
    if left_out:
        print(f"{backend.recorded.path}: left out {len(left_out)} rows without a question or answer: {left_out[:100]}")
    return found


def chosen_judgments(
    backend: RecordedJudge, recorded: Mapping[Shown, Sequence[Written]], asks: Sequence[Ask]
) -> list[Written]:
    """Choose the recorded judgment of each ask: sample k is the row k of its pair, order and hint.

    Raises:
        ValueError: some are not recorded; shows the first of them.
    """
    rows = [recorded.get(ask.shown, [])[ask.sample : ask.sample + 1] for ask in asks]
    missing = [ask for ask, found in zip(asks, rows, strict=True) if not found]
    if missing:
        ask = missing[0]
        hint = f", hint {ask.hint}" if ask.hint else ""
        raise ValueError(
            f"{backend.recorded.path}: {len(missing)} of {len(asks)} judgments are not recorded. The first one: "
            f"judgment {ask.sample + 1}{hint} of prompt {ask.pair.prompt[-200:]!r}, first {ask.pair.first[:100]!r}, "
            f"second {ask.pair.second[:100]!r}. Record them, or ask for fewer (samples, orders, hints, limit)"
        )
    return [written for found in rows for written in found]


def _pair_columns(columns: RecordedColumns) -> tuple[str, str, str]:
    return columns.prompt, columns.first, columns.second


def _column(row: Mapping[str, Any], column: str, name: str) -> Any:
    if column not in row:
        raise ValueError(f"{name}: no column {column!r} among {sorted(row)}; name it under columns: of the backend")
    return row[column]


def _text(row: Mapping[str, Any], columns: RecordedColumns, form: Form, rationale: bool, name: str) -> str:
    if columns.text in row:
        text = row[columns.text]
        if not isinstance(text, str):
            raise ValueError(f"{name}: {columns.text} is a {type(text).__name__}, not text")
        return text
    verdict = _column(row, columns.verdict, name)
    if not isinstance(verdict, (int, str)):
        raise ValueError(f"{name}: {columns.verdict} is a {type(verdict).__name__}, not 1 or 2")
    reasons = _column(row, columns.rationale, name) if rationale else None
    if rationale and not isinstance(reasons, str):
        raise ValueError(f"{name}: {columns.rationale} is a {type(reasons).__name__}, not text")
    return format_judgment(reasons, verdict, form)
