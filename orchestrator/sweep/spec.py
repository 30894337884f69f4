"""The grammar of a sweep file, `SweepSpec`; nothing is expanded here. `sweeps/README.md` is its manual."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from orchestrator import types
from orchestrator.study.function_stage import stage_name
from orchestrator.study.table import StageTable
from orchestrator.sweep.analysis import Analysis
from orchestrator.sweep.document import Document
from orchestrator.sweep.part import Part, matches
from orchestrator.sweep.problems import DocPath, Problem
from orchestrator.sweep.search import TRIAL, Search
from orchestrator.types import Scalar
from workers.stage import Origin, Stage

_DURATION = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _seconds(value: object) -> object:
    if isinstance(value, str) and value[-1:] in _DURATION:
        try:
            return float(value[:-1]) * _DURATION[value[-1]]
        except ValueError:
            pass
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not a duration; write seconds, or 90s, 30m, 2h, 1d")
    return value


def _bytes(value: object) -> object:
    if isinstance(value, str):
        number = value.rstrip("KMGTiB")
        unit = value[len(number) :]
        try:
            return int(float(number) * _SIZE[unit])
        except (ValueError, KeyError, OverflowError):
            raise ValueError(f"{value!r} is not a size; write bytes, or 512MB, 16GiB") from None
    return value


#: No machine has so many of anything that is counted, and what counts down from it never ends: 30 years in seconds.
_MANY = 10**9
#: A number that may be written with a unit.
_Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(gt=0, le=_MANY)]
_Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str), Field(gt=0, le=2**60)]


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError("a name has up to 100 letters, digits and . _ -, and begins with a letter or digit")
    return value


def _interpreter(value: str) -> str:
    if not (value.startswith("/") and value.isprintable()):
        raise ValueError(
            f"{value!r} is not an absolute path; write that of a Python interpreter as it is on every node, such as "
            "/opt/vllm/bin/python"
        )
    return value


def _layers(value: object) -> object:
    layers = value if isinstance(value, list) else [value]
    if not all(isinstance(layer, dict | str) for layer in layers):
        raise ValueError("is neither a mapping of config fields, nor a reference to one, nor a list of these")
    return value


def _axis_values(value: object) -> object:
    if not isinstance(value, list | dict):
        raise ValueError("is neither a list of values nor a mapping of names to fields")
    return value


def _tracking(value: object) -> object:
    if value is not False and not isinstance(value, dict | Tracking):
        raise ValueError("is neither a mapping (uri:, experiment:) nor false")
    return value


class Entry(Part):
    """One use of a stage in this sweep."""

    stage: str | None = None
    """Kind of work, a name in the table of stages, or a function, "module:name"; the entry's own name when left out.
    May be `$axis.field`."""
    when: bool | str = True
    """`$axis.field` that says whether this entry exists for a cell."""
    otherwise: str | None = None
    """The entry that stands in where `when` is false."""
    shards: bool | int | str | None = None
    """Cut the work into this many steps, each its own artifact."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Input of the stage -> name of the entry that feeds it."""
    metrics: tuple[str, ...] | None = None
    """For a function: the metrics that it returns, if its signature does not say; without, whatever it returns."""
    version: Annotated[int, Field(ge=1, le=_MANY)] | None = None
    """For a function: stands in the key in the place of its source, so that an edit computes nothing again."""
    config: Annotated[dict[str, Any] | str | list[Any], BeforeValidator(_layers)] = Field(default_factory=dict)
    """The stage's config: a mapping of its fields or a reference to one, or a list of such layers, merged from left to
    right, so that `$axis.config` can be one of them."""


class _RuntimeValues(Part):
    cpus: Annotated[float, Field(gt=0, le=_MANY)] | None = None
    gpus: Annotated[float, Field(ge=0, le=_MANY)] | None = None
    device: Literal["gpu", "cpu"] | None = None
    """`cpu`: compute on the CPU, and ask for no GPUs whatever `gpus` is."""
    gpu_memory: _Bytes | None = None
    """How much of the memory of its GPU a step may use; asked for where steps share one, `gpus: 0.25`."""
    memory: _Bytes | None = None
    memory_limit: _Bytes | None = None
    batch_size: Annotated[int, Field(ge=1, le=_MANY)] | None = None
    timeout: _Seconds | None = None
    silent: _Seconds | None = None
    """Say so when a step seems to hang: so many seconds (30m, 2h) without output, computing and I/O; 30m with GPUs."""
    silent_ends: bool | None = None
    """End a step that seems to hang."""
    checkpoint_every: _Seconds | None = None
    """Seconds (5m, 1h) between two checkpoints of a stage that can go on where it was stopped; 5m, or longer where they
    would take more than a fiftieth of the time."""
    python: Annotated[str, AfterValidator(_interpreter)] | None = None
    """The Python interpreter of another environment, by its absolute path on every node; `null`: that of the driver."""
    attempts: Annotated[int, Field(ge=1, le=_MANY)] | None = None


