"""Checkpoints in a folder, and a process that is stopped at a chosen moment, for the tests of long stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from workers.checkpoints import Checkpoints


class StoppedError(BaseException):
    """The process of a step is killed."""


class FolderCheckpoints(Checkpoints):
    """Checkpoints that are due at some of the moments at which a stage asks, until it is stopped at one of them."""

    def __init__(self, folder: Path, due: Collection[int] = (), stop: int = -1) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._due = due
        self._stop = stop
        self.asked = 0

    def found(self) -> Mapping[str, Path]:
        return {path.name: path for path in sorted(self.folder.iterdir())}

    def due(self) -> bool:
        self.asked += 1
        if self.asked == self._stop:
            raise StoppedError
        return self.asked in self._due

    def keep(self, name: str, write: Callable[[Path], None]) -> bool:
        assert name.isalnum(), "as the store has it"
        (self.folder / name).mkdir()
        write(self.folder / name)
        return True

    def drop(self, name: str) -> None:
        shutil.rmtree(self.folder / name)


def run_stopped(run: Callable[[Path, Checkpoints], object], place: Path, due: Collection[int], stop: int) -> Path:
    """Run a stage until it is stopped, then again from its checkpoints; return the folder of the second attempt."""
    (place / "first").mkdir(parents=True)
    try:
        run(place / "first", FolderCheckpoints(place / "kept", due, stop))
    except StoppedError:
        pass
    else:
        raise AssertionError(f"it was not asked {stop} times whether a checkpoint is due")
    (place / "second").mkdir()
    run(place / "second", FolderCheckpoints(place / "kept"))
    return place / "second"


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of an artifact."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
