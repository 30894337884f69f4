"""`python -m orchestrator` is the `sweep` command."""

from orchestrator.cli import main

main()
