"""`runtime.<entry>.python` runs steps under another interpreter, which takes nothing from the driver's environment."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from made_interpreters import START, make_interpreter, needed
from toy_sweep import write_sweep

from orchestrator.drive import drive
from orchestrator.maintenance.verify import verify
from orchestrator.run.executors import ray_worker
from orchestrator.run.executors.child_process import ChildProcess
from orchestrator.run.executors.nodes import Node, Nodes, Shape
from orchestrator.run.ready import Queue
from orchestrator.session import Session, open_session
from orchestrator.types import Attempt, Outcome, Runtime
from workers import model_cache

STUDY = """\
import ctypes, importlib.util, json, os, subprocess, sys, time
from pathlib import Path

def look(what: str, marker: str, out: Path) -> dict[str, float]:
    match what:
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(1000)
        case "once" if not Path(marker, "once").exists():
            Path(marker, "once").touch()
            os._exit(3)
        case "imports":
            import lightgbm
    seen = {
        "prefix": sys.prefix, "path": sys.path, "process": os.getpid(), "program": os.environ["PATH"].split(":")[0],
        "lightgbm": importlib.util.find_spec("lightgbm") is not None, "PYTHONPATH": os.environ.get("PYTHONPATH"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    (out / "seen.json").write_text(json.dumps(seen))
    print("it looked")
    return {"value": 1.0}
"""
SWEEP = """\
name: interpreters
question: What becomes of steps under another interpreter?
axes: {what: [WHAT]}
stages:
  here: {stage: "study:look", config: {what: work, marker: FOLDER}}
  there: {stage: "study:look", config: {what: $what, marker: FOLDER}}
results: [there]
tracking: false
"""

#: Executors under which the same is true: `--inline`, and Ray.
EXECUTORS = [True, pytest.param(False, marks=pytest.mark.ray)]


@pytest.fixture
def inline(request: pytest.FixtureRequest) -> bool:
    if not request.param:
        request.getfixturevalue("local_ray")
    return bool(request.param)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_interpreter(tmp_path_factory.mktemp("other"))


def opened(folder: Path, runtime: dict[str, Any], *what: str) -> Session:
    (folder / "study.py").write_text(STUDY)
    text = SWEEP.replace("WHAT", ", ".join(what)).replace("FOLDER", str(folder))
    sweep = write_sweep(folder, text + f"runtime: {json.dumps(runtime)}\n", "interpreters.yaml")
    return open_session(sweep, outputs=str(folder / "out"))


def rows(session: Session) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in pq.read_table(session.outputs.results).to_pylist()}


def seen(session: Session, entry: str) -> list[dict[str, Any]]:
    entries = session.plan.by_entry[entry]
    folders = [session.store.fetch(session.plan.address(number)) for number in entries.steps]
    return [json.loads((folder / "seen.json").read_text()) for folder in folders]


def history(session: Session, what: str) -> list[Attempt]:
    (number,) = (each for each in session.plan.by_entry["there"].steps if session.plan.coords(each)["what"] == what)
    address = session.plan.address(number)
    return session.store.histories([address]).get(address, [])


@pytest.mark.parametrize("inline", EXECUTORS, indirect=True)
def test_a_step_sees_its_own_environment_and_nothing_of_the_drivers(tmp_path: Path, inline: bool, other: str) -> None:
    session = opened(tmp_path, {"there": {"python": other}}, "a", "b", "imports")
    assert drive(session, inline=inline, apart=True) == 1
    (here,) = seen(session, "here")
    assert (here["prefix"], here["lightgbm"]) == (sys.prefix, True)
    failed = rows(session)["imports"]
    # There is one here, which it does not get.
    assert (failed["status"], failed["error_class"]) == ("failed", "ModuleNotFoundError")
    assert "lightgbm" in failed["error"]
    there = [json.loads(path.read_text()) for path in (tmp_path / "out/store/artifacts").rglob("seen.json")]
    there.remove(here)
    assert len(there) == 2
    prefix = str(Path(other).parents[1])
    for each in there:
        assert (each["prefix"], each["program"], each["PYTHONPATH"]) == (prefix, f"{prefix}/bin", None)
        assert not each["lightgbm"]
        assert not [path for path in each["path"] if Path(path).is_relative_to(sys.prefix)]
        # Steps without a GPU see none, whoever runs them.
        assert each["gpus"] == here["gpus"]
    logs = [path.read_text() for path in (tmp_path / "out/store/attempts").rglob("*.log")]
    assert sum("it looked" in log for log in logs) == 3


@pytest.mark.parametrize("inline", EXECUTORS, indirect=True)
def test_an_interpreter_that_cannot_run_steps_is_told_at_once_and_the_others_go_on(
    tmp_path: Path, inline: bool, other: str
) -> None:
    (tmp_path / "text").write_text("no program")
    some = [path for path in needed() if path.name != "psutil"]
    pythons = {
        "fine": (other, ""),
        "missing": (f"{tmp_path}/nowhere/python", "there is no such file"),
        "text": (f"{tmp_path}/text", "it is not executable"),
        "ends": ("/bin/true", "it ended before it was ready (exit code 0)"),
        "bare": (make_interpreter(tmp_path / "bare", []), "ModuleNotFoundError: No module named"),
        "lacks": (make_interpreter(tmp_path / "lacks", some), "No module named 'psutil'"),
    }
    rules = [{"at": {"what": what}, "python": python} for what, (python, _) in pythons.items()]
    session = opened(tmp_path, {"there": {"rules": rules}}, *pythons)
    assert drive(session, inline=inline, apart=True) == 1
    found = rows(session)
    assert found.pop("fine")["status"] == "succeeded"
    for what, row in found.items():
        python, reason = pythons[what]
        assert (row["status"], row["error_class"]) == ("failed", "InterpreterError")
        assert row["error"].startswith(f"runtime.there.python: no step can run under {python} on ")
        assert reason in row["error"]
        assert "correct the path, or install there what steps need" in row["error"]
        # What only a person can mend is not tried again.
        assert len(history(session, what)) == 1


@pytest.mark.faults
@pytest.mark.parametrize("inline", EXECUTORS, indirect=True)
def test_a_step_that_ends_such_a_process_has_its_own_outcome_and_the_next_one_another_process(
    tmp_path: Path, inline: bool, other: str
) -> None:
    rules = [{"at": {"what": "hang"}, "timeout": 2}]
    session = opened(tmp_path, {"there": {"python": other, "attempts": 2, "rules": rules}}, "segfault", "hang", "once")
    assert drive(session, inline=inline, apart=True) == 1
    found = rows(session)
    assert {what: row["status"] for what, row in found.items()} == {
        "segfault": "failed", "hang": "failed", "once": "succeeded"
    }  # fmt: skip
    assert "SIGSEGV" in found["segfault"]["error"]
    assert [each.outcome for each in history(session, "segfault")] == [Outcome.CRASHED] * 2
    assert [each.outcome for each in history(session, "hang")] == [Outcome.TIMED_OUT]
    assert "(runtime.timeout)" in found["hang"]["error"]
    assert [each.outcome for each in history(session, "once")] == [Outcome.CRASHED]


@pytest.mark.long
def test_a_job_that_brings_its_own_code_brings_it_to_other_interpreters_too(
    tmp_path: Path, head: str, head_environment: dict[str, str]
) -> None:
    other = make_interpreter(tmp_path / "other", needed((*START, "workers.data.prompts")))
    command = ["ray", "job", "submit", "--address", head, "--working-dir", ".", "--", "sweeps/quickstart.yaml"]
    command += ["--outputs", str(tmp_path / "out"), "--stage", "prompts", "-s", f"runtime.prompts.python={other}"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=head_environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifests = list((tmp_path / "out" / "store" / "artifacts" / "prompts").glob("*/manifest.json"))
    assert len(manifests) == 2


@pytest.mark.ray
def test_a_worker_keeps_such_a_process_for_the_next_bundle(tmp_path: Path, local_ray: None, other: str) -> None:
    session = opened(tmp_path, {"there": {"python": other}}, *(f"w{number}" for number in range(12)))
    assert drive(session) == 0
    # Of two workers, each of which had one.
    assert len({each["process"] for each in seen(session, "there")}) <= 2


def test_what_another_interpreter_made_is_not_run_again_here_to_be_compared(tmp_path: Path, other: str) -> None:
    session = opened(tmp_path, {"there": {"python": other}}, "a", "b")
    assert drive(session, inline=True, apart=True) == 0
    found = verify(session, reruns=3, seed=0, checksums=True, tolerance=0, discard=False)
    assert (found.checked, [each.entry for each in found.reruns]) == (3, ["here"])


def test_in_the_drivers_own_process_the_error_names_the_entry_and_the_remedy(tmp_path: Path, other: str) -> None:
    session = opened(tmp_path, {"there": {"python": other}}, "a")
    assert drive(session, inline=True) == 1
    error = rows(session)["a"]["error"]
    assert error.startswith(f"runtime.there.python has the step run under {other}, and this process runs under ")
    assert error.endswith("run it by `sweep run`, or here with -s runtime.there.python=null")


@pytest.mark.faults
def test_whatever_such_a_process_started_dies_with_who_started_it(tmp_path: Path, other: str) -> None:
    # As vLLM's engine does, it outlives its parent.
    grandchild = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True)"
    code = (
        "import sys, time; from orchestrator.run.executors import child_process; "
        f"child_process._OTHER_CODE = {grandchild!r} + '; time.sleep(1000)'; "
        f"process = child_process.ChildProcess({other!r}); print(process.pid, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        processes = [psutil.Process(int(driver.stdout.readline())) for _ in range(2)]
        driver.kill()
    until = time.monotonic() + 400
    while any(_runs(each) for each in processes):
        assert time.monotonic() < until
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_process_that_ended_is_watched_no_more(other: str) -> None:
    def watchers() -> list[psutil.Process]:
        mine = f"kill -s KILL -- -{process.pid})"
        return [each for each in psutil.process_iter() if _runs(each) and mine in " ".join(each.cmdline())]

    process = ChildProcess(other)
    assert len(watchers()) == 1
    process.end()
    until = time.monotonic() + 400
    while watchers():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not psutil.pid_exists(process.pid)


def test_steps_of_two_interpreters_take_the_same_places_so_that_neither_waits_for_all_of_the_other() -> None:
    one, two = Runtime(cpus=2, gpus=1), Runtime(cpus=2, gpus=1, python="/opt/vllm/bin/python")
    nodes = Nodes([Node("a", Shape(8, 2, None))])
    assert nodes.shape(one) == nodes.shape(two)
    assert Queue("e", one, "m", True).resources == Queue("e", two, "m", True).resources


def test_of_a_worker_and_its_process_of_another_interpreter_only_one_keeps_a_model(other: str) -> None:
    """Two may not fit into the memory of a GPU."""
    model_cache.cached_model("a model", object)
    ray_worker._keep_one_model(other)
    assert model_cache.kept() is None
    ray_worker._other = ChildProcess(other, watched=False)
    number = ray_worker._other.pid
    ray_worker._keep_one_model(other)
    assert ray_worker._other.alive()
    ray_worker._keep_one_model(None)
    assert ray_worker._other is None
    assert not psutil.pid_exists(number)
