"""Whether the head of a Ray cluster is there: Ray waits for one that is gone, and then ends this process by itself."""

from __future__ import annotations

import os
import socket
import time

from orchestrator.run.executors import ExecutorLostError

#: Seconds after which Ray ends a process whose head is gone, at once, with exit code 1 and a line of its own; and the
#: environment variable that sets them.
_RAY_WAITS = 60.0
_RAY_WAITS_FOR = "RAY_gcs_rpc_server_reconnect_timeout_s"
#: Part of that after which a driver gives up, so that it still leaves its table and says what to do.
_PART = 0.6
#: Seconds that one look may take, and between two looks at a head that does not answer.
_LOOK, _PAUSE = 2.0, 1.0


class Head:
    """The head that this process is connected to."""

    def __init__(self, address: str) -> None:
        """Take its address, `host:port`."""
        self._address = address
        host, _, port = address.rpartition(":")
        self._place = (host.strip("[]"), int(port))
        self._patience = _PART * float(os.environ.get(_RAY_WAITS_FOR) or _RAY_WAITS)
        self._silent_since: float | None = None
        self._due = 0.0
        """Monotonic time of the next look, while it does not answer."""

    def answers(self) -> bool:
        """Tell whether it takes connections. Where it does not, whatever asks Ray for more than that does not return.

        Raises:
            ExecutorLostError: it has taken none for so long that Ray is about to end this process.
        """
        now = time.monotonic()
        if now < self._due:
            return False
        try:
            socket.create_connection(self._place, _LOOK).close()
        except OSError:
            since = self._silent_since = self._silent_since or now
            self._due = time.monotonic() + _PAUSE
            if now - since < self._patience:
                return False
            raise ExecutorLostError(
                f"the Ray head at {self._address} has not answered for {now - since:.0f} s"
            ) from None
        self._silent_since, self._due = None, 0.0
        return True
