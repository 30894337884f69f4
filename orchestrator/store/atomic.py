"""Atomic replacement of one file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.store.errors import StoreError, remedy

if TYPE_CHECKING:
    from upath import UPath


def replace_file(path: Path | UPath, content: bytes) -> None:
    """Replace a file atomically: a reader sees the old content or the new one.

    Raises:
        StoreError: it cannot be written.
    """
    with explained(path):
        if not isinstance(path, Path):
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.chmod(part.name, 0o644)  # noqa: PTH101
                move_over(part.name, path)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise


def move_over(part: str | Path, path: str | Path) -> None:
    """Move a file of this process into the place of another.

    Where the answer is lost NFS asks again, and is told that the file is gone; its inode tells where it is.

    Raises:
        OSError: it cannot be moved.
    """
    mine = os.stat(part)  # noqa: PTH116
    try:
        os.replace(part, path)  # noqa: PTH105
    except FileNotFoundError as error:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(mine, os.stat(path)):  # noqa: PTH116
                return
        raise error


@contextlib.contextmanager
def explained(path: Path | UPath) -> Iterator[None]:
    """Turn every error of writing to a place into a StoreError with a remedy."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # Each service has exceptions of its own; none is an OSError for sure.
        if isinstance(path, Path) and not isinstance(error, OSError):
            raise
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise StoreError(f"{path} cannot be written: {reason}; {remedy(error)}") from error
