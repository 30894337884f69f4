"""Arguments and options that several commands of `sweep` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)]

CellName = Annotated[
    str, typer.Argument(metavar="CELL", help="A cell id (or its beginning), or axis=value,axis=value.")
]

Set = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="PATH=VALUE", help="Override a value, e.g. -s axes.seed=[0,1]. Repeatable."),
]

Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=V1,V2", help="Only the cells with these values. Repeatable: all must hold."),
]

Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="AXIS=V1,V2", help="Leave out the cells with these values.")
]

OutputRoot = Annotated[
    str | None, typer.Option("--outputs", metavar="DIR", help="Output root; default: store:, SWEEP_OUTPUTS, outputs/.")
]

StoreRoot = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="Artifact store; default: store/ below the output root.")
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="MLflow; default: tracking.uri, MLFLOW_TRACKING_URI, SQLite."),
]

UpTo = Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Run only this entry and its dependencies.")]

Metrics = Annotated[
    str, typer.Option("--metrics", metavar="NAME,NAME", help="Default: those of `summary` in the sweep file, else all.")
]

ErrorClass = Annotated[
    str | None, typer.Option("--error", metavar="CLASS", help="Only the cells that ended with this error class.")
]

MaxCells = Annotated[
    int | None, typer.Option("--max-cells", metavar="N", min=1, help="At most so many of the unfinished cells.")
]


def names(text: str) -> tuple[str, ...]:
    """A list as people write it: "beta,seed"."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
