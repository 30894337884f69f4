"""An append-only file of JSON lines that several processes write and follow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.regular_file import open_file
from orchestrator.store.atomic import move_over


class Journal:
    """An append-only file of JSON lines that several processes write and follow."""

    def __init__(self, path: Path) -> None:
        """Remember the path; nothing is read yet, and the file need not exist."""
        self.path = path
        self.offset = 0
        """Bytes read so far."""
        self._head = b""

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Read the complete lines that were added since the last time; what a crash tore is left out.

        Returns:
            Whether these are all the lines, because the file was not read before or another one took its place; lines.
        """
        try:
            stream = open_file(self.path)
        except FileNotFoundError:
            anew = self.offset > 0
            self.offset, self._head = 0, b""
            return anew, []
        with stream:
            head = stream.readline()
            anew = self.offset == 0 or head != self._head
            if anew:
                self.offset, self._head = 0, head
            stream.seek(self.offset)
            content = stream.read()
        content = content[: content.rfind(b"\n") + 1]
        self.offset += len(content)
        lines = []
        for text in content.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
        return anew, lines

    def append(self, lines: Sequence[str], durable: bool = False) -> bool:
        """Add lines in one write.

        Args:
            lines: what to add, as JSON.
            durable: return only when they are safe against a power failure.

        Returns:
            Whether `read` will skip them: it does unless another process has added lines in between.

        Raises:
            OSError: they could not be written whole.
        """
        content = "".join(f"{line}\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            if not size:
                self._head = _head()
                content = self._head + content
            elif os.pread(handle, 1, size - 1) != b"\n":
                content = b"\n" + content
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            if durable:
                os.fsync(handle)
            end = os.lseek(handle, 0, os.SEEK_CUR)
        finally:
            os.close(handle)
        follows = end - len(content) == self.offset
        if follows:
            self.offset = end
        return follows

    def replace(self, lines: Sequence[str]) -> None:
        """Replace all lines at once.

        Raises:
            OSError: they could not be written; the old ones stay.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}-{secrets.token_hex(4)}")
        try:
            part.write_bytes(_head() + "".join(f"{line}\n" for line in lines).encode())
            move_over(part, self.path)
        finally:
            part.unlink(missing_ok=True)


def _head() -> bytes:
    """Make a first line that tells a file from one that takes its place."""
    return f'{{"file":"{secrets.token_hex(8)}"}}\n'.encode()
