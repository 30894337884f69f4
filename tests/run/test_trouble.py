"""Telling others where a sweep stands ends no sweep; the table at its end is written, or said to be missing."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from toy_requests import make_request
from toy_runs import command, environment, run_inline

from orchestrator.attempt.outcome import failed_attempt
from orchestrator.run.executors.recovery import recovered_attempts
from orchestrator.run.trouble import Troubles
from orchestrator.session import open_session
from orchestrator.store import StoreError
from orchestrator.store.posix import PosixStore
from orchestrator.store.posix_medium import PosixMedium
from orchestrator.types import Outcome


def in_the_way(place: Path) -> Path:
    """What stands where a file is to be written, and does not go away."""
    (place / "something").mkdir(parents=True)
    return place


def test_each_trouble_is_told_once_and_once_more_when_it_is_over() -> None:
    told: list[str] = []
    troubles = Troubles(told.append)
    for fails in (False, True, True, False, False, True):
        with troubles.contained("writing"):
            if fails:
                raise OSError("no \x1b[31mroom")
    for _ in range(2):
        with troubles.contained("reading"):
            raise OSError("gone")
    failing = "writing fails for now, the sweep goes on: no room"
    assert told == [failing, "writing works again", failing, "reading fails for now, the sweep goes on: gone"]
    with pytest.raises(ValueError, match="a bug"), troubles.contained("thinking"):
        raise ValueError("a bug")


def test_a_pulse_that_cannot_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.drive.HEARTBEAT_EVERY", 0.0)
    in_the_way(tmp_path / "out" / "sweeps" / "toy" / "running.json")
    code, session = run_inline(tmp_path)
    assert code == 0
    assert pq.read_table(session.outputs.results)["status"].to_pylist() == ["succeeded"] * 6
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "fails for now" in line]
    assert "running.json cannot be written: Is a directory" in told


def test_a_table_that_cannot_be_written_ends_the_run_with_its_place_and_the_remedy(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP + "hooks: {finish: 'cat > finish.json'}\n")
    table = in_the_way(tmp_path / "out" / "sweeps" / "toy" / "results.parquet")
    line = command(tmp_path, path, "--inline")
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"the table {table} was not written: " in done.stderr
    assert "this makes the table: " in done.stderr
    assert " results " in done.stderr.partition("this makes the table: ")[2]
    # All else is done: what was found is shown, and whoever waits for the end is told.
    assert " ± " in done.stdout
    assert "table:" not in done.stdout
    assert json.loads((tmp_path / "finish.json").read_text())["exit_code"] == 2
    (table / "something").rmdir()
    table.rmdir()
    session = open_session(path, outputs=str(tmp_path / "out"))
    assert session.schedule.done


def test_an_input_that_cannot_be_set_aside_costs_its_readers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.run.retry._BACKOFF", 0.01)
    _, session = run_inline(tmp_path)
    artifacts = Path(session.outputs.store) / "artifacts"
    for stage in ("toy_double", "toy_total"):
        for folder in (artifacts / stage).iterdir():
            folder.rename(tmp_path / folder.name)
    number = next((artifacts / "toy_source").iterdir()).joinpath("number.txt")
    number.chmod(0o644)
    number.write_text("999")
    aside = Path(session.outputs.store) / "damaged"
    aside.touch()
    code, session = run_inline(tmp_path)
    assert code == 1
    rows = pq.read_table(session.outputs.results).to_pylist()
    assert [row["status"] for row in rows].count("succeeded") == 4
    assert {row["error_class"] for row in rows if row["status"] != "succeeded"} == {"damaged_input"}
    aside.unlink()
    assert run_inline(tmp_path)[0] == 0


def test_a_dead_worker_of_which_the_store_tells_nothing_is_lost_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    requests = [make_request(store, value=1), make_request(store, value=2)]

    def away(*_: object) -> dict[object, bytes | None]:
        raise StoreError("the file server is away")

    monkeypatch.setattr(PosixMedium, "read", away)
    found = list(recovered_attempts(requests, RuntimeError("it died"), Outcome.CRASHED, 0.0))
    assert [(each.address, each.outcome) for each in found] == [(each.step.address, Outcome.LOST) for each in requests]
    assert "its results cannot be read" in (found[0].error or "")


def test_the_record_of_another_drivers_attempt_says_nothing_of_a_worker_that_died(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store")
    store.prepare()
    request = make_request(store)
    theirs = failed_attempt(replace(request, driver="other"), Outcome.FAILED, ValueError("no"), 0.0, 1.0, "no", None)
    store.record(theirs)
    for number in (1, 2):
        found = list(recovered_attempts([request], RuntimeError("it died"), Outcome.CRASHED, 0.0))
        assert [(each.outcome, each.driver) for each in found] == [(Outcome.CRASHED, "driver")], number
    assert [each.outcome for each in store.histories([request.step.address])[request.step.address]] == [
        Outcome.FAILED,
        Outcome.CRASHED,
    ]


def test_a_place_that_gets_no_work_is_reported_once_and_again_when_it_gets_some() -> None:
    said: list[str] = []
    troubles = Troubles(said.append)
    for sick in ({}, {"GPU 1 of node ab": "2 died"}, {"GPU 1 of node ab": "2 died"}, {}, {}):
        troubles.places(sick)
    assert said == [
        "GPU 1 of node ab gets no work until a probe succeeds there: 2 died",
        "GPU 1 of node ab gets work again",
    ]
