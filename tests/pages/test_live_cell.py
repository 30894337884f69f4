"""What the live page shows of one cell comes from logs, and its run from MLflow."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import altair as alt
import pytest
import toy_sweep
from servers import free_port
from streamlit.testing.v1 import AppTest
from subjects import opened, planned

import dashboards
from dashboards.live import cell_data
from dashboards.live.charts import curve_chart
from dashboards.live.mlflow_run import run_address
from orchestrator.cli.sync import synchronise
from orchestrator.drive import drive
from orchestrator.explain.log_tail import tail
from orchestrator.results.parquet import read_results
from orchestrator.session import open_session


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    text = tail(str(log))
    assert text.startswith("… the last 20 of 98 kB\nline ")
    assert text.endswith("line 9999\n")
    assert "cannot be read: No such file" in tail(str(tmp_path / "gone"))


def test_a_log_is_shown_without_what_would_move_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b" 10%\r 20%\r\n\x1b[31mred\x1b]0;title\x07\xff\x00")
    assert tail(str(log)) == " 10%\n 20%\nred\ufffd\\x00"


def test_what_a_cell_made_is_read_when_somebody_asks_and_again_when_a_step_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = planned(tmp_path)
    session = opened(subject)
    asked, show = [], cell_data.show
    monkeypatch.setattr(cell_data, "show", lambda *given: asked.append(given[1:]) or show(*given))
    monkeypatch.setattr(sys, "argv", ["page.py", subject.dump()])
    app = AppTest.from_file(str(Path(dashboards.__file__).with_name("live") / "page.py"), default_timeout=120)
    cell = session.plan.cell(0).id
    app.query_params["cell"] = cell
    assert not app.run().exception
    assert asked == []
    app.toggle(key="made").set_value(True).run()
    app.run()
    # Nothing is there yet, and nothing changed.
    assert asked == [(cell, None)]
    assert not app.expander
    assert drive(opened(subject), None, True, None) == 0
    assert not app.run().exception
    names = ("source\\: committed\\, 2 shards", "double\\: committed\\, 2 shards", "total\\: committed")
    assert tuple(each.label for each in app.expander) == names
    torn = Path(session.outputs.store, "artifacts", *session.plan.cell(0).steps["total"][0], "number.txt")
    torn.chmod(0o644)
    torn.write_text("23")
    app.selectbox(key="made_by").select("total").run()
    assert not app.exception
    assert asked == [(cell, None), (cell, None), (cell, "total")]
    assert [each.label for each in app.expander] == ["total\\: damaged"]


def test_a_curve_is_valid_vega_lite() -> None:
    for steps in ([7], [1, 2], list(range(100))):
        curve = {"metric": "<b>loss</b>", "steps": steps, "values": [0.5] * len(steps)}
        alt.Chart.from_dict(curve_chart(curve)).to_dict()


def test_a_cell_links_to_its_run_on_a_real_mlflow_server(tmp_path: Path, mlflow_server: str) -> None:
    import mlflow

    subject = planned(tmp_path, toy_sweep.SWEEP.replace("tracking: false", "tracking: {experiment: live}"))
    session = opened(subject)
    assert drive(open_session(subject.file, ["tracking=false"], outputs=subject.outputs), None, True, None) == 0
    assert synchronise(session, read_results(session.outputs.results), mlflow_server)
    cell = session.plan.cell(3).id
    address = run_address(mlflow_server, "live", cell)
    assert address
    kept = re.fullmatch(rf"{mlflow_server}/#/experiments/(\d+)/runs/(\w+)", address)
    assert kept
    run = mlflow.MlflowClient(mlflow_server).get_run(kept[2])
    assert (run.info.experiment_id, run.data.tags["sweep.cell_id"]) == (kept[1], cell)
    assert run_address(mlflow_server, "live", "0" * 12) is None
    assert run_address(mlflow_server, "another", cell) is None
    assert run_address(f"http://127.0.0.1:{free_port()}", "live", cell) is None


def _shady() -> None:
    import streamlit as st
    import toy

    from dashboards.live.text import block, plain, text_table

    text = toy.SHADY + "\u202etxt.exe" + toy.MARKUP
    block(text)
    text_table([text], [[text]])
    st.markdown(plain(text))


def test_a_text_on_the_page_neither_runs_backwards_nor_begins_an_element() -> None:
    app = AppTest.from_function(_shady, default_timeout=120).run()
    texts = [each.proto.body for each in app.get("html")] + [app.markdown[0].value]
    assert len(texts) == 3
    for text in texts:
        assert text.replace("\n", "").replace("\t", "").isprintable()
        assert not re.search(r"(?<!\\)<script", text)
        assert "u202etxt" in text
    assert not app.exception
