"""Whatever a stage does is the outcome of its own step: it costs no other step anything, and ends no sweep."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import misdeeds
import pyarrow.parquet as pq
import pytest
import toy
import toy_sweep
from command_server import sweep

from orchestrator.attempt.bundle import run_bundle
from orchestrator.attempt.request import Request
from orchestrator.attempt.rerun import Verdict, rerun
from orchestrator.drive import drive
from orchestrator.explain.preview import preview
from orchestrator.explain.status import status
from orchestrator.explain.why import explain
from orchestrator.keys import digest
from orchestrator.maintenance.verify import verify
from orchestrator.run.executors.inline import InlineExecutor
from orchestrator.session import open_session
from orchestrator.store import Store, list_files
from orchestrator.store.trash import delete
from orchestrator.types import Artifact, Manifest, Outcome, Runtime, Step
from workers.metric import Undefined

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def request_for(store: Store, behaviour: str, value: int, stage: str = "toy_odd") -> Request:
    config = {"value": value, "behaviour": behaviour}
    step = Step(Artifact(stage, digest(config)), "odd", toy.STAGES[stage], config, "{}", {}, {})
    return Request(step, 1, Runtime(), store.location, "abc", "driver")


#: What costs no process: what it does, how its attempt ends, and what its error speaks of.
CHEAP = {**toy.ODD, **misdeeds.CHEAP}


@pytest.mark.parametrize("behaviour", [*CHEAP, *toy.ODD_METRICS])
def test_what_a_stage_does_is_the_outcome_of_its_own_step_alone(
    store: Store, behaviour: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome, words = CHEAP[behaviour][1:] if behaviour in CHEAP else ("rejected", toy.ODD_METRICS[behaviour][1])
    requests = [request_for(store, each, value) for value, each in enumerate(["work", behaviour, "work"])]
    before, odd, after = run_bundle(requests)
    assert (before.outcome, after.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert (odd.outcome, odd.error is None) == (outcome, outcome == "succeeded")
    assert words in (odd.error or "")
    if odd.error:
        assert store.histories([odd.address]) == {odd.address: [odd]}
        assert odd.error_class == (words if words.endswith(("Error", "Exit")) else odd.error_class)
    # Everything is tidy, and the next bundle speaks where this one did.
    assert not list((Path(store.location) / "claims").rglob("*/*"))
    print("still heard")
    os.write(1, b"by its number too\n")
    assert capfd.readouterr().out == "still heard\nby its number too\n"
    assert [each.outcome for each in run_bundle([request_for(store, "work", 9)])] == [Outcome.SUCCEEDED]


@pytest.mark.parametrize("behaviour", ["shady", "closed", "cancelled", "unspeakable"])
def test_the_traceback_is_in_the_log_whatever_was_raised_and_closed(store: Store, behaviour: str) -> None:
    (attempt,) = run_bundle([request_for(store, behaviour, 1)])
    text = Path(attempt.log or "").read_text(errors="replace")
    assert "Traceback" in text
    assert {"closed": "before", "shady": "odd"}.get(behaviour, "") in text


def test_the_reason_of_an_undefined_metric_is_kept_as_plain_text(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "odd", lambda config, out: {"value": Undefined(toy.SHADY)})
    (attempt,) = run_bundle([request_for(store, "work", 1)])
    assert attempt.undefined == {"value": "an \\udcff odd word\ndone \nsecond\tline"}


def test_only_regular_files_in_folders_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "b" / "manifest.json").write_text("{}")
    (tmp_path / "ünï [1].txt").write_text("x")
    assert list(list_files(tmp_path)) == ["a/b/manifest.json", "ünï [1].txt"]


def test_folders_deeper_than_python_recurses_are_deleted_too(tmp_path: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    toy.ODD["deep"][0](folder)
    (folder / "d" / "d" / "file").touch()
    (folder / "link").symlink_to(tmp_path)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        with pytest.raises(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        delete(str(folder))
    finally:
        sys.setrecursionlimit(before)
    assert not folder.exists()
    assert tmp_path.exists()


# --- together


@pytest.mark.parametrize("bad", ["cancel_together", "cancel_later", "odd_file"])
def test_what_one_of_many_raises_costs_the_others_nothing(tmp_path: Path, store: Store, bad: str) -> None:
    kinds = ["work", "work", bad, "work"]
    requests = [request_for(store, kind, value, "toy_band") for value, kind in enumerate(kinds)]
    attempts = run_bundle(requests)
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED] * 4 if bad != "odd_file" else [
        Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.REJECTED, Outcome.SUCCEEDED,
    ]  # fmt: skip
    calls = (tmp_path / "toy-trace").read_text().splitlines()
    # Who is done is not done again.
    again = {"cancel_together": kinds, "cancel_later": [bad, "work"], "odd_file": [bad]}[bad]
    assert calls == ["together 4", *again]


# --- a sweep

GOOD = 60
KINDS = (*CHEAP, *misdeeds.COSTLY)
BAD = [*(name for name, (_, outcome, _) in CHEAP.items() if outcome != "succeeded"), *misdeeds.DEADLY]


def odd_sweep(kinds: Sequence[str]) -> str:
    """Odd stages among good ones."""
    good = [f"good{number}: {{value: {number}}}" for number in range(GOOD)]
    odd = [f"{name}: {{value: {GOOD + place}, behaviour: {name}}}" for place, name in enumerate(kinds)]
    every = max(1, GOOD // len(odd))
    mixed = [line for place, each in enumerate(odd) for line in (*good[place * every : (place + 1) * every], each)]
    lines = "".join(f"    {line}\n" for line in (*mixed, *good[len(odd) * every :]))
    return f"""\
