"""Namesakes: modules of somebody else that are called like packages of ours, so that one hides the other."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

#: Our packages, each with a file that a namesake does not have.
_MARKS = {
    "orchestrator": "attempt/stage_call.py",
    "workers": "reward_models/table.py",
    "dashboards": "live/watch.py",
}
#: Names of our packages, which every node has, or gets as a copy.
OUR_NAMES = tuple(_MARKS)


def hidden(name: str) -> str | None:
    """Tell whether Python would import a namesake of a package of ours, which is not imported by this.

    Returns:
        Which one, and the remedy; None where the package is found, and where nothing of its name is.
    """
    spec = importlib.util.find_spec(name)
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else []
    if not places or any(Path(place, _MARKS[name]).is_file() for place in places):
        return None
    return f"{places[0]} hides the package {name!r} of alignment-sweeps; give yours another name"


def namesakes(*folders: Path) -> Iterator[tuple[Path, str]]:
    """Find namesakes in folders that are on the path of a driver, or will be on that of its workers.

    Folders without Python files, such as those of data, are no modules.

    Yields:
        The file or folder of a namesake, and what is wrong with it.
    """
    for folder in folders:
        for name, mark in _MARKS.items():
            package, module = folder / name, folder / f"{name}.py"
            found = [module] if module.is_file() else []
            if any(package.glob("*.py")) and not (package / mark).is_file():
                found.append(package)
            for each in found:
                message = f"has the name of the package {name!r} of alignment-sweeps, and one would hide the other; "
                yield folder.resolve() / each.name, message + "give yours another name"
