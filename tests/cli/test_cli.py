"""The commands as a person or a script meets them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import toy_sweep
import typer
from command_server import sweep

from orchestrator.cli import console
from orchestrator.cli.app import app
from orchestrator.code import code_commit
from orchestrator.explain.estimator import Estimator
from orchestrator.results.heartbeat import write_heartbeat
from orchestrator.session import open_session

FAILING = toy_sweep.SWEEP.replace("plain: {behaviour: work}", "plain: {behaviour: work}\n    bad: {behaviour: raise}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was run: half of its cells failed."""
    folder = tmp_path_factory.mktemp("cli")
    toy_sweep.write_sweep(folder, FAILING)
    done = sweep(folder, "run", "toy.yaml", "--inline")
    assert done.returncode == 1, done.stderr
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "run",
        "submit",
        "status",
        "dashboard",
        "results",
        "compare",
        "report",
        "why",
        "show",
        "debug",
        "sync",
        "gc",
        "pin",
        "verify",
        "adopt",
    ],
)
def test_every_command_explains_itself_with_an_example(folder: Path, command: str) -> None:
    done = sweep(folder, command, "--help")
    assert done.returncode == 0
    assert f"Example:  sweep {command} sweeps/" in " ".join(done.stdout.split()).replace(
        "Example: sweep", "Example:  sweep"
    )


def test_the_version_names_the_code(folder: Path) -> None:
    done = sweep(folder, "--version")
    assert done.returncode == 0
    commit = code_commit()
    named = commit if commit.startswith("source-") else f"commit {commit}"
    assert done.stdout == f"alignment-sweeps {version('alignment-sweeps')} ({named})\n"


def test_a_paragraph_of_a_help_breaks_where_the_terminal_does_and_each_example_has_a_line_of_its_own(
    folder: Path,
) -> None:
    lines = [line.strip() for line in sweep(folder, "run", "--help").stdout.splitlines()]
    first = next(line for line in lines if line.startswith("Exit code: 0"))
    assert len(first) > 70
    assert "sweep run sweeps/quickstart.yaml" in lines


def test_brackets_and_colons_of_a_person_are_no_markup(folder: Path) -> None:
    text = FAILING.replace("question: ", "question: '[red]x[/] :fire:'  # ")
    toy_sweep.write_sweep(folder, text, "brackets.yaml")
    place = folder / "[red]y[/] :fire:"
    said = sweep(folder, "run", "brackets.yaml", "--inline", "--outputs", str(place)).stdout
    assert said.startswith("toy: [red]x[/] :fire:\n")
    assert f"outputs: {place} (" in said
    assert f"table:  {place}/sweeps/toy/results.parquet" in said
    assert f"    log: {place}/store/attempts/" in said
    said = sweep(folder, "status", "brackets.yaml", "--outputs", str(place)).stdout
    assert f"    log: {place}/store/attempts/" in said
    said = sweep(folder, "plan", "brackets.yaml", "--outputs", str(place)).stdout
    assert f"store: {place}/store" in said


def test_commands_on_a_sweep_file_share_its_options_and_refuse_what_they_lack(folder: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {text for each in made.params for text in each.opts} for name, made in commands.items()}
    # Those that write a study look at no results, and run nothing.
    on_a_file = options.keys() - {"unpin", "init", "stages", "schema"}
    assert all({"-s", "--set", "--outputs", "--store"} <= options[name] for name in on_a_file)
    on_cells = {"plan", "run", "submit", "status", "results", "compare", "report", "verify"}
    assert {name for name, mine in options.items() if "--only" in mine and "--exclude" in mine} == on_cells
    assert {name for name, mine in options.items() if "--max-cells" in mine} == {"run", "submit"}
    for arguments, words in ((("why", "toy.yaml"), "CELL"), (("plan",), "SWEEP.yaml"), (("plan", "--onyl"), "--only")):
        done = sweep(folder, *arguments)
        assert done.returncode == 2
        assert words in done.stderr


def test_the_last_lines_of_a_run_say_which_cells_are_missing_and_what_to_do(folder: Path) -> None:
    done = sweep(folder, "run", "toy.yaml", "--inline")
    assert done.returncode == 1
    tail = done.stdout.splitlines()[-8:]
    assert any("6 failed ValueError: the toy was told to raise" in line for line in tail), done.stdout
    log = next(line.split("log: ")[1] for line in tail if "log: " in line)
    assert "Traceback" in Path(log).read_text()
    assert any("6 of 12 cells are missing" in line and "sweep run toy.yaml" in line for line in tail)
    assert any(line.startswith("explain one: sweep why toy.yaml ") for line in tail)


