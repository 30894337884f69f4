"""One cell on the live page: coordinates, metrics, error, steps, logs, what it made, and its run in MLflow."""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import streamlit as st

from dashboards.live.cell_data import explain, logs, steps_shown
from dashboards.live.made import show_made
from dashboards.live.mlflow_run import recent_address
from dashboards.live.text import block, plain, status_text
from dashboards.live.watch import Look, Watch
from orchestrator.command import format_command, repeat_options
from orchestrator.explain.log_tail import tail
from orchestrator.results.format import format_value
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError


def show_cell(watch: Watch, name: str) -> None:
    """Show the cell of that name."""
    if st.query_params.get("cell") != name:
        st.rerun()
    try:
        look = watch.look()
        found = explain(look, name)
    except (SweepError, StoreError, OSError) as error:
        found = None
        title = "There is no such cell." if isinstance(error, SweepError) else "The cell cannot be read."
        problem = "; ".join(map(str, error.problems)) if isinstance(error, SweepError) else str(error)

    def back() -> None:
        del st.query_params["cell"]

    st.button("All cells", icon=":material/arrow_back:", on_click=back)
    if found is None:
        st.error(title)
        block(problem)
        return
    status = found["status"]
    colour = {"succeeded": "green", "running": "blue", "failed": "red", "blocked": "orange"}.get(status, "gray")
    st.title(f"Cell {plain(found['cell_id'])}", anchor=False)
    st.markdown(f":{colour}-badge[{status_text(status)}] {plain(look.session.spec.name)}")
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
                [(metric, format_value(value)) for metric, value in found["metrics"].items()],
                columns=["metric", "value"],
            )
            align = {"value": st.column_config.TextColumn("value", alignment="right")}
            st.dataframe(rows, column_config=align, hide_index=True, key="metrics", height="content")
        else:
            st.caption("None yet." if status in ("running", "pending") else "None.")
    if found["error"]:
        st.subheader(plain(found["error_class"] or "Error"), anchor=False)
        block(found["error"])
        st.caption("Try it again, or run its step in one process, with a debugger:")
        only = [word for axis, label in found["coords"].items() for word in ("--only", f"{axis}={label}")]
        block(watch.subject.command("run", *only))
        block(watch.subject.command("debug", found["cell_id"], "--pdb"))
    _steps(found)
    show_made(watch, found)
    _run(watch, look, found)


def _steps(found: dict[str, Any]) -> None:
    st.subheader("Steps", anchor=False)
    rows = steps_shown(found)
    config = {
        "cells": st.column_config.NumberColumn("cells", help="how many cells share it"),
        "seconds": st.column_config.NumberColumn("seconds", format="%.1f", help="of all its attempts"),
        "because": st.column_config.TextColumn("why it is not there", width="large"),
    }
    order = [name for name in rows.columns if rows[name].notna().any()]
    st.dataframe(
        rows, column_order=order, column_config=config, hide_index=True, key="steps", height="content", placeholder=""
    )
    named = logs(found)
    if not named:
        st.caption("No step has left a log yet.")
        return
    st.subheader("Log", anchor=False)
    names = list(named)
    first = names.index(found["first_log"]) if found["first_log"] in names else len(names) - 1
    name = st.selectbox("of", names, first, key="log")
    attempt = named[name]
    if attempt["error"]:
        st.caption(f"Ended {plain(attempt['outcome'])}:")
        block(f"{attempt['error_class']}: {attempt['error']}")
    block(tail(attempt["log"]), "log")
    st.caption(plain(attempt["log"]))


def _run(watch: Watch, look: Look, found: dict[str, Any]) -> None:
    spec = look.session.spec
    if spec.tracking is False:
        return
    st.subheader("MLflow", anchor=False)
    uri = look.session.tracking_uri(watch.subject.tracking_uri)
    if not uri.startswith(("http://", "https://")):
        st.caption("Open the UI, and search for the run of this cell:")
        block(format_command(["mlflow", "ui", "--backend-store-uri", uri]))
        block(f"tags.`sweep.cell_id` = '{found['cell_id']}'")
        return
    address = recent_address(uri, spec.tracking.experiment or spec.name, found["cell_id"], int(time.time() // 60))
    if address:
        st.link_button("Open its run", address, icon=":material/open_in_new:")
    else:
        st.caption("The server has no run of this cell yet, or does not answer. This command writes it:")
        block(watch.subject.command("sync", *repeat_options({"--tracking-uri": watch.subject.tracking_uri})))
