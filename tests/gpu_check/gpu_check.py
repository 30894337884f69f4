"""`make gpu-check`: whether everything that is written for GPUs works on the one of this machine, in ten minutes.

Nothing is downloaded: models have random weights. On a machine without a GPU it checks what it can, and says what it
skipped. Progress goes to stderr; the report, which is to be sent back, to `outputs/gpu-check/` as Markdown and JSON.
The exit code is 1 if a check failed. It runs wherever torch is: `python tests/gpu_check/gpu_check.py --help`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(REPOSITORY)]

from check_list import CHECKS  # noqa: E402
from check_record import Outcome  # noqa: E402
from check_report import count, write_report  # noqa: E402
from check_runner import run_checks  # noqa: E402
from time_budget import Budget, duration  # noqa: E402

from orchestrator.code import code_commit  # noqa: E402

#: Seconds for the process that asks torch and the driver about the machine.
_PATIENCE = 120


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, write the report, and return the exit code."""
    asked = _parse(arguments)
    budget = Budget(asked.seconds)
    _say("asking torch and the driver about this machine")
    machine = ask_machine()
    devices = machine.get("devices", [])
    _say(f"GPU: {devices[0]['name']}" if devices else f"no GPU: {machine.get('no_device')}; what can be, is checked")
    checks = [check for check in CHECKS if not asked.only or check.name in asked.only]
    for folder in (asked.out, asked.scratch):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=asked.scratch) as work:
        results = run_checks(checks, Path(work), budget, bool(devices), _say)
        for log in Path(work).glob("*.log"):
            shutil.copy(log, asked.out)
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": code_commit(), "machine": machine,
        "seconds": round(budget.spent(), 1), "budget_seconds": asked.seconds,
    }  # fmt: skip
    write_report(results, about, asked.out)
    print(f"{count(results)}, in {duration(budget.spent())}; report: {asked.out / 'report.md'}, report.json beside it")
    return int(any(result.outcome is Outcome.FAILED for result in results))


def ask_machine() -> dict[str, Any]:
    """Describe this machine; if nobody answers, say so."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / "gpu_machine.py")], capture_output=True, text=True, timeout=_PATIENCE,
            check=True,
        )  # fmt: skip
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return {"devices": [], "no_device": f"this machine cannot be asked: {type(error).__name__}"}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=540.0, help="for all checks together (default: 540)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "outputs" / "gpu-check", help="folder of the report")
    parser.add_argument("--scratch", type=Path, help="folder for models and stores, up to 30 GB (default: /tmp)")
    parser.add_argument(
        "--only", action="append", metavar="CHECK", choices=[check.name for check in CHECKS],
        help="only this check; may be given several times (those that it needs must be named too)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
