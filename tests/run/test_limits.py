"""When a run holds back: budgets, the breaker, retries with pauses, and the options that choose what is run."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests
import toy_sweep
from toy_runs import attempts_made, rows, run_inline
from toy_sweep import FAILING_CELL, ONE

from orchestrator.attempt.request import Request
from orchestrator.cli.show_run import run_and_show
from orchestrator.explain.status import status
from orchestrator.run.breaker import Breaker, signature
from orchestrator.run.executors import Ended, OnePlace, Slot
from orchestrator.run.loop import run_plan
from orchestrator.run.schedule import State
from orchestrator.session import Session, open_session
from orchestrator.store import StoreError
from orchestrator.store.errors import passes
from orchestrator.sweep.problems import SweepError
from orchestrator.types import Artifact, Attempt, Outcome, Runtime


def attempt(error: str, entry: str = "fit", outcome: Outcome = Outcome.FAILED, kind: str = "ValueError") -> Attempt:
    return Attempt(Artifact("s", "0" * 32), entry, 1, outcome, 1.0, 0.0, "here", "abc", kind, error)


def test_a_stage_is_stopped_when_its_first_steps_fail_alike_whatever_numbers_and_paths_they_name() -> None:
    breaker = Breaker(3)
    assert breaker.failed(attempt("no file /data/a.npy in 3 s")) is None
    assert breaker.failed(attempt("no file /data/other/b.npy in 14.5 s")) is None
    assert breaker.failed(attempt("something else")) is None
    assert breaker.failed(attempt("no file /data/a.npy in 3 s", entry="score")) is None
    reason = breaker.failed(attempt("no file /tmp/c.npy in -1e-3 s"))
    assert reason is not None
    assert "the first 3 steps of 'fit' all ended with ValueError: no file /tmp/c.npy" in reason
    assert "limits.breaker" in reason


def test_a_stage_that_has_worked_is_never_stopped() -> None:
    breaker = Breaker(1)
    breaker.succeeded("fit")
    assert breaker.failed(attempt("no")) is None
    assert breaker.failed(attempt("no", entry="score")) is not None


def test_a_signature_keeps_what_tells_errors_apart() -> None:
    assert signature("ValueError", "cuda error") != signature("ValueError", "disk error")
    assert signature("KeyError", "x") != signature("ValueError", "x")
    assert signature("KeyError", "key 'a' of 0x7f00") == signature("KeyError", "key 'b' of 0x7f99")


def open_again(session: Session) -> Session:
    return Session(session.file, session.spec, session.plan, None, session.outputs)


BROKEN = toy_sweep.SWEEP.replace("x: [1, 2, 3]", "x: [1, 2, 3, 4, 5]").replace(
    "plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}"
)


def test_the_rest_of_the_sweep_goes_on_when_a_stage_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = toy_sweep.SWEEP.replace(
        "  total:\n",
        "  side: {stage: toy_double, inputs: {number: source}, config: {add: $y, behaviour: raise}}\n  total:\n",
    )
    code, session = run_inline(tmp_path, "limits.breaker=4", text=text)
    assert code == 1
    counts = session.schedule.counts()
    assert counts["total"][State.COMMITTED] == 6
    assert (counts["side"][State.FAILED], counts["side"][State.PENDING]) == (4, 0)
    assert counts["side"][State.BLOCKED] == 8
    out = capsys.readouterr().out
    assert "the first 4 steps of 'side' all ended with ValueError: the toy was told to raise" in out
    # The cells say so, also to whoever reads the store only.
    for table in (pq.read_table(session.outputs.results), open_again(session).results().table()):
        # Each cell has two of these steps.
        kinds = Counter((row["status"], row["error_class"]) for row in table.to_pylist())
        assert kinds == {("failed", "ValueError"): 2, ("blocked", "breaker"): 4}
    (stopped,) = [each for each in status(open_again(session))["errors"] if each["error_class"] == "breaker"]
    assert "its other steps were not started (limits.breaker)" in stopped["example"]
    # The same command tries again, and stops again.
    before = attempts_made(session)
    run_inline(tmp_path, "limits.breaker=4", text=text)
    assert attempts_made(session) == before + 4


@pytest.mark.parametrize(
    ("limit", "words"), [("limits.wall=0.001", "limits.wall"), ("limits.gpu_hours=0.00001", "limits.gpu_hours")]
)
def test_a_budget_stops_the_run_and_the_same_command_goes_on(
    tmp_path: Path, limit: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = "runtime.default.gpus=1"
    slow = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: slow}")
    code, session = run_inline(tmp_path, limit, gpus, text=slow)
    assert code == 1
    assert words in (session.schedule.stopped or "")
    made = attempts_made(session) if (tmp_path / "toy-trace").exists() else 0
    assert made < 18
    code, session = run_inline(tmp_path, text=slow)
    assert code == 0
    assert attempts_made(session) == 18


def test_a_command_claims_nothing_of_what_was_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toy_sweep.write_sweep(tmp_path, FAILING_CELL)

    def run(entry: str | None = None, count: int | None = None, **only: str) -> str:
        chosen = [f"{axis}={values}" for axis, values in only.items()]
        session = open_session(path, only=chosen, outputs=str(tmp_path / "out"), entry=entry)
        if count:
            session = session.narrow(None, count)
        run_and_show(session, None, True, None)
        return " ".join(capsys.readouterr().out.split())

    assert "source is done for all 12 cells; 18 steps of other stages remain" in run(entry="source")
    assert "nothing to do: source is done for all 12 cells; 18 steps of other stages remain" in run(entry="source")
    said = run(entry="source", x="1")
    assert "nothing to do: source is done for all 4 chosen cells; 6 steps of other stages remain" in said
    assert "without --stage the same command finishes the 4 cells that are missing" in said
    said = run(entry="total", x="1")
    assert "total is missing for 2 of 4 chosen cells; the same command tries them again" in said
    run(x="1", kind="plain")
    said = run(x="1", kind="plain")
    assert "nothing to do: all 2 chosen cells are finished; of the other 10, 10 are not" in said
    run()
    # What failed is no part of the selection.
    assert "all 6 chosen cells are finished; of the other 6, 6 are not" in run(kind="plain")
    assert "nothing to do: all 6 chosen cells are finished" in run(count=3, kind="plain")
    path.write_text(toy_sweep.SWEEP)
    assert "nothing to do: all 6 cells are finished" in run()
    assert "nothing to do: all 2 chosen cells are finished; so are the other 4" in run(x="1")
    assert "nothing to do: source is done for all 6 cells; no steps of other stages remain" in run(entry="source")


def test_only_so_many_cells_only_those_with_an_error_and_only_up_to_a_stage(tmp_path: Path) -> None:
    path = toy_sweep.write_sweep(tmp_path, FAILING_CELL)

    def run(**chosen: object) -> tuple[int, Session]:
        entry = chosen.pop("entry", None)
        session = open_session(path, outputs=str(tmp_path / "out"), entry=entry)  # type: ignore[arg-type]
        if chosen:
            session = session.narrow(chosen.get("error"), chosen.get("count"))  # type: ignore[arg-type]
        return run_and_show(session, None, True, None), session

    code, session = run(entry="source")
    assert code == 0
    assert attempts_made(session) == 6
    code, session = run(count=2)
    assert code == 1
    assert [row["status"] for row in rows(session)].count("pending") == 10
    run()
    before = attempts_made(session)
    code, session = run(error="ValueError", count=3)
    assert code == 1
    assert attempts_made(session) == before + 3
    with pytest.raises(SweepError, match="did you mean 'ValueError'"):
        run(error="ValueErorr")
    with pytest.raises(SweepError, match="--stage: there is no entry 'sauce'; did you mean 'source'"):
        run(entry="sauce")


def test_hooks_are_told_and_a_bad_one_costs_only_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told"
    hook = f"(echo $SWEEP_EVENT; cat; echo) >> {told}"
    text = BROKEN + f"hooks: {{finish: '{hook}', breaker: '{hook}'}}\n"
    text = text.replace("config: {value: $x}", "config: {value: $x, behaviour: raise}")
    run_inline(tmp_path, "limits.breaker=2", text=text)
    breaker, facts, finish, more = told.read_text().splitlines()
    assert (breaker, finish) == ("breaker", "finish")
    assert json.loads(facts)["stage"] == "source"
    assert json.loads(more)["exit_code"] == 1
    code, _ = run_inline(tmp_path, text=toy_sweep.SWEEP + "hooks: {finish: 'echo oh; exit 3'}\n")
    assert code == 0
    assert "hooks.finish ended with 3: oh" in capsys.readouterr().out


class Flaky(OnePlace):
    """An executor whose machines fail a step some times before it works; time passes only in `wait`."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.cpus, self.bundle_seconds = 1.0, 1.0
        self.outcomes = outcomes
        self.started: list[float] = []
        self.requests: list[list[Request]] = []
        self.queue: list[list[Request]] = []
        self.now = 0.0

    def slots(self, runtime: Runtime) -> int:
        return 1

    def find_slot(self, runtime: Runtime, ready: Mapping[str, int], turns: object = None) -> Slot | None:
        return None if self.queue else Slot()

    def submit(self, requests: object, slot: Slot) -> None:
        assert isinstance(requests, list)
        self.started.append(self.now)
        self.requests.append(requests)
        self.queue.append(requests)

    def wait(self, seconds: float) -> list[Ended]:
        from orchestrator.attempt.bundle import run_bundle

        requests = self.queue.pop()
        if not self.outcomes:
            return [Ended(tuple(requests), tuple(run_bundle(requests)))]
        outcome = self.outcomes.pop(0)
        request = requests[0]
        failed = Attempt(
            request.step.address, request.step.entry, request.number, outcome, 1.0, 0.0, "here", "abc", outcome, "gone"
        )
        # Only the first was begun.
        return [Ended(tuple(requests), (failed,))]

    def stop(self) -> None:
        pass


