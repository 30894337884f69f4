"""The digest of a stage's source: the files of its module and of the modules of the same study that it imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.namesakes import OUR_NAMES
from orchestrator.regular_file import open_file
from orchestrator.study import StageError
from orchestrator.study.modules import Module, Study
from orchestrator.texts import nearest
from workers.stage import Stage


def source_digest(study: Study, names: Iterable[str]) -> str:
    """Return the sha256 over the source of some modules and of what they import of the same study or package.

    Imports are read, not made, wherever they stand in a file. What is imported by a computed name, and files that are
    no Python, are not seen.

    Args:
        study: the folder that modules are looked for in, too.
        names: the modules to begin with.

    Raises:
        StageError: a module is not there, or its file is no Python.
    """
    files: dict[str, bytes] = {}
    for name in names:
        module = study.find(name)
        if module is None:
            raise missing(study, name)
        _collect(study, module, files)
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return whole.hexdigest()


def modules_of(stage: Stage) -> list[str]:
    """Return the modules that hold the functions of a stage and its config, whose source is that of the stage."""
    named = [each.partition(":")[0] for each in (stage.function, stage.together) if each]
    config = stage.config.__module__
    # The config of a plain function is made here, from its signature; those of this package change with its versions.
    return list(dict.fromkeys(named if config.partition(".")[0] in OUR_NAMES else [*named, config]))


def missing(study: Study, name: str) -> StageError:
    """Return the error of a module that is not there."""
    hint = nearest(name, study.names())
    return StageError(f"there is no module {name!r}, neither installed nor in {study.folder}; {hint}")


def parse(module: Module) -> ast.Module:
    """Parse the file of a module.

    Raises:
        StageError: it cannot be read, or is no Python.
    """
    return _read(module)[1]


#: No source has so many bytes.
_LARGEST = 10_000_000
#: File -> (modification time, size), its content, its syntax tree.
_PARSED: dict[Path, tuple[tuple[int, int], bytes, ast.Module]] = {}


def _read(module: Module) -> tuple[bytes, ast.Module]:
    try:
        stat = module.file.stat()
        signature = (stat.st_mtime_ns, stat.st_size)
        known = _PARSED.get(module.file)
        if known is None or known[0] != signature:
            if stat.st_size > _LARGEST:
                raise StageError(f"module {module.name!r}: {module.file} has more than {_LARGEST:,} bytes")
            with open_file(module.file) as stream:
                content = stream.read(_LARGEST) or b""
            known = _PARSED[module.file] = (signature, content, ast.parse(content))
    except OSError as error:
        raise StageError(f"module {module.name!r}: {module.file} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # The last two are what the parser raises for brackets in brackets.
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise StageError(f"module {module.name!r} is no Python: {module.file}{line}: {reason}") from error
    return known[1], known[2]


def _collect(study: Study, start: Module, files: dict[str, bytes]) -> None:
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module.name in files:
            continue
        files[module.name], tree = _read(module)
        for name in _imports(module, tree):
            # Importing a.b.c runs a and a.b before.
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                found = study.find(".".join(parts[:length]))
                if found and start.shares_study(found):
                    waiting.append(found)


def _imports(module: Module, tree: ast.Module) -> Iterator[str]:
    """Yield the names of what a module may import; some are no modules."""
    yield module.name
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{each.name}" for each in node.names if each.name != "*")
