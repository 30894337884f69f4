"""`make gpu-check`: it goes on whatever a check does, keeps to its time, and says what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from check_list import CHECKS, Check
from check_record import NO_DEVICE, Finding, Outcome, read_findings
from check_report import as_markdown, cell, write_report
from check_runner import Result, run_checks
from time_budget import Budget, duration

HERE = Path(__file__).parent
#: Checks that do something odd, as a module of their own.
ODD = """
import os, signal, sys, time
from check_record import Figure
def sound(record, work):
    record.ok("all", "seen | <b>so</b>", [Figure("time", 1234.5, "s")])
def wrong(record, work):
    record.expect("holds", False, "it does not")
def raises(record, work):
    record.ok("before", "this is kept")
    raise ValueError("half\\nof it \\udc80")
def leaves(record, work):
    sys.exit(0)
def crashes(record, work):
    record.ok("before", "this is kept")
    print("the last words", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
def silent(record, work):
    pass
def hangs(record, work):
    record.ok("before", "this is kept")
    time.sleep(600)
def reads(record, work):
    record.ok("reads")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Result]]:
    (tmp_path / "odd_checks.py").write_text(ODD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []

    def run_them(*checks: Check, budget: Budget | None = None, has_gpu: bool = False) -> list[Result]:
        results = run_checks(checks, tmp_path, budget or Budget(300), has_gpu, said.append)
        assert [line for line in said if line.startswith("[")][-1].startswith(f"[{len(checks)}/{len(checks)}]")
        return results

    return run_them


def odd(name: str, seconds: float = 10, **more: Any) -> Check:
    return Check(name, f"odd_checks:{name}", seconds, **more)


def test_a_check_that_fails_raises_crashes_or_leaves_does_not_end_the_others(run: Callable[..., list[Result]]) -> None:
    names = ("wrong", "raises", "leaves", "crashes", "silent", "absent", "sound")
    results = {result.check.name: result for result in run(*map(odd, names))}
    assert {name: result.outcome for name, result in results.items()} == {
        **dict.fromkeys(names[:-1], Outcome.FAILED), "sound": Outcome.OK,
    }  # fmt: skip
    assert [each.name for each in results["raises"].findings] == ["before", "raised"]
    assert "ValueError: half of it" in results["raises"].findings[1].note
    assert [each.note for each in results["crashes"].findings] == [
        "this is kept", "exit code -11; the last of its log: the last words",
    ]  # fmt: skip
    assert "found nothing" in results["silent"].findings[0].note


def test_what_is_left_when_time_is_out_is_skipped_and_so_is_the_rest_of_what_runs(
    run: Callable[..., list[Result]],
) -> None:
    now = iter([0.0, *[1.0] * 3, *[500.0] * 100])
    hangs, sound = run(odd("hangs"), odd("sound"), budget=Budget(7, lambda: next(now)))
    assert [(each.name, each.outcome) for each in hangs.findings] == [
        ("before", Outcome.OK), ("the rest of it", Outcome.SKIPPED),
    ]  # fmt: skip
    assert hangs.findings[1].note == "out of time (ended after 6 s)"
    assert sound.findings == (Finding("sound", "all of it", Outcome.SKIPPED, "out of time"),)


def test_a_check_is_skipped_with_the_reason_where_it_lacks_a_gpu_a_package_or_what_another_makes(
    run: Callable[..., list[Result]],
) -> None:
    checks = (
        odd("sound", gpu=True),
        odd("wrong", packages=("json", "no_such_package")),
        odd("reads", needs=("sound",)),
    )
    assert [result.findings[0].note for result in run(*checks)] == [
        NO_DEVICE, "no_such_package not installed here", "it needs what 'sound' makes",
    ]  # fmt: skip
    assert [result.outcome for result in run(*checks, has_gpu=True)] == [Outcome.OK, Outcome.SKIPPED, Outcome.OK]


def test_the_report_is_for_people_and_for_machines(run: Callable[..., list[Result]], tmp_path: Path) -> None:
    results = run(odd("sound"), odd("wrong"), odd("reads", gpu=True))
    machine = {
        "devices": [{"name": "NVIDIA H200", "capability": "9.0", "multiprocessors": 132, "memory_bytes": 2**37,
                     "free_bytes": 2**36}],
        "nvidia_smi": ["NVIDIA H200, 580.159.03"], "libraries": {"torch": "2.13.0"}, "cuda": "13.0",
    }  # fmt: skip
    about = {"date": "2026-11-30", "commit": "abc+dirty", "machine": machine, "seconds": 61.0, "budget_seconds": 540.0}
    write_report(results, about, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["machine"] == machine
    assert [(each["check"], each["outcome"]) for each in found["checks"]] == [
        ("sound", "ok"), ("wrong", "failed"), ("reads", "skipped"),
    ]  # fmt: skip
    assert found["checks"][0]["findings"][0]["figures"] == [{"name": "time", "value": 1234.5, "unit": "s"}]
    text = (tmp_path / "report.md").read_text()
    assert "1 ok, 1 failed, 1 skipped, in 1 min 01 s of at most 9 min 00 s" in text
    assert "| all | ok | seen \\| \\<b\\>so\\</b\\> | time 1,234 s |" in text
    assert "| holds | **failed** | it does not |  |" in text
    assert f"## reads: skipped\n\n{NO_DEVICE}\n" in text
    assert "| GPU | NVIDIA H200 (capability 9.0, 132 multiprocessors, 64.0 of 128.0 GiB free at the start) |" in text
    assert "abc+dirty" in text


def test_a_machine_of_which_nothing_is_known_has_a_report_too() -> None:
    about = {"date": "", "commit": "", "machine": {}, "seconds": 0.0, "budget_seconds": 1.0}
    assert "| memory | unknown |" in as_markdown([], about)


def test_a_text_stays_in_its_cell_whatever_is_in_it() -> None:
    assert cell("a\nb|c `x` \udc80") == r"a b\|c \`x\` \\udc80"


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "findings.jsonl"
    whole = json.dumps({"check": "a", "name": "b", "outcome": "ok", "note": "", "figures": []})
    file.write_text(f"{whole}\n{whole[:20]}")
    assert [each.name for each in read_findings(file)] == ["b"]


def test_durations_are_told_in_minutes_and_seconds() -> None:
    assert [duration(each) for each in (0.4, 59.4, 60, 540)] == ["0 s", "59 s", "1 min 00 s", "9 min 00 s"]


def test_all_checks_are_expected_to_fit_into_ten_minutes_and_need_only_earlier_ones() -> None:
    assert sum(check.seconds for check in CHECKS) <= 600
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for number, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:number])
        assert (HERE / f"{check.function.partition(':')[0]}.py").is_file()


