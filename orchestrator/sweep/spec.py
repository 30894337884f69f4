"""The grammar of a sweep file: text → `SweepSpec`, validated, nothing expanded. `sweeps/README.md` is its manual."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from orchestrator import types
from orchestrator.redact import redact
from orchestrator.sweep.document import DocPath, Document, Problem, SweepError, nearest, override, read_document
from orchestrator.sweep.files import fingerprint
from orchestrator.sweep.stages import stage_table
from orchestrator.types import Scalar
from workers.stage import Stage
from workers.stages import STAGES

#: How a message about a name that the grammar does not know begins.
UNKNOWN_FIELD = "unknown field"
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


def _axis_values(value: object) -> object:
    if not isinstance(value, list | dict):
        raise ValueError("is neither a list of values nor a mapping of names to fields")
    return value


def _tracking(value: object) -> object:
    if value is not False and not isinstance(value, dict | Tracking):
        raise ValueError("is neither a mapping (uri:, experiment:) nor false")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Part):
    """One use of a stage in this sweep."""

    stage: str | None = None
    """Kind of work, a name in the table of stages; the entry's own name when left out. May be `$axis.field`."""
    when: bool | str = True
    """`$axis.field` that says whether this entry exists for a cell."""
    otherwise: str | None = None
    """The entry that stands in where `when` is false."""
    shards: bool | int | str | None = None
    """Cut the work into this many steps, each its own artifact."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Input of the stage -> name of the entry that feeds it."""
    config: dict[str, Any] | str | list[dict[str, Any] | str] = Field(default_factory=dict)
    """The stage's config; a list is merged from left to right, so that `$axis.config` can be one layer."""


class _RuntimeValues(_Part):
    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    device: Literal["gpu", "cpu"] | None = None
    """`cpu`: compute on the CPU, and ask for no GPUs whatever `gpus` is."""
    memory: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None
    memory_limit: Annotated[int | None, BeforeValidator(_bytes), Field(gt=0)] = None
    timeout: Annotated[float | None, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)] = None
    attempts: Annotated[int, Field(ge=1)] | None = None


class RuntimeRule(_RuntimeValues):
    """Runtime values for the steps at certain coordinates."""

    at: dict[str, Any]
    """Axis -> value or list of values."""


class EntryRuntime(_RuntimeValues):
    """How the steps of one entry are run."""

    rules: tuple[RuntimeRule, ...] = ()
    """The last rule that matches wins, field by field."""


class Limits(_Part):
    """When to hold back."""

    running: Annotated[int, Field(ge=1)] | None = None
    """At most so many steps at once."""
    failures: Annotated[int, Field(ge=1)] | None = None
    """Stop starting new steps after so many failed ones."""
    breaker: Annotated[int, Field(ge=1)] = 10
    """Stop a stage whose first so many steps failed alike; the rest of the sweep goes on."""
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Stop starting new steps after so many GPU-hours in one command."""
    wall: Annotated[float | None, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)] = None
    """Stop starting new steps after so many seconds (90s, 2h, 1d) of one command."""


class Summary(_Part):
    """The table that a run ends with."""

    by: tuple[str, ...] = ()
    """Axes of its rows; default: the last two other than `seed`."""
    metrics: tuple[str, ...] = ()
    """Its columns; default: all reported metrics of which means are taken."""
    better: dict[str, Literal["higher", "lower"]] = Field(default_factory=dict)
    """Metric -> which of its values are better. Without it nothing is called best; the first of them is the one that
    reports rank by."""


class Hooks(_Part):
    """Shell commands that are told what happened, as JSON on their standard input."""

    finish: str | None = None
    """When a command ends, however."""
    breaker: str | None = None
    """When a stage is not run any further."""


class Tracking(_Part):
    """The MLflow projection."""

    uri: str | None = None
    """None: SQLite under the output root."""
    experiment: str | None = None
    """None: the sweep's name."""


