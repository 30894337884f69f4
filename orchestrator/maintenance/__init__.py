"""Looking after a store: collect garbage, verify what is stored, adopt what an older version of a stage made.

Nothing here prints: who wants to show progress passes a function that is called with (done, total).
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.types import Manifest, Step

#: Takes how much is done, and of how much.
Progress = Callable[[int, int], None]

#: Takes position and number of the steps that run again, and the step that is about to, with its stored manifest.
OnRerun = Callable[[int, int, Step, Manifest], None]


def ignore(*_: object) -> None:
    """Show no progress."""
