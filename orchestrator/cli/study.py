"""Commands of `sweep` for whoever writes a study: a new one, the stages there are, and a schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="Start", epilog="Example:\nsweep init my-study\nsweep init .")
def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="A new or empty folder; the sweep is called like it.")],
) -> None:
    """Write a new study that runs at once: a sweep of 12 cells, its stages as plain functions, and a README."""
    from orchestrator.cli.console import say
    from orchestrator.command import format_command, program
    from orchestrator.sweep.new_study import write_study

    name = write_study(folder)
    say(f"{folder / 'sweep.yaml'}  the sweep {name}: 12 cells")
    say(f"{folder / 'stages.py'}   its work: two functions")
    say(f"{folder / 'README.md'}   how to go on")
    say("\nRun it here, in seconds:")
    if folder.resolve() != Path.cwd():
        say("  " + format_command(["cd", str(folder)]))
    say("  " + format_command([*program(), "run", "sweep.yaml", "--inline"]))
