"""An S3 server on loopback: moto, one request after the other, and at a test's word with faults of real services.

moto looks whether a key exists, and then writes it: of two conditional writes at once both succeed. S3 promises that
one does. `POST /faults` with `{"path": …, "fault": …, "times": …}` spoils the next writes of keys with this in them:

- `lost answer`: the object is written, the connection breaks before the answer.
- `conflict`: nothing is written; S3 answers so when two conditional writes of a key meet.
- `plain 412`: a failed condition is answered without naming the condition, as MinIO and Ceph do.
- `no conditions`: they are not looked at, as with s3rver and other small servers.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

Start = Callable[..., Any]
#: The headers of conditions on writes.
CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")


def refusal(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>spoilt by a test</Message></Error>".encode()


class Server:
    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.faults: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        with self.lock:
            if environ["PATH_INFO"] == "/faults":
                self.faults.append(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
                start("200 OK", [])
                return []
            fault = self.next_fault(environ)
            if fault == "conflict":
                start("409 Conflict", [("Content-Type", "application/xml")])
                return [refusal("ConditionalRequestConflict")]
            if fault == "no conditions":
                environ = {name: value for name, value in environ.items() if name not in CONDITIONS}
            told: list[Any] = []
            answer = list(self.moto(environ, lambda *args: told.extend(args)))
            if fault == "lost answer":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            if fault == "plain 412" and told[0].startswith("412"):
                start("412 Precondition Failed", [("Content-Type", "application/xml")])
                return [refusal("PreconditionFailed")]
            start(*told)
            return answer

    def next_fault(self, environ: dict[str, Any]) -> str | None:
        if environ["REQUEST_METHOD"] != "PUT":
            return None
        for each in self.faults:
            if each["times"] and each["path"] in environ["PATH_INFO"]:
                each["times"] -= 1
                return str(each["fault"])
        return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_simple("127.0.0.1", int(sys.argv[1]), Server(), threaded=True, request_handler=MotoRequestHandler)
