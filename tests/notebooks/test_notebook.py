"""A sweep as a notebook has it: it plans, runs and reads, prints nothing, and may be interrupted."""

from __future__ import annotations

import asyncio
import doctest
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toy_sweep
from command_server import sweep as command
from toy_sweep import FAILING_CELL

from orchestrator import notebook, open_sweep, read_results
from orchestrator.explain.progress import SweepProgress
from orchestrator.notebook import RunResult, Sweep
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError


def opened(folder: Path, text: str = toy_sweep.SWEEP, **options: object) -> Sweep:
    return open_sweep(toy_sweep.write_sweep(folder, text), outputs=folder / "out", **options)  # type: ignore[arg-type]


def calls(folder: Path) -> int:
    return len((folder / "toy-trace").read_text().splitlines())


def test_the_example_of_the_class_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Without MLflow, to which this takes a second.
    example = (Sweep.__doc__ or "").replace('"name": "noise",', '"name": "noise", "tracking": False,')
    test = doctest.DocTestParser().get_doctest(example, {}, "Sweep", None, None)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
    assert len(test.examples) >= 9


def test_nothing_is_printed_unless_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = opened(tmp_path, FAILING_CELL + "hooks: {finish: 'echo no; exit 3'}\n")
    for each in (
        sweep.plan,
        lambda: sweep.run(inline=True),
        sweep.status,
        sweep.table,
        lambda: sweep.why("x=1,y=10,kind=bad"),
    ):
        each()
    assert capfd.readouterr() == ("", "")


def test_it_answers_as_the_commands_do(tmp_path: Path) -> None:
    sweep = opened(tmp_path, FAILING_CELL)
    words = ("toy.yaml", "--outputs", "out", "--json")

    def printed(verb: str, *more: str) -> object:
        return json.loads(command(tmp_path, verb, *words, *more).stdout)

    assert sweep.plan() == printed("plan")
    assert sweep.run(inline=True).exit_code == 1
    assert sweep.status() == printed("status")
    assert sweep.table().to_pylist() == printed("results", "--cells")
    cell = sweep.table()["cell_id"][0].as_py()
    assert sweep.why(cell) | {"file": "toy.yaml"} == printed("why", cell)


def test_a_run_tells_what_became_of_the_chosen_cells(tmp_path: Path) -> None:
    sweep = opened(tmp_path, FAILING_CELL, only=["x=1"])
    assert (sweep.name, sweep.cells, sweep.file) == ("toy", 4, tmp_path / "toy.yaml")
    assert (sweep.folder, sweep.store) == (tmp_path / "out/sweeps/toy", str(tmp_path / "out/store"))
    assert repr(sweep) == f"<Sweep toy: 4 cells, in {tmp_path}/out/sweeps/toy>"
    table = tmp_path / "out/sweeps/toy/results.parquet"
    assert sweep.run(inline=True) == RunResult({"succeeded": 2, "failed": 2}, 1, table, None, ())
    assert sweep.table().num_rows == 4
    assert pq.read_table(table).num_rows == 12
    assert read_results(sweep.folder).num_rows == 12
    # What failed is tried again, and nothing else.
    before = calls(tmp_path)
    assert not sweep.run(inline=True).finished
    assert calls(tmp_path) == before + 2


def test_a_part_of_what_is_missing_can_be_run(tmp_path: Path) -> None:
    sweep = opened(tmp_path, FAILING_CELL)
    assert sweep.run(inline=True, stage="source").finished
    assert sweep.status()["steps"]["double"]["committed"] == 0
    assert sweep.run(inline=True, max_cells=2).cells == {"succeeded": 1, "failed": 1}
    assert sweep.run(inline=True, error="ValueError").cells == {"failed": 1}
    with pytest.raises(SweepError, match="there is no entry 'doubel'; did you mean 'double'"):
        sweep.run(inline=True, stage="doubel")
    with pytest.raises(ValueError, match="max_cells is 0"):
        sweep.run(inline=True, max_cells=0)


def test_selections_and_overrides_are_those_of_the_command_line(tmp_path: Path) -> None:
    assert opened(tmp_path, overrides=["axes.x=[1, 5]"], only="x=5").cells == 2
    assert opened(tmp_path, overrides="axes.x=[1, 5]", exclude=["x=5", "y=10"]).cells == 1


def test_progress_is_told_from_the_start_to_the_end(tmp_path: Path) -> None:
    told: list[SweepProgress] = []
    opened(tmp_path, FAILING_CELL).run(told.append, inline=True)
    first, last = told[0], told[-1]
    assert (first.done, first.total, first.failed) == (1, 24, 0)
    assert (last.done, last.total, last.failed, last.running, last.seconds_left) == (18, 24, 6, {}, 0)
    assert first.seconds_left is None
    assert str(last) == "18/24 steps done, 6 failed, running: nothing, 0 s left"
    # Nothing to do is told, too.
    sweep = opened(tmp_path, only=["x=1"])
    sweep.run(inline=True)
    told.clear()
    assert sweep.run(told.append, inline=True).finished
    assert [(each.done, each.total) for each in told] == [(6, 6)]


