"""An OpenAI-compatible server on the loopback: keys, full and broken servers, costs, and answers that are kept."""

from __future__ import annotations

import json
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from workers import tables
from workers.data.chat import messages
from workers.judges.backends import endpoint
from workers.judges.backends.configs import Access, EndpointJudge
from workers.judges.configs import JudgeSampleConfig
from workers.judges.requests import hinted_request
from workers.judges.sample import judge_sample

pytestmark = pytest.mark.train

KEY = "sk-secret-1234567890"

Reply = tuple[int, dict[str, str], dict[str, Any] | str]


def completion(text: str | None, usage: dict[str, int] | None = None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    tokens = usage if usage is not None else {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return whole | ({"usage": tokens} if tokens else {})


class Server:
    """A real server whose `reply(number, body)` says what request `number` (from 0) gets."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda number, body: (
            200,
            {},
            completion(f"text {number}"),
        )
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    number = len(server.seen)
                    server.seen.append(body | {"path": self.path, "key": self.headers["Authorization"]})
                    server.times.append(time.monotonic())
                    server.under_way += 1
                    server.most_under_way = max(server.most_under_way, server.under_way)
                status, headers, answer = server.reply(number, body)
                with server.lock:
                    server.under_way -= 1
                if status == 200 and self.headers["Authorization"] not in (f"Bearer {KEY}", "Bearer none"):
                    status, answer = 401, {"error": {"message": f"Incorrect key: {self.headers['Authorization']}"}}
                content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has given up

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SWEEP_ANSWERS", str(tmp_path / "answers"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setenv("SWEEP_ACCOUNT", "study/judge")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    columns = {
        "prompt": [f"\n\nHuman: {i}?\n\nAssistant:" for i in range(3)],
        "chosen": [" Yes."] * 3,
        "rejected": [" No."] * 3,
        "subset": [""] * 3,
    }
    tables.PREFERENCES.write(columns, tmp_path)
    return tmp_path


def run(server: Server, folder: Path, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
    backend = {"endpoint": server.url, "model": "m"} | settings.pop("backend", {})
    backend["access"] = {"key_env": "JUDGE_KEY"} | settings.pop("access", {})
    config = JudgeSampleConfig.model_validate({"samples": 2, "max_new_tokens": 50, "backend": backend} | settings)
    metrics = judge_sample(config, folder, preferences=folder)
    assert set(metrics) == set(config.declared())
    return tables.JUDGMENTS.read(folder).to_pylist(), metrics


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


def test_max_cost_ends_the_step_and_raising_it_goes_on_where_it_ended(server: Server, pairs: Path) -> None:
    # A judgment costs 20 tokens x $500 per million = $0.01.
    backend, one_by_one = {"price_out": 500.0}, {"parallel": 1}
    with pytest.raises(ValueError, match=r"max_cost of \$0.025 reached: \$0.0300 spent.*not be paid for again"):
        run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.025})
    assert len(server.seen) == 3
    with pytest.raises(ValueError, match=r"\$0.0300 spent"):
        run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.025})
    assert len(server.seen) == 3
    _, metrics = run(server, pairs, backend=backend, access=one_by_one | {"max_cost": 0.1})
    assert len(server.seen) == 6
    assert metrics["judge_cost"] == pytest.approx(0.06)


def run_shard(server: Server, pairs: Path, shard: int, **settings: Any) -> dict[str, float]:
    """One of three shards, a pair with two judgments each, which writes into a folder of its own."""
    folder = pairs / f"shard-{shard}"
    folder.mkdir(exist_ok=True)
    shutil.copy(pairs / "preferences.parquet", folder)
    return run(server, folder, shards=3, shard=shard, **settings)[1]


def test_max_cost_is_that_of_all_shards_and_what_is_kept_is_not_spent_again(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, access = {"price_out": 500.0}, {"parallel": 1, "max_cost": 0.035}  # $0.01 a judgment
    for _ in range(2):
        for shard in (0, 1):
            assert run_shard(server, pairs, shard, backend=backend, access=access)["judge_cost"] == pytest.approx(0.02)
        assert len(server.seen) == 4
        with pytest.raises(ValueError, match=r"max_cost of \$0.035 reached: \$0.0400 spent by all .*study/judge"):
            run_shard(server, pairs, 2, backend=backend, access=access)
        assert len(server.seen) == 4
    # Another sweep that asks the same has the same answers, at the same cost, whoever paid.
    monkeypatch.setenv("SWEEP_ACCOUNT", "another/judge")
    run_shard(server, pairs, 0, backend=backend, access=access | {"max_cost": 0.02})
    with pytest.raises(ValueError, match=r"\$0.0200 spent by all steps of another/judge"):
        run_shard(server, pairs, 2, backend=backend, access=access | {"max_cost": 0.02})
    run_shard(server, pairs, 2, backend=backend, access=access)
    assert len(server.seen) == 6


def test_shards_that_run_at_once_pass_max_cost_by_what_is_under_way_at_most(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return 200, {}, completion("x")

    server.reply = reply
    settings = {"backend": {"price_out": 500.0}, "access": {"parallel": 2, "max_cost": 0.055}}
    with ThreadPoolExecutor(3) as pool:
        shards = [pool.submit(run_shard, server, pairs, i, samples=20, **settings) for i in range(3)]
    assert all("max_cost of $0.055 reached" in str(shard.exception()) for shard in shards)
    assert 6 <= len(server.seen) <= 5 + 3 * 2


def test_requests_per_minute_are_those_of_all_shards(server: Server, pairs: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        for shard in range(3):
            pool.submit(run_shard, server, pairs, shard, access={"requests_per_minute": 600})
    assert len(server.times) == 6
    assert max(server.times) - min(server.times) > 0.4  # six, a tenth of a second apart: never faster than allowed


def test_a_refused_key_is_said_without_the_key(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong-42")
    with pytest.raises(ValueError, match=r"refuses the key in \$JUDGE_KEY \(HTTP 401\)") as caught:
        run(server, pairs)
    shown = "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    assert "sk-wrong-42" not in shown
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="variable JUDGE_KEY is not set on this worker"):
        run(server, pairs)


def test_no_part_of_the_key_reaches_a_log_or_an_error_wherever_it_is_cut(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)

    def reply(number: int, body: dict[str, Any]) -> Reply:
        dots = "." * (5 * number % 500)
        said = {"error": {"message": f"{dots} Bearer {KEY} key={quote(KEY)}, {KEY[:6]}****{KEY[-4:]}"}}
        return (500, {}, said) if number % 2 else (200, {}, completion("x") | {"choices": []} | said)

    server.reply = reply
    shown = ""
    while len(server.seen) < 100:
        with pytest.raises((ValueError, ConnectionError)) as caught:
            run(server, pairs, samples=1, limit=1)
        shown += "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    assert [KEY[i : i + 4] for i in range(len(KEY) - 3) if KEY[i : i + 4] in shown] == []


def test_a_key_that_cannot_be_sent_is_said_without_it(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("sk-one\nsk-two", "sk-ключ"):
        monkeypatch.setenv("JUDGE_KEY", key)
        with pytest.raises(ValueError, match="JUDGE_KEY holds characters that no key has") as caught:
            run(server, pairs)
        assert "sk-" not in str(caught.value)
    assert server.seen == []


@pytest.mark.parametrize("url", ["https://user:pass@host/v1", "https://token@host/v1", "https://host/v1?key=pass"])
def test_an_endpoint_that_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an endpoint has no user name, password or query"):
        EndpointJudge(endpoint=url, model="m")


def test_a_server_without_keys_gets_none(server: Server, pairs: Path) -> None:
    run(server, pairs, access={"key_env": None})
    assert {told["key"] for told in server.seen} == {"Bearer none"}


def test_a_refused_request_is_not_repeated(server: Server, pairs: Path) -> None:
    server.reply = lambda number, body: (400, {}, {"error": {"message": "unknown field repetition_penalty"}})
    with pytest.raises(ValueError, match=r"request refused: .*unknown field.*repetition_penalty, set it to 1"):
        run(server, pairs, access={"parallel": 1})
    assert len(server.seen) == 1


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


def ended(text: str | None, why: str, **more: Any) -> dict[str, Any]:
    whole = completion(text)
    whole["choices"][0] |= {"finish_reason": why}
    whole["choices"][0]["message"] |= more
    return whole


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message} | more}


AZURE = error(
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    code="content_filter",
    param="prompt",
    innererror={"code": "ResponsibleAIPolicyViolation"},
)
TOO_LONG = error(
    "This model's maximum context length is 4096 tokens. However, you requested 5210 tokens.",
    type="invalid_request_error",
    param="messages",
    code="context_length_exceeded",
)


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


def test_refusals_and_garbled_replies_cost_what_the_server_says(
    server: Server, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.0)
    # One answer after a garbled reply, one garbled four times, one that a filter ended: 2 + 4 + 1 times 20 tokens.
    answers = [completion(None), completion("x"), *[completion(None)] * 4, ended("", "content_filter")]
    server.reply = lambda number, body: (200, {}, answers[number])
    rows, metrics = run(server, pairs, samples=1, backend={"price_out": 500.0}, access={"parallel": 1})
    assert [row["unread"][:8] for row in rows] == ["", "garbled:", "filtered"]
    assert metrics["judge_cost"] == pytest.approx(7 * 20 * 500 / 1e6)


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


def test_requests_are_spread_over_the_minute_and_few_are_under_way_at_once(server: Server, pairs: Path) -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        return 200, {}, completion("x")

    server.reply = reply
    run(server, pairs, access={"parallel": 2})
    assert server.most_under_way == 2
    server.times.clear()
    run(server, pairs, seed=1, access={"requests_per_minute": 600})
    assert server.times[-1] - server.times[0] > 0.4  # six, a tenth of a second apart: never faster than allowed


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
