"""What an endpoint refuses costs one row; what it refuses of every request ends the step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from endpoint_server import AZURE, TOO_LONG, Reply, Server, completion, ended, error, run

from workers.judges.backends import endpoint

pytestmark = pytest.mark.train


def test_a_refused_request_is_not_repeated(server: Server, pairs: Path) -> None:
    server.reply = lambda number, body: (400, {}, {"error": {"message": "unknown field repetition_penalty"}})
    with pytest.raises(ValueError, match=r"request refused: .*unknown field.*repetition_penalty, set it to 1"):
        run(server, pairs, access={"parallel": 1})
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("refusal", "reason", "tries"),
    [
        ((400, {}, AZURE), "filtered: HTTP 400: The response was filtered due to the prompt", 1),
        ((200, {}, ended("So", "content_filter")), "filtered: the server's content filter ended the reply", 1),
        ((200, {}, ended(None, "stop", refusal="I cannot.")), "filtered: the model refuses: I cannot.", 1),
        ((400, {}, TOO_LONG), "too long: HTTP 400: This model's maximum context length is 4096 tokens.", 1),
        ((413, {}, "<html>Request Entity Too Large</html>"), "too long: HTTP 413: <html>Request", 1),
        ((422, {}, error("lone surrogate in messages")), "refused: HTTP 422: lone surrogate in messages", 1),
        ((400, {}, error("temperature is too high")), "refused: HTTP 400: temperature is too high", 1),
        ((200, {}, "<html>Bad gateway</html>"), "garbled: a reply that is not JSON: <html>Bad", 4),
        ((200, {}, json.dumps(completion("x"))[:60]), 'garbled: a reply that is not JSON: {"id": "x"', 4),
        ((200, {}, "[" * 100_000), "garbled: a reply that is not JSON: [[[", 4),
        ((200, {}, "null"), "garbled: no choices in null", 4),
        ((200, {}, completion("x") | {"choices": []}), "garbled: no choices in ", 4),
        ((200, {}, completion("x") | {"choices": [{"index": 0, "message": None}]}), "garbled: no text in ", 4),
        ((200, {}, completion(None)), "garbled: no text in ", 4),
        ((200, {}, error("prompt flagged", code=400, type="moderation")), "filtered: HTTP 400: prompt flagged", 1),
    ],
)
def test_a_refused_row_costs_one_row_and_its_reason_is_in_the_table(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch, refusal: Reply, reason: str, tries: int
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    server.reply = lambda number, body: refusal if "1?" in str(body["messages"]) else (200, {}, completion("x"))
    rows, metrics = run(server, pairs, samples=1, hints=True, access={"parallel": 1})
    read, unread = ([row for row in rows if ("1?" in row["prompt"]) == bad] for bad in (False, True))
    assert [row["text"].strip() for row in read] == [
        "x", '{"rationale": "x", "verdict": 1}', '{"rationale": "x", "verdict": 2}',
    ] * 2  # fmt: skip
    assert not any(row["unread"] for row in read)
    # A hinted one gets no verdict either.
    assert [(row["text"], row["unread"][: len(reason)]) for row in unread] == [(" ", reason)] * 3
    too_long = 3 if reason.startswith("too long") else 0
    assert (metrics["judge_too_long"], metrics["judge_refused"]) == (too_long, 3 - too_long)
    assert (metrics["judgments"], metrics["judge_requests"]) == (9, 9)
    assert len(server.seen) == 6 + 3 * tries

    # What a content filter decides is an answer. All else is asked again.
    server.reply = lambda number, body: (200, {}, completion("now"))
    seen = len(server.seen)
    rows, _ = run(server, pairs, samples=1, access={"parallel": 1})
    kept = reason.startswith("filtered")
    assert len(server.seen) - seen == (0 if kept else 1)
    assert [row["text"] for row in rows] == [" x", " " if kept else " now", " x"]


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, {}, error("no")), r"refuses the key in \$JUDGE_KEY \(HTTP 401\)"),
        ((403, {}, error("no")), r"refuses the key in \$JUDGE_KEY \(HTTP 403\)"),
        ((404, {}, error("no model m", code="model_not_found")), r"HTTP 404: no model m \(model_not_found\)"),
        ((402, {}, error("Insufficient Balance")), "HTTP 402: Insufficient Balance"),
    ],
)
@pytest.mark.parametrize("answered", [0, 3])
def test_a_wrong_configuration_ends_the_step_at_once(
    server: Server, pairs: Path, refusal: Reply, message: str, answered: int
) -> None:
    server.reply = lambda number, body: (200, {}, completion("x")) if number < answered else refusal
    with pytest.raises(ValueError, match=message):
        run(server, pairs, access={"parallel": 1})
    assert len(server.seen) == answered + 1


@pytest.mark.parametrize(
    "refusal",
    [(400, {}, error("invalid request")), (200, {}, "<html>It works!</html>"), (200, {}, completion(None))],
)
def test_where_no_request_of_a_step_is_answered_it_is_the_configuration(
    server: Server, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Reply
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    server.reply = lambda number, body: refusal
    with pytest.raises(ValueError, match=r"not one of 6 requests was answered; .*check endpoint, model"):
        run(server, pairs)
    assert [*(tmp_path / "answers").rglob("*.*")] == []


def test_so_many_different_requests_that_fail_alike_end_the_step_early(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "ALIKE", 2)
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    server.reply = lambda number, body: (400, {}, error("invalid request"))
    with pytest.raises(ValueError, match="not one of 2 requests was answered"):
        run(server, pairs, samples=3, access={"parallel": 1})
    assert len(server.seen) == 4, "three samples of the first pair are one request"

    server.reply = lambda number, body: (400, {}, TOO_LONG)
    with pytest.raises(ValueError, match="not one of 2 requests was answered; the last reply: too long"):
        run(server, pairs, samples=1, access={"parallel": 1})

    # Also later on: the model was withdrawn, or a proxy broke. That may pass.
    started = len(server.seen)
    server.reply = lambda number, body: (200, {}, completion("x") if number == started else "<html>Login</html>")
    with pytest.raises(ConnectionError, match="not one of 2 requests was answered; the last reply: garbled"):
        run(server, pairs, samples=1, access={"parallel": 1})

    # But not what a server says of the content, or, where it has answered others, of the length of a request.
    for refusal in (AZURE, TOO_LONG):
        server.reply = lambda number, body: (400, {}, refusal)  # noqa: B023 (called in this round)
        rows, _ = run(server, pairs, samples=1, access={"parallel": 1})
        assert sum(bool(row["unread"]) for row in rows) == 2


def test_an_error_with_status_200_is_what_its_code_says(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    server.reply = lambda number, body: (200, {}, completion("x") if number > 6 else error("busy", code=429))
    _, metrics = run(server, pairs, samples=1, access={"parallel": 1})
    assert metrics["judge_refused"] == 0
