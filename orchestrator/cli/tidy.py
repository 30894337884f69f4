"""Commands of `sweep` that look after the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.sweep_command import Json, OutputRoot, Set, StoreRoot, sweep_command
from orchestrator.sweep.problems import Problem, SweepError

if TYPE_CHECKING:
    from orchestrator.session import Session
    from orchestrator.store import Store

app = typer.Typer()


@app.command(
    "gc",
    rich_help_panel="Store",
    epilog="Example:\nsweep gc sweeps/full.yaml sweeps/mine.yaml\n"
    "sweep gc sweeps/full.yaml --drop generate_train --delete",
)
def collect_garbage(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="SWEEP.yaml...", help="The sweeps whose artifacts are kept.", show_default=False),
    ],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="ENTRY",
            help="Also remove the artifacts of this entry that no unfinished step reads; its seconds leave the results "
            "table. Repeatable.",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Really delete (default: dry run).")] = False,
    overrides: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """List artifacts that none of these sweeps uses; --delete removes them. Pinned artifacts are kept.

    -s applies to all of the sweeps. If one was run with a -s of its own, keep it with `sweep pin` and the same -s.
    """
    from orchestrator.cli.console import bar
    from orchestrator.cli.show_store import show_garbage
    from orchestrator.maintenance.gc import collect, deleting_command
    from orchestrator.session import open_session

    sessions = [open_session(file, overrides, None, None, outputs, store) for file in files]
    with bar("reading manifests") as reading, bar("deleting artifacts") as deleting:
        report = collect(sessions, drop or [], delete, reading, deleting)
    if as_json:
        print(json.dumps(report))
    else:
        show_garbage(report, deleting_command(sessions, drop or []))


@app.command(
    rich_help_panel="Store",
    epilog="Example:\nsweep pin sweeps/full.yaml --name paper\nsweep pin --list",
)
def pin(
    file: Annotated[
        Path | None, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the pin; default: the sweep's name.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List all pins; change nothing.")] = False,
    overrides: Set = None,
    outputs: OutputRoot = None,
    store: StoreRoot = None,
    as_json: Json = False,
) -> None:
    """Pin the committed artifacts of a sweep under a name, so that `sweep gc` never deletes them."""
    from orchestrator.cli.console import say
    from orchestrator.cli.show_store import show_pins
    from orchestrator.maintenance import pins
    from orchestrator.session import open_session

    if list_:
        place = open_session(file, overrides, None, None, outputs, store).store if file else _store_at(outputs, store)
        found = pins.list_pins(place)
        if as_json:
            print(json.dumps(found))
        else:
            show_pins(place.location, found)
        return
    if file is None:
        raise SweepError([Problem("SWEEP.yaml", "", "name a sweep to pin, or give --list")])
    pinned = pins.pin(open_session(file, overrides, None, None, outputs, store), name)
    if as_json:
        print(json.dumps(pinned))
    else:
        say(f"{pinned['artifacts']:,} artifacts are pinned as {pinned['name']} in {pinned['store']}")


@app.command(
    rich_help_panel="Store",
    epilog="Example:\nsweep unpin paper\nsweep unpin paper --outputs /shared/sweeps",
)
def unpin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pin; `sweep pin --list` lists them.")],
    outputs: OutputRoot = None,
    store: StoreRoot = None,
) -> None:
    """Remove a pin; nothing is deleted before the next `sweep gc --delete`."""
    from orchestrator.cli.console import say
    from orchestrator.maintenance import pins

    place = _store_at(outputs, store)
    pins.unpin(place, name)
    say(f"unpinned {name} (store: {place.location})")


@sweep_command(
    app,
    rich_help_panel="Store",
    epilog="Example:\nsweep verify sweeps/quickstart.yaml\nsweep verify sweeps/full.yaml --rerun 20 --no-checksums",
)
def verify(
    session: Session,
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="N", min=0, help="Rerun this many committed steps, and compare.")
    ] = 5,
    seed: Annotated[
        int, typer.Option("--seed", metavar="SEED", help="Random seed for choosing the steps to rerun.")
    ] = 0,
    checksums: Annotated[
        bool, typer.Option("--checksums/--no-checksums", help="Read all committed files, and compare their digests.")
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
    """Check that committed files are as they were written, and that steps run again give the same result.

    Exit code: 0 all is as it was committed, 1 something is damaged or differs.
    """
    from orchestrator.cli.console import bar
    from orchestrator.cli.show_store import show_findings, show_rerun_start
    from orchestrator.maintenance import ignore
    from orchestrator.maintenance.verify import verify as check

    on_rerun = ignore if as_json else show_rerun_start
    with bar("reading artifacts") as progress:
        findings = check(session, rerun, seed, checksums, tolerance, discard, progress, on_rerun)
    report = findings.report(session.plan)
    if as_json:
        print(json.dumps(report))
    else:
        show_findings(session, report, findings.reruns)
    raise typer.Exit(0 if findings.fine else 1)


@sweep_command(
    app,
    cells=False,
    rich_help_panel="Store",
    epilog="Example:\nsweep adopt sweeps/full.yaml evaluate --from-version 1 --yes\n"
    "sweep adopt sweeps/full.yaml --was score_test.batch_size=64",
)
def adopt(
    session: Session,
    stage: Annotated[
        str | None, typer.Argument(metavar="STAGE", help="The stage whose version was raised.", show_default=False)
    ] = None,
    from_version: Annotated[
        int | None, typer.Option("--from-version", metavar="N", help="The version that made the artifacts.")
    ] = None,
    was: Annotated[
        list[str] | None,
        typer.Option("--was", metavar="ENTRY.FIELD=VALUE", help="A field that the key had then. Repeatable."),
    ] = None,
    edited: Annotated[
        bool, typer.Option("--edited", help="Stages of your own without a version were edited, or were given one.")
    ] = False,
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="N", min=1, help="Rerun this many of the changed steps as a proof.")
    ] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Really adopt (default: dry run).")] = False,
    as_json: Json = False,
) -> None:
    """Keep artifacts that older code made under other keys, and all below them, if today's code makes the same.

    Exit code: 0 adopted, or could be, or nothing to adopt; 1 the output differs, nothing was adopted.
    """
    from orchestrator.cli.console import bar
    from orchestrator.cli.show_store import show_adoption, show_rerun_start
    from orchestrator.maintenance import ignore
    from orchestrator.maintenance.adopt import adopt as take_over
    from orchestrator.maintenance.adopt import read_former

    former = read_former(session, stage, from_version, was or (), edited)
    on_rerun = ignore if as_json else show_rerun_start
    with bar("adopting artifacts") as progress:
        adoption = take_over(session, former, rerun, yes, progress, on_rerun)
    if as_json:
        print(json.dumps(adoption.report()))
    else:
        words = [*([stage, "--from-version", str(from_version)] if stage else ())]
        words += ["--edited"] if edited else []
        words += [word for text in was or () for word in ("--was", text)]
        again = session.command("adopt", *words, "--rerun", str(rerun), "--yes")
        show_adoption(session, adoption.report(), adoption.reruns, again)
    raise typer.Exit(0 if adoption.proven else 1)


def _store_at(outputs: str | None, store: str | None) -> Store:
    from orchestrator.store import open_store
    from orchestrator.sweep.outputs import resolve_outputs

    return open_store(resolve_outputs("", None, outputs, store).store)