def play(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: list[Outcome],
    overrides: Sequence[str] = (),
    text: str = ONE,
) -> tuple[Flaky, Session]:
    folder.mkdir(exist_ok=True)
    overrides = ["runtime.default.attempts=3", *overrides]
    session = open_session(toy_sweep.write_sweep(folder, text), overrides, outputs=str(folder / "out"))
    session.store.prepare()
    executor = Flaky(outcomes)
    monkeypatch.setattr("orchestrator.run.loop.time.monotonic", lambda: executor.now)
    monkeypatch.setattr(
        "orchestrator.run.loop.time.sleep", lambda seconds: setattr(executor, "now", executor.now + max(seconds, 0.01))
    )
    list(run_plan(session.schedule, session.store, executor, "abc"))
    return executor, session


def test_a_step_whose_worker_dies_is_tried_again_with_growing_pauses_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, session = play(tmp_path, monkeypatch, [Outcome.CRASHED] * 5)
    assert len(executor.started) == 3
    assert session.schedule.states[0] == State.FAILED
    pauses = [after - before for before, after in zip(executor.started, executor.started[1:], strict=False)]
    assert pauses == pytest.approx([1, 2], abs=0.1)
    assert [bundle[0].number for bundle in executor.requests] == [1, 2, 3]


def test_a_lost_node_costs_a_step_none_of_its_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, session = play(tmp_path, monkeypatch, [Outcome.LOST] * 8 + [Outcome.CRASHED, Outcome.OUT_OF_MEMORY])
    assert session.schedule.states[0] == State.COMMITTED
    assert len(executor.started) == 11
    assert [bundle[0].number for bundle in executor.requests] == list(range(1, 12))
    pauses = [after - before for before, after in zip(executor.started, executor.started[1:], strict=False)]
    assert pauses[:7] == pytest.approx([1, 2, 4, 8, 16, 32, 60], abs=0.1)


