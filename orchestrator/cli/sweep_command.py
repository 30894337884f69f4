"""The arguments and options that several commands of `sweep` share, and a decorator that opens the sweep file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.extras import lacking
from orchestrator.namesakes import hidden
from orchestrator.results.format import Format
from orchestrator.sweep.problems import Problem, SweepError

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)]

CellName = Annotated[
    str, typer.Argument(metavar="CELL", help="A cell id (or the beginning of one), or axis=value,axis=value.")
]

Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="PATH=VALUE", help="Override a value, e.g. -s axes.seed=[0,1]. Repeatable."),
]

Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=V1,V2", help="Select the cells with these values. Repeatable: all must hold."),
]

Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="AXIS=V1,V2", help="Leave out the cells with these values. Repeatable."),
]

OutputRoot = Annotated[
    str | None,
    typer.Option(
        "--outputs",
        metavar="DIR",
        help="Output root; default: `store` in the sweep file, else SWEEP_OUTPUTS, else outputs/.",
    ),
]

StoreRoot = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="Artifact store; default: store/ below the output root.")
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow; default: `tracking.uri` in the sweep file, else MLFLOW_TRACKING_URI, else SQLite.",
    ),
]

UpTo = Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Run only this entry and its dependencies.")]

OutputFormat = Annotated[
    Format | None, typer.Option("--format", help="Format; default: as the suffix of --output says, else table.")
]

OutputFile = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="Write to this file instead of the terminal.")
]

Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="NAME,NAME",
        help="Metrics to show; default: those of `summary` in the sweep file, else all.",
    ),
]

ErrorClass = Annotated[
    str | None, typer.Option("--error", metavar="CLASS", help="Run only the cells that ended with this error class.")
]

MaxCells = Annotated[
    int | None, typer.Option("--max-cells", metavar="N", min=1, help="Run at most this many of the unfinished cells.")
]

Command = Callable[..., None]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def sweep_command(
    app: typer.Typer, *, cells: bool = True, up_to: bool = False, **declared: Any
) -> Callable[[Command], Command]:
    """Make a function of a session a command on one sweep file.

    The command takes the file, `-s`, `--outputs` and `--store`, opens the session, and passes it on as the first
    argument; what else the function takes become arguments and options of the command, as with `app.command`.

    Args:
        app: gets the command.
        cells: take `--only` and `--exclude` too.
        up_to: take `--stage` too; it is `session.entry` afterwards.
        declared: passed on to `app.command`.
    """
    shared: dict[str, Any] = {"file": SweepFile, "overrides": Set}
    shared |= {"only": Only, "exclude": Exclude} if cells else {}
    shared |= {"outputs": OutputRoot, "store": StoreRoot} | ({"entry": UpTo} if up_to else {})

    def register(function: Command) -> Command:
        def command(**given: Any) -> None:
            from orchestrator.session import open_session

            session = open_session(**{name: given.pop(name) for name in shared})
            function(session, **given)

        # `Session`, the type of the first argument, takes a moment to import, which a help need not wait for.
        _, *own = inspect.signature(function, locals={"Session": Any}, eval_str=True).parameters.values()
        parameters = [inspect.Parameter(name, _KEYWORD, annotation=each) for name, each in shared.items()]
        # The file is the only one of these that must be given.
        parameters[1:] = [each.replace(default=None) for each in parameters[1:]]
        parameters += [each.replace(kind=_KEYWORD) for each in own]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__name__, command.__doc__ = function.__name__, _unfilled(function.__doc__ or "")
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(**declared)(command)
        return function

    return register


def _unfilled(text: str) -> str:
    """Join the lines of each paragraph; the help would keep their ends, wherever the terminal has its own."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def need_page(command: str, extra: str) -> None:
    """Raise SweepError if a command lacks the extra, or the package, that makes its page."""
    if message := lacking(extra) or hidden("dashboards"):
        raise SweepError([Problem(command, "", message)])


def refuse(given: Mapping[str, bool], why: str) -> None:
    """Refuse those options that were given, since they would have no effect."""
    problems = [Problem(option, "", why) for option, there in given.items() if there]
    if problems:
        raise SweepError(problems)


def names(text: str) -> tuple[str, ...]:
    """Split a list as people write it: "beta,seed"; what is there twice counts once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
