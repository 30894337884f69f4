"""The `sweep` command; the only room of this package that prints."""

from __future__ import annotations


def main() -> None:
    """Entry point of the command `sweep` and of `python -m orchestrator`."""
    from orchestrator.cli import app

    app.main()
