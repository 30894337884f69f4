"""The studies of a search on the live page: how far each is, its best trial, and Optuna's figures of one of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from dashboards.live.text import plain
from dashboards.live.watch import Look
from orchestrator.results.format import format_value
from orchestrator.search.trial import Study, Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: States of trials, in the order of the table.
_STATES = ("complete", "pruned", "failed", "running")
#: So many of several best compromises are listed.
_FRONT = 20
_HEIGHT = 320


def show_studies(look: Look) -> None:
    """Show the studies of a search; nothing of a sweep that has none."""
    studies = {each.name: each for each in look.studies}
    if not studies:
        return
    many = len(studies) > 1
    st.subheader(f"Studies ({len(studies):,})" if many else "Study", anchor=False)
    rows = studies_shown(look.studies)
    column = st.column_config
    config: dict[str, Any] = {
        "study": column.TextColumn("study", pinned=True),
        "done": column.ProgressColumn("done", format="%d %%", min_value=0, max_value=100, width=88),
        "trials": column.TextColumn("trials", help="suggested / all", width=80, alignment="right"),
        "fresh": column.TextColumn("fresh", help="the best trial, measured again at fresh values", alignment="right"),
        "best": column.TextColumn(f"best {', '.join(_metrics(look))}", alignment="right"),
        "best trial": column.TextColumn("best trial", width=80, alignment="right"),
    }
    config |= {state: column.NumberColumn(state, width=72) for state in _STATES}
    order = [name for name in rows.columns if name not in ("pruned", "failed", "running", "fresh") or rows[name].any()]
    st.dataframe(
        rows, column_order=order, column_config=config, hide_index=True, key="studies", row_height=28,
        height=28 * min(len(rows), 10) + 40, placeholder="",
    )  # fmt: skip
    name = next(iter(studies))
    if many:
        name = st.selectbox("Study", list(studies), key="study", bind="query-params")
    study = studies[name]
    _best(study)
    drawn = figures(study)
    if not any(drawn):
        st.caption("Two trials that are complete will be drawn.")
        return
    left, right = st.columns([1, 1], gap="medium")
    for place, title, figure in ((left, "History", drawn[0]), (right, "Parallel coordinates", drawn[1])):
        with place:
            if figure is not None:
                st.caption(title)
                st.plotly_chart(figure, width="stretch", key=title, config={"displaylogo": False})


def studies_shown(studies: tuple[Study, ...]) -> pd.DataFrame:
    """Return studies as a table for people, one row each: trials by state, the best one, and it at fresh values."""
    rows = []
    for study in studies:
        counts: dict[str, int] = Counter(trial.state for trial in study.trials)
        ended = len(study.trials) - counts["running"]
        best, front = study.best, study.front
        several = len(study.search.objective.metrics) > 1
        rows.append(
            {
                "study": study.name,
                "done": 100 * ended / study.budget if study.budget else 0.0,
                "best": f"{len(front)} compromises" if several and front else _objectives(best),
                "best trial": str(best.number) if best else "",
                "fresh": ", ".join(map(format_value, study.fresh)) if study.fresh else "",
                "trials": f"{len(study.trials)} / {study.budget}",
                **{state: counts[state] for state in _STATES},
            }
        )
    return pd.DataFrame(rows)


def _best(study: Study) -> None:
    shown = (study.best,) if study.best else study.front
    if not shown:
        complete = any(trial.state == "complete" for trial in study.trials)
        st.caption("No complete trial keeps to the bounds yet." if complete else "No trial is complete yet.")
        return
    for trial in shown[:_FRONT]:
        values = ", ".join(f"{name} = {_value(value)}" for name, value in trial.values.items())
        word = "Best so far" if not study.finished else "Best"
        word = word if study.best else "A best compromise"
        st.markdown(f"**{word}: {_objectives(trial)}** (trial {trial.number}) · {plain(values)}")
    if len(shown) > _FRONT:
        st.caption(f"… and {len(shown) - _FRONT:,} more best compromises.")


def _objectives(trial: Trial | None) -> str:
    return ", ".join(map(format_value, trial.objectives)) if trial and trial.objectives else ""


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics(look: Look) -> tuple[str, ...]:
    search = look.session.spec.searched
    return search.objective.metrics if search else ()


_DRAWN: dict[str, tuple[object, tuple[Figure | None, Figure | None]]] = {}


def figures(study: Study) -> tuple[Figure | None, Figure | None]:
    """Return Optuna's figures of the history and of the parallel coordinates of a study, drawn again when it changed.

    None where too few trials are complete.
    """
    facts = study.name, study.trials
    if study.id not in _DRAWN or _DRAWN[study.id][0] != facts:
        # Not before it is needed: it imports Optuna and plotly.
        from orchestrator.search.figures import history, parallel_coordinates

        if len(_DRAWN) > 50:
            _DRAWN.clear()
        over_time, across = history(study), parallel_coordinates(study)
        for figure, left, top in ((over_time, 10, 10), (across, 50, 30)):
            if figure is not None:
                margin, legend = {"l": left, "r": 10, "t": top, "b": 10}, {"orientation": "h", "y": -0.25, "x": 0}
                figure.update_layout(title=None, height=_HEIGHT, margin=margin, legend=legend)
        if across is not None:
            # The first axis has the name of the colours too.
            across.update_traces(marker={"colorbar": {"title": None, "thickness": 12}}, selector={"mode": "markers"})
        _DRAWN[study.id] = facts, (over_time, across)
    return _DRAWN[study.id][1]
