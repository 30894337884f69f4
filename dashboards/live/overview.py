"""The overview of the live page: how far the sweep is, its grid, stages, errors, resources and cells."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from dashboards.live.charts import CLICK, COLOURS, grid_chart
from dashboards.live.stages import stages_shown
from dashboards.live.studies import show_studies
from dashboards.live.text import age, ago, block, plain, status_text
from dashboards.live.tiles import square_means, tiles
from dashboards.live.watch import SHOWN, Look, Watch, machine
from orchestrator.explain.eta import format_eta
from orchestrator.results.format import format_percent
from orchestrator.run.failures import UNKNOWN_ERROR
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError

#: So many groups of errors are shown.
_GROUPS = 8
#: So many metrics are columns of the list of cells, the sweep's summary first.
_METRICS = 6


def show_overview(watch: Watch, choice: dict[str, Any]) -> None:
    """Show a sweep; `choice` is that of the sidebar."""
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
    show_studies(look)
    left, right = st.columns([4, 5], gap="medium")
    with left:
        square = _grid(look, cells, choice)
        _errors(watch, look)
    with right:
        _stages(watch, look)
        _resources(look)
    _cells(look, cells if square is None else cells[square], square is not None, choice)


def _filtered(look: Look, choice: dict[str, Any]) -> pd.DataFrame:
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


def _headline(watch: Watch, look: Look) -> None:
    spec = look.session.spec
    st.title(plain(spec.name), anchor=False)
    st.markdown(plain(spec.question))
    counts = look.cells["status"].value_counts()
    total, done = len(look.cells), int(counts["succeeded"])
    live, left = look.heartbeat is not None, look.left
    words = ["**No trial was suggested yet**"]
    if total:
        words = [f"**{done:,} of {total:,} cells finished** ({format_percent(done / total)})"]
    if look.more:
        words.append(f"up to {look.more:,} more may come")
    if left:
        words.append(format_eta(left))
        rates = sum(each["per_minute"] for each in look.heartbeat["pace"].values()) if look.heartbeat else 0
        words.append(f"{rates:,.3g} steps per minute")
    if look.heartbeat:
        words.append(f":green-badge[:material/play_arrow: running] updated {round(age(look.heartbeat['time']))} s ago")
    elif look.written is not None:
        when = datetime.fromtimestamp(look.written).strftime("%-d %b %Y, %H:%M:%S")
        words.append(f":gray-badge[no driver is running] table of {when} ({ago(look.written)})")
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
        block(watch.subject.command("run"))
    elif not live and (done < total or look.more):
        missing = f"{total - done:,} cells are missing" if done < total else "The studies have trials left"
        st.markdown(f"{missing}; the same command finishes them:")
        block(watch.subject.command("run"))
    elif look.heartbeat and look.written and age(look.written) > 10:
        st.caption(f"Statuses, stages and rates are live; metrics are as of {ago(look.written)}.")


def _bar(counts: Any, total: int) -> None:
    """Only numbers and our own words go into this HTML."""
    parts = [(status, int(counts[status])) for status in SHOWN]
    strip = "".join(
        f'<span style="flex:{count} 0 0;background:{COLOURS[status]};min-width:{3 if count else 0}px"></span>'
        for status, count in parts
    )
    legend = "".join(
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;'
        f'margin-right:.4em;background:{COLOURS[status]}"></span>{status_text(status)} '
        f"<b>{count:,}</b></span>"
        for status, count in parts
    )
    st.html(
        f'<div role="img" aria-label="cells by status" style="display:flex;height:14px;border-radius:4px;'
        f'overflow:hidden">{strip}</div><div style="display:flex;flex-wrap:wrap;gap:.3em 1.6em;margin-top:.5em">'
        f"{legend}</div>"
    )


def _grid(look: Look, cells: pd.DataFrame, choice: dict[str, Any]) -> pd.Series | None:
    """The grid; which of the cells lie in the square that was clicked, if one was."""
    x, y = choice["x"], choice["y"]
    measure = None if choice["colour"] == "status" else choice["colour"]
    what = "Status" if measure is None else f"Mean {measure}"
    st.subheader(plain(f"{what} by {y} and {x}" if x != y else f"{what} by {x}"), anchor=False)
    if cells.empty:
        st.info("There are no cells yet." if look.cells.empty else "No cell passes the filters.")
        return None
    squares = tiles(cells, x, y, measure)
    labels = tuple(list(cells[axis].cat.categories) for axis in (x, y))
    square = st.session_state.get("square")
    place = square[1] if square and square[0] == (x, y) else None

    def click() -> None:
        points = st.session_state["grid"]["selection"].get(CLICK) or []
        found = (int(points[0]["column"]), int(points[0]["row"])) if points else None
        st.session_state["square"] = ((x, y), found) if found and found != place else None

    chart = grid_chart(squares, (x, y), (labels[0], labels[1]), measure, place)
    st.vega_lite_chart(chart, theme=None, key="grid", on_select=click, width="stretch")
    if measure is not None and (notes := square_means(cells, x, y, measure).notes):
        st.caption(plain(f"Means: {'; '.join(notes)}."))
    if place is None:
        st.caption("Click a square to list its cells.")
        return None
    column, row = place
    inside: pd.Series = (cells[x].cat.codes == column) & (cells[y].cat.codes == row)
    return inside


def _stages(watch: Watch, look: Look) -> None:
    st.subheader("Stages", anchor=False)
    try:
        rows = stages_shown(watch.stages(look))
    except StoreError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return
    live = look.heartbeat is not None
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
        "left": column.TextColumn("left", help="time left", width=62, alignment="right"),
    }
    order = ["stage", "done", "committed"]
    order += [name for name in ("running", "failed", "blocked") if rows[name].notna().any()]
    order += ["per_minute", "seconds", "left"] if live else []
    st.dataframe(
        rows, column_order=order, column_config=config, hide_index=True, key="stages", row_height=28,
        height=28 * min(len(rows), 20) + 40, placeholder="",
    )  # fmt: skip


def _errors(watch: Watch, look: Look) -> None:
    groups = look.errors()
    st.subheader(f"Errors ({len(groups)})" if groups else "Errors", anchor=False)
    if not groups:
        st.caption("None.")
    for group in groups[:_GROUPS]:
        first = (group.example.splitlines() or [""])[0][:110]
        word = "cell" if group.cells == 1 else "cells"
        title = f"**{group.cells:,} {word} {group.status}** · {plain(group.error_class)}: {plain(first)}"
        with st.expander(title):
            block(group.example)
            if group.log:
                st.caption("Log of one of them:")
                block(group.log)
            st.caption("Try these again:")
            these = () if group.error_class == UNKNOWN_ERROR else ("--error", group.error_class)
            block(watch.subject.command("run", *these))
    if len(groups) > _GROUPS:
        st.caption(f"… and {len(groups) - _GROUPS} more kinds of error; filter by error class on the left.")


def _resources(look: Look) -> None:
    st.subheader("Resources", anchor=False)
    usage: dict[str, Any] = look.heartbeat["usage"] if look.heartbeat else {}
    load = usage.get("machine") or machine()
    reserved, used = st.columns(2) if usage.get("cluster") else (None, st.container())
    if reserved:
        with reserved:
            st.caption("Reserved on the Ray cluster")
            for name, title in (("CPU", "CPUs"), ("GPU", "GPUs"), ("memory", "memory")):
                part, whole = usage["cluster"].get(name, (0, 0))
                if whole:
                    amount = _gib(part, whole) if name == "memory" else f"{part:g} of {whole:g}"
                    st.progress(_share(part, whole), f"{title}: {amount}")
    with used:
        st.caption("In use on the driver's machine" if usage else "In use on this machine; no driver is running")
        count = load["cpus"]
        cores = f"{count} {'core' if count == 1 else 'cores'}"
        st.progress(_share(load["cpu_percent"], 100), f"CPU: {load['cpu_percent']:.0f} % of {cores}")
        part, whole = load["memory_used"], load["memory"]
        st.progress(_share(part, whole), f"memory: {_gib(part, whole)}")
    for name, reason in (look.heartbeat or {}).get("sick", {}).items():
        st.warning(f"{plain(name)} gets no work until a probe succeeds there: {plain(reason)}")


def _cells(look: Look, cells: pd.DataFrame, of_square: bool, choice: dict[str, Any]) -> None:
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
    order = ["status", *look.axes, *look.cells.attrs["values"], *metrics, "seconds", "attempts"]
    if cells["error_class"].notna().any():
        order.append("error_class")
    order.append("cell_id")
    shown = cells[order].reset_index(drop=True)
    marks = {status: status_text(status) for status in SHOWN}
    shown["status"] = shown["status"].map(marks).astype(str)
    config: dict[str, Any] = {name: st.column_config.NumberColumn(name, format="%.4g") for name in metrics}
    config["seconds"] = st.column_config.NumberColumn("seconds", format="%.1f", help="of its own steps")
    config["status"] = st.column_config.TextColumn("status", width=86)
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


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole else 0.0


def _gib(used: float, total: float) -> str:
    return f"{used / 2**30:.1f} of {total / 2**30:.1f} GiB"
