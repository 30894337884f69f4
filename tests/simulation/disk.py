"""The calls of `os` that touch the folder of a simulation: every one is an operation that faults may meet."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from faults import Faults
from judge import Judge

from orchestrator.types import Artifact

REAL = {name: getattr(os, name) for name in ("rename", "replace", "mkdir", "rmdir", "unlink", "open", "utime", "link",
                                             "listdir", "scandir")}  # fmt: skip


class Disk:
    """The folder of a simulation: `store` and `outputs` are on a file server, all else on the disks of nodes."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.faults: Faults | None = None
        self.judge: Judge | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have all calls of `os` come by here."""
        calls: dict[str, Callable[..., Any]] = {name: getattr(self, name) for name in REAL}
        patches = [mock.patch.object(os, name, call) for name, call in calls.items()]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    def _place(self, path: Any) -> str | None:
        """Return the place that a path is in, if operations there may go wrong."""
        if self.faults is None or not isinstance(path, str | os.PathLike):
            return None
        text = os.fspath(path)
        if not isinstance(text, str) or not text.startswith(self.root):
            return None
        place = text[len(self.root) + 1 :].partition("/")[0]
        return place if place in ("store", "outputs") else None

    def _do(
        self,
        name: str,
        path: Any,
        do: Callable[[], Any],
        lost: int | None = None,
        critical: bool = False,
        what: str = "",
    ) -> Any:
        place = self._place(path)
        if place is None:
            return do()
        assert self.faults
        critical = critical or "/store/claims/sim_" in os.fspath(path) or os.fspath(path).endswith("/manifest.json")
        short = os.fspath(path)[len(self.root) + 1 :]

        def error(number: int) -> OSError:
            return OSError(number, os.strerror(number), os.fspath(path))

        return self.faults.act(
            place, what or f"{name}s {short}", do, lambda: error(errno.EIO),
            (lambda _: error(lost)) if lost is not None else None, critical,
        )  # fmt: skip

    def _stamp(self, folder: Any) -> None:
        """Give a folder that was changed a time of change by the file server's clock."""
        assert self.faults
        REAL["utime"](folder, ns=(0, int(1e18 + self.faults.world.now * 1e9)))

    # --- the calls

    def rename(self, source: Any, target: Any, **options: Any) -> None:
        if self._place(source) is None:
            return REAL["rename"](source, target, **options)  # type: ignore[no-any-return]
        old, new = (os.fspath(each)[len(self.root) + 1 :] for each in (source, target))
        judge = self.judge
        assert judge

        def do() -> None:
            REAL["rename"](source, target, **options)
            judge.renamed(old, new)

        claims = old.startswith(("store/claims/", "store/artifacts/"))
        self._do("rename", source, do, errno.ENOENT, claims, judge.describe_rename(old, new))
        return None

    def replace(self, source: Any, target: Any, **options: Any) -> None:
        self._do("replace", target, lambda: REAL["replace"](source, target, **options))

    def mkdir(self, path: Any, *mode: int, **options: Any) -> None:
        def do() -> None:
            REAL["mkdir"](path, *mode, **options)
            if self._place(path) == "store":
                self._stamp(path)

        self._do("mkdir", path, do, errno.EEXIST if "/claims/" in str(path) else None)

    def rmdir(self, path: Any, **options: Any) -> None:
        self._do("rmdir", path, lambda: REAL["rmdir"](path, **options), errno.ENOENT)

    def unlink(self, path: Any, **options: Any) -> None:
        if options.get("dir_fd") is not None:
            REAL["unlink"](path, **options)
            if path == "manifest.json" and self.faults and self.faults.world.acts:
                self._stamp(options["dir_fd"])
            return
        self._do("unlink", path, lambda: REAL["unlink"](path, **options), errno.ENOENT)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            descriptor: int = REAL["open"](path, flags, mode, dir_fd=dir_fd)
            if flags & os.O_CREAT and self.faults and self.faults.world.acts:
                self._stamp(dir_fd)
            return descriptor

        def do() -> int:
            text = os.fspath(path)
            if self.judge and isinstance(text, str) and text.endswith("/manifest.json") and "/store/artifacts/" in text:
                self.judge.looks(Artifact(*text.split("/")[-3:-1]))
            found: int = REAL["open"](path, flags, mode)
            return found

        return self._do("open", path, do)  # type: ignore[no-any-return]

    def utime(self, path: Any, *rest: Any, **options: Any) -> None:
        if self._place(path) != "store":
            return REAL["utime"](path, *rest, **options)  # type: ignore[no-any-return]
        judge = self.judge
        assert judge

        def do() -> None:
            REAL["utime"](path)
            self._stamp(path)
            judge.renewed(os.fspath(path)[len(self.root) + 1 :])

        self._do("utime", path, do, None, True, "shows life")
        return None

    def link(self, source: Any, target: Any, **options: Any) -> None:
        self._do("link", target, lambda: REAL["link"](source, target, **options))

    def listdir(self, path: Any = ".") -> list[str]:
        return self._do("listdir", path, lambda: REAL["listdir"](path))  # type: ignore[no-any-return]

    def scandir(self, path: Any = ".") -> Any:
        return self._do("scandir", path, lambda: REAL["scandir"](path))

    def write(self, folder: str, name: str, content: str) -> None:
        """Write a file of an artifact as a stage does."""

        def do() -> None:
            Path(folder, name).write_text(content)
            if self._place(folder) == "store":
                self._stamp(folder)
                assert self.judge
                self.judge.renewed(folder[len(self.root) + 1 :])

        self._do("write", folder, do, what=f"writes {name}")
