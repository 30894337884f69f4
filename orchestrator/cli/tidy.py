"""Commands of `sweep` that care for the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.sweep_command import Exclude, Json, Only, OutputRoot, Set, StoreRoot, SweepFile
from orchestrator.session import open_session
from orchestrator.store import Store
from orchestrator.sweep.document import Problem, SweepError

app = typer.Typer()


@app.command(
    "gc",
    rich_help_panel="Store",
    epilog="Example:  sweep gc sweeps/full.yaml sweeps/mine.yaml    sweep gc sweeps/full.yaml --drop fit --delete",
)
def collect_garbage(
    files: Annotated[
        list[Path], typer.Argument(metavar="SWEEP.yaml...", help="All sweeps whose artifacts stay.", show_default=False)
    ],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="ENTRY",
            help="Also the artifacts of this entry that no unfinished step reads; its seconds leave the results table. "
            "Repeatable.",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete (default: dry run).")] = False,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Say what no named sweep reaches, and delete it with --delete. What is pinned stays.

    -s holds for all of them. A sweep that was run with a -s of its own is kept by `sweep pin` with the same -s.
    """
    from orchestrator.maintenance.gc import collect, spell_command

    sessions = [open_session(file, set_, None, None, outputs, store) for file in files]
    report = collect(sessions, drop or [], delete)
    if as_json:
        print(json.dumps(report))
        return
    from orchestrator.cli import show_store as screen_store

    screen_store.show_garbage(report, spell_command(sessions, drop or []))


@app.command(
    rich_help_panel="Store",
    epilog="Example:  sweep pin sweeps/full.yaml --name paper    sweep pin --list",
)
def pin(
    file: Annotated[
        Path | None, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call it; default: the sweep's name.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what is pinned; changes nothing.")] = False,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Write down under a name what is committed of a sweep: `sweep gc` never deletes that."""
    from orchestrator.cli import show_store as screen_store
    from orchestrator.maintenance import gc

    if list_:
        place = open_session(file, set_, None, None, outputs, store).store if file else _store_at(outputs, store)
        pins = gc.list_pins(place)
        if as_json:
            print(json.dumps(pins))
        else:
            screen_store.show_pins(place.location, pins)
        return
    if file is None:
        raise SweepError([Problem("SWEEP.yaml", "", "name a sweep to pin, or give --list")])
    pinned = gc.pin(open_session(file, set_, None, None, outputs, store), name)
    if as_json:
        print(json.dumps(pinned))
    else:
        screen_store.say(f"{pinned['artifacts']:,} artifacts are pinned as {pinned['name']} in {pinned['store']}")


@app.command(
    rich_help_panel="Store",
    epilog="Example:  sweep unpin paper    sweep pin sweeps/full.yaml --list",
)
def unpin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pin.")],
    outputs: OutputRoot = None,
    store: StoreRoot = None,
) -> None:
    """Drop a pin; nothing is deleted before the next `sweep gc --delete`."""
    from orchestrator.cli import show_store as screen_store
    from orchestrator.maintenance import gc

    place = _store_at(outputs, store)
    gc.unpin(place, name)
    screen_store.say(f"unpinned {name} (store: {place.location})")


@app.command(
    rich_help_panel="Store",
    epilog="Example:  sweep verify sweeps/quickstart.yaml    sweep verify sweeps/full.yaml --rerun 20 --no-checksums",
)
def verify(
    file: SweepFile,
    set_: Set = None,
    only: Only = None,
    exclude: Exclude = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="N", min=0, help="Run so many committed steps again, and compare.")
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", metavar="SEED", help="Random seed for choosing the steps to rerun.")
    ] = 0,
    checksums: Annotated[
        bool, typer.Option("--checksums/--no-checksums", help="Read all committed bytes, and compare their digests.")
    ] = True,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            metavar="X",
            min=0,
            help="Relative tolerance for metrics; when set, files need not be byte-identical.",
        ),
    ] = 0,
    discard: Annotated[
        bool, typer.Option("--discard", help="Set damaged artifacts aside, so that the next run makes them again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that committed bytes are as they were written, and that steps run again give the same.

    Exit code: 0 all is as it was committed, 1 something is damaged or differs.
    """
    from orchestrator.cli import show_store as screen_store
    from orchestrator.maintenance.verify import verify as check

    session = open_session(file, set_, only, exclude, outputs, store)
    findings = check(session, rerun, seed, checksums, tolerance, discard, quiet=as_json)
    report = findings.report(session.plan)
    if as_json:
        print(json.dumps(report))
    else:
        screen_store.show_findings(session, report, findings.reruns)
    raise typer.Exit(0 if findings.fine else 1)


@app.command(
    rich_help_panel="Store",
    epilog="Example:  sweep adopt sweeps/full.yaml evaluate --from-version 1    … --rerun 10 --yes",
)
def adopt(
    file: SweepFile,
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage whose version was raised.")],
    from_version: Annotated[
        int, typer.Option("--from-version", metavar="N", help="The version that made the artifacts.")
    ],
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="N", min=1, help="Run so many steps of the stage again as a proof.")
    ] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Really adopt (default: dry run).")] = False,
    set_: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Take over what an older version of a stage made, and all below it, if today's code makes the same.

    Exit code: 0 adopted, or could be, or nothing to adopt; 1 the output differs, nothing was adopted.
    """
    from orchestrator.cli import show_store as screen_store
    from orchestrator.maintenance.adopt import adopt as take_over

    session = open_session(file, set_, None, None, outputs, store)
    adoption = take_over(session, stage, from_version, rerun, yes, quiet=as_json)
    if as_json:
        print(json.dumps(adoption.report()))
    else:
        again = session.command("adopt", stage, "--from-version", str(from_version), "--rerun", str(rerun), "--yes")
        screen_store.show_adoption(session, adoption.report(), adoption.reruns, again)
    raise typer.Exit(0 if adoption.proven else 1)


def _store_at(outputs: str | None, store: str | None) -> Store:
    from orchestrator.store import open_store
    from orchestrator.sweep.outputs import resolve_outputs

    return open_store(resolve_outputs("", None, outputs, store).store)
