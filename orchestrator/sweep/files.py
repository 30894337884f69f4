"""The local files and folders that a sweep names, `{path: …}`, which count by content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.regular_file import open_file
from orchestrator.store.atomic import replace_file
from orchestrator.store.cache import cache_folder
from orchestrator.store.errors import StoreError
from orchestrator.sweep.document import Document
from orchestrator.sweep.problems import DocPath, Problem
from orchestrator.sweep.written_path import expand_home

#: Below this size reading is as fast as looking up.
_REMEMBER_FROM = 16 * 2**20
#: A folder that counts by content has at most so many files; the home folder is a slip.
_MOST_FILES = 100_000
_DIGEST = re.compile("[0-9a-f]{64}")


def resolve_files(document: Document) -> list[Problem]:
    """Give every `{path: …}` its content digest, in place; `$env.NAME` and `~` are expanded there, and only there.

    Returns:
        One problem per file that cannot be read.
    """
    problems: list[Problem] = []

    def visit(value: Any, where: DocPath) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and set(value) <= {"path", "sha256"}:
                _resolve_file(value, document, where, problems)
            for name, item in value.items():
                visit(item, (*where, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*where, index))

    visit(document.value.get("data"), ("data",))
    for axis, values in _mapping(document.value.get("axes")).items():
        visit(values, ("axes", axis))
    for name, entry in _mapping(document.value.get("stages")).items():
        visit(_mapping(entry).get("config"), ("stages", name, "config"))
    return problems


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _resolve_file(value: dict[str, Any], document: Document, where: DocPath, problems: list[Problem]) -> None:
    text = value["path"]
    if not text:
        problems.append(document.problem((*where, "path"), "is empty; write the path of a file or folder"))
        return
    # A file that cannot be read is one mistake: configs that use it are not to lack its digest, too.
    value |= {"path": "unknown", "sha256": "unknown"}
    if text.startswith("$env."):
        name, slash, rest = text.removeprefix("$env.").partition("/")
        if not os.environ.get(name):
            remedy = f"export {name or 'NAME'}=FILE, or pass -s {'.'.join(map(str, where))}.path=FILE"
            problems.append(document.problem((*where, "path"), f"environment variable {name} is not set; {remedy}"))
            return
        written = os.environ[name] + slash + rest
    else:
        written = text
    path = Path(written)
    try:
        path = document.path.parent.joinpath(expand_home(written)).absolute()
        value["sha256"] = fingerprint(path)
    except OSError as error:
        remedy = f"check it, or pass -s {'.'.join(map(str, where))}.path=FILE"
        # The value of a variable is for those who may look at the environment.
        shown = text if text.startswith("$env.") else path
        reason = error.strerror or type(error).__name__
        problems.append(document.problem((*where, "path"), f"cannot read {shown}: {reason}; {remedy}"))
        return
    value["path"] = str(path)


def fingerprint(path: Path) -> str:
    """Return the hex sha256 of a file's bytes; of a folder, over the sorted (relative path, file digest) of its files.

    Digests of large files are remembered in the user's cache folder by (real path, size, modification time).

    Raises:
        OSError: the path is missing or unreadable.
    """
    if not path.is_dir():
        return _file_digest(path)
    whole = hashlib.sha256()
    files = sorted(islice((each for each in path.rglob("*") if each.is_file()), _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        raise OSError(errno.EFBIG, f"more than {_MOST_FILES:,} files; name a folder of what is needed only")
    for each in files:
        whole.update(f"{each.relative_to(path).as_posix()}\0{_file_digest(each)}\n".encode())
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    with open_file(path) as stream:
        stat = os.fstat(stream.fileno())
        if stat.st_size < _REMEMBER_FROM:
            content = stream.read(_REMEMBER_FROM) or b""
            if len(content) != stat.st_size:
                raise OSError(errno.EBUSY, "it changes while it is read")
            return hashlib.sha256(content).hexdigest()
        signature = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        memory = cache_folder() / "fingerprints" / hashlib.sha256(json.dumps(signature).encode()).hexdigest()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            remembered = memory.read_text()
            if _DIGEST.fullmatch(remembered):
                return remembered
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    # The cache only saves time: a full or read-only home folder must not stop a sweep.
    with contextlib.suppress(StoreError):
        replace_file(memory, found.encode())
    return found