def test_commands_that_are_shown_mean_the_same_sweep_and_are_ready_for_a_shell(folder: Path) -> None:
    places = ["-s", "axes.x=[1, 2]", "--outputs", "other place"]
    done = sweep(folder, "run", "toy.yaml", "--inline", "--only", "kind=bad", *places)
    again, explain = (
        shlex.split(next(line.split(": ", 1)[1] for line in done.stdout.splitlines() if each in line).split(": ")[-1])
        for each in ("the same command tries them again", "explain one")
    )
    assert again == ["sweep", "run", "toy.yaml", "--only", "kind=bad", "--inline", *places]
    explained = sweep(folder, *explain[1:])
    assert explained.returncode == 0, explained.stderr
    by_hand = next(line for line in explained.stdout.splitlines() if "run its next step here: " in line)
    ran = sweep(folder, *shlex.split(by_hand.split(": ")[1])[1:])
    assert "the toy was told to raise" in ran.stderr + ran.stdout


def test_plan_in_json_counts_cells_and_steps(folder: Path) -> None:
    done = sweep(folder, "plan", "toy.yaml", "--json")
    report = json.loads(done.stdout)
    assert report["cells"] == 12
    counts = {"total": 6, "committed": 6, "to_run": 0, "failed": 0, "blocked": 0, "reasons": {}}
    assert report["steps"]["source"] == report["steps"]["double"] == counts
    total = report["steps"]["total"]
    why = {"failed before: ValueError": 6}
    assert total == {"total": 12, "committed": 6, "to_run": 6, "failed": 6, "blocked": 0, "reasons": why}
    # What worked tells nothing of what did not.
    assert (report["expected"]["unknown_steps"], report["expected"]["steps"]) == (6, 6)


def test_plan_and_status_count_the_cells_that_were_chosen(folder: Path) -> None:
    assert "12 cells (3 x × 2 y × 2 kind)\n" in sweep(folder, "plan", "toy.yaml").stdout
    assert "4 of 12 cells (3 x × 2 y × 2 kind)\n" in sweep(folder, "plan", "toy.yaml", "--only", "x=1").stdout
    excluding = ("-s", "exclude=[{x: 1}]")
    said = sweep(folder, "plan", "toy.yaml", *excluding).stdout
    assert "8 cells (3 x × 2 y × 2 kind, 4 of 12 excluded)\n" in said
    said = sweep(folder, "status", "toy.yaml", "--only", "x=1").stdout
    assert "4 cells: 2 succeeded, 2 failed\n" in said
    assert "2 failed ValueError" in said


def test_status_in_json_has_states_and_errors(folder: Path) -> None:
    report = json.loads(sweep(folder, "status", "toy.yaml", "--json").stdout)
    assert report["cells"] == 12
    assert report["cells_by_status"] == {"succeeded": 6, "failed": 6}
    assert report["steps"]["total"] == {
        "total": 12, "committed": 6, "running": 0, "pending": 0, "failed": 6, "blocked": 0,
        "per_minute": None, "seconds": None,
    }  # fmt: skip
    assert report["errors"][0]["error_class"] == "ValueError"
    assert report["live"] is False


def test_results_in_json_are_means_and_with_cells_rows(folder: Path) -> None:
    means = json.loads(sweep(folder, "results", "toy.yaml", "--by", "x", "--json").stdout)
    assert [(row["x"], row["cells"], row["total_mean"]) for row in means] == [(1, 2, 21.0), (2, 2, 25.0), (3, 2, 29.0)]
    assert len(json.loads(sweep(folder, "results", "toy.yaml", "--cells", "--json").stdout)) == 12


def test_why_explains_a_failed_cell_and_gives_the_command_that_runs_its_step(folder: Path) -> None:
    done = sweep(folder, "why", "toy.yaml", "x=2,y=10,kind=bad")
    assert done.returncode == 0
    for words in (
        "failed",
        "x=2,y=10,kind=bad",
        "ValueError: the toy was told to raise",
        "log: ",
        "sweep debug toy.yaml",
    ):
        assert words in done.stdout
    explanation = json.loads(sweep(folder, "why", "toy.yaml", "x=2,y=10,kind=bad", "--json").stdout)
    assert [step["entry"] for step in explanation["steps"]] == ["source", "source", "double", "double", "total"]
    assert explanation["steps"][-1]["state"] == "failed"
    assert explanation["steps"][-1]["attempts"][0]["outcome"] == "failed"
    done = sweep(folder, "why", "toy.yaml", "x=2,y=10,kind=plain")
    assert "run its last step here again, committing nothing: sweep debug toy.yaml" in done.stdout


