"""The two ways of writing runs into MLflow, as one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from orchestrator.tracking.runs import CELL, CONTENT, ID, Run


class RunRefusedError(Exception):
    """MLflow does not accept this run as it is. It accepts others."""


class Found(NamedTuple):
    """A run of ours that MLflow has."""

    id: str
    """`Run.id`; "" if its tags do not say."""
    run: str
    """MLflow's run id."""
    content: str
    """`Run.digest` of what was written."""
    status: str


class Backend(Protocol):
    """A place where MLflow keeps runs: its database, or a server."""

    batch: int
    """The number of runs that are best written at once."""

    def find(self, ids: Sequence[str] | None) -> list[Found]:
        """Find the runs with some ids, or all of ours for None, oldest first."""

    def write(self, runs: Sequence[tuple[Run, str | None]]) -> Iterator[tuple[Run, str | Exception]]:
        """Write runs, each below a parent (MLflow's run id).

        Yields:
            Each run with MLflow's run id, or with the reason why it may not be there. A RunRefusedError means that it
            is not there, and that the others are not affected.
        """

    def delete(self, runs: Sequence[str]) -> None:
        """Delete runs by MLflow's run ids."""


def tags_of(run: Run, parent: str | None) -> dict[str, str]:
    """Collect all tags of a run, with those that MLflow's pages read."""
    tags = {**run.tags, CONTENT: run.digest, "mlflow.source.name": "sweep", "mlflow.runName": run.name}
    return tags | {"mlflow.parentRunId": parent} if parent else tags


def found_by_tags(run: str, status: str, tags: dict[str, str]) -> Found:
    """Read a found run from its tags."""
    return Found(tags.get(CELL) or tags.get(ID, ""), run, tags.get(CONTENT, ""), status)
