"""What the two ways of writing runs into MLflow have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from orchestrator.tracking.runs import CELL, CONTENT, ID
from orchestrator.tracking.sent import Run


class RunRefusedError(Exception):
    """MLflow does not take this run as it is. Others are taken."""


class Found(NamedTuple):
    """A run of ours that MLflow has."""

    id: str
    """"" where its tags do not tell."""
    run: str
    content: str
    status: str


class Place(Protocol):
    """Where runs are written."""

    batch: int
    """So many runs are best written at once."""

    def find(self, ids: Sequence[str] | None) -> list[Found]:
        """The runs of some ids, or all of ours, oldest first."""

    def write(self, runs: Sequence[tuple[Run, str | None]]) -> Iterator[tuple[Run, str | Exception]]:
        """Write runs, each below a parent; gives for each its id or why it may not be there.

        A RunRefusedError says that it is not there, and that the others do not suffer from it.
        """

    def delete(self, runs: Sequence[str]) -> None:
        """Delete runs by MLflow's ids."""


def tags_of(run: Run, parent: str | None) -> dict[str, str]:
    """All the tags of a run, those that MLflow's pages read included."""
    tags = {**run.tags, CONTENT: run.digest, "mlflow.source.name": "sweep", "mlflow.runName": run.name}
    return tags | {"mlflow.parentRunId": parent} if parent else tags


def found_by_tags(run: str, status: str, tags: dict[str, str]) -> Found:
    """What the tags of a run tell."""
    return Found(tags.get(CELL) or tags.get(ID, ""), run, tags.get(CONTENT, ""), status)
