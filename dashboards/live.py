"""The live page of a sweep: `sweep dashboard SWEEP.yaml`. Streamlit runs this script for every browser.

What comes from a sweep is shown as text: in code blocks, on a canvas, or with its Markdown escaped (`plain`).
"""

from __future__ import annotations

import html
import re
import sys
import time
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from dashboards import live_data as data
from dashboards.live_charts import CLICK, COLOURS, grid_chart
from orchestrator.command import repeat_options, spell
from orchestrator.explain.eta import format_duration, format_eta
from orchestrator.results.format import percent
from orchestrator.results.table import STATUSES, UNKNOWN_ERROR
from orchestrator.sweep.document import SweepError

#: While a driver is alive the page looks so often (seconds); else it looks so often whether one came alive.
_LIVE, _IDLE = 2.5, 5.0
#: So many groups of errors are shown.
_GROUPS = 8
#: So many metrics are columns of the list of cells, the sweep's summary first.
_METRICS = 6
_STYLE = """<style>
.block-container{padding:2.2rem 2.5rem 3rem}
pre.block{background:#F3F5F8;border-radius:6px;padding:.6rem .8rem;margin:0;font-size:.85rem;white-space:pre-wrap;
overflow-wrap:anywhere;color:#1F2933}
div.log{max-height:24rem;overflow-y:auto;display:flex;flex-direction:column-reverse;border-radius:6px}
</style>"""
_MARKS = {"succeeded": "✓", "running": "▶", "pending": "·", "blocked": "‖", "failed": "✕"}
_WORDS = {"succeeded": "finished", "pending": "waiting"}


