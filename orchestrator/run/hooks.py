"""Commands of the user that are called when a run ends, or when the breaker stops a stage."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from orchestrator.texts import plain_text

#: A hook is for sending a message; the run does not wait longer for it.
_PATIENCE = 30.0


def call_hook(command: str | None, event: str, facts: Mapping[str, Any]) -> str | None:
    """Run a shell command with the facts as JSON on its standard input and SWEEP_EVENT set.

    Returns:
        What went wrong with it, or None; a sweep does not fail because its hook does.
    """
    if not command:
        return None
    try:
        done = subprocess.run(
            command,
            shell=True,
            input=json.dumps({"event": event, **facts}),
            text=True,
            errors="replace",
            capture_output=True,
            timeout=_PATIENCE,
            env={**os.environ, "SWEEP_EVENT": event},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"hooks.{event} took longer than {_PATIENCE:g} s: {command}"
    except OSError as error:
        return f"hooks.{event} cannot be started: {error.strerror or error}"
    if done.returncode:
        output = plain_text((done.stderr or done.stdout).strip(), 300)
        return f"hooks.{event} ended with {done.returncode}: {output}"
    return None
