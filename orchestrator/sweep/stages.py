"""The table of stages of a sweep: this package's own, and those of the modules that its `uses:` names."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from workers.stage import Stage, join_tables
from workers.stages import STAGES


def stage_table(uses: Sequence[str], folder: Path) -> tuple[Mapping[str, Stage], dict[int, str]]:
    """Join the tables of the modules that a sweep uses to that of this package.

    Args:
        uses: names of modules with a table `STAGES: Mapping[str, Stage]`; they should import nothing heavy.
        folder: where the sweep file lies; its modules can be imported, after those that are installed.

    Returns:
        The table, and position in `uses` -> what is wrong with that module.
    """
    table, mistakes = STAGES, {}
    if uses and str(folder) not in sys.path:
        sys.path.append(str(folder))
    for position, name in enumerate(uses):
        try:
            # Standard output is for the answer of the command, which may be JSON.
            with contextlib.redirect_stdout(sys.stderr):
                module = importlib.import_module(name)
        # Whatever a person's module raises: a mistake in it is theirs to mend.
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            mistakes[position] = f"module {name!r} cannot be imported: {reason}; it is looked for in {folder}, too"
            continue
        here, found = _file_of(name, folder), getattr(module, "__file__", None)
        if here and found and Path(found).resolve() != here.resolve():
            mistakes[position] = f"module {name!r} is {found}, which hides {here}: give yours another name"
            continue
        if not hasattr(module, "STAGES"):
            mistakes[position] = f"module {name!r} has no STAGES; give it a table, as workers/README.md shows"
            continue
        try:
            table = join_tables(table, _checked(module.STAGES))
        except (TypeError, ValueError) as error:
            mistakes[position] = f"the table of module {name!r} cannot be used: {error}"
    return table, mistakes


def _file_of(name: str, folder: Path) -> Path | None:
    """Return the file that a module has in a folder, if it is there."""
    path = folder.joinpath(*name.split("."))
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)


def _checked(table: object) -> Mapping[str, Stage]:
    if not isinstance(table, Mapping):
        raise TypeError(f"STAGES is of type {type(table).__name__}, not a mapping of names to stages")
    for name, stage in table.items():
        if not isinstance(stage, Stage):
            raise TypeError(f"STAGES[{name!r}] is of type {type(stage).__name__}, not a Stage")
    return table
