"""The server of the live page: Streamlit on loopback, with telemetry off.

Streamlit, because a page of it is a plain script that ML engineers can read and change, its tables stay fluent at
hundred thousands of rows, and it can be tested without a browser (`AppTest`).
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from orchestrator.sweep.problems import Problem, SweepError

#: Streamlit's own.
DEFAULT_PORT = 8501
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(subject: str, name: str, host: str, port: int | None, browser: bool) -> None:
    """Show a sweep until Ctrl-C or SIGTERM.

    Args:
        subject: `live.watch.Subject.dump`.
        name: of the sweep, printed with the address.
        host: where to listen; loopback unless others are to see it.
        port: where to listen; DEFAULT_PORT, or a free one where that is taken, when left out.
        browser: whether to open one.

    Raises:
        SweepError: the port is taken, or the host is none of this machine.
    """
    port = choose_port(host, port)
    options: dict[str, Any] = {
        "server.address": host, "server.port": port, "server.headless": not browser, "server.fileWatcherType": "none",
        "server.runOnSave": False, "server.showEmailPrompt": False, "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal", "client.showErrorDetails": "type",
        "client.showErrorLinks": False, "logger.hideWelcomeMessage": True, "logger.level": "error",
        "theme.base": "light", "theme.primaryColor": "#0072B2", "theme.textColor": "#1F2933",
        "theme.backgroundColor": "#FFFFFF", "theme.secondaryBackgroundColor": "#F3F5F8", "theme.baseRadius": "6px",
        "theme.headingFontSizes": ["1.9rem", "1.35rem", "1.15rem"], "theme.linkColor": "#0072B2",
    }  # fmt: skip
    if host in _LOOPBACK:
        # A page of somebody else whose name was bent to 127.0.0.1 must not read it.
        options["server.allowedHosts"] = list(_LOOPBACK)
    shown = f"[{host}]" if ":" in host else host
    print(f"{name}: http://{shown}:{port}   (read-only; Ctrl-C to stop)", flush=True)
    from streamlit.web import bootstrap

    # Imported now, the first browser need not wait for it.
    import dashboards.live.page  # noqa: F401

    bootstrap.load_config_options(options)
    bootstrap.run(str(Path(__file__).with_name("page.py")), False, [subject], options)


def choose_port(host: str, port: int | None) -> int:
    """Choose the port that was asked for; else DEFAULT_PORT; else, where that is taken, a free one.

    Raises:
        SweepError: the requested one is taken, or the host is none of this machine.
    """
    if port:
        return _check(host, port)
    with contextlib.suppress(SweepError):
        return _check(host, DEFAULT_PORT)
    return _check(host, 0)


def _check(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port or --host"
        raise SweepError([Problem("--port", "", message)]) from error