#: What can be said of how steps are run.
RUNTIME_FIELDS = frozenset(_RuntimeValues.model_fields)


class RuntimeRule(_RuntimeValues):
    """Runtime values for the steps at certain coordinates."""

    at: dict[str, Any]
    """Axis -> value or list of values."""


class EntryRuntime(_RuntimeValues):
    """How the steps of one entry are run."""

    rules: tuple[RuntimeRule, ...] = ()
    """The last rule that matches wins, field by field."""


class Limits(Part):
    """Limits at which a run holds back."""

    running: Annotated[int, Field(ge=1, le=_MANY)] | None = None
    """At most so many steps at once."""
    failures: Annotated[int, Field(ge=1, le=_MANY)] | None = None
    """Stop starting new steps after so many failed ones."""
    breaker: Annotated[int, Field(ge=1, le=_MANY)] = 10
    """Stop a stage whose first so many steps failed alike; the rest of the sweep goes on."""
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Stop starting new steps after so many GPU-hours in one command."""
    wall: _Seconds | None = None
    """Stop starting new steps after so many seconds (90s, 2h, 1d) of one command."""
    share: Annotated[float, Field(gt=0, le=_MANY)] = 1.0
    """The weight of this sweep where several share a Ray cluster: of 2 and 1, the one has two thirds while both can use
    more."""


class Summary(Part):
    """The table that a run ends with."""

    by: tuple[str, ...] = ()
    """Axes of its rows; default: the last two other than `seed`."""
    metrics: tuple[str, ...] = ()
    """Its columns; default: all reported metrics of which means are taken."""


class Hooks(Part):
    """Shell commands that receive what happened as JSON on their standard input."""

    finish: str | None = None
    """Run when a command ends, for whatever reason."""
    breaker: str | None = None
    """Run when the breaker stops a stage."""


class Tracking(Part):
    """The MLflow projection."""

    uri: str | None = None
    """None: SQLite under the output root."""
    experiment: str | None = None
    """None: the sweep's name."""


