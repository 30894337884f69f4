"""Hooks: shell commands of the user that are called when a run ends, or when the breaker stops an entry."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from orchestrator.redact import redact
from orchestrator.texts import plain_text

#: Time limit (seconds) of a hook, which is for sending a message.
_TIMEOUT = 30.0


def call_hook(command: str | None, event: str, facts: Mapping[str, Any]) -> str | None:
    """Run a shell command with the facts as JSON on its standard input and SWEEP_EVENT set.

    Args:
        command: the command; None does nothing.
        event: name of the event.
        facts: fields of the JSON, beside `event`.

    Returns:
        What went wrong, None if nothing did; a failing hook does not fail its sweep.
    """
    if not command:
        return None
    try:
        done = subprocess.run(  # noqa: S602 (whoever writes a sweep file runs code: docs/security.md)
            command,
            shell=True,
            input=json.dumps({"event": event, **facts}),
            text=True,
            errors="replace",
            capture_output=True,
            timeout=_TIMEOUT,
            env={**os.environ, "SWEEP_EVENT": event},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"hooks.{event} took longer than {_TIMEOUT:g} s: {redact(command)}"
    except OSError as error:
        return f"hooks.{event} cannot be started: {error.strerror or error}"
    if done.returncode:
        output = plain_text(redact(done.stderr or done.stdout).strip(), 300)
        return f"hooks.{event} ended with {done.returncode}: {output}"
    return None
