"""Stages as the orchestrator sees them.

A stage is named by string, so that planning never imports torch, transformers, trl or lightgbm. To add a stage, see
`workers/README.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.config import Config

#: The kind of an input that reads artifacts of every kind.
ANY_KIND = "any"


@dataclass(frozen=True)
class Input:
    """An input of a stage."""

    kind: str
    """The kind of artifact that it reads, or ANY_KIND."""
    optional: bool = False
    many: bool = False
    """Whether it reads all shards of its source at once, in order; otherwise the stage runs once per shard."""


@dataclass(frozen=True)
class Origin:
    """Where a stage that is not this package's comes from, so that stages of equal names are told apart."""

    namespace: str
    """The `namespace:` of the sweep, else the installed distribution; empty if there is neither."""
    source: str
    """The sha256 of its module, and of what this imports of the same study or package."""
    folder: str
    """The folder of the sweep file, in which its module is looked for, too; no part of the key."""


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    `function` is "module:name" of `def name(config, out, *, <input>: Path | list[Path] | None) -> dict[str, float]`:
    it writes files into the folder `out` and returns exactly the metrics that `config.metrics()` declares, `Undefined`
    in the place of one that is nullable and has no value.
    """

    function: str
    version: int | None
    """A number that is raised whenever the meaning of the output changes; part of the key. None, for stages that are
    not this package's: the source stands in the key in its place."""
    config: type[Config]
    output: str
    """The kind of artifact that it writes; see `workers/README.md` for the files of each kind."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    loads: tuple[str, ...] = ()
    """Fields of the config and inputs that determine the model that it loads (by `workers.model_cache`). Steps that
    agree in them are run one after another by a process that keeps the model."""
    batches: bool = False
    """Whether its function takes `batch_size`, the number of sequences per forward pass, which changes results through
    rounding at most; `runtime.<entry>.batch_size` sets it, and it is no part of the key."""
    checkpoints: bool = False
    """Whether its function takes `checkpoints` (`workers.checkpoints`), from which a later attempt goes on."""
    history: bool = False
    """Whether it writes its training curve, `history.parquet` (`tables.HISTORY`), if it trains at all."""
    together: str = ""
    """"module:name" of a function that runs several steps that agree in `loads` for less than they cost one by one:
    `def name(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]`. It does what they share and returns an
    iterator that does the rest of each in turn, like `function`. None stands for a step that failed: it is then tried
    by itself, and so are all that are left if the function or the iterator raises. The result of a step does not
    depend on the others."""
    files: tuple[str, ...] = ()
    """Names or patterns (`*.json`) of the files that it writes, each of which must be there; what else it leaves is not
    kept. Empty: whatever it writes."""
    origin: Origin | None = None
    """None for this package's own stages; set when a sweep is read."""

    def call(self, function: Callable[..., Any], config: Any, out: Path, given: Mapping[str, Any]) -> Any:
        """Call the function of this stage; `given` are its inputs, and `batch_size` where it takes one."""
        return function(config, out, **given)


@dataclass(frozen=True)
class Call:
    """One call of a stage function: `function(config, out, **inputs)`."""

    config: Any
    out: Path
    inputs: Mapping[str, Path | list[Path]]

    def path(self, name: str) -> Path:
        """Return the folder of an input that is one artifact."""
        found = self.inputs[name]
        assert isinstance(found, Path), f"{name} has shards"
        return found

    def paths(self, name: str) -> list[Path]:
        """Return the folders of an input that gathers all shards."""
        found = self.inputs[name]
        assert isinstance(found, list), f"{name} is one artifact"
        return found


def join_tables(*tables: Mapping[str, Stage]) -> Mapping[str, Stage]:
    """Join tables of stages into one.

    Raises:
        ValueError: two tables have a stage of the same name; the message names the functions of both.
    """
    joined: dict[str, Stage] = {}
    for table in tables:
        for name, stage in table.items():
            if name in joined:
                raise ValueError(f"two stages are called {name!r}: {joined[name].function} and {stage.function}")
            joined[name] = stage
    return joined
