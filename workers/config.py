"""Base types of the configs of all stages: each stage has one frozen pydantic model, in `configs.py` of its family.

Every field is part of a step's *identity*, except those that hold an `Execution`: two configs that mean the same give
the same key. CPUs, GPUs, memory, timeouts and storage are not fields of a config.

No module of configs imports torch or ray, so planning does not either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from workers.metric import Metric

PositiveInt = Annotated[int, Field(ge=1)]

NonNegativeInt = Annotated[int, Field(ge=0)]

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]

Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Config(BaseModel):
    """Base class of every config: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def identity(self) -> dict[str, Any]:
        """Return the JSON-like value that is hashed.

        It has every field, defaults included, local files by content, and nothing of an `Execution`.
        """
        return self.model_dump(mode="json", context={"identity": True}, exclude=_executions(self))

    def metrics(self) -> tuple[str | Metric, ...] | None:
        """Return the metrics that the stage must return with this config; a plain name stands for a finite number.

        None: the stage returns whatever numbers it likes.
        """
        return ()

    def declared(self) -> dict[str, Metric] | None:
        """Return the metrics by name; None if they are not declared."""
        metrics = self.metrics()
        if metrics is None:
            return None
        return {each.name: each for each in (Metric(each) if isinstance(each, str) else each for each in metrics)}


class Execution(Config):
    """Base class of settings of how a step is run, which cannot change its result.

    `Config.identity` leaves out every field, item or value that is one, at any depth. Give such a field a
    default (`access: Access = Access()`): a None in its place would be hashed.
    """


#: The types of most values, checked first because checks against pydantic's classes are slower.
_SCALARS = (str, int, float, type(None))


def _executions(value: object) -> Any:
    """Return the positions of all `Execution`s in `value`, in the form of pydantic's `exclude`."""
    if isinstance(value, Execution):
        return True
    parts: Iterable[tuple[Any, object]] = ()
    if isinstance(value, Config):
        parts = vars(value).items()
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    return {place: found for place, part in parts if not isinstance(part, _SCALARS) and (found := _executions(part))}


class LocalPath(Config):
    """A local file or folder, written `{path: …}` in a sweep; its identity is its content, not its path."""

    path: str
    sha256: str
    """Hex digest of the content, computed when the sweep is loaded."""

    @model_serializer(mode="wrap")
    def _content_only_in_identity(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        if info.context and info.context.get("identity"):
            return {"sha256": self.sha256}
        return dict(handler(self))


class HubModel(Config):
    """A model of the Hugging Face Hub: `google/gemma-2b`, or `{hub: google/gemma-2b, revision: …}`."""

    hub: str
    revision: str | None = None


class HubData(Config):
    """A data set of the Hugging Face Hub, e.g. `{hub: Anthropic/hh-rlhf, subset: harmless-base, split: train}`."""

    hub: str
    subset: str | None = None
    """Folder of the repository that holds the files (`data_dir` of `datasets.load_dataset`)."""
    split: str = "train"
    revision: str | None = None


def hub_name(value: object) -> object:
    """Read a plain text as `{hub: …}`."""
    return {"hub": value} if isinstance(value, str) else value


Data = LocalPath | HubData

NamedModel = Annotated[
    LocalPath | HubModel, BeforeValidator(hub_name, json_schema_input_type=LocalPath | HubModel | str)
]

Dtype = Literal["float32", "bfloat16", "float16"]

#: Type of the weights and of all that a model computes; with tf32 both are float32, but a GPU rounds the factors of
#: matrix products to TF32 (10 bits of 23).
ReadingDtype = Literal["float32", "tf32", "bfloat16", "float16"]

#: Type of the factors of matrix products whose sums and weights are float32.
Precision = Literal["float32", "tf32", "bfloat16"]
