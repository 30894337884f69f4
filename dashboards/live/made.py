"""What a cell made, on its page: the same views as `sweep show` prints. Read only when somebody asks for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboards.live.cell_data import made
from dashboards.live.charts import curve_chart
from dashboards.live.text import block, plain, text_table
from dashboards.live.watch import Watch
from orchestrator.results.format import format_value
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError
from orchestrator.texts import plain_text

#: Characters of a text in a table.
_LONG = 1000

_View = Mapping[str, Any]


def show_made(watch: Watch, found: Mapping[str, Any]) -> None:
    """Show a switch, and behind it the entries of an explained cell with what they made."""
    st.subheader("What it made", anchor=False)
    if not st.toggle("Read it from the store", key="made"):
        return
    names = list(dict.fromkeys(step["entry"] for step in found["steps"]))
    name = st.selectbox("of", ["the whole cell", *names], key="made_by")
    chosen = names[names.index(name)] if name in names else None
    try:
        shown = made(watch, found, chosen)
    except (SweepError, StoreError, OSError) as error:
        st.error("It cannot be read.")
        block("\n".join(map(str, error.problems)) if isinstance(error, SweepError) else str(error))
        return
    for entry in shown["entries"]:
        if chosen or entry["views"] or entry["state"] not in ("pending", "unneeded"):
            _entry(entry, whole=chosen is not None)


def _entry(entry: Mapping[str, Any], whole: bool) -> None:
    shards = f", {entry['shards']} shards" if entry["shards"] > 1 else ""
    also = f", the step of {entry['step_of']}" if entry["step_of"] else ""
    with st.expander(
        plain(f"{entry['entry']}: {entry['state']}{shards}{also}"), expanded=whole or bool(entry["views"])
    ):
        if entry["metrics"]:
            rows = [(metric, format_value(value)) for metric, value in entry["metrics"].items()]
            _frame(pd.DataFrame(rows, columns=["metric", "value"]))
        for metric, reason in entry["undefined"].items():
            block(f"{metric} is undefined: {reason}")
        for step in entry["steps"]:
            if step["damage"] or step["error"]:
                block(plain_text(step["damage"] or f"{step['error_class']}: {step['error']}"))
        if entry["views"] and shards:
            st.caption(f"Shard {entry['shard'] + 1} of {entry['shards']} holds:")
        for number, view in enumerate(entry["views"]):
            _VIEWS[view["view"]](view, f"{entry['entry']} {number}")
        if whole:
            st.caption("Config:")
            block(plain_text(json.dumps(entry["config"], indent=2, ensure_ascii=False)))
            for step in entry["steps"]:
                block(plain_text("\n".join(place for place in (step["location"], step["log"]) if place) or "not there"))


def _frame(rows: pd.DataFrame) -> None:
    # A canvas: nothing in it becomes HTML.
    st.dataframe(rows, hide_index=True, height="content", placeholder="")


def _table(view: _View, key: str) -> None:
    total = "" if view["total"] is None else f" of {view['total']:,}"
    split = f" {view['which']}" if view["which"] != "first" else ""
    wide = f", {len(view['columns'])} of {view['width']:,} columns" if len(view["columns"]) < view["width"] else ""
    st.caption(plain(f"{view['file']}: {len(view['rows'])}{total} rows{split}{wide}"))
    text_table(view["columns"], [[_cell(value) for value in row] for row in view["rows"]])


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else format_value(value)
    return plain_text(text, _LONG).strip()


def _curve(view: _View, key: str) -> None:
    curves = {curve["metric"]: curve for curve in view["curves"]}
    if not curves:
        st.caption(plain(f"{view['file']}: no point of a curve"))
        return
    metric = st.selectbox(plain(f"{view['file']}:"), list(curves), key=f"curve {key}")
    st.vega_lite_chart(curve_chart(curves[metric]), theme=None, width="stretch", key=f"chart {key}")


def _text(view: _View, key: str) -> None:
    st.caption(plain(f"{view['file']}: {'' if view['whole'] else 'the beginning of '}{view['bytes']:,} B"))
    block(plain_text(view["text"]))


def _array(view: _View, key: str) -> None:
    shape = " × ".join(f"{size:,}" for size in view["shape"]) or "one value"
    span = (format_value(view[name]) for name in ("low", "high", "mean"))
    said = f"{view['file']}: {shape}, {view['dtype']}"
    if view["low"] is not None:
        said += ", from {} to {}, mean {}".format(*span)
        said += f" of the first {view['values']:,} values" if view["values"] < view["total"] else ""
    block(said + (f", {view['not_finite']:,} not finite" if view["not_finite"] else ""))


def _responses(view: _View, key: str) -> None:
    st.caption(plain(f"{view['file']}: {len(view['prompts'])} of {view['total']:,} prompts"))
    for name in ("golden", "learned"):
        reward = view[name]
        st.caption(plain(f"{name} rewards: {' – '.join(part for part in (reward['entry'], reward['note']) if part)}"))
    for prompt in view["prompts"]:
        block(plain_text(prompt["prompt"]).strip())
        there = [name for name in ("golden", "learned") if view[name]["entry"]]
        rows = [[_cell(each[name]) for name in ("response", *there)] for each in prompt["responses"]]
        text_table(["response", *there], rows)


def _judgments(view: _View, key: str) -> None:
    source = f", verdicts of {view['verdicts']}" if view["verdicts"] else ""
    st.caption(plain(f"{view['file']}: {len(view['judgments'])} of {view['total']:,} judgments{source}"))
    for each in view["judgments"]:
        block(plain_text(each["prompt"]).strip())
        left, right = st.columns(2)
        for column, number, name in ((left, 1, "first"), (right, 2, "second")):
            with column:
                st.caption(f"answer {number}{' (chosen)' if each['chosen'] == number else ''}")
                block(plain_text(each[name]).strip())
        verdict = {None: "not read yet", 0: "none"}.get(each["verdict"], f"answer {each['verdict']}")
        st.caption(f"verdict: {verdict}{', with a hint: answer ' + str(each['hint']) if each['hint'] else ''}")
        said = f"unread: {each['unread']}" if each["unread"] else each["text"].strip()
        block(plain_text(said) or "(no text)")


def _unshown(view: _View, key: str) -> None:
    block(plain_text(f"{view['file']} {view['reason']}"))


_VIEWS: Mapping[str, Callable[[_View, str], None]] = {
    "table": _table, "curve": _curve, "text": _text, "array": _array, "responses": _responses,
    "judgments": _judgments, "unshown": _unshown,
}  # fmt: skip
