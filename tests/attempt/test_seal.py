"""What a stage does to its process ends with the step, or the process ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import misdeeds
import numpy  # noqa: F401 (what a step does to it is seen only where it is loaded)
import psutil
import pytest
import toy

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.process import PROCESS
from orchestrator.attempt.request import Request
from orchestrator.attempt.seal import sealed
from orchestrator.attempt.surroundings import PARTS, STEADY
from orchestrator.keys import digest
from orchestrator.run.executors import Ended
from orchestrator.store import Store
from orchestrator.types import Artifact, Manifest, Outcome, Runtime, Step
from workers import model_cache

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def _unspoilt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done here in one process would end several."""
    monkeypatch.setattr(PROCESS, "spoilt", None)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    for thread in threading.enumerate():
        if thread.name == "late":
            thread.join()
    if "local_ray" not in request.fixturenames:
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def requests_for(store: Store, *behaviours: str) -> list[Request]:
    configs = [{"value": value, "behaviour": each} for value, each in enumerate(behaviours)]
    return [
        Request(
            Step(Artifact("toy_odd", digest(config)), "odd", toy.STAGES["toy_odd"], config, "{}", {}, {}),
            1, Runtime(), store.location, "abc", "driver",
        )
        for config in configs
    ]  # fmt: skip


def check_bytes(store: Store, requests: Sequence[Request]) -> None:
    for request in requests:
        manifest = store.manifests([request.step.address])[request.step.address]
        assert isinstance(manifest, Manifest)
        assert store.inspect(manifest) is None


@pytest.mark.parametrize("misdeed", misdeeds.PUT_BACK)
def test_what_a_step_changed_is_as_it_was_for_the_next(store: Store, misdeed: str) -> None:
    # What a process is given before its first step stays, too.
    run_bundle(requests_for(store, "work"))
    before = {name: part.read() for name, part in PARTS.items()}
    requests = requests_for(store, "shallow", misdeed, "work")
    attempts = run_bundle(requests)
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED] * 3
    # C code finds what it raises among the modules, too.
    with pytest.raises(json.JSONDecodeError):
        json.loads("{")
    now = {name: part.read() for name, part in PARTS.items()}
    # What is needed by what was imported meanwhile stays.
    path = before.pop("the import path")
    assert now["the import path"][: len(path)] == path
    assert {name for name in before if now[name] != before[name]} <= {"loaded modules"}
    assert PROCESS.spoilt is None
    assert attempts[1].log is None
    check_bytes(store, requests)


@pytest.mark.faults
@pytest.mark.parametrize("misdeed", [*misdeeds.LEFT, *misdeeds.WRITERS])
def test_a_step_that_leaves_something_running_succeeds_and_pays_with_its_process(store: Store, misdeed: str) -> None:
    requests = requests_for(store, "work", misdeed, "work")
    attempts = run_bundle(requests)
    # The third was not begun, and may run elsewhere.
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED] * 2
    what = "a thread" if misdeed in misdeeds.WRITERS else "2 child processes" if misdeed == "shell" else "a child"
    assert f"a step left {what}" in (PROCESS.spoilt or "")
    assert PROCESS.spoilt in Path(attempts[1].log or "").read_text()
    check_bytes(store, requests[:2])


@pytest.mark.parametrize("misdeed", misdeeds.ENDED)
def test_what_ends_by_itself_costs_nothing(store: Store, misdeed: str) -> None:
    requests = requests_for(store, misdeed, "work")
    assert [attempt.outcome for attempt in run_bundle(requests)] == [Outcome.SUCCEEDED] * 2
    assert PROCESS.spoilt is None
    check_bytes(store, requests)


def test_a_program_has_an_input_after_a_step_that_closed_it(store: Store) -> None:
    run_bundle(requests_for(store, "no_input"))
    assert subprocess.run(["cat"], check=True, capture_output=True).stdout == b""
    before = sys.stdin
    with sealed():
        os.close(0)
        os.open(store.location, os.O_RDONLY)
    assert sys.stdin is before
    assert subprocess.run(["cat"], check=True, capture_output=True).stdout == b""


