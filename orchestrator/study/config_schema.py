"""JSON Schemas of configs as they are written in a sweep, with the docstrings of their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import PydanticSerializationError, core_schema

from orchestrator.study.documentation import field_docs
from orchestrator.study.modules import Study
from workers.config import LocalPath

Schema = dict[str, Any]


def config_schemas(
    study: Study, models: Iterable[type[BaseModel]], refer: str
) -> tuple[list[Schema], dict[str, Schema]]:
    """Return the schemas of some configs, and the definitions that they refer to.

    Args:
        study: the folder that modules are looked for in, too.
        models: the configs.
        refer: how definitions are referred to, with {model} for the name of one.

    Raises:
        StageError: a module cannot be read.
    """
    wanted = [(each, "validation") for each in models]
    made, whole = models_json_schema(wanted, ref_template=refer, schema_generator=documented(study))  # type: ignore[arg-type]
    return [made[each] for each in wanted], whole.get("$defs", {})  # type: ignore[index]


def documented(study: Study) -> type[GenerateJsonSchema]:
    """Return a maker of schemas that describes fields as their docstrings do.

    Args:
        study: the folder that modules are looked for in, too.
    """

    class Documented(GenerateJsonSchema):
        def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
            return self._described(super().model_schema(schema), schema["cls"])

        def dataclass_schema(self, schema: core_schema.DataclassSchema) -> Schema:
            return self._described(super().dataclass_schema(schema), schema["cls"])

        def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> Schema:
            return self._described(super().typed_dict_schema(schema), schema.get("cls", object))

        def field_title_should_be_set(self, schema: Any) -> bool:
            # It would be the name of the field once more.
            return False

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
            # What has no schema, e.g. a type of somebody's own: any value.
            return {}

        def encode_default(self, dft: Any) -> Any:
            encoded = super().encode_default(dft)
            try:
                json.dumps(encoded, allow_nan=False)
            except ValueError as error:
                raise PydanticSerializationError(str(error)) from error
            return encoded

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Say nothing: a default without JSON is left out."""

        def _described(self, made: Schema, model: type) -> Schema:
            fields: Mapping[str, Schema] = made.get("properties", {})
            for name, text in field_docs(study, model).items():
                if name in fields:
                    fields[name].setdefault("description", text)
            if model is LocalPath:
                # The digest is no value that anybody writes.
                made = {**made, "properties": {"path": fields["path"]}, "required": ["path"]}
            return made

    return Documented
