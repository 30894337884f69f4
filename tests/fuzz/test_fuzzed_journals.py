"""What MLflow is to show, a running driver and the logs of steps tell in files that others may have written."""

# ruff: noqa: E501 (one strategy a line)
from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import damaged, examples, mutated, values

from orchestrator.explain.eta import Eta, format_eta
from orchestrator.results.heartbeat import read_heartbeat, write_heartbeat
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.runs import Run
from orchestrator.tracking.sent import Sent
from workers.judges.backends.answers import read_answer
from workers.progress import read_progress

RUN = Run("a", "cell a", ("x=1",), True, 1.5, 2.5, {"x": "1"}, {"total": 1.0}, {"kind": "cell"}, (("loss", 10, 0.5),))
POSTED = [
    {"digest": RUN.digest, "started": 1.5, "ended": 2.5, "run": json.loads(RUN.json)}, {"gone": "a"}, {"table": "f" * 64},
]  # fmt: skip
NOTED = [
    {"experiment": "1", "created": 5}, {"begun": ["a"]}, {"sent": [["a", "d", "r"]]}, {"gone": ["a"]},
    {"told": "tags", "digest": "d"}, {"drained": 10},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


def lines(*sound: Any) -> st.SearchStrategy[bytes]:
    """Journals with something wrong in them."""
    text = "".join(f"{json.dumps(each)}\n" for each in ({"file": "0"}, *sound)).encode()
    line = mutated(*sound) | values
    return st.lists(line.map(json.dumps).map(str.encode)).map(b"\n".join).map(lambda each: each + b"\n") | damaged(text)


@examples(200)
@given(lines(*POSTED))
@example(b'{"run": {}}\n')
@example(b'{"run": []}\n')
@example(b'{"gone": {}}\n')
@example(b'{"table": []}\n' + b"[" * 100_000 + b"\n")
def test_a_line_of_the_outbox_is_a_run_as_it_was_posted_or_left_out(folder: Path, text: bytes) -> None:
    (folder / "runs.jsonl").write_bytes(text)
    outbox = Outbox(folder)
    _, changes = outbox.follow()
    assert all(run is None or (run.digest == RUN.digest and math.isfinite(run.started)) for run in changes.values())
    outbox.post([Run("b", "cell b", (), False, 0.0, 1.0)], gone=["a"])
    assert "b" in Outbox(folder).follow()[1]


@examples(200)
@given(lines(*NOTED))
@example(b'{"begun": 5}\n')
@example(b'{"begun": [[]]}\n')
@example(b'{"sent": [["a"]]}\n')
@example(b'{"experiment": 1}\n')
@example(b'{"drained": "many"}\n')
@example(b'{"drained": 1e999}\n')
def test_a_line_of_what_mlflow_has_is_taken_whole_or_left_out(folder: Path, text: bytes) -> None:
    (folder / "sent.jsonl").write_bytes(text)
    sent = Sent(Journal(folder / "sent.jsonl"))
    sent.follow()
    repr((sorted(sent.uncertain), sorted(sent.runs), sorted(sent.logged), sent.drained < 0))
    sent.note({"begun": ["b"]})
    assert "b" in sent.uncertain


LEFT = {"low": 1.0, "high": 2.0, "unknown": 0, "steps": 3}
HEARTBEAT = {
    "plan": "0" * 32,
    "steps": {"source": {"running": 1, "committed": 2}},
    "cells": "",
    "errors": [],
    "usage": {},
    "pace": {"source": {"per_minute": 1.0, "seconds": None, "left": LEFT}},
    "left": LEFT,
}


@examples(200)
@given(mutated(HEARTBEAT) | values, st.none() | st.binary(max_size=20))
@example({**HEARTBEAT, "left": {"low": 1}}, None)
@example({**HEARTBEAT, "steps": {"source": []}}, None)
@example({**HEARTBEAT, "pace": {"source": {"per_minute": "x", "seconds": None, "left": LEFT}}}, None)
@example([], None)
@example({}, b"[" * 100_000)
def test_a_heartbeat_is_whole_or_there_is_none(folder: Path, content: Any, raw: bytes | None) -> None:
    if raw is None and isinstance(content, dict):
        write_heartbeat(folder, {"time": time.time()} | content)
    else:
        (folder / "running.json").write_bytes(raw or json.dumps(content).encode())
    read_heartbeat(folder)
    found = read_heartbeat(folder, ["source"])
    if found:
        assert found["steps"].get("source", {}).get("running", 0) >= 0
        assert format_eta(Eta(**found["left"]))
        assert format_eta(Eta(**found["pace"]["source"]["left"]))


@examples(200)
@given(
    st.lists(st.sampled_from(["fit", ": ", "1", "0", "999999999999", " of ", " in ", "15", " s, about ", "1 min", " left", "\n", "٣"])).map("".join)
)  # fmt: skip
@example(": 1 of 2 in 10 s, about 1 min left\n")
@example(": 999999999999 of 1 in 999999999 s, about  left\n")
def test_the_log_of_a_step_tells_how_far_it_is_or_nothing(text: str) -> None:
    found = read_progress(text)
    assert found is None or (math.isfinite(found.share) and math.isfinite(found.seconds))


ANSWER = {"text": "yes", "prompt_tokens": 1, "answer_tokens": None, "unread": ""}


@examples(150)
@given((mutated(ANSWER) | values).map(json.dumps).map(str.encode) | damaged(json.dumps(ANSWER).encode()))
@example(b"[" * 100_000)
@example(b'{"text": 1, "prompt_tokens": 1, "answer_tokens": 1}')
@example(b'{"text": "a", "prompt_tokens": "1", "answer_tokens": 1}')
def test_an_answer_of_a_server_is_read_whole_or_asked_for_again(folder: Path, text: bytes) -> None:
    (folder / "answer.json").write_bytes(text)
    answer = read_answer(folder / "answer.json")
    assert answer is None or isinstance(answer.text, str)
    assert answer is None or (answer.prompt_tokens or 0) + (answer.answer_tokens or 0) is not None
