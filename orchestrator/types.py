"""The nouns that travel between modules; plain immutable values without behaviour of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from workers.stage import Stage

Scalar = str | int | float | bool


class Artifact(NamedTuple):
    """Address of an artifact, and of the step that makes it: `artifacts/<stage>/<key>/`."""

    stage: str
    key: str


@dataclass(frozen=True, slots=True)
class Step:
    """A stage with every value filled in; shared by all the cells that need it."""

    address: Artifact
    entry: str
    """Name in the sweep's `stages`; two entries that ask the same question share one step."""
    definition: Stage
    """What its stage is: the function that is called, the inputs it reads."""
    config: Mapping[str, Any]
    """What the stage function is told, local paths included."""
    identity: str
    """The canonical JSON that was hashed into the key: stage, version, config, input keys."""
    inputs: Mapping[str, tuple[Artifact, ...]]
    coords: Mapping[str, Scalar]
    """The coordinates this step depends on."""

    @property
    def stage(self) -> str:
        """The kind of work."""
        return self.address.stage

    @property
    def key(self) -> str:
        """Content address."""
        return self.address.key


@dataclass(frozen=True, slots=True)
class Cell:
    """A point of the grid: one row of results, one MLflow run."""

    id: str
    coords: Mapping[str, Scalar]
    steps: Mapping[str, tuple[Artifact, ...]]
    """Entry name -> its artifacts (several where the entry is sharded), in the order of the plan's entries."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The stage raised, or the store cannot be used by the machine that it ran on."""
    REJECTED = "rejected"
    """The stage returned, but a declared metric is missing or not finite, or an undeclared one is there, or it left
    something else than regular files."""
    DAMAGED_INPUT = "damaged_input"
    """An input artifact was torn or altered; it is made again."""
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    """The worker process died; or a GPU failed under the step, or is not there, and the process may run no other."""
    IO_ERROR = "io_error"
    """The network, a file server or an object store failed; that may be over after a while."""
    STORE_ERROR = "store_error"
    """The store takes nothing from anybody: a full or read-only disk, a service that refuses us."""
    CLAIMED = "claimed"
    """Another driver was computing the step; nothing was tried."""
    LOST = "lost"
    """The node or the whole cluster under the step went away; that says nothing against the step."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step. Those that succeeded are told by the manifest, the others by a record of their own."""

    address: Artifact
    entry: str
    number: int
    outcome: Outcome
    seconds: float
    started: float
    """Seconds since the epoch, on the worker's clock."""
    host: str
    code_commit: str
    error_class: str | None = None
    error: str | None = None
    log: str | None = None
    damaged: tuple[Artifact, ...] = ()
    """The damaged input artifacts, where that was the outcome."""
    metrics: Mapping[str, float] | None = None
    """What a step that succeeded returned, as its manifest says."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Nullable metrics that it has no value for, and why."""
    holder: str | None = None
    """The claim of the other driver, where that was the outcome."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a step is run. Never part of its identity."""

    cpus: float = 1
    gpus: float = 0
    """That a step sees; with 0 it computes on the CPU."""
    memory: int | None = None
    """Bytes that Ray reserves; None reserves nothing."""
    memory_limit: int | None = None
    """Up to so many bytes `memory` doubles whenever the step has run out of it."""
    batch_size: int | None = None
    """Sequences per forward pass, of stages that take it; None leaves that to the stage."""
    timeout: float | None = None
    """Seconds."""
    attempts: int = 3
    """Tries before a step whose worker died, ran out of memory, or met an I/O error or damaged input, has failed."""
    whole_node: bool = False
    """Nothing else runs beside it on its node, so that all memory there is its own; not for people to set."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The last-written record of an artifact; its presence is completion."""

    address: Artifact
    identity: str
    files: Mapping[str, tuple[int, str]]
    """Relative path -> (bytes, sha256)."""
    metrics: Mapping[str, float]
    attempt: int
    seconds: float
    finished: float
    """Seconds since the epoch, on the worker's clock."""
    host: str
    code_commit: str
    log: str | None = None
    """What the step printed, if anything."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the libraries that were loaded when the step ended."""
    upload: str | None = None
    """In an object store: which of the folders below the artifact's holds the files."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Nullable metrics that have no value in this sound result, and why."""
    adopted: str | None = None
    """The key under which it was made, where `sweep adopt` took it over from an older version of its stage."""
