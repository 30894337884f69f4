"""Commands of `sweep` for whoever writes a study: a new one, the stages there are, and a schema for editors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.sweep_command import Json
from orchestrator.sweep.problems import Problem, SweepError
from orchestrator.texts import nearest, plain_text

if TYPE_CHECKING:
    from orchestrator.study.modules import Study
    from workers.stage import Stage

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


@app.command(rich_help_panel="Start", epilog="Example:\nsweep stages\nsweep stages sft\nsweep stages my_study:train")
def stages(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show all of a stage, or of a function (module:function).")
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option("--sweep", metavar="SWEEP.yaml", help="Add the stages that this sweep uses or names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the stages: what they read, make and return, and the fields of their configs with types and defaults."""
    from orchestrator.study import StageError
    from orchestrator.study.catalogue import bare_function, describe

    study, known = _known(sweep)
    try:
        if name is not None and ":" in name and name not in known:
            known[name] = bare_function(study, name)
        elif name is not None and name not in known:
            raise SweepError([Problem("", "", f"there is no stage {name!r}; {nearest(name, known)}")])
        described = [describe(study, each, known[each]) for each in ([name] if name is not None else known)]
    except StageError as error:
        raise SweepError([Problem("", "", str(error))]) from error
    if as_json:
        print(json.dumps(described if name is None else described[0]))
    elif name is None:
        _show_list(described)
    else:
        _show_stage(described[0])


@app.command(rich_help_panel="Start", epilog="Example:\nsweep schema my-study/sweep.yaml > my-study/schema.json")
def schema(
    sweep: Annotated[
        Path | None, typer.Argument(metavar="SWEEP.yaml", help="With the stages that this sweep uses or names.")
    ] = None,
) -> None:
    """Print a JSON Schema of sweep files, by which editors complete and check them: stages, inputs, config fields.

    In VS Code (YAML extension) and other editors with yaml-language-server: write it to schema.json, and
    `# yaml-language-server: $schema=schema.json` below the first line of the sweep.
    """
    from orchestrator.study import StageError
    from orchestrator.sweep.schema import sweep_schema

    try:
        print(json.dumps(sweep_schema(*_known(sweep)), indent=1))
    except StageError as error:
        raise SweepError([Problem("", "", str(error))]) from error


def _known(sweep: Path | None) -> tuple[Study, dict[str, Stage]]:
    """Return the study of a sweep, else of this folder, and the stages that can be named there."""
    from orchestrator.plan.named import named_stages
    from orchestrator.study.modules import study_at
    from orchestrator.study.table import StageTable
    from orchestrator.sweep.load import draft_sweep

    spec = draft_sweep(sweep) if sweep else None
    table = spec.available if spec else StageTable(study_at(Path.cwd()))
    for trouble in table.join_installed():
        print(plain_text(trouble), file=sys.stderr)
    return table.study, named_stages(spec) if spec else dict(table.named)


def _show_list(described: Sequence[Mapping[str, Any]]) -> None:
    """Print one line per stage, below its family."""
    from rich.table import Table
    from rich.text import Text

    from orchestrator.cli.console import WIDTH, console, say

    families: dict[str, list[tuple[str, str, str]]] = {}
    for each in described:
        row = ("  " + each["name"], each["makes"], plain_text(each["summary"]))
        families.setdefault(each["family"], []).append(row)
    rows = [row for of_family in families.values() for row in of_family]
    name, kind = (min(max(len(row[column]) for row in rows), limit) for column, limit in enumerate((32, 20)))
    rest = max(min(console.width, WIDTH) - name - kind - 4, 20) if console.is_terminal else None
    for family, of_family in families.items():
        say(family, style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        for width in (name, kind, rest):
            grid.add_column(width=width, overflow="fold")
        for row in of_family:
            grid.add_row(*map(Text, row))
        console.print(grid)
    say("\nname, kind of artifact that it makes, what it does; all of one: sweep stages NAME", style="dim")


def _show_stage(stage: Mapping[str, Any]) -> None:
    """Print all of a stage."""
    from orchestrator.cli.console import paragraph, say
    from workers.stage import ANY_KIND

    version = "its source counts" if stage["version"] is None else f"version {stage['version']}"
    function = "" if stage["name"] == stage["function"] else f"{stage['function']}, "
    paragraph((stage["name"], "bold"), f"  {function}{version}")
    for block in filter(None, stage["doc"].split("\n\n")):
        # Lines are filled again, those of lists excepted.
        for line in re.sub(r"\n(?![-*\s]|\d+\.)", " ", block).splitlines():
            paragraph(line, indent=2)
    say("")
    paragraph(("makes: ", "bold"), stage["makes"])
    if stage["inputs"]:
        say("inputs:", style="bold")
    for name, of in stage["inputs"].items():
        kind = "artifact of any kind" if of["kind"] == ANY_KIND else of["kind"]
        marks = ["optional"] * of["optional"] + ["all shards at once"] * of["many"]
        marks += ["or a file: `{path: …}` in config"] * of["file"]
        _described(name, ", ".join([kind, *marks]), of["doc"])
    definitions = stage["config"].get("$defs", {})
    own = definitions.get(stage["config"].get("$ref", "").rpartition("/")[2], stage["config"])
    say("config:" if own.get("properties") else "config: no fields", style="bold")
    _show_fields(own)
    for name, definition in definitions.items():
        paragraph((name, "bold"), f": {' '.join(definition.get('description', '').split())}")
        _show_fields(definition)
    paragraph(("metrics: ", "bold"), _METRICS[stage["metrics_of"]].format(", ".join(stage["metrics"] or ["none"])))


#: Whose the metrics are -> how they are said.
_METRICS = {
    "all": "{}",
    "default": "{} (with the default config; others with another)",
    "config": "depend on its config",
    "run": "whatever it returns; `metrics: [NAME, …]` in the sweep declares them",
}


def _show_fields(schema: Mapping[str, Any]) -> None:
    from orchestrator.study.catalogue import type_text

    if schema.get("enum"):
        _described("", type_text(schema), "")
    for name, field in schema.get("properties", {}).items():
        if name in schema.get("required", ()):
            default = " (required)"
        else:
            known = "default" in field
            default = f" = {json.dumps(field['default'], ensure_ascii=False)}" if known else " (optional)"
        _described(name, type_text(field) + default, field.get("description", ""))


def _described(name: str, what: str, doc: str) -> None:
    from orchestrator.cli.console import paragraph

    paragraph((name, "cyan"), f": {what}" if name else what, indent=2, hanging=4)
    if doc:
        paragraph(doc, indent=6, hanging=0)