def test_a_time_limit_that_a_step_tampers_with_rings_as_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with sealed():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert rung.wait(60)
        # And not once more.
        with sealed():
            signal.setitimer(signal.ITIMER_REAL, 60)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_step_that_fails_pays_for_what_it_leaves_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(config: toy.OddConfig, out: Path) -> dict[str, float]:
        misdeeds.LEFT["program"](out)
        raise ValueError("and fails")

    monkeypatch.setattr(toy, "odd", leave)
    (attempt,) = run_bundle(requests_for(store, "work", "work"))
    assert attempt.error == "and fails"
    assert "sleep 60" in (PROCESS.spoilt or "")


def test_what_a_cached_model_needs_stays_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_kept", None)
    ending = threading.Event()
    thread = threading.Thread(target=ending.wait)

    def load() -> subprocess.Popen[bytes]:
        thread.start()
        return subprocess.Popen(["sleep", "60"])

    with sealed():
        engine = model_cache.cached_model("engine", load)
    with sealed():
        assert model_cache.cached_model("engine", load) is engine
    assert PROCESS.spoilt is None
    assert engine.poll() is None
    engine.kill()
    engine.wait()
    ending.set()
    thread.join()


def test_children_and_threads_of_others_are_left_alone() -> None:
    """A notebook starts them while a step runs."""
    going, started, ending = threading.Event(), threading.Event(), threading.Event()
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        going.wait()
        children.append(subprocess.Popen(["sleep", "60"]))
        started.set()
        ending.wait()

    thread = threading.Thread(target=start)
    thread.start()
    with sealed():
        going.set()
        started.wait()
    assert PROCESS.spoilt is None
    assert children[0].poll() is None
    children[0].kill()
    children[0].wait()
    ending.set()
    thread.join()


@pytest.mark.parametrize("fault", [OSError, ValueError])
def test_what_cannot_be_put_back_spoils_the_process(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    part = PARTS["resource limits"]

    def refuse(before: object) -> None:
        raise fault("not permitted")

    monkeypatch.setitem(STEADY, "resource limits", part._replace(restore=refuse))  # type: ignore[arg-type]
    before = part.read()
    with sealed():
        misdeeds.PUT_BACK["few_files"](Path())
    part.restore(before)
    assert PROCESS.spoilt == f"a step changed resource limits, which cannot be restored ({fault.__name__})"


def test_open_files_are_few_when_a_bundle_ends_or_it_is_the_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    def hoard(config: toy.OddConfig, out: Path) -> dict[str, float]:
        kept.extend(os.open(out, os.O_RDONLY) for _ in range(20))
        return {"value": 1.0}

    monkeypatch.setattr(toy, "odd", hoard)
    run_bundle(requests_for(store, "work"))
    assert PROCESS.spoilt is None
    monkeypatch.setattr("orchestrator.attempt.seal._FILES", 10 / 2**20)
    run_bundle(requests_for(store, "work", "work"))
    assert "files open" in (PROCESS.spoilt or "")
    for each in kept:
        os.close(each)


# --- committed files


def test_what_a_thread_has_open_that_a_step_left_is_not_what_is_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    threads = []

    def leave(config: toy.OddConfig, out: Path) -> dict[str, float]:
        (out / "sub").mkdir()
        streams = [(out / name).open("a") for name in ("one", "sub/two")]

        def write() -> None:
            go_on.wait()
            for stream in streams:
                stream.write("later")
                stream.close()

        threads.append(threading.Thread(target=write, name="late"))
        threads[0].start()
        return {"value": 1.0}

    monkeypatch.setattr(toy, "odd", leave)
    (request,) = requests_for(store, "work")
    run_bundle([request])
    assert "'late'" in (PROCESS.spoilt or "")
    go_on.set()
    threads[0].join()
    manifest = store.manifests([request.step.address])[request.step.address]
    assert isinstance(manifest, Manifest)
    assert store.inspect(manifest) is None
    assert manifest.files.keys() == {"one", "sub/two"}


def test_committed_files_are_read_only_and_folders_are_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(config: toy.OddConfig, out: Path) -> dict[str, float]:
        (out / "a" / "b").mkdir(parents=True)
        modes = {"a/b/secret": 0o600, "a/b/program": 0o775, "nobody": 0o000, "a/all": 0o666}
        for name, mode in modes.items():
            (out / name).touch()
            (out / name).chmod(mode)
        for name in ("a/b", "a", "."):
            (out / name).chmod(0o555)
        return {"value": 1.0}

    monkeypatch.setattr(toy, "odd", write)
    (request,) = requests_for(store, "work")
    (attempt,) = run_bundle([request])
    if attempt.outcome is Outcome.REJECTED:
        assert "nobody cannot be read back" in (attempt.error or "")
        return
    folder = Path(store.location) / "artifacts" / "toy_odd" / request.step.key
    modes = {
        name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("a/b/secret", "a/b/program", "nobody", "a/all")
    }
    assert modes == {"a/b/secret": 0o400, "a/b/program": 0o555, "nobody": 0o400, "a/all": 0o444}
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("a/b", "a", ".")} == {0o755}


