"""The artifacts of one cell, and which of them belongs to which."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from orchestrator.explain.artifact_files import ArtifactFiles
from orchestrator.run.schedule import Schedule, State
from orchestrator.store import DamagedArtifactError, Store
from orchestrator.types import Artifact, Cell, Manifest, Step


class CellArtifacts:
    """The steps of a cell with the manifests of those that are there; files are read when they are asked for."""

    def __init__(self, schedule: Schedule, store: Store, cell: Cell) -> None:
        """Read the manifests of all steps of the cell.

        Raises:
            StoreError: the store cannot be read.
        """
        self.plan = schedule.plan
        self.cell = cell
        self._schedule = schedule
        self._store = store
        everything = [artifact for group in cell.steps.values() for artifact in group]
        self.manifests = store.manifests(everything)
        """What is not there is an error here, as is what is damaged."""

    def number(self, artifact: Artifact) -> int:
        """Return the number of the step that makes an artifact of the cell."""
        number = self.plan.number(artifact)
        assert number is not None, "a cell is made of steps of its plan"
        return number

    def step(self, artifact: Artifact) -> Step:
        """Return the step that makes an artifact of the cell."""
        return self.plan.step(self.number(artifact))

    def state(self, artifact: Artifact) -> State:
        """Return the state of the step that makes an artifact of the cell."""
        return State(self._schedule.states[self.number(artifact)])

    def kind(self, artifact: Artifact) -> str:
        """Return the kind of an artifact of the cell."""
        return self.step(artifact).definition.output

    def files(self, artifact: Artifact) -> ArtifactFiles | DamagedArtifactError:
        """Return the files of an artifact, or why there are none."""
        manifest = self.manifests[artifact]
        return ArtifactFiles(self._store, manifest) if isinstance(manifest, Manifest) else manifest

    def entry(self, artifact: Artifact) -> str:
        """Return the name of the entry that makes an artifact of the cell, not of one that it stands in for."""
        return self.step(artifact).entry

    def readers(self, artifact: Artifact, kind: str) -> Iterator[Step]:
        """Yield the steps of the cell that read an artifact and make one of a kind, in the order of the plan."""
        for step in self._steps:
            if step.definition.output == kind and any(artifact in group for group in step.inputs.values()):
                yield step

    def of_kind(self, step: Step, kind: str) -> tuple[Artifact, ...]:
        """Return the artifacts that a step reads at its first input of a kind; none where there is no such input."""
        inputs = step.definition.inputs
        return next((group for name, group in step.inputs.items() if inputs[name].kind == kind), ())

    @cached_property
    def _steps(self) -> list[Step]:
        groups = dict.fromkeys(artifact for group in self.cell.steps.values() for artifact in group)
        return [self.step(artifact) for artifact in groups]
