"""Runs checks one after another, each in a process of its own, within a budget of time."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from check_list import Check
from check_record import NO_DEVICE, Finding, Outcome, read_findings
from time_budget import Budget, duration

HERE = Path(__file__).parent
#: Fewest seconds in which a check is worth beginning.
LEAST = 5.0


@dataclass(frozen=True)
class Result:
    """What became of a check."""

    check: Check
    findings: tuple[Finding, ...]
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Failed if a finding is, skipped if all are, else ok."""
        found = {each.outcome for each in self.findings}
        if Outcome.FAILED in found:
            return Outcome.FAILED
        return Outcome.OK if Outcome.OK in found else Outcome.SKIPPED


def run_checks(
    checks: Sequence[Check],
    work: Path,
    budget: Budget,
    has_gpu: bool,
    say: Callable[[str], None],
    python: str = sys.executable,
) -> list[Result]:
    """Run all checks; none keeps the others from being run.

    Args:
        checks: in order.
        work: a folder that they share: `<check>.log` is what each printed.
        budget: what they may take together; when it is spent, the rest is skipped.
        has_gpu: whether torch can use a GPU.
        say: takes lines of progress.
        python: the interpreter of their processes.
    """
    results: list[Result] = []
    for number, check in enumerate(checks, start=1):
        reason = _reason_to_skip(check, results, budget, has_gpu)
        if reason:
            result = Result(check, (Finding(check.name, "all of it", Outcome.SKIPPED, reason),))
        else:
            result = _run(check, work, budget, python)
        results.append(result)
        left = [each.seconds for each in checks[number:] if has_gpu or not each.gpu]
        told = f"{result.outcome} in {duration(result.seconds)}" if not reason else f"skipped: {reason}"
        say(f"[{number}/{len(checks)}] {check.name}: {told}; about {duration(budget.eta(left))} left")
        for finding in result.findings:
            if finding.outcome is Outcome.FAILED:
                say(f"    {finding.name}: {finding.note}")
    return results


def _reason_to_skip(check: Check, results: Sequence[Result], budget: Budget, has_gpu: bool) -> str | None:
    """Return why a check is not run; None if it is."""
    if check.gpu and not has_gpu:
        return NO_DEVICE
    if missing := [name for name in check.packages if importlib.util.find_spec(name) is None]:
        return f"{', '.join(missing)} not installed here"
    run = {result.check.name for result in results if result.outcome is not Outcome.SKIPPED}
    if absent := [name for name in check.needs if name not in run]:
        return f"it needs what {absent[0]!r} makes"
    return "out of time" if budget.left() < LEAST else None


def _run(check: Check, work: Path, budget: Budget, python: str) -> Result:
    """Run a check to its end, or to that of its time."""
    findings, log = work / f"{check.name}.jsonl", work / f"{check.name}.log"
    findings.unlink(missing_ok=True)
    began, seconds = budget.spent(), min(check.limit, budget.left())
    command = [python, str(HERE / "check_process.py"), check.name, check.function, str(findings), str(work)]
    with log.open("wb") as output:
        # A group of its own, so that what it has started ends with it.
        process = subprocess.Popen(
            [*command, *check.arguments], stdout=output, stderr=subprocess.STDOUT, cwd=work, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            overdue = False
        except subprocess.TimeoutExpired:
            overdue = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = read_findings(findings)
    if overdue and seconds < check.limit:
        note = f"out of time (ended after {duration(seconds)})"
        found.append(Finding(check.name, "the rest of it", Outcome.SKIPPED, note))
    elif overdue:
        found.append(Finding(check.name, "ends", Outcome.FAILED, f"still running after {duration(seconds)}"))
    elif code and not any(each.outcome is Outcome.FAILED for each in found):
        found.append(Finding(check.name, "ends", Outcome.FAILED, f"exit code {code}; the last of its log: {_end(log)}"))
    elif not found:
        found.append(Finding(check.name, "ends", Outcome.FAILED, "found nothing, neither right nor wrong"))
    return Result(check, tuple(found), budget.spent() - began)


def _end(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "nothing")