name: odd
question: Who takes the others along?
axes:
  kind:
{lines}\
stages:
  odd: {{stage: toy_odd, config: $kind}}
runtime: {{default: {{attempts: 1}}}}
tracking: false
uses: [toy]
namespace: toy
"""


def check_table(folder: Path, kinds: Sequence[str]) -> None:
    """All are good but those that are not."""
    rows = pq.read_table(folder / "out" / "sweeps" / "odd" / "results.parquet").to_pylist()
    assert {row["kind"]: row["status"] for row in rows} == {
        **{f"good{number}": "succeeded" for number in range(GOOD)},
        **{name: "failed" if name in BAD else "succeeded" for name in kinds},
    }


def check_commands(folder: Path) -> None:
    """Every command can tell of it."""
    looks = [["status"], ["results"], ["why", "kind=shady"], ["show", "kind=shady"], ["report"], ["plan"]]
    code = "import sys, toy; from orchestrator.cli.app import app\n"
    code += f"for words in {looks}:\n"
    code += "    app([words[0], 'odd.yaml', *words[1:], '--outputs', 'out'], standalone_mode=False)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(toy.__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, timeout=400)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    assert "an \\udcff odd word" in said
    assert "\x1b" not in said
    assert "an \\udcff odd word" in (folder / "out" / "sweeps" / "odd" / "report" / "report.html").read_text()


@pytest.mark.faults
def test_steps_beside_odd_ones_all_succeed_inline_and_every_command_works_afterwards(tmp_path: Path) -> None:
    toy_sweep.write_sweep(tmp_path, odd_sweep(KINDS), "odd.yaml")
    done = sweep(tmp_path, "run", "odd.yaml", "--inline", "--outputs", "out")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    missing = len(set(BAD) & set(KINDS))
    assert f"{missing} of {GOOD + len(KINDS)} cells are missing" in done.stdout
    check_table(tmp_path, KINDS)
    check_commands(tmp_path)
    done = sweep(tmp_path, "verify", "odd.yaml", "--outputs", "out")
    assert done.returncode == 0, done.stdout


@pytest.mark.ray
def test_steps_beside_odd_ones_all_succeed_on_ray(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator import drive as module
    from orchestrator.run.executors.ray_cluster import RayExecutor

    class Staying(RayExecutor):
        """Connects to the Ray that is there, and leaves it to the next test."""

        def stop(self) -> None:
            pass

    monkeypatch.setattr(module, "choose_executor", lambda session, address, inline, apart: Staying(address))
    session = open_session(toy_sweep.write_sweep(tmp_path, odd_sweep(KINDS), "odd.yaml"), outputs=str(tmp_path / "out"))
    assert drive(session, None, False, None) == 1
    check_table(tmp_path, KINDS)
    for told in (status(session), explain(session, "kind=shady"), preview(session)):
        json.dumps(told, ensure_ascii=False).encode()
    assert session.results().table().equals(pq.read_table(session.outputs.results))
    # What was left behind has had the time to do harm.
    time.sleep(misdeeds.LATER)
    found = verify(session, 0, 0, True, 0, False)
    assert (found.checked, found.damaged) == (GOOD + len(KINDS) - len(BAD), {})


# --- who told us to end


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_is_no_outcome_of_the_stage_that_it_interrupts(
    store: Store, monkeypatch: pytest.MonkeyPatch, swallowed: bool
) -> None:
    def interrupted(config: toy.OddConfig, out: Path) -> dict[str, float]:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if not swallowed:
                raise
        # As if it had trained long enough.
        return {"value": 1.0}

    monkeypatch.setattr(toy, "odd", interrupted)
    executor, request = InlineExecutor(), request_for(store, "work", 1)
    slot = executor.find_slot(Runtime(), {})
    assert slot is not None
    executor.submit([request, request_for(store, "work", 2)], slot)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        executor.wait(1)
    assert signal.getsignal(signal.SIGINT) is before
    assert store.committed(["toy_odd"]) == set()
    assert store.histories([request.step.address]) == {}
    assert not list((Path(store.location) / "claims").glob("*/*"))


def test_a_handler_that_a_stage_set_is_gone_with_its_bundle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(config: toy.OddConfig, out: Path) -> dict[str, float]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return {"value": 1.0}

    monkeypatch.setattr(toy, "odd", deaf)
    before = signal.getsignal(signal.SIGINT)
    run_bundle([request_for(store, "work", 1)])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_time_limit_that_ends_while_a_failure_is_recorded_harms_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.attempt import attempt as module

    inside = []
    monkeypatch.setattr(module, "record_attempt", lambda *_: inside.append(signal.getitimer(signal.ITIMER_REAL)[0]))
    executor, request = InlineExecutor(), request_for(store, "cancelled", 1)
    slot = executor.find_slot(Runtime(), {})
    assert slot is not None
    executor.submit([Request(request.step, 1, Runtime(timeout=60), store.location, "abc", "driver")], slot)
    (ended,) = executor.wait(1)
    assert [each.outcome for each in ended.attempts] == [Outcome.FAILED]
    assert inside == [0.0]


def test_a_step_that_ends_its_process_when_it_is_run_again_is_a_finding(store: Store) -> None:
    request = request_for(store, "sys_exit", 1)
    manifest = Manifest(request.step.address, "{}", {}, {"value": 1.0}, 1, 1.0, 1.0, "host", "abc")
    found = rerun(store, request.step, Runtime(), manifest)
    assert (found.verdict, found.error) == (Verdict.RAISED, "SystemExit: the stage called sys.exit(0)")