def test_debug_runs_the_step_in_the_foreground_and_lets_its_exception_through(folder: Path) -> None:
    done = sweep(folder, "debug", "toy.yaml", "x=2,y=10,kind=bad")
    assert done.returncode == 1
    assert "ValueError: the toy was told to raise" in done.stderr
    assert "toy.py" in done.stdout
    done = sweep(folder, "debug", "toy.yaml", "x=2,y=10,kind=plain", "--stage", "total")
    assert done.returncode == 0, done.stderr
    assert "total = 20.0" in done.stdout
    done = sweep(folder, "debug", "toy.yaml", "x=2,y=10,kind=plain", "--stage", "total", "--outputs", "nothing there")
    assert done.returncode == 2
    assert "to run it: sweep run toy.yaml --stage double --outputs 'nothing there'" in done.stderr


def test_mistakes_end_in_messages_and_exit_code_2_and_never_in_a_traceback(folder: Path) -> None:
    for arguments, words in (
        (("plan", "tyo.yaml"), "did you mean 'toy.yaml'"),
        (("dashboard", "tyo.yaml"), "did you mean 'toy.yaml'"),
        (("plan", "."), ".: cannot be read: Is a directory"),
        (("run", "toy.yaml", "--only", "x=9"), "'9' is no value of 'x'"),
        (("why", "toy.yaml", "zzz"), "names no cell"),
        (("results", "toy.yaml", "--metrics", "totl"), "did you mean 'total'"),
        (("run", "toy.yaml", "--inline", "--outputs", "toy.yaml/x"), "cannot be written"),
        (("run", "toy.yaml", "-s", "axes.z=[1]"), "no stage uses $z"),
    ):
        done = sweep(folder, *arguments)
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_sync_of_a_sweep_without_tracking_says_so(folder: Path) -> None:
    done = sweep(folder, "sync", "toy.yaml")
    assert done.returncode == 0
    assert "nothing to do" in done.stdout


def test_a_driver_of_another_version_of_the_sweep_is_no_measure_of_the_steps_of_this_one(tmp_path: Path) -> None:
    session = open_session(toy_sweep.write_sweep(tmp_path), outputs=str(tmp_path / "out"))
    estimates = Estimator(session.schedule, lambda runtime: 1).to_json()
    steps = {name: {"running": 1} for name in session.plan.entries}
    for digest, words in (
        (session.plan.digest, "a driver is running: no estimate yet for"),
        ("of an older version", "a driver is running with another version of this sweep (its file was changed, or -s"),
    ):
        write_heartbeat(session.outputs.folder, {"plan": digest, "steps": steps, **estimates})
        said = sweep(tmp_path, "status", "toy.yaml", "--outputs", "out").stdout
        assert words in said
        assert ("running" in said.splitlines()[0].split()) == (digest == session.plan.digest)


def test_status_names_a_log_only_where_there_is_one(tmp_path: Path) -> None:
    text = toy_sweep.SWEEP.partition("axes:")[0] + "axes: {behaviour: [newline, missing_name]}\nstages:\n"
    text += "  source: {stage: toy_odd, config: {value: 1, behaviour: $behaviour}}\nuses: [toy]\nnamespace: toy\n"
    toy_sweep.write_sweep(tmp_path, text.replace("missing_name", "surrogate_name"))
    assert sweep(tmp_path, "run", "toy.yaml", "--inline").returncode == 1
    said = sweep(tmp_path, "status", "toy.yaml").stdout
    assert "has control characters" in said
    assert "None" not in said
    assert "rejected: metrics undeclared: '\\udcff'; declared: 'value'" in said


def test_a_label_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[31mb", (" c\x1b[0m", "bold"))
    console.console.print(console.table(["x"], [["1\x1b[31m2"]]))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["ab c", "x", "12"]


@pytest.mark.parametrize("arguments", [("plan",), ("plan", "--json"), ("results", "--cells"), ("status",)])
def test_a_reader_who_has_seen_enough_is_no_error(folder: Path, arguments: tuple[str, ...]) -> None:
    command = shlex.join([sys.executable, "-m", "orchestrator", arguments[0], "toy.yaml", *arguments[1:]])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], cwd=folder, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
