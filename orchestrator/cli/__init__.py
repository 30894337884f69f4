"""The `sweep` command; the only room of this package that prints."""

from __future__ import annotations

import sys

from orchestrator.namesakes import hidden


def main() -> None:
    """Entry point of the command `sweep` and of `python -m orchestrator`."""
    # Python looks for the modules of the latter in the working directory first.
    if message := hidden("workers"):
        print(message, file=sys.stderr)
        sys.exit(2)
    from orchestrator.cli import app

    app.main()
