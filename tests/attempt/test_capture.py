"""What a step prints is kept, whatever prints it, within bounds."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.attempt.capture import LOG_LIMIT, Capture, rescue_log
from orchestrator.store.posix import PosixStore
from orchestrator.types import Artifact

STEP = Artifact("stage", "a" * 32)
LINE = b"a line of a loop that prints\n"
COUNT = LOG_LIMIT // len(LINE) + 1


def stored(folder: Path) -> PosixStore:
    store = PosixStore(folder / "store")
    store.prepare()
    return store


def check(log: Path) -> None:
    """The beginning and the end are there, and how much is left out."""
    content = log.read_bytes()
    assert content.startswith(b"first\n" + LINE)
    assert content.endswith(LINE + b"last\n")
    before, marker, after = content.partition(b" bytes were left out here]\n")
    assert marker
    left_out = int(before.rpartition(b"[")[2].replace(b",", b""))
    whole = len(b"first\nlast\n") + COUNT * len(LINE)
    assert len(before.rpartition(b"\n\n[")[0]) + left_out + len(after.removeprefix(b"\n")) == whole
    assert len(content) < LOG_LIMIT


def test_of_a_log_that_is_too_long_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    store = stored(tmp_path)
    with Capture(store) as capture:
        capture.begin(STEP, 1)
        os.write(1, b"first\n" + LINE * COUNT)
        os.write(2, b"last\n")
        log = capture.end(STEP, 1)
        assert log
        check(Path(log))
        # The next step begins with an empty one.
        capture.begin(STEP, 2)
        os.write(1, b"short\n")
        short = capture.end(STEP, 2)
    assert short
    assert Path(short).read_bytes() == b"short\n"


def test_so_it_is_where_the_process_died(tmp_path: Path) -> None:
    store = stored(tmp_path)
    path = store.log_path(STEP, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"first\n" + LINE * COUNT + b"last\n")
    log = rescue_log(store, [(STEP, 1)])
    assert log
    check(Path(log))
