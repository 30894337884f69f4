"""A loopback proxy in front of a real server that can be told to misbehave."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

#: forward: an honest proxy. error500, slow_down: answers by itself, the latter as S3 does when it has too much to do.
#: slow: forwards late. drop: closes the connection unheard. drop_answer: the server does what it was asked, and nobody
#: hears of it. half_answer: half of it arrives. silent: never answers.
Mode = Literal["forward", "error500", "slow_down", "slow", "drop", "drop_answer", "half_answer", "silent"]

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce it.</Message></Error>"


class Proxy:
    """Forwards HTTP requests to a server of this machine, or does not."""

    def __init__(self, upstream: int, port: int = 0) -> None:
        """Listen.

        Args:
            upstream: the port of the real server.
            port: where to listen; 0 for any free port.
        """
        self.upstream = upstream
        self.delay = 1.0
        self.heard: list[tuple[float, str]] = []
        """When each request came, and its path; the health check is left out."""
        self.troubled = 0
        """How many requests were not simply forwarded."""
        self._mode: Mode = "forward"
        self._path = ""
        self._after = 0
        self._times: float = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def tell(self, mode: Mode, path: str = "", after: int = 0, times: float = float("inf")) -> None:
        """Misbehave from now on.

        Args:
            mode: how.
            path: only where this is a part of the request's path; "" for all, the health check included.
            after: so many of those requests are forwarded first.
            times: so many are troubled then, the others are forwarded.
        """
        with self._lock:
            self._mode, self._path, self._after, self._times = mode, path, after, times

    def next_mode(self, path: str) -> Mode:
        """What to do with a request."""
        with self._lock:
            if "/health" not in path:
                self.heard.append((time.time(), path))
            if self._mode == "forward" or self._path not in path:
                return "forward"
            if self._after > 0:
                self._after -= 1
                return "forward"
            if self._times <= 0:
                return "forward"
            self._times -= 1
            self.troubled += 1
            return self._mode

    def wait(self, seconds: float) -> None:
        """Until then, or until the proxy is closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            mode = proxy.next_mode(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if mode == "silent":
                proxy.wait(3600)
            if mode in ("silent", "drop"):
                self.close_connection = True
                return
            if mode == "error500":
                self._answer(500, {"Content-Type": "text/plain"}, b"the proxy was told to fail")
                return
            if mode == "slow_down":
                self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
                return
            if mode == "slow":
                proxy.wait(proxy.delay)
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if mode == "drop_answer":
                self.close_connection = True
                return
            self._answer(answer.status, dict(answer.headers.items()), content, half=mode == "half_answer")

        def _answer(self, status: int, headers: Mapping[str, str], content: bytes, half: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            # A HEAD is told the length of what it does not get.
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            if half and len(content) < 2:
                # Of an answer without content the head is not ended.
                self.flush_headers()
            else:
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if half else content)
            self.close_connection |= half

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (http.server's own names)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