class SweepSpec(_Part):
    """A sweep file, validated; what it spans is computed by `build_plan`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    uses: tuple[str, ...] = ()
    """Modules with a table `STAGES` of further stages; they may lie beside the sweep file."""
    question: Annotated[str, Field(min_length=1)]
    """What the sweep is to answer; the description of the MLflow experiment."""
    data: Any = None
    """Values that stages share, read as `$data.…`; typically where the data lies."""
    axes: dict[str, Annotated[list[Any] | dict[str, Any], BeforeValidator(_axis_values)]]
    """Axis -> list of scalars, or name -> mapping of fields."""
    exclude: tuple[dict[str, Any], ...] = ()
    """Points to leave out: axis -> value or list of values."""
    stages: dict[str, Entry]
    results: tuple[str, ...] = ()
    """Entries whose metrics become columns; default: those that feed no other."""
    summary: Summary = Summary()
    runtime: dict[str, EntryRuntime] = Field(default_factory=dict)
    """Entry name, or `default`, -> how its steps are run."""
    limits: Limits = Limits()
    hooks: Hooks = Hooks()
    store: str | None = None
    """Output root: a folder, absolute on a cluster."""
    tracking: Annotated[Tracking | Literal[False], BeforeValidator(_tracking)] = Tracking()
    _document: Document = PrivateAttr()
    _table: Mapping[str, Stage] = PrivateAttr()

    @property
    def table(self) -> Mapping[str, Stage]:
        """The stages by name: those of this package, and of the modules that the sweep uses."""
        return self._table

    @property
    def modules(self) -> tuple[str, ...]:
        """The top-level modules of stages that are not this package's."""
        named = [*self.uses, *(stage.function for name, stage in self._table.items() if name not in STAGES)]
        tops = dict.fromkeys(re.split(r"[.:]", name)[0] for name in named)
        return tuple(top for top in tops if top != "workers")

    def with_stage(self, name: str, stage: Stage) -> SweepSpec:
        """Return the same sweep with another stage in the place of one."""
        other = self.model_copy()
        other._table = {**self._table, name: stage}
        return other

    def problem(self, path: DocPath, message: str) -> Problem:
        """A mistake at `path`, placed at its line."""
        return self._document.problem(path, message)

    @property
    def document(self) -> Document:
        """The text that this was read from, with its lines."""
        return self._document

    def labels(self, axis: str) -> tuple[Scalar, ...]:
        """The coordinates along an axis: the scalars, or the names of a named axis."""
        return tuple(self.axes[axis])

    def value(self, axis: str, label: Scalar) -> Any:
        """What `$axis` stands for at a coordinate."""
        values = self.axes[axis]
        return values[str(label)] if isinstance(values, dict) else label

    def runtime_axes(self, entry: str) -> tuple[str, ...]:
        """The axes that the runtime of an entry depends on."""
        layers = [self.runtime[name] for name in ("default", entry) if name in self.runtime]
        return tuple(sorted({axis for layer in layers for rule in layer.rules for axis in rule.at}))

    def runtime_of(self, entry: str, coords: Mapping[str, Scalar]) -> types.Runtime:
        """How the step of `entry` at `coords` is run: defaults, then the entry, then its matching rules."""
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


def matches(pattern: Mapping[str, Any], coords: Mapping[str, Scalar]) -> bool:
    """Whether coordinates lie in {axis: value or list of values}."""
    return all(
        axis in coords and coords[axis] in (wanted if isinstance(wanted, list) else [wanted])
        for axis, wanted in pattern.items()
    )


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read, override and validate a sweep file; local files in it (`{path: …}`) are fingerprinted.

    Raises:
        SweepError: with one problem per mistake, each with its place.
    """
    document = read_document(path)
    override(document, overrides)
    problems = _resolve_files(document)
    try:
        spec = SweepSpec.model_validate(document.value)
    except ValidationError as error:
        problems += grammar_problems(error, document, (), SweepSpec)
        raise SweepError(problems) from None
    spec._document = document
    spec._table, unusable = stage_table(spec.uses, path.parent.absolute())
    problems += [spec.problem(("uses", position), message) for position, message in unusable.items()]
    problems += _axis_problems(spec)
    if spec.tracking and spec.tracking.uri and redact(spec.tracking.uri) != spec.tracking.uri:
        # MLflow keeps this file with the sweep's run, and a Ray job is given a copy.
        message = "a sweep file is shown to others, so it holds no password; export the URI as MLFLOW_TRACKING_URI"
        problems.append(spec.problem(("tracking", "uri"), message))
    if problems:
        raise SweepError(problems)
    return spec


def grammar_problems(
    error: ValidationError, document: Document, prefix: DocPath, model: type[BaseModel]
) -> list[Problem]:
    """Pydantic's mistakes as ours: line, path, what was found, nearest valid name."""
    problems: dict[DocPath, Problem] = {}
    for detail in error.errors(include_url=False):
        where = prefix
        for index, part in enumerate(detail["loc"]):
            # Pydantic puts the tags of unions into its locations; they were not written in the document.
            if (*where, part) in document.places or index == len(detail["loc"]) - 1:
                where = (*where, part)
        if detail["type"] == "extra_forbidden":
            message = f"{UNKNOWN_FIELD}; {_hint(model, detail['loc'])}"
        elif detail["type"] == "missing":
            message = "is missing"
        elif detail["type"] == "secret":
            message = detail["msg"]
        else:
            shown = repr(detail["input"])
            if len(shown) > 80:
                shown = f"a {type(detail['input']).__name__}"
            message = f"{detail['msg'].removeprefix('Value error, ')}; found {shown}"
        # A union reports one mistake per member; the first one at a place says enough.
        problems.setdefault(where, document.problem(where, message))
    return list(problems.values())