@pytest.mark.long
def test_without_a_gpu_all_that_can_be_checked_is_sound_and_the_rest_is_skipped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "gpu_check.py"), "--out", str(tmp_path / "out"), "--scratch", str(tmp_path)],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed, " in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {each["note"] for check in report["checks"] for each in check["findings"] if each["outcome"] == "skipped"}
    if not report["machine"]["devices"]:
        assert all(reason.startswith(NO_DEVICE) for reason in reasons)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.long
def test_a_step_that_is_run_again_on_the_cpu_makes_what_is_in_the_store(tmp_path: Path) -> None:
    # In a process of its own, since it trains. What compares a GPU with a CPU finds no difference between two CPUs,
    # and finds the difference between two procedures.
    program = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]
from pathlib import Path
from check_record import Record, read_findings
from stage_checks import CPU, _begun, compare, difference, on_cpu, stages
from stage_sweep import steps_of
work, file = Path({str(tmp_path)!r}), Path({str(tmp_path / "findings")!r})
on_cpu(Record(file, "cpu"), work)
session = stages(work)
for entry in ("policy", "sft", "generate", "score", "embed", "fit", "evaluate", "scalar", "verdicts", "margins",
              "judgments"):
    compare(Record(file, "again"), session, entry, CPU)
for each in read_findings(file):
    assert each.outcome == "ok", each
    assert each.check == "cpu" or each.figures[0].value == 0, each
fits = dict((step.coords["reward_model"], step) for step in steps_of(session, "fit"))
folders = [session.store.fetch(fits[name].address) for name in ("bt", "clf")]
assert not difference("reward_model", *folders, _begun(session, fits["bt"]), 0).small
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
