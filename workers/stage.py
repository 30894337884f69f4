"""What a stage is: the one seam between the orchestrator and the work.

A stage is named by string, so that planning never imports torch, transformers, trl or lightgbm. To add a stage, see
`workers/README.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.config import Config


@dataclass(frozen=True)
class Input:
    """An input of a stage: the kind of artifact it reads."""

    kind: str
    optional: bool = False
    many: bool = False
    """Reads all shards of its source at once, in order. Otherwise a stage fed by shards is run once per shard."""


@dataclass(frozen=True)
class Stage:
    """A kind of work.

    `function` is "module:name" of `def name(config, out, *, <input>: Path | list[Path] | None) -> dict[str, float]`:
    it writes files into the folder `out` and returns exactly the metrics that `config.metrics()` declares, `Undefined`
    in the place of one that is nullable and has no value.
    """

    function: str
    version: int
    """Raised whenever the meaning of the output changes; part of the key."""
    config: type[Config]
    output: str
    """The kind of artifact it writes; see `workers/README.md` for the files of each kind."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    loads: tuple[str, ...] = ()
    """Fields of the config and inputs that name a model which it loads (by `workers.model_cache`). Steps that agree
    in them are run one after another by a process that keeps it."""
    history: bool = False
    """Writes its training curve, `history.parquet` (`tables.HISTORY`), where it trains at all."""
    together: str = ""
    """"module:name" of a function that does several steps which agree in `loads` at less than their cost:
    `def name(calls: Sequence[Call]) -> Iterator[dict[str, float] | None]`. It does what they share and returns an
    iterator that does the rest of each in turn, like `function`. None stands for a step that failed: it is then tried
    by itself, and so are all that are left if the function or the iterator raises. Results do not depend on who is
    in the company."""


@dataclass(frozen=True)
class Call:
    """One call of a stage function: `function(config, out, **inputs)`."""

    config: Any
    out: Path
    inputs: Mapping[str, Path | list[Path]]

    def path(self, name: str) -> Path:
        """The folder of an input that is one artifact."""
        found = self.inputs[name]
        assert isinstance(found, Path), f"{name} has shards"
        return found

    def paths(self, name: str) -> list[Path]:
        """The folders of an input that gathers all shards."""
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
