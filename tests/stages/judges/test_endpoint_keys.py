"""The key of an endpoint reaches nobody but its server."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from endpoint_server import KEY, Reply, Server, completion, run

from workers.judges.backends import endpoint
from workers.judges.backends.configs import EndpointJudge

pytestmark = pytest.mark.train


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
