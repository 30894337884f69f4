"""The records that modules exchange: immutable values without behaviour.

Cell                  one point of the grid, one row of results
└── Step              one call of a stage, shared by all cells that need it; planned, never stored
    ├── Runtime       how the step is run: CPUs, GPUs, memory, time limit; no part of its key
    ├── Attempt       one try at the step, 0 … n of them; stored as attempts/<stage>/<key>.<n>.json unless it succeeded
    └── Manifest      the success, 0 or 1 of them; stored last, as artifacts/<stage>/<key>/manifest.json

An `Artifact` (stage, key) addresses a step, its attempts and its manifest alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from workers.stage import Stage

Scalar = str | int | float | bool

#: Columns of the results table that are not coordinates, and the first words of other references.
RESERVED_NAMES = (
    "cell_id",
    "status",
    "error_class",
    "error",
    "attempts",
    "seconds",
    "key",
    "code_commit",
    "log",
    "undefined",
    "study",
    "trial",
    "trial_state",
    "data",
    "env",
)


class Artifact(NamedTuple):
    """The address of an artifact, `artifacts/<stage>/<key>/`, and of the step that makes it."""

    stage: str
    key: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a stage, with its config and inputs; shared by all cells that need it."""

    address: Artifact
    entry: str
    """Name in the sweep's `stages`; entries with steps of the same identity share them."""
    definition: Stage
    """The stage: the function to call, the inputs it reads."""
    config: Mapping[str, Any]
    """Fields of the config that the stage function gets, local paths included."""
    identity: str
    """The canonical JSON that was hashed into the key: stage, version, config, input keys."""
    inputs: Mapping[str, tuple[Artifact, ...]]
    """Input -> the artifacts it reads; several where the input gathers shards."""
    coords: Mapping[str, Scalar]
    """Axis -> label, of the axes that the step depends on."""

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return self.address.stage

    @property
    def key(self) -> str:
        """Content address: a digest of the identity."""
        return self.address.key


@dataclass(frozen=True, slots=True)
class Cell:
    """A point of the grid: one row of results, one MLflow run."""

    id: str
    coords: Mapping[str, Scalar]
    steps: Mapping[str, tuple[Artifact, ...]]
    """Entry name -> its artifacts (several where the entry is sharded), in the order of the plan's entries."""


class Outcome(StrEnum):
    """The outcome of an attempt."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The stage raised, or the machine that it ran on cannot use the store."""
    REJECTED = "rejected"
    """The stage returned, but a declared metric is missing or not finite, a metric is undeclared, or the output has
    something other than regular files."""
    DAMAGED_INPUT = "damaged_input"
    """An input artifact was torn or altered; it is made again."""
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    """The worker process died; or a GPU failed or is missing, after which the process may run no other step."""
    IO_ERROR = "io_error"
    """The network, a file server or an object store failed, perhaps temporarily."""
    STORE_ERROR = "store_error"
    """The store accepts no writes from anyone: a full or read-only disk, a service that denies access."""
    CLAIMED = "claimed"
    """Another driver was computing the step; it was not tried."""
    LOST = "lost"
    """The node or the whole cluster under the step went away, or its process stood still for so long that another
    driver took the step over; neither is the step's fault."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a step; a success is recorded by its manifest, all others by a record of their own."""

    address: Artifact
    entry: str
    number: int
    outcome: Outcome
    seconds: float
    started: float
    """Unix time in seconds, by the worker's clock."""
    host: str
    code_commit: str
    error_class: str | None = None
    error: str | None = None
    log: str | None = None
    damaged: tuple[Artifact, ...] = ()
    """The damaged inputs, if the outcome is `DAMAGED_INPUT`."""
    metrics: Mapping[str, float] | None = None
    """Metrics of a success, as in its manifest."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Nullable metric without a value -> the reason."""
    holder: str | None = None
    """The claim of the other driver, if the outcome is `CLAIMED`."""
    driver: str = ""
    """Id of the driver's run, as in claims; in records, which other drivers write too."""
    unrecorded: bool = False
    """Whether the store took no record of it, so that the driver has to see to that; False in every record."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The resources and limits of a step; never part of its identity."""

    cpus: float = 1
    """CPU cores; also the number of threads."""
    gpus: float = 0
    """GPUs that the step sees; with 0 it computes on the CPU."""
    gpu_memory: int | None = None
    """Bytes of a GPU that the step may use, of each one that it sees; None for all. Steps that share one have it."""
    memory: int | None = None
    """Bytes that Ray reserves; None reserves nothing."""
    memory_limit: int | None = None
    """Bytes up to which `memory` doubles whenever the step runs out of memory; None never raises it."""
    batch_size: int | None = None
    """Sequences per forward pass, for stages that take it; None leaves it to the stage."""
    timeout: float | None = None
    """Seconds after which the step is stopped; None sets no limit."""
    silent: float | None = None
    """Seconds without output, computing and I/O after which the step counts as hanging, and is told; None means half an
    hour for steps that use GPUs or have `silent_ends`, and no limit for others."""
    silent_ends: bool = False
    """Whether a step that counts as hanging is stopped."""
    checkpoint_every: float | None = None
    """Seconds between two checkpoints of a stage that keeps some; None means five minutes. After the first they
    take a fiftieth of the time at most."""
    python: str | None = None
    """Absolute path of the Python interpreter that the step runs under, on every node; None means the driver's."""
    attempts: int = 3
    """Tries before a step fails whose worker died, ran out of memory, or met an I/O error or damaged input."""
    whole_node: bool = False
    """Whether the step has its node and all memory there to itself; set by the scheduler, not by users."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of a finished artifact; it is written last, so its presence means that the artifact is complete."""

    address: Artifact
    identity: str
    files: Mapping[str, tuple[int, str]]
    """Relative path -> (size in bytes, sha256)."""
    metrics: Mapping[str, float]
    attempt: int
    seconds: float
    finished: float
    """Unix time in seconds, by the worker's clock."""
    host: str
    code_commit: str
    log: str | None = None
    """Path of the log of what the step printed; None if it printed nothing."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library -> version, of those that were loaded when the step ended."""
    upload: str | None = None
    """Name of the folder below the artifact's that holds the files, in an object store."""
    undefined: Mapping[str, str] = field(default_factory=dict)
    """Nullable metric without a value -> the reason."""
    source: str | None = None
    """Digest of the source of a stage that is not this package's (`workers.stage.Origin`)."""
    adopted: str | None = None
    """The key under which it was made, if `sweep adopt` took it over from an older version of its stage."""
    refers_to: Artifact | None = None
    """The artifact that its `reference.json` names, without which it cannot be read (`workers.artifacts`)."""
