"""A new study: a folder with a small sweep that runs at once, to be changed into one's own."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

from orchestrator.sweep.document import parse_value
from orchestrator.sweep.problems import Problem, SweepError

#: The folder that a new study is made from; the name of its sweep is replaced.
TEMPLATE = Path(__file__).parent / "template"
_NAME = "my-study"

#: What tells that a folder is under version control, which a person may have begun with.
_MAY_BE_THERE = frozenset({".git", ".gitignore"})


def write_study(folder: Path) -> str:
    """Write a study into a folder, which is made if it is not there; return the name of its sweep.

    Raises:
        SweepError: the folder has files, or cannot be written.
    """
    name = sweep_name(folder)
    try:
        there = sorted({each.name for each in folder.iterdir()} - _MAY_BE_THERE) if folder.is_dir() else []
        if there:
            few = ", ".join(there[:3]) + (", …" if len(there) > 3 else "")
            raise SweepError([Problem(str(folder), "", f"is not empty ({few}); give the name of a new folder")])
        folder.mkdir(parents=True, exist_ok=True)
        for source in TEMPLATE.iterdir():
            target = folder / source.name
            if source.is_file() and not target.exists():
                target.write_text(_named(source.read_text(encoding="utf-8"), name, source.suffix), encoding="utf-8")
        # Its first line makes the sweep a command.
        (folder / "sweep.yaml").chmod(0o755)
    except FileExistsError:
        raise SweepError([Problem(str(folder), "", "is a file; give the name of a new folder")]) from None
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}; give another folder"
        raise SweepError([Problem(str(folder), "", message)]) from error
    return name


def sweep_name(folder: Path) -> str:
    """Return the name of a folder, with what a sweep's name cannot have replaced: "Étude 1" gives "Etude-1"."""
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:100] or _NAME


def _named(text: str, name: str, suffix: str) -> str:
    if suffix == ".yaml" and not isinstance(parse_value(name), str):
        # 2026, or true.
        name = json.dumps(name)
    return text.replace(_NAME, name)
