"""An OpenAI-compatible server on the loopback: what it is told, when it is asked again, and which answers are kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from endpoint_server import KEY, Reply, Server, completion, error, run

from workers.data.chat import messages
from workers.judges.backends.configs import Access, EndpointJudge
from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import hinted_request

pytestmark = pytest.mark.train


def test_the_server_is_told_the_request_as_messages_and_how_to_sample(server: Server, pairs: Path) -> None:
    rows, metrics = run(server, pairs, backend={"price_in": 2.0, "price_out": 10.0})
    assert sorted(row["text"] for row in rows) == sorted(f" text {i}" for i in range(6))
    assert metrics == {
        "judgments": 6,
        "mean_judgment_tokens": 20,
        "judge_requests": 6,
        "judge_refused": 0,
        "judge_too_long": 0,
        "judge_cost": pytest.approx(6 * (100 * 2 + 20 * 10) / 1e6),
    }
    for i, row in enumerate(rows):
        told = server.seen[int(row["text"].split()[1])]
        assert told["messages"] == messages(row["request"])
        assert told["path"] == "/v1/chat/completions"
        assert (told["model"], told["temperature"], told["top_p"], told["max_tokens"]) == ("m", 1.2, 0.95, 50)
        assert told["repetition_penalty"] == 1.2
        assert (row["sample"], row["prompt"]) == (i % 2, f"\n\nHuman: {i // 2}?\n\nAssistant:")
    assert len({told["seed"] for told in server.seen}) == 6


def test_hinted_judgments_get_the_hinted_request_its_temperature_and_the_verdict(server: Server, pairs: Path) -> None:
    server.reply = lambda number, body: (200, {}, completion("So."))
    settings = {"hints": True, "samples": 0, "repetition_penalty": 1}
    rows, _ = run(server, pairs, backend={"limit_name": "max_completion_tokens"}, **settings)
    assert [row["text"] for row in rows] == [
        ' {"rationale": "So.", "verdict": 1}',
        ' {"rationale": "So.", "verdict": 2}',
    ] * 3
    row = rows[0]
    asked = messages(hinted_request(row["prompt"], row["first"], row["second"], "json", 0, 1))
    assert asked in [told["messages"] for told in server.seen]
    told = server.seen[0]
    assert (told["temperature"], told["top_p"], told["max_completion_tokens"]) == (1.0, 0.9, 50)
    assert "repetition_penalty" not in told
    assert "max_tokens" not in told


def test_a_full_and_a_broken_server_are_asked_again(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number < 6:
            return (429, 500, 503)[number % 3], {"Retry-After": "0"}, {"error": {"message": "busy"}}
        return (200, {}, completion("x")) if number > 6 else (200, {}, completion("x") | {"choices": []})

    server.reply = reply
    _, metrics = run(server, pairs)
    assert metrics["judge_requests"] == 6
    assert len(server.seen) == 13


def test_a_server_that_hangs_is_given_up_and_asked_again(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            time.sleep(3)
        return 200, {}, completion("x")

    server.reply = reply
    rows, _ = run(server, pairs, limit=1, samples=1, access={"timeout": 1})
    assert [row["text"] for row in rows] == [" x"]
    assert len(server.seen) == 2


def test_a_server_that_stays_broken_ends_the_step_and_its_answers_are_kept(
    server: Server, pairs: Path, tmp_path: Path
) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        if number < 2:
            return 200, {}, completion(f"paid {number}")
        return 500, {"Retry-After": "0"}, {"error": {"message": f"broken, {KEY}"}}

    server.reply = reply
    with pytest.raises(ConnectionError, match=r"no answer in 8 tries: .*broken.* are kept in .*answers") as caught:
        run(server, pairs, access={"parallel": 1})
    assert KEY not in str(caught.value)
    assert len(server.seen) == 10

    server.reply = lambda number, body: (200, {}, completion("new"))
    rows, metrics = run(server, pairs, access={"parallel": 1})
    assert len(server.seen) == 14  # four were missing
    assert sorted(row["text"] for row in rows) == [" new"] * 4 + [" paid 0", " paid 1"]
    assert metrics["judge_requests"] == 6
    assert run(server, pairs) == (rows, metrics)
    assert len(server.seen) == 14


def test_kept_answers_belong_to_what_was_asked_and_hold_no_key(server: Server, pairs: Path, tmp_path: Path) -> None:
    run(server, pairs, samples=1)
    run(server, pairs, samples=2)
    assert len(server.seen) == 6
    run(server, pairs, samples=2, temperature=0.5)
    assert len(server.seen) == 12
    run(server, pairs, samples=2, backend={"model": "another"})
    assert len(server.seen) == 18
    kept = [*(tmp_path / "answers").rglob("*.*")]
    assert len(kept) == 18
    assert not any(KEY in path.read_text() for path in kept)
    kept[0].write_text("")  # a machine that crashed
    run(server, pairs, samples=2)
    run(server, pairs, samples=2, temperature=0.5)
    run(server, pairs, samples=2, backend={"model": "another"})
    assert len(server.seen) == 19


def test_a_server_that_does_not_count_tokens_is_an_error(server: Server, pairs: Path) -> None:
    server.reply = lambda number, body: (200, {}, completion("x", usage={}))
    with pytest.raises(ValueError, match=r"does not report the tokens"):
        run(server, pairs, access={"parallel": 1})


def test_no_answer_text_is_an_empty_judgment(server: Server, pairs: Path) -> None:
    cut_off = completion(None)
    cut_off["choices"][0]["finish_reason"] = "length"
    server.reply = lambda number, body: (200, {}, cut_off if number % 2 else completion(""))
    assert {(row["text"], row["unread"]) for row in run(server, pairs)[0]} == {(" ", "")}
    assert len(server.seen) == 6


def test_half_a_character_does_no_harm(server: Server, pairs: Path) -> None:
    server.reply = lambda number, body: (
        (400, {}, error("half \ud83d of it")) if number == 1 else (200, {}, completion("a \ud83d\ude00 and \ud83d"))
    )
    rows, _ = run(server, pairs, samples=1, access={"parallel": 1})
    assert [row["text"] for row in rows] == [" a \U0001f600 and \ufffd", " ", " a \U0001f600 and \ufffd"]
    assert rows[1]["unread"] == "refused: HTTP 400: half \ufffd of it"


def test_how_a_server_is_asked_is_no_part_of_the_identity_but_what_is() -> None:
    def identity(**fields: Any) -> dict[str, Any]:
        return EndpointJudge(endpoint="http://x/v1", model="m", price_in=1, **fields).identity()

    run_settings = {"key_env": "K", "requests_per_minute": 5, "parallel": 2, "timeout": 3, "max_cost": 4}
    assert identity() == identity(access=run_settings)
    assert "access" not in identity()
    sampled = JudgeSampleConfig(backend=EndpointJudge(endpoint="e", model="m", access=Access(parallel=2)))
    assert "access" not in sampled.identity()["backend"]
    assert sampled.model_dump(mode="json")["backend"]["access"]["parallel"] == 2, "a worker is told it all the same"
    assert identity() != identity(price_out=1)
    assert JudgeSampleConfig(backend=EndpointJudge(endpoint="e", model="m")).identity()["backend"]["model"] == "m"
    with pytest.raises(ValueError, match="max_cost needs price_in and price_out"):
        EndpointJudge(endpoint="e", model="m", access=Access(max_cost=1))
