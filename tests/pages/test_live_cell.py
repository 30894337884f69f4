"""What the live page shows of one cell comes from logs, and its run from MLflow."""

from __future__ import annotations

import re
from pathlib import Path

import toy_sweep
from servers import free_port
from subjects import opened, planned

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