def test_no_other_user_than_root_can_write_into_what_is_committed_and_everyone_can_delete_his_own(
    store: Store, tmp_path: Path
) -> None:
    requests = requests_for(store, "work", "locked", "locked_folder")
    assert {attempt.outcome for attempt in run_bundle(requests)} == {Outcome.SUCCEEDED}
    code = f"""
import os, sys, pathlib, shutil
sys.path[:0] = {sys.path!r}
from orchestrator.store import open_store
from orchestrator.types import Artifact
store = open_store({store.location!r})
for key in {[request.step.key for request in requests]!r}:
    path = pathlib.Path(store.location, "artifacts", "toy_odd", key, "number.txt")
    try:
        path.write_text("other")
    except PermissionError:
        print("refused")
    store.remove([Artifact("toy_odd", key)])
    print(path.parent.exists())
"""
    drop = [
        "setpriv",
        "--bounding-set",
        "-dac_override,-dac_read_search",
        "--inh-caps",
        "-dac_override,-dac_read_search",
    ]
    command = [*(drop if os.geteuid() == 0 else []), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["refused", "False"] * 3, done.stderr


# --- on Ray


@pytest.mark.ray
@pytest.mark.parametrize("keeps_a_model", [False, True])
@pytest.mark.parametrize("misdeed", ["program", "thread"])
def test_a_worker_that_is_spoilt_tells_its_attempts_runs_nothing_more_and_ends(
    local_ray: None, store: Store, misdeed: str, keeps_a_model: bool
) -> None:
    import ray

    from orchestrator.run.executors.ray_cluster import RayExecutor

    executor = RayExecutor()
    requests = requests_for(store, "work", misdeed, *["work"] * 8)
    # The others wait behind it.
    bundles = [requests[:4], *([each] for each in requests[4:])]
    ended: list[Ended] = []
    for bundle in bundles:
        while (slot := executor.find_slot(Runtime(), {"model": 9} if keeps_a_model else {})) is None:
            ended += executor.wait(1)
        executor.submit(bundle, slot)
    deadline = time.monotonic() + 100
    while len(ended) < len(bundles):
        assert time.monotonic() < deadline
        ended += executor.wait(1)
    attempts = {each.requests[0].step.address: each.attempts for each in ended}
    first = attempts.pop(requests[0].step.address)
    assert [attempt.address for attempt in first] == [request.step.address for request in requests[:2]]
    others = [attempt for each in attempts.values() for attempt in each]
    assert {attempt.outcome for attempt in (*first, *others)} == {Outcome.SUCCEEDED}
    if not keeps_a_model:
        assert len(others) == len(bundles) - 1
    process = int(Path(first[1].log or "").read_text().split()[0])
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process).wait(100)
    check_bytes(store, requests[:2])
    for worker in executor._warm.workers:
        ray.kill(worker.process.actor)