def test_what_goes_wrong_beside_the_steps_is_in_the_result(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.replace("config: {value: $x}", "config: {value: $x, behaviour: raise}")
    result = opened(tmp_path, text + "limits: {breaker: 2}\nhooks: {breaker: 'echo no; exit 3'}\n").run(inline=True)
    broken, hook = result.warnings
    assert "source" in broken
    assert hook == "hooks.breaker ended with 3: no"
    limited = opened(tmp_path, text + "limits: {failures: 1}\n").run(inline=True)
    assert limited.stopped == "1 steps failed, which is the sweep's limit (limits.failures)"


class _EnoughError(Exception):
    pass


@pytest.mark.parametrize("error", [_EnoughError(), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_callers_function_raises_ends_the_run_as_an_interrupt_does(
    tmp_path: Path, error: BaseException
) -> None:
    def enough(progress: SweepProgress) -> None:
        raise error

    sweep, before = opened(tmp_path), signal.getsignal(signal.SIGTERM)
    with pytest.raises(type(error)) as caught:
        sweep.run(enough, inline=True)
    assert caught.value is error
    assert signal.getsignal(signal.SIGTERM) is before
    assert sorted(path.name for path in sweep.folder.iterdir()) == ["results.parquet"]
    assert list((tmp_path / "out/store/claims").rglob("*.*")) == []
    assert calls(tmp_path) == 1
    assert sweep.run(inline=True).finished
    assert calls(tmp_path) == 15 + 3


def test_sigterm_is_passed_on_when_the_run_has_ended(tmp_path: Path) -> None:
    sweep, told = opened(tmp_path), []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append((number, sweep.status()["live"])))
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep.run(lambda _: signal.raise_signal(signal.SIGTERM), inline=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [(signal.SIGTERM, False)]
    assert (sweep.folder / "results.parquet").exists()


def test_what_the_callers_function_raises_at_the_end_costs_nothing(tmp_path: Path) -> None:
    def enough(progress: SweepProgress) -> None:
        if progress.done == progress.total:
            raise _EnoughError

    sweep = opened(tmp_path)
    with pytest.raises(_EnoughError):
        sweep.run(enough, inline=True)
    assert sweep.status()["cells_by_status"] == {"succeeded": 6}


def test_it_runs_in_another_thread_and_below_a_running_event_loop(tmp_path: Path) -> None:
    sweep, results = opened(tmp_path), []
    thread = threading.Thread(target=lambda: results.append(sweep.run(inline=True, stage="source")))
    thread.start()
    thread.join()

    async def cell() -> RunResult:
        return sweep.run(inline=True)

    results.append(asyncio.run(cell()))
    assert [each.finished for each in results] == [True, True]


def test_a_change_of_the_folder_does_not_lose_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    toy_sweep.write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)
    sweep = open_sweep("toy.yaml", store="kept")
    other = open_sweep(toy_sweep.write_sweep(tmp_path, toy_sweep.ONE, "one.yaml").name, outputs="out")
    assert sweep.run(inline=True, max_cells=1).finished
    monkeypatch.chdir("there")
    assert sweep.run(inline=True).finished
    assert other.run(inline=True).finished
    assert sweep.table().num_rows == 6
    assert sweep.why("x=1,y=10")["file"] == str(tmp_path / "toy.yaml")
    assert list(Path().iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kept", "one.yaml", "out", "outputs", "there", "toy-trace", "toy.yaml",
    ]  # fmt: skip


def test_errors_say_all_that_is_wrong_one_per_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy_sweep.write_sweep(tmp_path, toy_sweep.SWEEP.replace("results: [total]", "results: [totl]") + "limit: 1\n")
    with pytest.raises(SweepError) as caught:
        open_sweep("toy.yaml")
    assert str(caught.value).splitlines() == [
        "toy.yaml:15: results[0]: there is no entry 'totl'; did you mean 'total'?",
        "toy.yaml:19: limit: unknown field; did you mean 'limits'?",
    ]
    with pytest.raises(SweepError, match=r"^tyo.yaml: no such file; did you mean 'toy.yaml'\?$"):
        open_sweep("tyo.yaml")
    with pytest.raises(SweepError, match="names no cell of this sweep"):
        opened(tmp_path).why("x=1,y=11")
    Path("out").write_text("in the way")
    with pytest.raises(StoreError, match="out"):
        opened(tmp_path).run(inline=True)


def test_to_import_the_package_costs_nothing() -> None:
    code = "import sys, typing; known = set(sys.modules); import orchestrator; print(set(sys.modules) - known)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'orchestrator'}\n"
    assert notebook.open_sweep is not open_sweep


def test_a_table_that_is_gone_is_made_again(tmp_path: Path) -> None:
    sweep = opened(tmp_path)
    sweep.run(inline=True)
    shutil.rmtree(sweep.folder)
    assert sweep.table().equals(read_results(sweep.folder))
