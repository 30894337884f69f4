"""An OpenAI-compatible server on the loopback, what it may say, and a stage that asks it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from workers import tables
from workers.judges.configs import JudgeSampleConfig
from workers.judges.sample import judge_sample

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


def run(server: Server, folder: Path, **settings: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
    backend = {"endpoint": server.url, "model": "m"} | settings.pop("backend", {})
    backend["access"] = {"key_env": "JUDGE_KEY"} | settings.pop("access", {})
    config = JudgeSampleConfig.model_validate({"samples": 2, "max_new_tokens": 50, "backend": backend} | settings)
    metrics = judge_sample(config, folder, preferences=folder)
    assert set(metrics) == set(config.declared())
    return tables.JUDGMENTS.read(folder).to_pylist(), metrics


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