class SweepSpec(Part):
    """A sweep file, validated; what it spans is computed by `build_plan`."""

    name: Annotated[str, AfterValidator(_name)]
    uses: tuple[str, ...] = ()
    """Modules with a table `STAGES` of further stages; they may lie beside the sweep file."""
    namespace: Annotated[str, AfterValidator(_name)] | None = None
    """A name that no other study has, in the keys of stages that are not this package's; default: that of the installed
    distribution. Needed where such a stage has a version."""
    question: Annotated[str, Field(min_length=1)]
    """The question that the sweep answers; the description of the MLflow experiment."""
    data: Any = None
    """Values that stages share, read as `$data.…`; typically where the data lies."""
    axes: dict[str, Annotated[list[Any] | dict[str, Any], BeforeValidator(_axis_values)]]
    """Axis -> list of scalars, or name -> mapping of fields."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Points to leave out: axis -> value or list of values."""
    search: dict[str, Search] = Field(default_factory=dict)
    """Name -> what is searched for in the place of a grid; one at most."""
    stages: dict[str, Entry]
    results: tuple[str, ...] = ()
    """Entries whose metrics become columns; default: those that feed no other."""
    analysis: Analysis | None = None
    """What it is to show; without it nothing is ranked."""
    summary: Summary = Summary()
    runtime: dict[str, EntryRuntime] = Field(default_factory=dict)
    """Entry name, or `default`, -> how its steps are run."""
    limits: Limits = Limits()
    hooks: Hooks = Hooks()
    store: str | None = None
    """Output root: a folder, absolute on a cluster."""
    tracking: Annotated[Tracking | Literal[False], BeforeValidator(_tracking)] = Tracking()
    _document: Document = PrivateAttr()
    _available: StageTable = PrivateAttr()
    _versions: Mapping[str, int] = PrivateAttr(default_factory=dict)
    _origins: Mapping[str, Origin] = PrivateAttr(default_factory=dict)
    _former: Mapping[str, Mapping[str, Any]] = PrivateAttr(default_factory=dict)
    _tuned: Mapping[tuple[str, frozenset[tuple[str, Scalar]]], Mapping[str, Any]] | None = PrivateAttr(None)
    _problems: tuple[Problem, ...] = PrivateAttr(())
    _hidden: frozenset[DocPath] = PrivateAttr(frozenset())

    @property
    def searched(self) -> Search | None:
        """What is searched for, if anything is."""
        return next(iter(self.search.values()), None)

    @property
    def search_name(self) -> str | None:
        """Name of the search, by which configs refer to its values."""
        return next(iter(self.search), None)

    @property
    def study_axes(self) -> tuple[str, ...]:
        """The axes whose combinations have a study each."""
        over = self.searched.objective.over if self.searched else {}
        return tuple(axis for axis in self.axes if axis != TRIAL and axis not in over)

    @property
    def random_axes(self) -> tuple[str, ...]:
        """The axes whose values are the sample, those that there are: as the analysis declares, else `seed`."""
        declared = self.analysis.random_axes().values() if self.analysis else ("seed",)
        return tuple(axis for axis in declared if axis in self.axes)

    @property
    def apart(self) -> tuple[str, ...]:
        """The axes that are never averaged over, those that there are."""
        return tuple(axis for axis in self.analysis.primary.by if axis in self.axes) if self.analysis else ()

    @property
    def table(self) -> Mapping[str, Stage]:
        """The stages by name: those of this package, and of the modules that the sweep uses."""
        return self._available.named

    @property
    def available(self) -> StageTable:
        """All stages that the sweep can name, functions included."""
        return self._available

    def stage(self, entry: str, kind: str) -> Stage:
        """Return the stage of an entry.

        Args:
            entry: name of the entry.
            kind: its `stage`, filled in: a name in the table, or "module:function".

        Raises:
            StageError: there is none, or it cannot be used.
        """
        written = self.stages[entry]
        stage = self._available.stage(kind, tuple(written.inputs), written.metrics, written.version)
        name = stage_name(kind)
        if name in self._origins:
            return replace(stage, version=None, origin=self._origins[name])
        return replace(stage, version=self._versions[name]) if name in self._versions else stage

    def as_it_was(
        self, versions: Mapping[str, int], origins: Mapping[str, Origin], fields: Mapping[str, Mapping[str, Any]]
    ) -> SweepSpec:
        """Return the same sweep with the identities that its steps had before code changed.

        Args:
            versions: stage -> the version that it had.
            origins: stage that is not this package's -> its origin, whose source stood in the place of a version.
            fields: entry -> field of its config's identity, dotted where it is nested -> the value that it had.
        """
        other = self.model_copy()
        other._versions, other._origins = versions, origins
        other._former = fields
        return other

    def former_identity(self, entry: str, identity: dict[str, Any]) -> dict[str, Any]:
        """Return the identity of a config of an entry, with the fields that `as_it_was` was given."""
        for path, value in self._former.get(entry, {}).items():
            *above, name = path.split(".")
            inside = identity
            for part in above:
                inside = inside.get(part, {})
            inside[name] = value
        return identity

    def with_problems(self, problems: Iterable[Problem]) -> SweepSpec:
        """Return the same sweep with more mistakes."""
        other = self.model_copy()
        other._problems = (*self._problems, *problems)
        return other

    def with_tuned(self, found: Mapping[tuple[str, frozenset[tuple[str, Scalar]]], Mapping[str, Any]]) -> SweepSpec:
        """Return the same sweep with what was found in other sweeps' searches.

        Args:
            found: ("FILE#SEARCH", coordinates of the study as pairs) -> field -> its best value; what a mistake hides
                is left out.
        """
        other = self.model_copy()
        other._tuned = found
        return other

    @property
    def knows_tuned(self) -> bool:
        """Whether results of other sweeps' searches were looked up."""
        return self._tuned is not None

    def tuned_values(self, source: str, at: Mapping[str, Scalar]) -> Mapping[str, Any] | None:
        """Return the best values of a study of another sweep; None where a mistake hides them."""
        return (self._tuned or {}).get((source, frozenset(at.items())))

    def problem(self, path: DocPath, message: str) -> Problem:
        """Describe a mistake at `path`, placed at its line."""
        return self._document.problem(path, message)

    @property
    def document(self) -> Document:
        """The text that this was read from, with its lines."""
        return self._document

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The mistakes in the text; none in a sweep that `load_sweep` returns. What they hide is left out here."""
        return self._problems

    def understood(self, *path: str) -> bool:
        """Tell whether no mistake hides what is, or should be, written at, above or below a path."""
        return not any(hidden[: len(path)] == path[: len(hidden)] for hidden in self._hidden)

    def labels(self, axis: str) -> tuple[Scalar, ...]:
        """Return the coordinates along an axis: the scalars, or the names of a named axis."""
        return tuple(self.axes[axis])

    def value(self, axis: str, label: Scalar) -> Any:
        """Return what `$axis` stands for at a coordinate."""
        values = self.axes[axis]
        return values[str(label)] if isinstance(values, dict) else label

    def runtime_axes(self, entry: str) -> tuple[str, ...]:
        """Return the axes that the runtime of an entry depends on."""
        layers = [self.runtime[name] for name in ("default", entry) if name in self.runtime]
        return tuple(sorted({axis for layer in layers for rule in layer.rules for axis in rule.at}))

    def runtime_of(self, entry: str, coords: Mapping[str, Scalar]) -> types.Runtime:
        """Return how the step of `entry` at `coords` is run: defaults, then the entry, then its matching rules."""
        chosen: dict[str, Any] = {}
        for name in ("default", entry):
            layer = self.runtime.get(name)
            if layer is None:
                continue
            for part in (layer, *(rule for rule in layer.rules if matches(rule.at, coords))):
                chosen |= part.model_dump(exclude_unset=True, exclude={"rules", "at"})
        if chosen.pop("device", None) == "cpu":
            chosen["gpus"] = 0
        return types.Runtime(**{name: value for name, value in chosen.items() if value is not None})
