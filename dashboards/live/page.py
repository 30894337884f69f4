"""The live page: `sweep dashboard SWEEP.yaml`. Streamlit runs this script for every browser."""

from __future__ import annotations

import sys
from typing import Any

import streamlit as st

from dashboards.live.cell import show_cell
from dashboards.live.overview import show_overview
from dashboards.live.text import block, plain
from dashboards.live.tiles import MEASURES, default_axes
from dashboards.live.watch import SHOWN, Look, Watch, watch
from orchestrator.sweep.problems import SweepError

#: While a driver is alive the page looks so often (seconds); else it looks so often whether one came alive.
_LIVE, _IDLE = 2.5, 5.0
_STYLE = """<style>
.block-container{padding:2.2rem 2.5rem 3rem}
pre.block{background:#F3F5F8;border-radius:6px;padding:.6rem .8rem;margin:0;font-size:.85rem;white-space:pre-wrap;
overflow-wrap:anywhere;color:#1F2933}
table.texts{width:100%;border-collapse:collapse;font-size:.85rem}
table.texts th,table.texts td{border:1px solid #D5D9DF;padding:.35rem .6rem;text-align:left;vertical-align:top;
min-width:5.5rem;white-space:pre-wrap;overflow-wrap:anywhere}
div.texts{overflow-x:auto}
div.log{max-height:24rem;overflow-y:auto;display:flex;flex-direction:column-reverse;border-radius:6px}
</style>"""


def page() -> None:
    """Show the overview, or the cell that the address names, and keep it up to date."""
    watched = watch(sys.argv[1])
    st.html(_STYLE)
    try:
        look = watched.look()
    except (SweepError, OSError) as error:
        st.set_page_config(page_title=watched.subject.file.name, layout="wide")
        st.error("The sweep file cannot be read. The page continues once it is fixed.", icon=":material/error:")
        problems = error.problems if isinstance(error, SweepError) else [error]
        block("\n".join(map(str, problems)))
        st.fragment(_await_change, run_every=_IDLE)(watched, None)
        return
    st.set_page_config(page_title=look.session.spec.name, layout="wide")
    choice = _sidebar(look)
    live = look.heartbeat is not None
    cell = st.query_params.get("cell")
    if cell:
        st.fragment(show_cell, run_every=_LIVE if live else None)(watched, cell)
    else:
        st.fragment(show_overview, run_every=_LIVE if live else None)(watched, choice)
    st.fragment(_await_change, run_every=_IDLE)(watched, _token(look))


def _await_change(watched: Watch, before: object) -> None:
    """Make the page anew when something changed that the fragments do not follow by themselves."""
    try:
        now: object = _token(watched.look())
    except (SweepError, OSError):
        now = None
    if now != before:
        st.rerun()


def _token(look: Look) -> object:
    """The sweep file, whether a driver lives, what there is to choose from, and without a driver also the table."""
    live = look.heartbeat is not None
    return look.session.plan.digest, live, look.metrics, _kinds(look), None if live else look.written


def _kinds(look: Look) -> tuple[str, ...]:
    return tuple(sorted(look.cells["error_class"].dropna().unique()))


def _sidebar(look: Look) -> dict[str, Any]:
    axes, spec = look.axes, look.session.spec
    columns, rows = default_axes(look)
    measures = [*look.averaged, *MEASURES]
    with st.sidebar:
        st.subheader("Grid")
        chosen: dict[str, Any] = {
            "x": st.selectbox("Columns", axes, axes.index(columns), key="x", bind="query-params"),
            "y": st.selectbox("Rows", axes, axes.index(rows), key="y", bind="query-params"),
            "colour": st.selectbox("Colour by", ["status", *measures], key="colour", bind="query-params"),
        }
        st.subheader("Only cells with")
        chosen["status"] = st.multiselect("status", SHOWN, key="only_status", bind="query-params")
        if kinds := _kinds(look):
            chosen["error"] = st.multiselect("error class", kinds, key="only_error", bind="query-params")
        chosen["axes"] = {
            axis: st.multiselect(plain(axis), [str(label) for label in spec.labels(axis)], key=f"only_{axis}",
                                 bind="query-params")
            for axis in axes
        }  # fmt: skip
    return chosen


if __name__ == "__main__":
    page()