def plain(text: str) -> str:
    """Text that Markdown leaves as it is (CommonMark, section 2.4: every ASCII punctuation can be escaped)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def page() -> None:
    """The whole page."""
    watch = data.watch(sys.argv[1])
    st.html(_STYLE)
    try:
        look = watch.look()
    except (SweepError, OSError) as error:
        st.set_page_config(page_title=watch.subject.file.name, layout="wide")
        st.error("The sweep file cannot be read. The page goes on once it is mended.", icon=":material/error:")
        problems = error.problems if isinstance(error, SweepError) else [error]
        _block("\n".join(map(str, problems)))
        st.fragment(_await_change, run_every=_IDLE)(watch, None)
        return
    st.set_page_config(page_title=look.session.spec.name, layout="wide")
    choice = _sidebar(look)
    live = look.pulse is not None
    cell = st.query_params.get("cell")
    if cell:
        st.fragment(_cell, run_every=_LIVE if live else None)(watch, cell)
    else:
        st.fragment(_overview, run_every=_LIVE if live else None)(watch, choice)
    st.fragment(_await_change, run_every=_IDLE)(watch, _token(look))


def _await_change(watch: data.Watch, before: object) -> None:
    """Make the page anew when something changed that the fragments do not follow by themselves."""
    try:
        now: object = _token(watch.look())
    except (SweepError, OSError):
        now = None
    if now != before:
        st.rerun()


def _token(look: data.Look) -> object:
    """The sweep file, whether a driver lives, what there is to choose from, and without a driver also the table."""
    live = look.pulse is not None
    return look.session.plan.digest, live, look.metrics, _kinds(look), None if live else look.written


def _kinds(look: data.Look) -> tuple[str, ...]:
    return tuple(sorted(look.cells["error_class"].dropna().unique()))


# --- the sidebar: what is shown


def _sidebar(look: data.Look) -> dict[str, Any]:
    axes, spec = look.axes, look.session.spec
    columns, rows = data.default_axes(look)
    measures = [*look.averaged, *data.MEASURES]
    with st.sidebar:
        st.subheader("Grid")
        chosen: dict[str, Any] = {
            "x": st.selectbox("Columns", axes, axes.index(columns), key="x", bind="query-params"),
            "y": st.selectbox("Rows", axes, axes.index(rows), key="y", bind="query-params"),
            "colour": st.selectbox("Colour by", ["status", *measures], key="colour", bind="query-params"),
        }
        st.subheader("Only cells with")
        chosen["status"] = st.multiselect("status", STATUSES, key="only_status", bind="query-params")
        if kinds := _kinds(look):
            chosen["error"] = st.multiselect("error class", kinds, key="only_error", bind="query-params")
        chosen["axes"] = {
            axis: st.multiselect(plain(axis), [str(label) for label in spec.labels(axis)], key=f"only_{axis}",
                                 bind="query-params")
            for axis in axes
        }  # fmt: skip
    return chosen


def _filtered(look: data.Look, choice: dict[str, Any]) -> pd.DataFrame:
    cells = look.cells
    keep = pd.Series(True, index=cells.index)
    for axis, labels in choice["axes"].items():
        if labels:
            keep &= cells[axis].isin(labels)
    if choice["status"]:
        keep &= cells["status"].isin(choice["status"])
    if choice.get("error"):
        keep &= cells["error_class"].isin(choice["error"])
    return cells if keep.all() else cells[keep]


# --- the overview


def _overview(watch: data.Watch, choice: dict[str, Any]) -> None:
    if "cell" in st.query_params:
        st.rerun()
    try:
        look = watch.look()
    except (SweepError, OSError):
        st.rerun()
    if choice["axes"].keys() != set(look.axes):
        st.rerun()
    _headline(watch, look)
    cells = _filtered(look, choice)
    left, right = st.columns([4, 5], gap="medium")
    with left:
        square = _grid(look, cells, choice)
        _errors(watch, look)
    with right:
        _stages(watch, look)
        _resources(look)
    _cells(look, cells if square is None else cells[square], square is not None, choice)


def _headline(watch: data.Watch, look: data.Look) -> None:
    spec = look.session.spec
    st.title(plain(spec.name), anchor=False)
    st.markdown(plain(spec.question))
    counts = look.cells["status"].value_counts()
    total, done = len(look.cells), int(counts["succeeded"])
    live, left = look.pulse is not None, data.time_left(look)
    words = [f"**{done:,} of {total:,} cells finished** ({percent(done / total)})"]
    if left:
        words.append(format_eta(left))
        rates = sum(each["per_minute"] for each in look.pulse["pace"].values()) if look.pulse else 0
        words.append(f"{rates:,.3g} steps per minute")
    if look.pulse:
        words.append(f":green-badge[:material/play_arrow: running] updated {round(data.age(look.pulse['time']))} s ago")
    elif look.written is not None:
        when = datetime.fromtimestamp(look.written).strftime("%-d %b %Y, %H:%M:%S")
        ago = format_duration(data.age(look.written))
        words.append(f":gray-badge[no driver is running] as of {when} ({ago} ago)")
    st.markdown(" · ".join(words))
    _bar(counts, total)
    if look.trouble:
        st.warning(plain(look.trouble), icon=":material/warning:")
    if look.outdated:
        st.info(
            f"{look.outdated:,} cells have results from before the sweep file or its data changed; they show as "
            "waiting.",
            icon=":material/info:",
        )
    if look.written is None and not live:
        st.info("This sweep has not been run here yet. This is its plan; this command runs it:", icon=":material/info:")
        _block(watch.subject.command("run"))
    elif not live and done < total:
        st.markdown(f"{total - done:,} cells are missing; the same command again goes on:")
        _block(watch.subject.command("run"))
    elif look.pulse and look.written and data.age(look.written) > 10:
        st.caption(f"Statuses, stages and rates are live; metrics are as of {_ago(look.written)}.")


def _bar(counts: Any, total: int) -> None:
    """Only numbers and our own words go into this HTML."""
    parts = [(status, int(counts[status])) for status in STATUSES]
    strip = "".join(
        f'<span style="flex:{count} 0 0;background:{COLOURS[status]};min-width:{3 if count else 0}px"></span>'
        for status, count in parts
    )
    legend = "".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;'
        f'margin-right:.4em;background:{COLOURS[status]}"></span>{_MARKS[status]} {_WORDS.get(status, status)} '
        f"<b>{count:,}</b></span>"
        for status, count in parts
    )
    st.html(
        f'<div role="img" aria-label="cells by status" style="display:flex;height:14px;border-radius:4px;'
        f'overflow:hidden">{strip}</div><div style="display:flex;flex-wrap:wrap;gap:.3em 1.6em;margin-top:.5em">'
        f"{legend}</div>"
    )


def _grid(look: data.Look, cells: pd.DataFrame, choice: dict[str, Any]) -> pd.Series | None:
    """The grid; which of the cells lie in the square that was clicked, if one was."""
    x, y = choice["x"], choice["y"]
    measure = None if choice["colour"] == "status" else choice["colour"]
    what = "Status" if measure is None else f"Mean {measure}"
    st.subheader(plain(f"{what} by {y} and {x}" if x != y else f"{what} by {x}"), anchor=False)
    if cells.empty:
        st.info("No cell passes the filters.")
        return None
    tiles = data.tiles(cells, x, y, measure)
    labels = tuple(list(cells[axis].cat.categories) for axis in (x, y))
    square = st.session_state.get("square")
    place = square[1] if square and square[0] == (x, y) else None

    def click() -> None:
        points = st.session_state["grid"]["selection"].get(CLICK) or []
        found = (int(points[0]["column"]), int(points[0]["row"])) if points else None
        st.session_state["square"] = ((x, y), found) if found and found != place else None

    chart = grid_chart(tiles, (x, y), (labels[0], labels[1]), measure, place)
    st.vega_lite_chart(chart, theme=None, key="grid", on_select=click, width="stretch")
    if measure is not None and (told := data.blocks(cells, x, y, measure).told(list(dict.fromkeys((x, y))))):
        st.caption(plain(f"Means: {told}."))
    if place is None:
        st.caption("Click a square to list its cells.")
        return None
    column, row = place
    inside: pd.Series = (cells[x].cat.codes == column) & (cells[y].cat.codes == row)
    return inside


def _stages(watch: data.Watch, look: data.Look) -> None:
    st.subheader("Stages", anchor=False)
    rows = data.stages_shown(watch.stages(look))
    live = look.pulse is not None
    column = st.column_config
    config = {
        "stage": column.TextColumn("stage", width=118, pinned=True),
        "done": column.ProgressColumn("done", format="%d %%", min_value=0, max_value=100, width=88),
        "committed": column.TextColumn("steps", help="committed / all", width=80, alignment="right"),
        "running": column.NumberColumn("running", width=58),
        "failed": column.NumberColumn("failed", width=52),
        "blocked": column.NumberColumn("blocked", width=58),
        "per_minute": column.NumberColumn("per min", help="over the last five minutes", width=58),
        "seconds": column.TextColumn("each", help="mean time of a step", width=62, alignment="right"),
        "left": column.TextColumn("left", help="time left", width=78, alignment="right"),
    }
    order = ["stage", "done", "committed"]
    order += [name for name in ("running", "failed", "blocked") if rows[name].notna().any()]
    order += ["per_minute", "seconds", "left"] if live else []
    st.dataframe(
        rows, column_order=order, column_config=config, hide_index=True, key="stages", row_height=28,
        height=28 * min(len(rows), 20) + 40, placeholder="",
    )  # fmt: skip


def _errors(watch: data.Watch, look: data.Look) -> None:
    groups = data.groups(look)
    st.subheader(f"Errors ({len(groups)})" if groups else "Errors", anchor=False)
    if not groups:
        st.caption("None.")
    for group in groups[:_GROUPS]:
        first = (group.example.splitlines() or [""])[0][:110]
        word = "cell" if group.cells == 1 else "cells"
        title = f"**{group.cells:,} {word} {group.status}** · {plain(group.error_class)}: {plain(first)}"
        with st.expander(title):
            _block(group.example)
            if group.log:
                st.caption("Log of one of them:")
                _block(group.log)
            st.caption("Try these again:")
            these = () if group.error_class == UNKNOWN_ERROR else ("--error", group.error_class)
            _block(watch.subject.command("run", *these))
    if len(groups) > _GROUPS:
        st.caption(f"… and {len(groups) - _GROUPS} more kinds of error; filter by error class on the left.")


def _resources(look: data.Look) -> None:
    st.subheader("Resources", anchor=False)
    usage: dict[str, Any] = look.pulse["usage"] if look.pulse else {}
    machine = usage.get("machine") or data.machine()
    reserved, used = st.columns(2) if usage.get("cluster") else (None, st.container())
    if reserved:
        with reserved:
            st.caption("Reserved on the Ray cluster")
            for name, title in (("CPU", "CPUs"), ("GPU", "GPUs"), ("memory", "memory")):
                part, whole = usage["cluster"].get(name, (0, 0))
                if whole:
                    said = _gib(part, whole) if name == "memory" else f"{part:g} of {whole:g}"
                    st.progress(_share(part, whole), f"{title}: {said}")
    with used:
        st.caption("In use on the driver's machine" if usage else "In use on this machine; no driver is running")
        count = machine["cpus"]
        cores = f"{count} {'core' if count == 1 else 'cores'}"
        st.progress(_share(machine["cpu_percent"], 100), f"CPU: {machine['cpu_percent']:.0f} % of {cores}")
        part, whole = machine["memory_used"], machine["memory"]
        st.progress(_share(part, whole), f"memory: {_gib(part, whole)}")


def _cells(look: data.Look, cells: pd.DataFrame, of_square: bool, choice: dict[str, Any]) -> None:
    title, clear = st.columns([6, 1], vertical_alignment="bottom")
    if of_square:
        axes = dict.fromkeys((choice["x"], choice["y"]))
        where = ", ".join(f"{axis} = {cells[axis].iloc[0]}" for axis in axes) if len(cells) else "none"
        title.subheader(f"{len(cells):,} cells: {plain(where)}", anchor=False)

        def forget() -> None:
            st.session_state["square"] = None

        clear.button("All squares", on_click=forget, width="stretch")
    else:
        title.subheader(f"{len(cells):,} cells", anchor=False)
    summary = look.session.spec.summary.metrics
    metrics = list(dict.fromkeys([*(each for each in summary if each in look.metrics), *look.metrics]))[:_METRICS]
    if choice["colour"] in look.metrics and choice["colour"] not in metrics:
        metrics = [choice["colour"], *metrics][:_METRICS]
    order = ["status", *look.axes, *metrics, "seconds", "attempts"]
    if cells["error_class"].notna().any():
        order.append("error_class")
    order.append("cell_id")
    shown = cells[order].reset_index(drop=True)
    marks = {status: f"{_MARKS[status]} {_WORDS.get(status, status)}" for status in STATUSES}
    shown["status"] = shown["status"].map(marks).astype(str)
    config: dict[str, Any] = {name: st.column_config.NumberColumn(name, format="%.4g") for name in metrics}
    config["seconds"] = st.column_config.NumberColumn("seconds", format="%.1f", help="of its own steps")
    config["error_class"] = st.column_config.TextColumn("error class")
    config["cell_id"] = st.column_config.TextColumn("cell")
    ids = cells["cell_id"].tolist()

    def open_cell() -> None:
        rows = st.session_state["cells"]["selection"]["rows"]
        if rows:
            st.query_params["cell"] = ids[rows[0]]

    st.dataframe(
        shown, column_config=config, hide_index=True, key="cells", on_select=open_cell, selection_mode="single-row",
        height=36 * min(len(shown) + 1, 16) + 3, placeholder="",
    )  # fmt: skip
    st.caption("Select a row (the box on its left) to see the steps, attempts and logs of its cell.")


# --- one cell


def _cell(watch: data.Watch, name: str) -> None:
    if st.query_params.get("cell") != name:
        st.rerun()
    try:
        look = watch.look()
        found = data.explain(look, name)
    except (SweepError, OSError) as error:
        found = None
        problem = "; ".join(map(str, error.problems)) if isinstance(error, SweepError) else str(error)

    def back() -> None:
        del st.query_params["cell"]

    st.button("All cells", icon=":material/arrow_back:", on_click=back)
    if found is None:
        st.error("There is no such cell.")
        _block(problem)
        return
    status = found["status"]
    colour = {"succeeded": "green", "running": "blue", "failed": "red", "blocked": "orange"}.get(status, "gray")
    st.title(f"Cell {plain(found['cell_id'])}", anchor=False)
    st.markdown(f":{colour}-badge[{_MARKS[status]} {_WORDS.get(status, status)}] {plain(look.session.spec.name)}")
    left, right = st.columns([1, 1], gap="large")
    with left:
        st.subheader("Coordinates", anchor=False)
        coords = pd.DataFrame(
            [(axis, str(label)) for axis, label in found["coords"].items()], columns=["axis", "value"]
        )
        st.dataframe(coords, hide_index=True, key="coords", height="content")
    with right:
        st.subheader("Metrics", anchor=False)
        if found["metrics"]:
            rows = pd.DataFrame(
                [(metric, f"{value:,.4g}") for metric, value in found["metrics"].items()],
                columns=["metric", "value"],
            )
            align = {"value": st.column_config.TextColumn("value", alignment="right")}
            st.dataframe(rows, column_config=align, hide_index=True, key="metrics", height="content")
        else:
            st.caption("None yet." if status in ("running", "pending") else "None.")
    if found["error"]:
        st.subheader(plain(found["error_class"] or "Error"), anchor=False)
        _block(found["error"])
        st.caption("Try it again, or run its step in this very process:")
        only = [word for axis, label in found["coords"].items() for word in ("--only", f"{axis}={label}")]
        _block(watch.subject.command("run", *only))
        _block(watch.subject.command("debug", found["cell_id"], "--pdb"))
    _steps(found)
    _run(watch, look, found)


def _steps(found: dict[str, Any]) -> None:
    st.subheader("Steps", anchor=False)
    rows = data.steps_shown(found)
    config = {
        "cells": st.column_config.NumberColumn("cells", help="how many cells share it"),
        "seconds": st.column_config.NumberColumn("seconds", format="%.1f", help="of all its attempts"),
        "because": st.column_config.TextColumn("why it is not there", width="large"),
    }
    order = [name for name in rows.columns if rows[name].notna().any()]
    st.dataframe(
        rows, column_order=order, column_config=config, hide_index=True, key="steps", height="content", placeholder=""
    )
    logs = data.logs(found)
    if not logs:
        st.caption("No step has left a log yet.")
        return
    st.subheader("Log", anchor=False)
    names = list(logs)
    first = names.index(found["first_log"]) if found["first_log"] in names else len(names) - 1
    name = st.selectbox("of", names, first, key="log")
    attempt = logs[name]
    if attempt["error"]:
        st.caption(f"Ended {plain(attempt['outcome'])}:")
        _block(f"{attempt['error_class']}: {attempt['error']}")
    _block(data.tail(attempt["log"]), "log")
    st.caption(plain(attempt["log"]))


def _run(watch: data.Watch, look: data.Look, found: dict[str, Any]) -> None:
    spec = look.session.spec
    if spec.tracking is False:
        return
    st.subheader("MLflow", anchor=False)
    uri = look.session.tracking_uri(watch.subject.tracking_uri)
    if not uri.startswith(("http://", "https://")):
        st.caption("Open the UI, and search for the run of this cell:")
        _block(spell(["mlflow", "ui", "--backend-store-uri", uri]))
        _block(f"tags.`sweep.cell_id` = '{found['cell_id']}'")
        return
    address = data.recent_address(uri, spec.tracking.experiment or spec.name, found["cell_id"], int(time.time() // 60))
    if address:
        st.link_button("Open its run", address, icon=":material/open_in_new:")
    else:
        st.caption("The server does not know its run yet, or does not answer. This writes it:")
        _block(watch.subject.command("sync", *repeat_options({"--tracking-uri": watch.subject.tracking_uri})))


# --- words


def _block(text: str, kind: str = "text") -> None:
    """Text as it is, e.g. a command. `st.code` would load a highlighter that costs as much as the rest of the page."""
    st.html(f'<div class="{kind}"><pre class="block">{html.escape(text)}</pre></div>')


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole else 0.0


def _gib(used: float, total: float) -> str:
    return f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"


def _ago(when: float) -> str:
    return f"{format_duration(data.age(when))} ago"


if __name__ == "__main__":
    page()
