"""`sweep submit` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import toy_sweep

REPOSITORY = Path(__file__).parents[2]


#: Four sources of half a second, their doubles, and four totals.
SWEEP = toy_sweep.SWEEP.replace("[1, 2, 3]", "[1, 3]").replace("{value: $x}", "{value: $x, behaviour: slow}")


def command(*arguments: str) -> list[str]:
    # A shell that runs the tests in the background has them ignore SIGINT, which children inherit.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; import sys; sys.argv[0] = 'sweep'; from orchestrator.cli import main; main()"
    return [sys.executable, "-c", code, "submit", *arguments]


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def submit(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = start(folder, environment, *arguments)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output
