"""A function of somebody's own as a stage: `stage: my_study:train` in a sweep file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from pydantic import BaseModel, BeforeValidator, Field, create_model, model_validator

from orchestrator.study import StageError
from orchestrator.study.annotations import is_path, is_paths
from orchestrator.study.modules import Study, study_of
from orchestrator.study.signature import REQUIRED, Signature, read_signature
from workers.config import Config, LocalPath
from workers.metric import Metric, Undefined
from workers.stage import ANY_KIND, Input, Origin, Stage


class FunctionConfig(Config):
    """Base class of the configs that are made from signatures."""

    whole: ClassVar[type | None] = None
    """The dataclass or pydantic model of the function's parameter `config`, if it has one."""
    returns: ClassVar[tuple[Metric, ...] | None] = None
    """The metrics that the function returns; None if it does not say."""
    files: ClassVar[frozenset[str]] = frozenset()
    """Fields that are local files, since the sweep feeds no artifact in their place."""

    def metrics(self) -> tuple[str | Metric, ...] | None:
        """Return the declared metrics; None if there is no declaration."""
        if self.returns is None and self.whole is not None and issubclass(self.whole, Config):
            return self.rebuilt().metrics()  # type: ignore[no-any-return]
        return self.returns

    def rebuilt(self) -> Any:
        """Make the dataclass or model that the function takes."""
        assert self.whole is not None, "only called where the function takes one"
        names = _fields_of(self.whole)
        return self.whole(**{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _made_once(self) -> Self:
        if self.whole is not None:
            # Raises now what it would raise when the step runs.
            self.rebuilt()
        return self


@dataclass(frozen=True)
class FunctionStage(Stage):
    """A stage that is a plain function of named parameters: config fields, folders of inputs, and `out`."""

    given: tuple[str, ...] = ()
    """Names of the inputs that the sweep feeds."""
    declared: tuple[str, ...] | None = None
    """The metrics that the sweep declares; None leaves that to the function."""
    signature: Signature | None = None

    def call(self, function: Callable[..., Any], config: Any, out: Path, given: Mapping[str, Any]) -> Any:
        """Call the function with the fields of its config, and with `out` if it takes that."""
        assert self.signature is not None, "set by function_stage"
        arguments: dict[str, Any] = {}
        for each in self.signature.parameters:
            # Without an optional input the function has its own default.
            if each.name not in self.inputs:
                value = getattr(config, each.name)
                arguments[each.name] = Path(value.path) if isinstance(value, LocalPath) else value
        if self.signature.config:
            arguments["config"] = config.rebuilt()
        if self.signature.takes_out:
            arguments["out"] = out
        returned = function(**arguments, **given)
        return _with_undefined(returned, config.declared())

    def __reduce__(self) -> Any:
        # Its config is made from the signature, so there is no class that pickle could name.
        return _restored, (self.function, self.version, self.given, self.declared, self.origin)


def stage_name(reference: str) -> str:
    """Return the name of a stage that is written as "module:function", by which its artifacts are kept."""
    return reference.replace(":", ".")


def function_stage(
    study: Study,
    reference: str,
    version: int | None = None,
    inputs: Iterable[str] = (),
    declared: tuple[str, ...] | None = None,
    origin: Origin | None = None,
) -> FunctionStage:
    """Make a stage of a function.

    Args:
        study: the folder that its module is looked for in, too.
        reference: "module:function".
        version: the version that the sweep gives it; None for none.
        inputs: names of the inputs that the sweep feeds; other parameters of type `Path` are local files.
        declared: the metrics that the sweep declares; None leaves that to the function.
        origin: where it comes from.

    Raises:
        StageError: the function cannot be a stage, or declares other metrics.
    """
    signature = read_signature(study, reference)
    paths = {each.name: each for each in signature.parameters if is_path(each.annotation) or is_paths(each.annotation)}
    fed = {
        name: Input(ANY_KIND, optional=each.default is not REQUIRED, many=is_paths(each.annotation))
        for name, each in paths.items()
        if name in inputs or is_paths(each.annotation)
    }
    returns = signature.metrics if declared is None else tuple(_declared(signature, declared))
    config = _config(signature, frozenset(fed), returns)
    given = tuple(sorted(name for name in fed if name in inputs))
    name = stage_name(reference)
    return FunctionStage(
        reference,
        version,
        config,
        name,
        fed,
        checkpoints=signature.takes_checkpoints,
        origin=origin,
        given=given,
        declared=declared,
        signature=signature,
    )


def _restored(
    reference: str,
    version: int | None,
    given: tuple[str, ...],
    declared: tuple[str, ...] | None,
    origin: Origin,
) -> FunctionStage:
    study = study_of(origin)
    known = study.made.get((reference, version, given, declared))
    if known is None or known.origin != origin:
        known = study.made[reference, version, given, declared] = function_stage(
            study, reference, version, given, declared, origin
        )
    return known


def _declared(signature: Signature, names: tuple[str, ...]) -> Iterable[Metric]:
    """Return the metrics that a sweep declares, as the function declares them where it does."""
    if signature.metrics is None:
        return [Metric(name) for name in names]
    own = {each.name: each for each in signature.metrics}
    if set(own) != set(names):
        found = ", ".join(own) or "none"
        raise StageError(f"{signature.reference} says that it returns the metrics {found}; leave out `metrics:`")
    return [own[name] for name in names]


def _config(signature: Signature, inputs: frozenset[str], returns: tuple[Metric, ...] | None) -> type[FunctionConfig]:
    fields: dict[str, Any] = _fields_of(signature.config) if signature.config else {}
    for each in signature.parameters:
        if each.name in inputs:
            continue
        if each.name in fields:
            raise StageError(f"{signature.reference} has {each.name!r} as a parameter and as a field of its config")
        annotation = each.annotation
        if is_path(annotation):
            annotation = _LocalFile | None if each.default is None else _LocalFile
            if each.default not in (REQUIRED, None):
                raise StageError(
                    f"parameter {each.name!r} of {signature.reference} has a path as its default: leave that out, and "
                    "write {path: FILE} in the sweep, whose content counts"
                )
        fields[each.name] = (annotation, ... if each.default is REQUIRED else each.default)
    for name in fields:
        if name.startswith("_") or hasattr(FunctionConfig, name):
            raise StageError(f"parameter {name!r} of {signature.reference} has a name that is taken: call it otherwise")
    try:
        made = create_model(
            f"Config of {signature.reference}", __base__=FunctionConfig, __doc__=signature.doc, **fields
        )
    # Whatever pydantic makes of somebody's types.
    except Exception as error:
        raise StageError(f"the parameters of {signature.reference} cannot be read: {error}") from error
    made.whole, made.returns = signature.config, returns
    made.files = frozenset(each.name for each in signature.parameters if is_path(each.annotation)) - inputs
    return made


def _not_a_text(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"a local file is written {{path: {value}}}, and an artifact is fed to it below inputs:")
    return value


_LocalFile = Annotated[LocalPath, BeforeValidator(_not_a_text)]


def _fields_of(model: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or pydantic model, as `create_model` takes them."""
    if issubclass(model, BaseModel):
        return {name: (each.annotation, each) for name, each in model.model_fields.items()}
    hints = get_type_hints(model, include_extras=True)
    found: dict[str, Any] = {}
    for each in dataclasses.fields(model):
        if each.init:
            if each.default_factory is not dataclasses.MISSING:
                default: Any = Field(default_factory=each.default_factory)
            else:
                default = ... if each.default is dataclasses.MISSING else each.default
            found[each.name] = (hints[each.name], default)
    return found


def _with_undefined(returned: Any, declared: Mapping[str, Metric] | None) -> Any:
    """Replace None by what it means: no metrics, and in the place of a metric that may be undefined, that."""
    if returned is None and not declared:
        return {}
    if declared is None or not isinstance(returned, dict):
        return returned
    reason = Undefined("the stage returned None")
    return {
        name: reason if value is None and name in declared and declared[name].nullable else value
        for name, value in returned.items()
    }