def test_what_uses_gpus_goes_first_and_then_what_is_nearest_to_a_finished_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ONE.replace("x: [1]", "x: [1, 2]") + (
        "  late: {stage: toy_source, config: {value: 5}}\n"
        "  gpu: {stage: toy_source, config: {value: 7}}\n"
        "  double: {stage: toy_double, inputs: {number: source}}\n"
        "results: [double]\n"
        "runtime: {gpu: {gpus: 1}}\n"
    )
    executor, _ = play(tmp_path, monkeypatch, [], text=text)
    order = [request.step.entry for bundle in executor.requests for request in bundle]
    assert order == ["gpu", "late", "source", "double", "source", "double"]


def test_an_io_error_is_tried_again_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, session = play(tmp_path, monkeypatch, [Outcome.IO_ERROR] * 2)
    assert session.schedule.states[0] == State.COMMITTED
    pauses = [after - before for before, after in zip(executor.started, executor.started[1:], strict=False)]
    assert pauses == pytest.approx([1, 2], abs=0.1)


def test_a_step_that_ran_out_of_memory_gets_twice_as_much_up_to_the_limit_and_then_a_node_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = ["runtime.source={attempts: 5, memory: 4GiB, memory_limit: 10GiB, gpus: 0.5, gpu_memory: 8GiB}"]
    executor, session = play(tmp_path, monkeypatch, [Outcome.OUT_OF_MEMORY] * 3, allowed)
    runtimes = [bundle[0].runtime for bundle in executor.requests]
    assert [runtime.memory for runtime in runtimes] == [4 * 2**30, 8 * 2**30, 10 * 2**30, 10 * 2**30]
    assert [runtime.gpus for runtime in runtimes] == [0.5, 1, 1, 1]
    # Alone on a GPU, it may use all of it.
    assert [runtime.gpu_memory for runtime in runtimes] == [8 * 2**30, None, None, None]
    executor, session = play(tmp_path / "other", monkeypatch, [Outcome.OUT_OF_MEMORY] * 5)
    assert session.schedule.states[0] == State.FAILED
    assert [bundle[0].runtime.whole_node for bundle in executor.requests] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (requests.exceptions.ConnectionError("no route"), True),
        (requests.exceptions.ReadTimeout("slow"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_errors_that_pass_by_themselves_are_tried_again(error: Exception, expected: bool) -> None:
    assert passes(error) is expected
    with pytest.raises(StoreError) as caught:
        raise StoreError("the store") from error
    assert caught.value.passes is expected


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        # As s3fs spells a service's refusal.
        (PermissionError("Access Denied"), True),
        (FileNotFoundError("The specified bucket does not exist"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (OSError(errno.ENAMETOOLONG, "File name too long"), False),
    ],
)
def test_only_a_store_that_takes_nothing_from_anybody_stops_a_sweep(error: Exception, stops: bool) -> None:
    with pytest.raises(StoreError) as caught:
        raise StoreError("the store") from error
    assert caught.value.stops is stops