def _hint(model: type[BaseModel], loc: Sequence[int | str]) -> str:
    """Say where an unknown field belongs: in one of those beside it, if that has it; else the nearest name."""
    *above, name = loc
    beside = _fields_at(model, above)
    inside = [each for each in beside if name in _fields_at(model, (*above, each))]
    return f"did you mean '{inside[0]}.{name}'?" if inside else nearest(name, beside)


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Names that are valid at a pydantic location below `model`."""
    annotations: list[Any] = [model]
    for part in loc:
        inside = [found for each in annotations for found in _inside(each, part)]
        annotations = inside or annotations
    return sorted({name for each in annotations for found in _models(each) for name in found.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _inside(annotation: Any, part: int | str) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, UnionType):
        return [found for each in arguments for found in _inside(each, part)]
    if origin is dict:
        return [arguments[1]]
    return [arguments[0]] if origin in (list, tuple) else []


def _axis_problems(spec: SweepSpec) -> list[Problem]:
    problems = []
    if not spec.axes:
        problems.append(spec.problem(("axes",), "a sweep has at least one axis, e.g. seed: [0]"))
    names: dict[str, str] = {}
    for axis, values in spec.axes.items():
        # SQL reads column names without regard to case.
        if axis.lower() in RESERVED_NAMES:
            problems.append(spec.problem(("axes", axis), f"{axis!r} cannot name an axis: it is a name of our own"))
        elif not axis.isidentifier():
            problems.append(spec.problem(("axes", axis), f"{axis!r} cannot name an axis: use letters, digits and _"))
        elif (other := names.setdefault(axis.lower(), axis)) != axis:
            message = f"{axis!r} cannot name an axis: it differs from {other!r} only in case"
            problems.append(spec.problem(("axes", axis), message))
        if not values:
            problems.append(spec.problem(("axes", axis), "has no values, so the sweep has zero cells"))
        if isinstance(values, list):
            problems += _value_problems(spec, axis, values)
    for index, pattern in enumerate(spec.exclude):
        problems += pattern_problems(spec, ("exclude", index), pattern)
    return problems


def _value_problems(spec: SweepSpec, axis: str, values: Sequence[Any]) -> list[Problem]:
    problems = []
    seen: set[Scalar] = set()
    for index, value in enumerate(values):
        if not isinstance(value, str | int | float):
            message = f"is no value of an axis (text, number, true or false); found {value!r}"
        elif isinstance(value, float) and not math.isfinite(value):
            message = f"{value} is not a coordinate; give a number"
        elif value in seen:
            # 1 and true are one dictionary key, so they cannot be two coordinates.
            message = f"{value!r} is there twice; keep one"
        else:
            seen.add(value)
            continue
        problems.append(spec.problem(("axes", axis, index), message))
    return problems


def pattern_problems(spec: SweepSpec, where: DocPath, pattern: Mapping[str, Any]) -> list[Problem]:
    """Mistakes in {axis: value or values}: no such axis, no such value."""
    problems = []
    for axis, wanted in pattern.items():
        if axis not in spec.axes:
            problems.append(spec.problem((*where, axis), f"there is no axis {axis!r}; {nearest(axis, spec.axes)}"))
            continue
        labels = spec.labels(axis)
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if value not in labels:
                problems.append(
                    spec.problem((*where, axis), f"{value!r} is no value of {axis!r}; {nearest(value, labels)}")
                )
    return problems


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
    "data",
    "env",
)


def _resolve_files(document: Document) -> list[Problem]:
    """Give every `{path: …}` its content digest, in place; `$env.NAME` and `~` are expanded there, and only there."""
    problems: list[Problem] = []

    def visit(value: Any, where: DocPath) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and set(value) <= {"path", "sha256"}:
                _resolve_file(value, document, where, problems)
            for name, item in value.items():
                visit(item, (*where, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*where, index))

    for part in ("data", "axes", "stages"):
        visit(document.value.get(part), (part,))
    return problems


def _resolve_file(value: dict[str, Any], document: Document, where: DocPath, problems: list[Problem]) -> None:
    text = value["path"]
    if text.startswith("$env."):
        name, slash, rest = text.removeprefix("$env.").partition("/")
        if not os.environ.get(name):
            remedy = f"export {name}=FILE, or pass -s {'.'.join(map(str, where))}.path=FILE"
            problems.append(document.problem((*where, "path"), f"environment variable {name} is not set; {remedy}"))
            return
        path = Path(os.environ[name] + slash + rest).expanduser().absolute()
    else:
        path = document.path.parent.joinpath(Path(text).expanduser()).absolute()
    try:
        value["sha256"] = fingerprint(path)
    except OSError as error:
        remedy = f"check it, or pass -s {'.'.join(map(str, where))}.path=FILE"
        # The value of a variable is for those who may look at the environment.
        shown = text if text.startswith("$env.") else path
        reason = error.strerror or type(error).__name__
        problems.append(document.problem((*where, "path"), f"cannot read {shown}: {reason}; {remedy}"))
        return
    value["path"] = str(path)
