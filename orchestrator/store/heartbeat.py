"""Signs of life of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Heartbeat:
    """A daemon thread that calls a function again and again."""

    def __init__(self, name: str, seconds: float, function: Callable[[], None]) -> None:
        """Prepare; nothing runs yet.

        Args:
            name: the name of the thread.
            seconds: the pause before each call.
            function: shows that everything of this process is alive.
        """
        self.name = name
        self.seconds = seconds
        self._function = function
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread unless it runs; a fork does not take it along."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self.seconds):
            self._function()
