"""A process is silent that neither prints, computes, reads nor writes, it and all that it started."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.attempt.silence import Silence, silence_limit
from orchestrator.types import Runtime

#: Each goes on for ever.
LIVELY = {
    "computes": "while True: pass",
    "prints": "import time\nwhile True: print('x', flush=True); time.sleep(0.05)",
    "reads": "import time\nwhile True: open('/dev/zero', 'rb').read(99_999); time.sleep(0.05)",
    "has a child that computes": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])",
}
STILL = {
    "sleeps": "import time; time.sleep(1000)",
    "waits for a child that sleeps": "import subprocess; subprocess.run(['sleep', '1000'])",
    "shows signs of life": "import time\nwhile True: time.sleep(0.05)",
}


@contextmanager
def running(code: str, folder: Path) -> Iterator[int]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", f"open('begun', 'w').close()\n{code}"],
            stdout=log, cwd=folder, start_new_session=True,
        )  # fmt: skip
    try:
        while not (folder / "begun").exists():
            assert process.poll() is None
            time.sleep(0.02)
        yield process.pid
    finally:
        subprocess.run(["kill", "-9", "--", f"-{process.pid}"], check=True)
        process.wait()


@pytest.mark.parametrize("what", STILL)
def test_a_process_that_does_nothing_is_silent(tmp_path: Path, what: str) -> None:
    with running(STILL[what], tmp_path) as process:
        silence = Silence(process, 0.3)
        while silence.look() is None:
            time.sleep(0.02)


@pytest.mark.parametrize("what", LIVELY)
def test_a_process_that_does_something_is_not_silent(tmp_path: Path, what: str) -> None:
    with running(LIVELY[what], tmp_path) as process:
        # By a clock on which what happens between two looks took a second.
        now = 0.0
        silence = Silence(process, 2.0, lambda: now)
        for _ in range(3):
            # Long enough for it to get the hundredth of a second that counts, on a machine that is busy.
            time.sleep(1)
            now += 1.0
            assert silence.look() is None


def test_a_thread_that_watches_its_own_process_is_no_sign_of_life(tmp_path: Path) -> None:
    code = "import os, time\nfrom orchestrator.attempt.silence import Silence\nsilence = Silence(os.getpid(), 1.0)\n"
    code += "while silence.look() is None: time.sleep(0.02)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=400)


def test_a_process_that_cannot_be_seen_is_not_taken_for_silent() -> None:
    now = 0.0
    silence = Silence(2**22 + 1, 1.0, lambda: now)
    for _ in range(30):
        now += 0.1
        assert silence.look() is None


def test_steps_with_gpus_are_watched_and_others_where_the_sweep_says_so() -> None:
    assert silence_limit(Runtime()) is None
    assert silence_limit(Runtime(gpus=0.5)) == 1800
    assert silence_limit(Runtime(gpus=1, silent=60)) == 60
    assert silence_limit(Runtime(silent=60)) == 60
    assert silence_limit(Runtime(silent_ends=True)) == 1800
