"""Accounts of the cost of paid answers, added up over processes.

An account is a folder. Each process appends its payments to a file of its own and reads those of the others, so that
nothing needs a lock and a process that dies damages nothing. A payment has a name and counts once, however many
processes note it, and however often.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path


class Account:
    """The payments of an account, as far as this process has seen them; not for several threads at once.

    On one machine it always has all payments. On NFS (nfs(5), `acregmax`, `acdirmax`) those of another machine can stay
    out of sight for a minute.
    """

    def __init__(self, folder: Path) -> None:
        """Open the account in `folder`, which is made with the first payment."""
        self.folder = folder
        self._own = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._seen: dict[str, int] = {}
        self._payments: dict[str, float] = {}
        self._total = 0.0

    def note(self, payments: Mapping[str, float]) -> None:
        """Write down payments (name -> dollars) that the account does not have yet."""
        self._look()
        lines = [f"{name} {dollars!r}\n" for name, dollars in payments.items() if self._count(name, dollars)]
        if lines:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Closed each time: only then do other machines see it on NFS.
            with (self.folder / self._own).open("a", encoding="utf-8") as file:
                file.write("".join(lines))

    def total(self) -> float:
        """Return the dollars that all processes have paid together."""
        self._look()
        return self._total

    def _count(self, name: str, dollars: float) -> bool:
        """Add a payment, and return whether it is new."""
        if name in self._payments:
            return False
        self._payments[name] = dollars
        self._total += dollars
        return True

    def _look(self) -> None:
        """Read the payments that other processes have noted since the last call."""
        try:
            found = [(entry.name, entry.stat().st_size) for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return
        for name, size in found:
            if name != self._own and size > self._seen.get(name, 0):
                self._read(name)

    def _read(self, name: str) -> None:
        """Read the new lines of a file of another process."""
        with (self.folder / name).open("rb") as file:
            file.seek(self._seen.get(name, 0))
            # A line without an end is being written, or its writer died.
            whole, end, _ = file.read().rpartition(b"\n")
        self._seen[name] = self._seen.get(name, 0) + len(whole) + len(end)
        for line in whole.decode("utf-8", "replace").splitlines():
            payment, _, dollars = line.partition(" ")
            try:
                self._count(payment, float(dollars))
            except ValueError:  # a disk that was full, a machine that crashed
                continue
