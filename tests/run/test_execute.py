"""The loop: only what is missing is run, failures stay where they are, and the same command is the whole recovery."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep
from toy_runs import attempts_made, command, environment, open_toy, rows, run_inline
from toy_sweep import FAILING_CELL, SLOW

from orchestrator.cli.show_run import run_and_show
from orchestrator.run.schedule import State
from orchestrator.session import open_session
from orchestrator.types import Outcome


def test_every_cell_gets_the_right_number_and_shared_steps_run_once(tmp_path: Path) -> None:
    code, session = run_inline(tmp_path)
    assert code == 0
    # total = 2x + 2(x + 1) + y: the two shards of the source hold x and x + 1.
    assert {(row["x"], row["y"]): row["total"] for row in rows(session)} == {
        (x, y): 4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)
    }
    # 3 values of x in 2 shards, shared by the values of y; x + 1 in shard 1 is no other step's question.
    assert attempts_made(session) == 3 * 2 * 2 + 6
    assert all(row["status"] == "succeeded" and row["attempts"] == 1 for row in rows(session))


def test_the_same_command_on_a_finished_sweep_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, session = run_inline(tmp_path)
    before, table = attempts_made(session), session.outputs.results.read_bytes()
    code, session = run_inline(tmp_path)
    assert code == 0
    assert attempts_made(session) == before
    assert "nothing to do" in capsys.readouterr().out
    assert session.outputs.results.read_bytes() == table


def test_a_new_axis_value_runs_only_the_new_cells(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    before = attempts_made(session)
    code, session = run_inline(tmp_path, "axes.y=[10, 20, 30]")
    assert code == 0
    assert attempts_made(session) == before + 3
    assert len(rows(session)) == 9


def test_changing_the_runtime_runs_nothing(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    before = attempts_made(session)
    _, session = run_inline(tmp_path, "runtime.default.timeout=1h", "runtime.total.cpus=2", "limits.running=3")
    assert attempts_made(session) == before


def test_changing_a_value_runs_exactly_the_steps_below_it(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    before = attempts_made(session)
    _, session = run_inline(tmp_path, "stages.double.config.add=1")
    assert attempts_made(session) == before + 6 + 6


def test_a_deleted_table_is_rebuilt_without_running_anything(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path)
    table, before = session.outputs.results.read_bytes(), attempts_made(session)
    session.outputs.results.unlink()
    _, session = run_inline(tmp_path)
    assert session.outputs.results.read_bytes() == table
    assert attempts_made(session) == before


FAILING_SOURCE = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: raise}")


def test_a_failed_cell_stops_no_other_and_the_exit_code_says_that_cells_are_missing(tmp_path: Path) -> None:
    code, session = run_inline(tmp_path, text=FAILING_CELL)
    assert code == 1
    by_status = {row["kind"]: row["status"] for row in rows(session)}
    assert by_status == {"plain": "succeeded", "bad": "failed"}
    failed = next(row for row in rows(session) if row["kind"] == "bad")
    assert (failed["error_class"], failed["error"]) == ("ValueError", "the toy was told to raise")
    assert "Traceback" in Path(str(failed["log"])).read_text()
    assert failed["total"] is None


def test_a_step_is_told_which_entry_of_which_sweep_pays(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("behaviour: work", "behaviour: account")
    _, session = run_inline(tmp_path, "axes.x=[1]", "axes.y=[10]", text=text)
    (log,) = (tmp_path / "out").rglob("*.log")
    assert log.read_text() == "paid by toy/total\n"
    assert {row["status"] for row in rows(session)} == {"succeeded"}


def test_dependants_of_a_failed_step_are_blocked_and_never_tried(tmp_path: Path) -> None:
    code, session = run_inline(tmp_path, text=FAILING_SOURCE)
    assert code == 1
    assert {row["status"] for row in rows(session)} == {"blocked"}
    assert {row["error_class"] for row in rows(session)} == {"ValueError"}
    assert attempts_made(session) == 6
    states = session.schedule.counts()
    assert states["source"][State.FAILED] == 6
    assert states["double"][State.BLOCKED] == 6
    assert states["total"][State.BLOCKED] == 6


def test_the_same_command_tries_failed_steps_again_and_only_those(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path, text=FAILING_CELL)
    before = attempts_made(session)
    _, session = run_inline(tmp_path, text=FAILING_CELL)
    assert attempts_made(session) == before + 6
    assert {row["attempts"] for row in rows(session) if row["kind"] == "bad"} == {2}


def test_the_sweep_stops_starting_steps_at_its_limit_of_failures(tmp_path: Path) -> None:
    _, session = run_inline(tmp_path, "limits.failures=2", text=FAILING_SOURCE)
    assert attempts_made(session) == 2
    assert "limits.failures" in (session.schedule.stopped or "")


def test_only_the_selected_cells_are_run_and_the_table_still_has_all(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), None, ["x=1"], ["y=20"], str(tmp_path / "out"))
    assert run_and_show(session, None, True, None) == 0
    status = {(row["x"], row["y"]): row["status"] for row in rows(session)}
    assert len(status) == 6
    assert [at for at, each in status.items() if each == "succeeded"] == [(1, 10)]


def test_failures_outside_the_selection_stay_on_record(tmp_path: Path) -> None:
    run_inline(tmp_path, text=FAILING_CELL)
    path = toy_sweep.write_sweep(tmp_path, FAILING_CELL)
    session = open_session(path, None, ["x=1"], None, str(tmp_path / "out"))
    assert run_and_show(session, None, True, None) == 1
    assert [row["status"] for row in rows(session) if row["kind"] == "bad"] == ["failed"] * 6
    assert sorted(row["attempts"] for row in rows(session) if row["kind"] == "bad") == [1, 1, 1, 1, 2, 2]


def test_a_finished_cell_needs_nothing_above_it(tmp_path: Path) -> None:
    import shutil

    _, session = run_inline(tmp_path)
    before = attempts_made(session)
    shutil.rmtree(Path(session.outputs.store) / "artifacts" / "toy_source")
    code, session = run_inline(tmp_path)
    assert code == 0
    assert attempts_made(session) == before


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["toy_source", "toy_double", "toy_total"])
def test_a_damaged_artifact_is_reported_set_aside_and_made_again(
    tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, session = run_inline(tmp_path)
    good = [row["total"] for row in rows(session)]
    # Damage one, and drop everything below it, so that the damaged one must be read again.
    below = {"toy_source": ("toy_double", "toy_total"), "toy_double": ("toy_total",), "toy_total": ()}[stage]
    artifacts = Path(session.outputs.store) / "artifacts"
    for other in below:
        for folder in (artifacts / other).iterdir():
            folder.rename(tmp_path / folder.name)
    victim = sorted((artifacts / stage).iterdir())[0]
    if below:
        (victim / "number.txt").chmod(0o644)
        (victim / "number.txt").write_text("999")
    else:
        (victim / "manifest.json").write_text("{")
    code, session = run_inline(tmp_path)
    assert code == 0
    assert [row["total"] for row in rows(session)] == good
    assert list((Path(session.outputs.store) / "damaged").iterdir())
    assert "damaged" in capsys.readouterr().out


def test_a_step_whose_output_folder_was_swept_away_is_tried_again_and_its_half_is_never_committed(
    tmp_path: Path,
) -> None:
    text = toy_sweep.PIECES.replace("FOLDER", str(tmp_path)).replace("[7]", "[7, 8]")
    claims = tmp_path / "out" / "store" / "claims"

    def sweep() -> None:
        toy.wait(tmp_path / "begun")
        for folder in claims.glob("*/*/*"):
            folder.rename(tmp_path / folder.name)
        (tmp_path / "go").touch()

    sweeper = threading.Thread(target=sweep, daemon=True)
    sweeper.start()
    code, session = run_inline(tmp_path, text=text)
    sweeper.join()
    assert code == 0
    plan = session.plan
    histories = session.store.histories([plan.address(number) for number in range(len(plan))])
    ((lost,),) = histories.values()
    assert lost.outcome is Outcome.IO_ERROR
    assert "was deleted or replaced" in (lost.error or "")
    assert session.schedule.done
    for number in range(len(plan)):
        folder = session.store.fetch(plan.address(number))
        assert sorted(path.name for path in folder.iterdir()) == ["0.txt", "1.txt", "2.txt", "manifest.json"]
    assert not list(claims.glob("*/*"))


@pytest.mark.faults
@pytest.mark.parametrize(
    "kill_after", [1.8, pytest.param(1.0, marks=pytest.mark.long), pytest.param(2.6, marks=pytest.mark.long)]
)
def test_a_driver_killed_at_any_moment_is_finished_by_the_same_command_with_the_same_numbers(
    tmp_path: Path, kill_after: float
) -> None:
    (tmp_path / "calm").mkdir()
    _, calm = run_inline(tmp_path / "calm", text=SLOW)
    path = toy_sweep.write_sweep(tmp_path, SLOW)
    driver = subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.DEVNULL)
    time.sleep(kill_after)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    code, session = run_inline(tmp_path, text=SLOW)
    assert code == 0
    columns = ["cell_id", "x", "y", "kind", "status", "total", "key"]
    assert pq.read_table(session.outputs.results, columns=columns).equals(
        pq.read_table(calm.outputs.results, columns=columns)
    )
    assert not list((Path(session.outputs.store) / "claims").glob("*/*"))


@pytest.mark.faults
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_has_its_own_exit_code_and_the_same_command_goes_on(
    tmp_path: Path, number: int, code: int
) -> None:
    path = toy_sweep.write_sweep(tmp_path, SLOW)
    driver = subprocess.Popen(command(tmp_path, path, "--inline"), env=environment(), stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "store" / "artifacts" / "toy_total").exists():
        time.sleep(0.05)
    driver.send_signal(number)
    output, _ = driver.communicate()
    assert driver.returncode == code, output
    assert "interrupted" in output
    assert "the same command goes on" in output
    assert run_inline(tmp_path, text=SLOW)[0] == 0
    assert {row["status"] for row in rows(open_toy(tmp_path, text=SLOW))} == {"succeeded"}


@pytest.mark.faults
def test_a_step_whose_ray_worker_dies_is_tried_again_and_the_driver_survives(tmp_path: Path, local_ray: None) -> None:
    text = toy_sweep.SWEEP.replace(
        "config: {value: $x}", f"config: {{value: $x, behaviour: crash_once, marker: {tmp_path / 'm'}}}"
    )
    session = open_toy(tmp_path, text=text)
    code = run_and_show(session, None, False, None)
    assert code == 0
    plan = session.plan
    histories = session.store.histories([plan.address(number) for number in range(len(plan))])
    assert Outcome.CRASHED in {each.outcome for tried in histories.values() for each in tried}
    assert session.schedule.committed.sum() == len(plan) == 18
    assert {row["total"] for row in rows(session)} == {4 * x + 2 + y for x in (1, 2, 3) for y in (10, 20)}
    # What the dead worker wrote is its driver's, whose run has ended.
    assert not list((Path(session.outputs.store) / "claims").glob("*/*"))
