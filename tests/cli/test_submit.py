"""`sweep submit` against a real Ray head: the job is watched, fails, is stopped, shared and resumed by one command."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from ray.job_submission import JobDetails, JobSubmissionClient
from submissions import REPOSITORY, SWEEP, start, submit

from orchestrator.results.heartbeat import read_heartbeat
from orchestrator.session import open_session

STEPS = 4 + 4 + 4


def rows(outputs: Path) -> list[dict[str, object]]:
    return pq.read_table(outputs / "sweeps" / "toy" / "results.parquet").to_pylist()  # type: ignore[no-any-return]


def calls(folder: Path) -> int:
    """How often a toy stage was called, by whatever job, since the test began."""
    trace = folder / "toy-trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def job_of(output: str) -> str:
    return re.findall(r"^submitted (\S+):", output, re.MULTILINE)[0]  # type: ignore[no-any-return]


def wait_for_call(folder: Path, process: subprocess.Popen[str]) -> None:
    while not calls(folder):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def wait_for_end(client: JobSubmissionClient, job: str) -> JobDetails:
    while not (details := client.get_job_info(job)).status.is_terminal():
        time.sleep(0.1)
    return details


def check_nothing_is_lost_or_twice(checkout: Path, outputs: Path) -> None:
    """Every step was computed once and is committed; nobody holds a claim or says that it runs."""
    assert calls(checkout.parent) == STEPS
    assert {(row["x"], row["y"]): row["total"] for row in rows(outputs)} == {
        (x, y): 4 * x + 2 + y for x in (1, 3) for y in (10, 20)
    }
    # Away from the checkout's own copy of the stages: this process has imported another.
    sweep = shutil.copy(checkout / "toy.yaml", outputs / "toy.yaml")
    session = open_session(sweep, outputs=str(outputs))
    assert session.schedule.done
    assert len(list((outputs / "store" / "artifacts").glob("*/*"))) == STEPS
    assert not list((outputs / "store" / "claims").rglob("*/*"))
    assert not list((outputs / "store" / "damaged").rglob("*"))
    assert not read_heartbeat(session.outputs.folder)


class Cutter:
    """A loopback wire to a port whose every connection can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while content := one.recv(65536):
                other.sendall(content)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def test_a_job_is_watched_to_its_end_over_a_wire_that_breaks_and_every_line_is_printed_once(
    checkout: Path, head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    wire = Cutter(int(head.rsplit(":", 1)[1]))
    # RAY_ADDRESS would win against the address that Ray's own client is given.
    environment = {**head_environment, "SWEEP_OUTPUTS": str(tmp_path / "out"), "RAY_ADDRESS": "http://127.0.0.1:1"}
    process = start(checkout, environment, "toy.yaml", "--address", wire.address)
    assert process.stdout
    begun = ""
    while "steps to run" not in begun:
        line = process.stdout.readline()
        assert line, begun
        begun += line
    wire.cut()
    output = begun + process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    check_nothing_is_lost_or_twice(checkout, tmp_path / "out")
    lines = output.splitlines()
    assert re.fullmatch(r"toy-\d{8}-\d{6}-[0-9a-f]{4}", job_of(output))
    assert lines.count("toy: Does adding work?") == 1
    assert lines.count(f"outputs: {tmp_path / 'out'} (from SWEEP_OUTPUTS)") == 1
    assert len([line for line in lines if line.startswith("table:  ")]) == 1
    resume = f"env SWEEP_OUTPUTS={tmp_path / 'out'} sweep submit toy.yaml --address {wire.address} --grace 60"
    assert lines[-1].endswith(f"succeeded, exit code 0; resume, extend or confirm it: {resume}")


def test_a_sweep_with_failed_cells_ends_with_the_exit_code_of_its_driver(
    checkout: Path, head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    text = SWEEP.replace("plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}")
    toy_sweep.write_sweep(checkout, text)
    options = ["--address", head, "--outputs", str(tmp_path / "out"), "--only", "x=1", "-s", "axes.y=[10]"]
    secrets = {"HF_TOKEN": "Qs3cretZtoken", "PIP_INDEX_URL": "https://me:Qs3cretZ@host/simple"}
    (checkout / ".netrc").write_text("machine x login me password Qs3cretZ")
    code, output = submit(checkout, {**head_environment, **secrets}, "toy.yaml", *options)
    assert code == 1, output
    # What Ray's pages show of a job is nothing of who submitted it.
    shown = JobSubmissionClient(head).get_job_info(job_of(output)).model_dump_json()
    assert "RAY_JOB_STOP_WAIT_TIME_S" in shown
    assert "Qs3cret" not in shown + output
    assert "1 of 2 cells are missing" in output
    status = {(row["x"], row["kind"]): row["status"] for row in rows(tmp_path / "out")}
    assert status[1, "plain"] == "succeeded"
    assert status[1, "bad"] == "failed"
    assert "failed, exit code 1; resume" in output.splitlines()[-1]


@pytest.mark.ray
@pytest.mark.faults
def test_a_stopped_job_lets_running_steps_end_and_the_same_command_does_only_the_rest(
    checkout: Path, head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    # Longer than the 3 s that Ray waits of its own accord.
    own = checkout / "toy.py"
    own.write_text(own.read_text().replace("time.sleep(0.5)", "time.sleep(4)"))
    options = ["toy.yaml", "--address", head, "--outputs", str(tmp_path / "out"), "--grace", "30"]
    process = start(checkout, head_environment, *options)
    wait_for_call(tmp_path, process)
    client = JobSubmissionClient(head)
    (job,) = [
        each.submission_id
        for each in client.list_jobs()
        if each.status == "RUNNING" and (each.submission_id or "").startswith("toy-")
    ]
    assert job
    told = time.monotonic()
    client.stop_job(job)
    output, _ = process.communicate(timeout=400)
    assert time.monotonic() - told < 30
    assert process.returncode == 1, output
    assert "SIGTERM: no further steps are started; running steps have 28 s to finish" in output
    assert "stopped, exit code 1; resume" in output
    before = calls(tmp_path)
    assert 0 < before < STEPS
    # What was running has been committed, so that nothing is computed twice.
    assert len(list((tmp_path / "out" / "store" / "artifacts").glob("*/*"))) == before
    code, output = submit(checkout, head_environment, *options)
    assert code == 0, output
    check_nothing_is_lost_or_twice(checkout, tmp_path / "out")


@pytest.mark.long
def test_two_jobs_on_the_same_outputs_both_finish_and_compute_no_step_twice(
    checkout: Path, head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    options = ["toy.yaml", "--address", head, "--outputs", str(tmp_path / "out")]
    processes = [start(checkout, head_environment, *options) for _ in range(2)]
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert job_of(outputs[0]) != job_of(outputs[1])
    check_nothing_is_lost_or_twice(checkout, tmp_path / "out")


def test_ctrl_c_and_no_wait_leave_the_job_running_and_say_how_to_watch_stop_and_resume(
    checkout: Path, head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    own = checkout / "toy.py"
    own.write_text(own.read_text().replace("time.sleep(0.5)", "time.sleep(3)"))
    options = ["toy.yaml", "--address", head, "--outputs", str(tmp_path / "out"), "--stage", "source"]
    process = start(checkout, head_environment, *options)
    wait_for_call(tmp_path, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 130, output
    job = job_of(output)
    advice = [f"watch:  ray job logs --address {head} --follow {job}", f"stop:   ray job stop --address {head} {job} "]
    assert "no longer watched; the job goes on" in output
    assert "Traceback" not in output
    assert f"resume: sweep submit {' '.join(options[:1])} --outputs {tmp_path / 'out'} --stage source" in output
    assert all(line in output for line in advice)
    client = JobSubmissionClient(head)
    assert client.get_job_info(job).status == "RUNNING"
    assert wait_for_end(client, job).status == "SUCCEEDED"
    code, output = submit(checkout, head_environment, *options, "--no-wait")
    assert code == 0
    assert "watch:  ray job logs" in output
    assert wait_for_end(client, job_of(output)).status == "SUCCEEDED"
    # Nothing was left to do: four sources, once.
    assert calls(tmp_path) == 4


@pytest.mark.long
def test_the_shipped_sweep_is_submitted_from_the_repository(
    head: str, head_environment: dict[str, str], tmp_path: Path
) -> None:
    cell = ["policy=tiny", "dataset=helpful", "sampling=random", "beta=1", "seed=0", "reward_model=clf_lgb"]
    only = [each for coordinate in cell for each in ("--only", coordinate)]
    code, output = submit(
        REPOSITORY, head_environment, "sweeps/quickstart.yaml", *only,
        "--address", head, "--outputs", str(tmp_path / "out"), "--stage", "prompts",
    )  # fmt: skip
    assert code == 0, output
    assert "prompts is done for all 1 chosen cells" in output
    assert (tmp_path / "out" / "sweeps" / "quickstart" / "results.parquet").exists()
