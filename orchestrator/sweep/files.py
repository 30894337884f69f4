"""Content digests of local files and folders, remembered so that a large file is read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from orchestrator.store.atomic import replace_file
from orchestrator.store.cache import cache_folder
from orchestrator.store.errors import StoreError

#: Below this size reading is as fast as looking up.
_REMEMBER_FROM = 16 * 2**20


def fingerprint(path: Path) -> str:
    """Hex sha256 of a file's bytes; of a folder, over the sorted (relative path, file digest) of its files.

    Digests of large files are remembered in the user's cache folder by (real path, size, modification time).

    Raises:
        OSError: the path is missing or unreadable.
    """
    if not path.is_dir():
        return _file_digest(path)
    whole = hashlib.sha256()
    for each in sorted(each for each in path.rglob("*") if each.is_file()):
        whole.update(f"{each.relative_to(path).as_posix()}\0{_file_digest(each)}\n".encode())
    return whole.hexdigest()


def _file_digest(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < _REMEMBER_FROM:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    signature = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    memory = cache_folder() / "fingerprints" / hashlib.sha256(json.dumps(signature).encode()).hexdigest()
    with contextlib.suppress(OSError):
        return memory.read_text()
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    # The cache only saves time: a full or read-only home folder must not stop a sweep.
    with contextlib.suppress(StoreError):
        replace_file(memory, found.encode())
    return found
