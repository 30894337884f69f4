"""Has a cluster examined in a process of its own.

While Ray's core connects it holds the interpreter, and where the node below it is dead it ends the process: neither a
thread nor a handler survives that.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from orchestrator.code import PACKAGES
from orchestrator.doctor.examination import Probe
from orchestrator.doctor.file_system import existing
from orchestrator.doctor.finding import Finding, State, wrong
from orchestrator.redact import redact
from orchestrator.texts import plain_text

#: Seconds that the process has to start: importing Ray takes some on a busy machine.
_START = 60.0


class ClusterProcess:
    """A process that looks at a cluster. It does not exist before `begin`."""

    def __init__(
        self,
        address: str | None,
        location: str,
        servers: Sequence[tuple[str, str | None]],
        pythons: Sequence[str] = (),
    ) -> None:
        """Prepare it; arguments as those of `cluster_probes`, which needs a place to exchange files besides."""
        self._given = {"address": address, "location": location, "servers": list(servers), "pythons": list(pythons)}
        self._location = location
        self._process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def begin(self) -> Iterator[Sequence[Probe]]:
        """Start it, give the one probe that tells what it finds, and delete in the end what the nodes wrote."""
        base = self._location if "://" in self._location else str(existing(Path(self._location)))
        exchange = f"{base.rstrip('/')}/.doctor-{secrets.token_hex(8)}"
        read, write = os.pipe()
        with tempfile.TemporaryFile() as said, os.fdopen(read) as told:
            path = os.pathsep.join(filter(None, [str(PACKAGES[0].parent), os.environ.get("PYTHONPATH")]))
            given = json.dumps({**self._given, "exchange": exchange})
            command = [sys.executable, "-P", "-m", "orchestrator.doctor.cluster_main", given, str(write)]
            self._process = subprocess.Popen(
                command, env={**os.environ, "PYTHONPATH": path}, pass_fds=[write],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
            os.close(write)
            try:
                yield [Probe("connection", lambda: self._findings(told, said), _START)]
            finally:
                self.end()
                self._process.wait()
                _delete(exchange)

    def _findings(self, told: IO[str], said: IO[bytes]) -> Iterator[Finding | Probe]:
        for line in told:
            fields = json.loads(line)
            if "probe" in fields:
                yield Probe(fields["probe"], lambda: (), fields["patience"])
            else:
                yield Finding(**{**fields, "state": State(fields["state"])})
        assert self._process is not None, "it has begun"
        if code := self._process.wait():
            said.seek(0)
            last = plain_text(said.read().decode(errors="replace")).strip().splitlines()[-1:]
            reason = f": {redact(last[0])}" if last else ""
            seen = f"the process that looked at the cluster ended with {code}{reason}"
            yield wrong("connection", seen, "see whether Ray runs on this machine (ray status), and start it again")

    def end(self) -> None:
        """End it at once; Ray ends what it started on nodes."""
        if self._process and self._process.poll() is None:
            self._process.kill()


def _delete(exchange: str) -> None:
    if "://" not in exchange:
        shutil.rmtree(exchange, ignore_errors=True)
        return
    from orchestrator.store.object_medium import ObjectMedium

    ObjectMedium(exchange).delete_trees([""])
