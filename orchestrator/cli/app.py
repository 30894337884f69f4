"""The `sweep` command: all commands, and how their errors end."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli import debug, doctor, findings, look, run, study, submit, sync, tidy
from orchestrator.store import StoreError
from orchestrator.sweep.problems import SweepError
from orchestrator.texts import plain_text


class _Group(TyperGroup):
    """All commands. `sweep results | head`: who closes the pipe has seen enough, which is no error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            # Typer would exit with 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        return answer


app = typer.Typer(
    name="sweep",
    cls=_Group,
    help="Large ablation sweeps over language-model alignment. One YAML file is one sweep; giving the same command "
    "again resumes, extends or confirms it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from orchestrator.code import code_commit

        commit = code_commit()
        print(f"alignment-sweeps {_version()} ({commit if commit.startswith('source-') else f'commit {commit}'})")
        raise typer.Exit


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("alignment-sweeps")
    except PackageNotFoundError:
        import tomllib

        # A checkout that is not installed, or a Ray job's copy of one.
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"]) if project.is_file() else "unknown"


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None: ...


# In the order of the help.
for commands in (study, look, findings, run, submit, debug, doctor, sync, tidy):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command; every expected mistake ends in a message and exit code 2, never in a traceback."""
    # A plan is a hundred thousand long-lived values without cycles; looking for garbage among them took a quarter of
    # the time of `sweep plan`.
    gc.set_threshold(100_000, 50, 50)
    try:
        app()
    except SweepError as error:
        count = len(error.problems)
        for problem in error.problems:
            print(plain_text(str(problem)), file=sys.stderr)
        print(f"{count} mistake{'s' if count != 1 else ''}; nothing was run", file=sys.stderr)
        sys.exit(2)
    except StoreError as error:
        print(plain_text(str(error)), file=sys.stderr)
        sys.exit(2)
